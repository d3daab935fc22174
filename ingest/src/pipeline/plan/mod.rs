//! A pipeline's SELECT as the steps and the aggregate that its rows go through.
//!
//! ```text
//! source a ─ steps ─┐ (UNION ALL)
//!                   ├─► aggregate by windows and keys ─► steps ─► output
//! source b ─ steps ─┘
//! ```
//!
//! DataFusion plans the text over the columns of the sources; the plan is taken apart here. What always holds: what is not understood is refused when
//! the pipeline is made, with its name; every error of a type is one of that moment.

mod aggregate;
mod explain;
mod lineage;
mod outputs;
pub(crate) mod steps;
pub mod windows;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::config::Dialect,
    logical_expr::{Expr, LogicalPlan},
    sql::{
        parser::Statement,
        sqlparser::ast::{self, Visit, Visitor},
    },
};

use self::outputs::Outputs;
pub(crate) use self::{
    aggregate::{Aggregate, GroupColumn},
    steps::Step,
};
pub use self::{lineage::Lineage, outputs::Placement};
use super::{
    expression::{definition, plain_message},
    rules::Rules,
};
use crate::{Error, Result};

/// A source as a pipeline reads it.
#[derive(Clone, Debug)]
pub struct PlanSource {
    pub name: String,
    pub schema: SchemaRef,
    /// The column of WATERMARK FOR.
    pub time_column: Option<String>,
}

/// One way from a source to the aggregate, or to the output.
#[derive(Debug)]
pub(crate) struct Branch {
    /// Place among the sources.
    pub(crate) source: usize,
    pub(crate) steps: Vec<Step>,
}

/// What a pipeline does, compiled.
#[derive(Debug)]
pub struct Plan {
    pub(crate) branches: Vec<Branch>,
    pub(crate) aggregate: Option<Arc<Aggregate>>,
    /// After the aggregate.
    pub(crate) steps: Vec<Step>,
    outputs: Outputs,
    lineage: Vec<Lineage>,
    text: String,
}

