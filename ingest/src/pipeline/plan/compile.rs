//! From DataFusion's plan to lanes and operators.

use std::sync::Arc;

use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::{
    super::{expression::definition, rules::Rules},
    Aggregate, Dedup, Join, Kind, Lane, Operator, Origin, PlanSource, Step, Time, unsupported,
};
use crate::{Error, Result};

pub(super) struct Compiler<'a> {
    rules: &'a dyn Rules,
    sources: &'a [PlanSource],
    operators: Vec<Operator>,
}

/// Rows of a node.
struct Flow {
    lanes: Vec<Lane>,
    /// Columns that are event times in all lanes.
    times: Vec<Time>,
    /// Whether they were aggregated.
    is_grouped: bool,
    /// Whether groups come again when they change, whatever the pipeline says of late rows.
    is_updating: bool,
}

/// Of each column of a node whether it is asked for.
struct Used(Vec<bool>);

impl Used {
    fn all(plan: &LogicalPlan) -> Self {
        Self(vec![true; plan.schema().fields().len()])
    }

    /// The columns of `input` that expressions name.
    fn by<'e>(input: &LogicalPlan, exprs: impl IntoIterator<Item = &'e Expr>) -> Self {
        Self(vec![false; input.schema().fields().len()]).and(input, exprs)
    }

    /// Also those that expressions over `input` name.
    fn and<'e>(&self, input: &LogicalPlan, exprs: impl IntoIterator<Item = &'e Expr>) -> Self {
        let mut used = self.0.clone();
        for column in exprs.into_iter().flat_map(Expr::column_refs) {
            if let Some(at) = input.schema().maybe_index_of_column(column) {
                used[at] = true;
            }
        }
        Self(used)
    }

    /// Of the sides of a join.
    fn split(&self, left: usize) -> (Self, Self) {
        (Self(self.0[..left].to_vec()), Self(self.0[left..].to_vec()))
    }

    fn places(&self) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, used)| **used).map(|(at, _)| at).collect()
    }
}

impl<'a> Compiler<'a> {
    pub(super) fn new(rules: &'a dyn Rules, sources: &'a [PlanSource]) -> Self {
        Self { rules, sources, operators: Vec::new() }
    }

    /// All operators, and the lanes to the output.
    pub(super) fn run(mut self, plan: &LogicalPlan) -> Result<(Vec<Operator>, Vec<Lane>)> {
        let flow = self.flow(plan, &Used::all(plan))?;
        Ok((self.operators, flow.lanes))
    }

