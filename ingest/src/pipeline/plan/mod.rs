//! A pipeline's SELECT as the operators that its rows go through, and the steps between them.
//!
//! ```text
//! source a ─ steps ─┐ (UNION ALL)
//!                   ├─► operator ─ steps ─► operator ─ steps ─► output
//! source b ─ steps ─┘   (distinct, join)    (aggregate)
//! ```
//!
//! A *lane* is a way from a source, or from an operator, through steps. An operator has lanes on each of its sides.
//!
//! DataFusion plans the text over the columns of the sources; the plan is taken apart here. What always holds: what is not understood is refused when
//! the pipeline is made, with its name; every error of a type is one of that moment.

mod aggregate;
mod as_of;
mod ask;
mod compile;
mod explain;
mod join;
mod lineage;
mod look_up;
mod marks;
mod outputs;
mod process;
mod ranking;
mod shift;
pub(crate) mod steps;
mod transformed;
mod unnest;
mod window_tables;
pub mod windows;
mod within;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::config::Dialect,
    sql::{
        parser::Statement,
        sqlparser::ast::{self, Visit, Visitor},
    },
};

pub(crate) use self::{
    aggregate::{Aggregate, Timing},
    as_of::AsOf,
    ask::Ask,
    join::{Join, Side},
    look_up::LookUp,
    process::Process,
    ranking::{RankKind, Ranking},
    steps::Step,
    transformed::Call,
    unnest::Unnest,
    within::Dedup,
};
use self::{
    compile::{Compiled, Compiler},
    outputs::Outputs,
};
pub use self::{lineage::Lineage, look_up::PlanTable, marks::without_marks, outputs::Placement};
use super::{
    expression::{definition, plain_message},
    rules::Rules,
};
use crate::{Error, Result, http::Address};

/// A source as a pipeline reads it.
#[derive(Clone, Debug)]
pub struct PlanSource {
    pub name: String,
    pub schema: SchemaRef,
    /// The column of WATERMARK FOR.
    pub time_column: Option<String>,
}

/// A way of rows.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) from: Origin,
    pub(crate) steps: Vec<Step>,
}

/// Where a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Place among the sources.
    Source(usize),
    /// Place among the operators.
    Operator(usize),
}

/// What keeps something of its rows.
#[derive(Debug)]
pub(crate) struct Operator {
    pub(crate) kind: Kind,
    /// The lanes of each side.
    pub(crate) sides: Vec<Vec<Lane>>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Aggregate(Arc<Aggregate>),
    Join(Arc<Join>),
    AsOf(Arc<AsOf>),
    Ranking(Arc<Ranking>),
    Dedup(Arc<Dedup>),
    Process(Arc<Process>),
}

/// A column that is an event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) column: usize,
    /// How far times of rows to come are behind the watermark at most.
    pub(super) delay_us: i64,
    /// An end of a window: rows of one value come together, so that what is grouped by it is complete when the watermark has passed it.
    pub(super) is_end: bool,
}

/// A column that is a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowColumn {
    pub(super) column: usize,
    pub(super) window: windows::Window,
    /// How far behind the watermark the end of a window is at most when its groups come.
    pub(super) delay_us: i64,
}

/// What a pipeline does, compiled.
#[derive(Debug)]
pub struct Plan {
    /// Each after those that it takes rows from.
    pub(crate) operators: Vec<Operator>,
    pub(crate) output: Vec<Lane>,
    outputs: Outputs,
    lineage: Vec<Lineage>,
    text: String,
    /// What rows ask, behind the tables.
    services: Vec<Address>,
}

pub(super) fn unsupported(message: impl Into<String>, hint: impl Into<String>) -> Error {
    let hint = hint.into();
    Error::Unsupported { message: message.into(), hint: (!hint.is_empty()).then_some(hint) }
}