pub(super) fn unsupported(message: impl Into<String>, hint: impl Into<String>) -> Error {
    let hint = hint.into();
    Error::Unsupported { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
}

/// Reads the text of a query.
pub fn parse(rules: &dyn Rules, text: &str) -> Result<Box<ast::Query>> {
    let statement = rules
        .state()
        .sql_to_statement(text, &Dialect::PostgreSQL)
        .map_err(|error| definition(format!("cannot read the query: {}", plain_message(&error))))?;
    match statement {
        Statement::Statement(statement) => match *statement {
            ast::Statement::Query(query) => Ok(query),
            other => Err(definition(format!("a pipeline takes a SELECT, not {other}"))),
        },
        _ => Err(definition("a pipeline takes a SELECT")),
    }
}

/// The names of all relations that a query reads, those of its own WITH list among them, in the order in which they stand.
pub fn relations(query: &ast::Query) -> Vec<String> {
    #[derive(Default)]
    struct Relations(Vec<String>);
    impl Visitor for Relations {
        type Break = ();

        fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> std::ops::ControlFlow<()> {
            if let Some(ast::ObjectNamePart::Identifier(name)) = name.0.last() {
                let name = if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() };
                if !self.0.contains(&name) {
                    self.0.push(name);
                }
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let mut found = Relations::default();
    let _ = query.visit(&mut found);
    found.0
}

impl Plan {
    /// Compiles the query `text` over `sources`. `Definition`, `Expression` or `Unsupported` for what cannot work.
    pub fn compile(rules: &dyn Rules, sources: &[PlanSource], text: &str) -> Result<Self> {
        let mut query = parse(rules, text)?;
        windows::rewrite(&mut query)?;
        let named: Vec<_> = sources.iter().map(|source| (source.name.clone(), Arc::clone(&source.schema))).collect();
        let planned = rules.query(*query, &named, &windows::functions());
        let logical = planned.map_err(|wrong| Error::Expression { state: wrong.state, message: wrong.message })?;
        let mut compiler = Compiler { rules, sources };
        let text = explain::text(&logical);
        let (root, after) = compiler.above_aggregate(&logical)?;
        let outputs = Outputs::of(&logical)?;
        let lineage = lineage::of(&logical);
        let (branches, aggregate) = match root {
            LogicalPlan::Aggregate(node) => {
                let (branches, times) = compiler.branches(&node.input)?;
                let aggregate = Aggregate::compile(rules, node, &times)?;
                (branches, Some(Arc::new(aggregate)))
            }
            plain => (compiler.branches(plain)?.0, None),
        };
        Ok(Self { branches, aggregate, steps: after, outputs, lineage, text })
    }

    /// The columns that it gives.
    pub fn output(&self) -> &tidemill_storage::schema::TableSchema {
        &self.outputs.schema
    }

    /// What the query calls them.
    pub fn names(&self) -> &[String] {
        &self.outputs.names
    }

    /// What each output is made of.
    pub fn lineage(&self) -> &[Lineage] {
        &self.lineage
    }

    /// How many keys it groups by beside the window; `None` for one that does not aggregate.
    pub fn keys(&self) -> Option<usize> {
        self.aggregate.as_ref().map(|aggregate| aggregate.keys.len())
    }

    /// Whether groups are left out once they are made (HAVING).
    pub fn has_condition_on_groups(&self) -> bool {
        self.aggregate.is_some() && self.steps.iter().any(|step| matches!(step, Step::Filter(_)))
    }

    /// Which output goes to which column of a table; see [`Placement`].
    pub fn place(
        &self,
        target: &tidemill_storage::schema::TableSchema,
        name: &str,
        placement: Placement<'_>,
    ) -> Result<Vec<String>> {
        self.outputs.place(target, name, placement)
    }

    /// For EXPLAIN: the query's nodes, and what the operators of the pipeline are.
    pub fn explain(&self, sources: &[PlanSource]) -> Vec<String> {
        explain::lines(self, sources, &self.text)
    }

    pub(crate) fn outputs(&self) -> &Outputs {
        &self.outputs
    }
}

struct Compiler<'a> {
    rules: &'a dyn Rules,
    sources: &'a [PlanSource],
}

/// Which columns of a node are the event time of the source below it, in each of its branches.
type Times = Vec<usize>;

impl Compiler<'_> {
    /// The aggregate, or the first node that is below no more than steps; and the steps above it.
    fn above_aggregate<'p>(&mut self, plan: &'p LogicalPlan) -> Result<(&'p LogicalPlan, Vec<Step>)> {
        if !has_aggregate(plan) {
            return Ok((plan, Vec::new()));
        }
        match plan {
            LogicalPlan::Aggregate(_) => Ok((plan, Vec::new())),
            LogicalPlan::Projection(node) => {
                let (root, mut steps) = self.above_aggregate(&node.input)?;
                steps.push(Step::project(self.rules, node.input.schema(), &node.expr, &node.schema)?);
                Ok((root, steps))
            }
            LogicalPlan::Filter(node) => {
                let (root, mut steps) = self.above_aggregate(&node.input)?;
                steps.push(Step::filter(self.rules, &node.input, node.predicate.clone())?);
                Ok((root, steps))
            }
            LogicalPlan::SubqueryAlias(node) => self.above_aggregate(&node.input),
            LogicalPlan::Union(_) => Err(unsupported(
                "UNION ALL of aggregates is not supported in a pipeline yet",
                "aggregate the union, or make a pipeline of each",
            )),
            other => Err(refused(other)),
        }
    }

    /// The ways from the sources to a node, and which columns of it are event times.
    fn branches(&mut self, plan: &LogicalPlan) -> Result<(Vec<Branch>, Times)> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let source = self.sources.iter().position(|source| source.name == scan.table_name.table());
                let source =
                    source.ok_or_else(|| definition(format!("source \"{}\" is not there", scan.table_name)))?;
                let time = self.sources[source].time_column.as_ref();
                let places = scan.projected_schema.fields().iter().enumerate();
                let times = places.filter(|(_, field)| Some(field.name()) == time).map(|(at, _)| at).collect();
                Ok((vec![Branch { source, steps: Vec::new() }], times))
            }
            LogicalPlan::SubqueryAlias(node) => self.branches(&node.input),
            LogicalPlan::Filter(node) => {
                let (mut branches, times) = self.branches(&node.input)?;
                for branch in &mut branches {
                    branch.steps.push(Step::filter(self.rules, &node.input, node.predicate.clone())?);
                }
                Ok((branches, times))
            }
            LogicalPlan::Projection(node) => {
                let (mut branches, times) = self.branches(&node.input)?;
                for branch in &mut branches {
                    branch.steps.push(Step::project(self.rules, node.input.schema(), &node.expr, &node.schema)?);
                }
                let is_time = |expr: &Expr| match expr.clone().unalias_nested().data {
                    Expr::Column(column) => {
                        node.input.schema().index_of_column(&column).is_ok_and(|at| times.contains(&at))
                    }
                    _ => false,
                };
                let kept = node.expr.iter().enumerate().filter(|(_, expr)| is_time(expr)).map(|(at, _)| at);
                Ok((branches, kept.collect()))
            }
            LogicalPlan::Union(node) => {
                let mut all = Vec::new();
                let mut times: Option<Times> = None;
                for input in &node.inputs {
                    let (branches, of_input) = self.branches(input)?;
                    all.extend(branches);
                    times = Some(match times {
                        None => of_input,
                        Some(times) => times.into_iter().filter(|at| of_input.contains(at)).collect(),
                    });
                }
                Ok((all, times.unwrap_or_default()))
            }
            LogicalPlan::Aggregate(_) => Err(unsupported(
                "an aggregate of an aggregate is not supported in a pipeline yet",
                "write the inner one into a table by a pipeline of its own",
            )),
            other => Err(refused(other)),
        }
    }
}

fn has_aggregate(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Aggregate(_)) || plan.inputs().into_iter().any(has_aggregate)
}

fn refused(plan: &LogicalPlan) -> Error {
    let (what, hint) = match plan {
        LogicalPlan::Join(_) => ("a join", "a pipeline reads sources, filters, derives, unites and aggregates"),
        LogicalPlan::Sort(_) => {
            ("ORDER BY", "rows come in the order of their windows; sort them when you query the table")
        }
        LogicalPlan::Limit(_) => ("LIMIT", "a stream has no end"),
        LogicalPlan::Distinct(_) => ("DISTINCT", "a table of mode 'dedup' keeps one row of each key"),
        LogicalPlan::Window(_) => ("OVER (…)", "aggregate by TUMBLE, HOP, CUMULATE or SESSION"),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            ("a SELECT without a source", "name a source in FROM")
        }
        LogicalPlan::Unnest(_) => ("unnest()", "a table can keep the array, and queries unnest it"),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE", ""),
        LogicalPlan::Subquery(_) => ("a subquery of that kind", ""),
        _ => ("a part of this query", "a pipeline reads sources, filters, derives, unites and aggregates"),
    };
    unsupported(format!("{what} is not supported in a pipeline yet"), hint)
}