    /// `used`: the columns of the node that are asked for above it; joins keep no others.
    fn flow(&mut self, plan: &LogicalPlan, used: &Used) -> Result<Flow> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let source = self.sources.iter().position(|source| source.name == scan.table_name.table());
                let source =
                    source.ok_or_else(|| definition(format!("source \"{}\" is not there", scan.table_name)))?;
                let time = self.sources[source].time_column.as_ref();
                let places = scan.projected_schema.fields().iter().enumerate();
                let times = places.filter(|(_, field)| Some(field.name()) == time);
                let times = times.map(|(column, _)| Time { column, delay_us: 0 }).collect();
                let lane = Lane { from: Origin::Source(source), steps: Vec::new() };
                Ok(Flow { lanes: vec![lane], times, is_grouped: false, is_updating: false })
            }
            LogicalPlan::SubqueryAlias(node) => self.flow(&node.input, used),
            LogicalPlan::Filter(node) => {
                let mut flow = self.flow(&node.input, &used.and(&node.input, [&node.predicate]))?;
                if flow.is_updating {
                    return Err(unsupported(
                        "HAVING without a window is not supported in a pipeline: a group that no longer fulfils the condition would stay",
                        "take the condition's columns along, and ask it when you query the table",
                    ));
                }
                for lane in &mut flow.lanes {
                    lane.steps.push(Step::filter(self.rules, &node.input, node.predicate.clone())?);
                }
                Ok(flow)
            }
            LogicalPlan::Projection(node) => {
                let mut flow = self.flow(&node.input, &Used::by(&node.input, &node.expr))?;
                for lane in &mut flow.lanes {
                    lane.steps.push(Step::project(self.rules, node.input.schema(), &node.expr, &node.schema)?);
                }
                let time_of = |expr: &Expr| match expr.clone().unalias_nested().data {
                    Expr::Column(column) => {
                        let from = node.input.schema().index_of_column(&column).ok()?;
                        flow.times.iter().find(|time| time.column == from).copied()
                    }
                    _ => None,
                };
                let exprs = node.expr.iter().enumerate();
                let times = exprs.filter_map(|(column, expr)| Some(Time { column, ..time_of(expr)? })).collect();
                Ok(Flow { times, ..flow })
            }
            LogicalPlan::Union(node) => {
                let mut inputs = node.inputs.iter();
                let Some(first) = inputs.next() else { return Err(refused(plan)) };
                let mut all = self.flow(first, used)?;
                for input in inputs {
                    let flow = self.flow(input, used)?;
                    all.lanes.extend(flow.lanes);
                    all.is_grouped |= flow.is_grouped;
                    all.is_updating |= flow.is_updating;
                    let of_input = |column: usize| flow.times.iter().find(|time| time.column == column);
                    all.times.retain_mut(|time| match of_input(time.column) {
                        Some(other) => {
                            time.delay_us = time.delay_us.max(other.delay_us);
                            true
                        }
                        None => false,
                    });
                }
                Ok(all)
            }
            LogicalPlan::Aggregate(node) => {
                let used = Used::by(&node.input, node.group_expr.iter().chain(&node.aggr_expr));
                let flow = self.ungrouped(&node.input, &used, "an aggregate")?;
                let aggregate = Aggregate::compile(self.rules, node, &flow.times)?;
                let is_updating = aggregate.timing.is_none();
                let lanes = self.operator(Kind::Aggregate(Arc::new(aggregate)), vec![flow.lanes]);
                Ok(Flow { lanes, times: Vec::new(), is_grouped: true, is_updating })
            }
            LogicalPlan::Join(node) => {
                let conditions = node.on.iter().flat_map(|(left, right)| [left, right]).chain(&node.filter);
                let used = used.and(plan, conditions);
                let (of_left, of_right) = used.split(node.left.schema().fields().len());
                let left = self.ungrouped(&node.left, &of_left, "a join")?;
                let right = self.ungrouped(&node.right, &of_right, "a join")?;
                let kept = [of_left.places(), of_right.places()];
                let (join, times) = Join::compile(self.rules, node, [&left.times, &right.times], kept)?;
                let lanes = self.operator(Kind::Join(Arc::new(join)), vec![left.lanes, right.lanes]);
                Ok(Flow { lanes, times, is_grouped: false, is_updating: false })
            }
            LogicalPlan::Distinct(Distinct::On(node)) => {
                // All: the event time, too, which no expression need name.
                let flow = self.ungrouped(&node.input, &Used::all(&node.input), "DISTINCT ON")?;
                let (dedup, times) = Dedup::compile(self.rules, node, &flow.times)?;
                let lanes = self.operator(Kind::Dedup(Arc::new(dedup)), vec![flow.lanes]);
                Ok(Flow { lanes, times, is_grouped: false, is_updating: false })
            }
            other => Err(refused(other)),
        }
    }

    /// Rows that were not aggregated yet.
    fn ungrouped(&mut self, plan: &LogicalPlan, used: &Used, what: &str) -> Result<Flow> {
        let flow = self.flow(plan, used)?;
        match flow.is_grouped {
            true => Err(unsupported(
                format!("{what} of an aggregate is not supported in a pipeline yet"),
                "write the inner one into a table by a pipeline of its own",
            )),
            false => Ok(flow),
        }
    }

    fn operator(&mut self, kind: Kind, sides: Vec<Vec<Lane>>) -> Vec<Lane> {
        self.operators.push(Operator { kind, sides });
        vec![Lane { from: Origin::Operator(self.operators.len() - 1), steps: Vec::new() }]
    }
}

fn refused(plan: &LogicalPlan) -> Error {
    let (what, hint) = match plan {
        LogicalPlan::Sort(_) => {
            ("ORDER BY", "rows come in the order of their windows; sort them when you query the table")
        }
        LogicalPlan::Limit(_) => ("LIMIT", "a stream has no end"),
        LogicalPlan::Distinct(_) => {
            ("DISTINCT", "say of what and for how long: SELECT DISTINCT ON (key) … WITHIN INTERVAL '1 hour'")
        }
        LogicalPlan::Window(_) => ("OVER (…)", "aggregate by TUMBLE, HOP, CUMULATE or SESSION"),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            ("a SELECT without a source", "name a source in FROM")
        }
        LogicalPlan::Unnest(_) => ("unnest()", "a table can keep the array, and queries unnest it"),
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE", ""),
        LogicalPlan::Subquery(_) => ("a subquery of that kind", ""),
        _ => ("a part of this query", "a pipeline reads sources, filters, derives, unites, joins and aggregates"),
    };
    unsupported(format!("{what} is not supported in a pipeline yet"), hint)
}