/// Reads the text of a query.
pub fn parse(rules: &dyn Rules, text: &str) -> Result<Box<ast::Query>> {
    let statement = rules
        .state()
        .sql_to_statement(&marks::rewrite(text)?, &Dialect::PostgreSQL)
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
    let mut found: Vec<String> = Vec::new();
    for name in names(query) {
        let of_call = transformed::source_of(&name).map(str::to_owned).or_else(|| window_tables::source_of(&name));
        let name = of_call.unwrap_or(name);
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The same, as the query that can be planned has them.
fn names(query: &ast::Query) -> Vec<String> {
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
        Self::with_tables(rules, sources, &[], text)
    }

    /// The same with `tables` that rows look into.
    pub fn with_tables(rules: &dyn Rules, sources: &[PlanSource], tables: &[PlanTable], text: &str) -> Result<Self> {
        let mut query = parse(rules, text)?;
        window_tables::rewrite(&mut query, sources)?;
        windows::rewrite(&mut query)?;
        let of_sources = sources.iter().map(|source| (source.name.clone(), Arc::clone(&source.schema)));
        let of_tables = tables.iter().map(|table| (table.name.clone(), Arc::clone(&table.schema)));
        let calls = names(&query).into_iter().map(|name| Call::bind(rules, &name, sources));
        let calls: Vec<Call> = calls.filter_map(Result::transpose).collect::<Result<_>>()?;
        let of_calls = calls.iter().map(|call| (call.relation.clone(), Arc::clone(&call.output)));
        let named: Vec<_> = of_sources.chain(of_tables).chain(of_calls).collect();
        let mut functions = windows::functions();
        functions.extend(marks::functions());
        functions.push(ask::function());
        let planned = rules.query(*query, &named, &functions);
        let logical = planned.map_err(|wrong| Error::Expression { state: wrong.state, message: wrong.message })?;
        let text = explain::text(&logical);
        let logical = ask::lifted(logical)?;
        let outputs = Outputs::of(&logical)?;
        let lineage = lineage::of(&logical);
        let Compiled { operators, output, services } = Compiler::new(rules, sources, tables, &calls).run(&logical)?;
        Ok(Self { operators, output, outputs, lineage, text, services })
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

    fn aggregates(&self) -> impl Iterator<Item = &Aggregate> {
        self.operators.iter().filter_map(|operator| match &operator.kind {
            Kind::Aggregate(aggregate) => Some(&**aggregate),
            Kind::Join(_) | Kind::AsOf(_) | Kind::Ranking(_) | Kind::Dedup(_) | Kind::Process(_) => None,
        })
    }

    /// How many keys the output is grouped by beside the window, at most; `None` for one that is not of groups.
    pub fn keys(&self) -> Option<usize> {
        let of_lane = |lane: &Lane| match lane.from {
            Origin::Operator(at) => match &self.operators[at].kind {
                Kind::Aggregate(aggregate) => Some(aggregate.keys.len()),
                _ => None,
            },
            Origin::Source(_) => None,
        };
        self.output.iter().filter_map(of_lane).max()
    }

    /// What operators hold, and what they are given, for comparing plans that were compiled in one process.
    pub fn holds(&self) -> String {
        format!("{:?}", self.operators)
    }

    /// How many ways begin at a source.
    pub(crate) fn lanes_of(&self, source: usize) -> usize {
        let sides = self.operators.iter().flat_map(|operator| operator.sides.iter().flatten());
        sides.chain(&self.output).filter(|lane| lane.from == Origin::Source(source)).count()
    }

    /// Whether groups go on to other operators.
    pub fn has_groups_within(&self) -> bool {
        let is_of_groups = |lane: &Lane| matches!(lane.from, Origin::Operator(at) if matches!(self.operators[at].kind, Kind::Aggregate(_)));
        self.operators.iter().any(|operator| operator.sides.iter().flatten().any(is_of_groups))
    }

    /// Whether rows are ranked (OVER).
    pub fn has_ranks(&self) -> bool {
        self.operators.iter().any(|operator| matches!(operator.kind, Kind::Ranking(_)))
    }

    /// Whether groups are given again when they change: those without a window.
    pub fn is_updating(&self) -> bool {
        self.aggregates().any(|aggregate| aggregate.timing.is_none())
    }

    /// Whether anything can be late.
    pub fn has_time(&self) -> bool {
        self.operators.iter().any(|operator| match &operator.kind {
            Kind::Aggregate(aggregate) => aggregate.timing.is_some(),
            Kind::Join(_) | Kind::AsOf(_) | Kind::Ranking(_) | Kind::Dedup(_) | Kind::Process(_) => true,
        })
    }

    pub fn has_sessions(&self) -> bool {
        let is_session = |timing: &Timing| matches!(timing.window, windows::Window::Session { .. });
        self.aggregates().any(|aggregate| aggregate.timing.as_ref().is_some_and(is_session))
    }

    pub fn has_join(&self) -> bool {
        self.operators.iter().any(|operator| matches!(operator.kind, Kind::Join(_) | Kind::AsOf(_)))
    }

    /// Whether each source is waited for, however long it is silent. Versions that do not change are no reason to wait.
    pub(crate) fn waits_for_all(&self) -> bool {
        self.operators.iter().any(|operator| matches!(operator.kind, Kind::Join(_)))
    }

    /// Whether groups are left out once they are made (HAVING).
    pub fn has_condition_on_groups(&self) -> bool {
        let of_aggregate = |lane: &&Lane| match lane.from {
            Origin::Operator(at) => matches!(self.operators[at].kind, Kind::Aggregate(_)),
            Origin::Source(_) => false,
        };
        let is_filter = |step: &Step| matches!(step, Step::Filter(_) | Step::LookUp(_));
        self.output.iter().filter(of_aggregate).any(|lane| lane.steps.iter().any(is_filter))
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

    /// Services that rows ask.
    pub(crate) fn services(&self) -> &[Address] {
        &self.services
    }

    pub(crate) fn outputs(&self) -> &Outputs {
        &self.outputs
    }
}
