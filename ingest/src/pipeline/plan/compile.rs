//! From DataFusion's plan to lanes and operators.

use std::sync::Arc;

use datafusion::{
    common::JoinType,
    logical_expr::{Distinct, Expr, LogicalPlan},
};

use super::{
    super::{expression::definition, rules::Rules},
    Aggregate, AsOf, Ask, Call, Dedup, Join, Kind, Lane, LookUp, Operator, Origin, PlanSource, PlanTable, Process,
    Ranking, Step, Time, Unnest, WindowColumn, as_of, ask, look_up, ranking, unsupported, windows,
};
use crate::{Error, Result, http::Address};

pub(super) struct Compiler<'a> {
    rules: &'a dyn Rules,
    sources: &'a [PlanSource],
    tables: &'a [PlanTable],
    calls: &'a [Call],
    operators: Vec<Operator>,
    /// How many of the first rows of each part the next OVER is asked for.
    most: Option<usize>,
    services: Vec<Address>,
}

/// What was made of a plan.
pub(super) struct Compiled {
    pub(super) operators: Vec<Operator>,
    /// The lanes to the output.
    pub(super) output: Vec<Lane>,
    pub(super) services: Vec<Address>,
}

/// Rows of a node.
struct Flow {
    lanes: Vec<Lane>,
    /// Columns that are event times in all lanes.
    times: Vec<Time>,
    /// Columns that are windows.
    windows: Vec<WindowColumn>,
    /// Whether groups come again when they change, whatever the pipeline says of late rows.
    is_updating: bool,
}

/// Of each column of a node whether it is asked for.
#[derive(Clone)]
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

    /// The columns that an input passes on, which are the first.
    fn and_of_input(mut self, input: &LogicalPlan) -> Self {
        self.0.truncate(input.schema().fields().len());
        self
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
    pub(super) fn new(
        rules: &'a dyn Rules,
        sources: &'a [PlanSource],
        tables: &'a [PlanTable],
        calls: &'a [Call],
    ) -> Self {
        Self { rules, sources, tables, calls, operators: Vec::new(), most: None, services: Vec::new() }
    }

    pub(super) fn run(mut self, plan: &LogicalPlan) -> Result<Compiled> {
        let flow = self.flow(plan, &Used::all(plan))?;
        Ok(Compiled { operators: self.operators, output: flow.lanes, services: self.services })
    }

    /// `used`: the columns of the node that are asked for above it; joins keep no others.
    fn flow(&mut self, plan: &LogicalPlan, used: &Used) -> Result<Flow> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                if let Some(table) = look_up::table_of(plan, self.tables) {
                    return Err(unsupported(
                        format!(
                            "table \"{}\" cannot stand alone in a pipeline, which reads streams",
                            self.tables[table].name
                        ),
                        "join a source with it: FROM source JOIN table ON table.key = source.column",
                    ));
                }
                let call = self.calls.iter().find(|call| call.relation == scan.table_name.table());
                let source = match call {
                    Some(call) => Some(call.source),
                    None => self.sources.iter().position(|source| source.name == scan.table_name.table()),
                };
                let source =
                    source.ok_or_else(|| definition(format!("source \"{}\" is not there", scan.table_name)))?;
                let time = self.sources[source].time_column.as_ref();
                let places = scan.projected_schema.fields().iter().enumerate();
                let times = places.filter(|(_, field)| Some(field.name()) == time);
                let times = times.map(|(column, _)| Time { column, delay_us: 0, is_end: false }).collect();
                let process = call.map(|call| Process::compile(self.rules, call, &self.sources[source]));
                let lanes = match process.transpose()?.flatten() {
                    Some(process) => {
                        let lane = Lane { from: Origin::Source(source), steps: Vec::new() };
                        self.operator(Kind::Process(Arc::new(process)), vec![vec![lane]])
                    }
                    None => {
                        let steps = call.map(|call| Step::Transform(call.clone())).into_iter().collect();
                        vec![Lane { from: Origin::Source(source), steps }]
                    }
                };
                Ok(Flow { lanes, times, windows: Vec::new(), is_updating: false })
            }
            LogicalPlan::SubqueryAlias(node) => self.flow(&node.input, used),
            LogicalPlan::Window(node) => {
                let most = self.most.take();
                let passed = used.clone().and_of_input(&node.input);
                let used = passed.and(&node.input, ranking::exprs(node));
                let flow = self.settled(&node.input, &used, "OVER (…)")?;
                let ranking = Ranking::compile(self.rules, node, &flow.times, used.places(), most)?;
                let times = flow.times.iter().filter_map(|time| ranking.waited(*time)).collect();
                let lanes = self.operator(Kind::Ranking(Arc::new(ranking)), vec![flow.lanes]);
                Ok(Flow { lanes, times, windows: Vec::new(), is_updating: false })
            }
            LogicalPlan::Filter(node) => {
                self.most = ranking::most_of(node);
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
            LogicalPlan::Projection(node) if let Some(calls) = ask::asked(node) => {
                let used = used.clone().and_of_input(&node.input).and(&node.input, calls);
                let mut flow = self.flow(&node.input, &used)?;
                let Self { rules, tables, services, .. } = self;
                let mut place_of = |address: Address| {
                    let known = services.iter().position(|known| *known == address).unwrap_or_else(|| {
                        services.push(address);
                        services.len() - 1
                    });
                    tables.len() + known
                };
                for lane in &mut flow.lanes {
                    let mut schema = Arc::new(node.input.schema().as_arrow().clone());
                    for call in calls {
                        schema = ask::with_answer(&schema, call.name_for_alias().unwrap_or_default().as_str());
                        let step = Ask::compile(*rules, node.input.schema(), call, Arc::clone(&schema), &mut place_of)?;
                        lane.steps.push(Step::Ask(step));
                    }
                }
                Ok(flow)
            }
            LogicalPlan::Projection(node) => {
                let mut flow = self.flow(&node.input, &Used::by(&node.input, &node.expr))?;
                for lane in &mut flow.lanes {
                    lane.steps.push(Step::project(self.rules, node.input.schema(), &node.expr, &node.schema)?);
                }
                let (mut times, mut windows) = (Vec::new(), Vec::new());
                for (column, expr) in node.expr.iter().enumerate() {
                    let plain = expr.clone().unalias_nested().data;
                    let of = |expr: &Expr| match expr {
                        Expr::Column(column) => node.input.schema().index_of_column(column).ok(),
                        _ => None,
                    };
                    let window = |at: usize| flow.windows.iter().find(|window| window.column == at);
                    if let Some((inner, is_end)) = windows::end_of(&plain) {
                        times.extend(of(inner).and_then(window).and_then(|window| window.time(column, is_end)));
                    } else if let Some(from) = of(&plain) {
                        let time = flow.times.iter().find(|time| time.column == from);
                        times.extend(time.map(|time| Time { column, ..*time }));
                        windows.extend(window(from).map(|window| WindowColumn { column, ..*window }));
                    }
                }
                Ok(Flow { times, windows, ..flow })
            }
            LogicalPlan::Unnest(node) => {
                let asked = node.dependency_indices.iter().zip(&used.0).filter(|(_, used)| **used).map(|(at, _)| *at);
                let mut below = vec![false; node.input.schema().fields().len()];
                asked.chain(node.list_type_columns.iter().map(|(at, _)| *at)).for_each(|at| below[at] = true);
                let mut flow = self.flow(&node.input, &Used(below))?;
                if flow.is_updating {
                    return Err(unsupported(
                        "unnest() of groups without a window is not supported in a pipeline: rows of a list that got shorter would stay",
                        "group by a window",
                    ));
                }
                for lane in &mut flow.lanes {
                    lane.steps.push(Step::Unnest(Unnest::compile(node)?));
                }
                let passed = |from: usize| {
                    let is_list = node.list_type_columns.iter().any(|(list, _)| *list == from);
                    (!is_list).then(|| node.dependency_indices.iter().position(|at| *at == from)).flatten()
                };
                let times =
                    flow.times.iter().filter_map(|time| Some(Time { column: passed(time.column)?, ..*time })).collect();
                Ok(Flow { times, windows: Vec::new(), ..flow })
            }
            LogicalPlan::Union(node) => {
                let mut inputs = node.inputs.iter();
                let Some(first) = inputs.next() else { return Err(refused(plan)) };
                let mut all = self.flow(first, used)?;
                for input in inputs {
                    let flow = self.flow(input, used)?;
                    all.lanes.extend(flow.lanes);
                    all.is_updating |= flow.is_updating;
                    all.windows.clear();
                    let of_input = |column: usize| flow.times.iter().find(|time| time.column == column);
                    all.times.retain_mut(|time| match of_input(time.column) {
                        Some(other) => {
                            time.delay_us = time.delay_us.max(other.delay_us);
                            time.is_end &= other.is_end;
                            true
                        }
                        None => false,
                    });
                }
                Ok(all)
            }
            LogicalPlan::Aggregate(node) => {
                let used = Used::by(&node.input, node.group_expr.iter().chain(&node.aggr_expr));
                let flow = self.settled(&node.input, &used, "an aggregate")?;
                let aggregate = Aggregate::compile(self.rules, node, &flow.times)?;
                let (times, windows) = aggregate.times(node, &flow.times);
                let is_updating = aggregate.timing.is_none();
                let lanes = self.operator(Kind::Aggregate(Arc::new(aggregate)), vec![flow.lanes]);
                Ok(Flow { lanes, times, windows, is_updating })
            }
            LogicalPlan::Join(node) => {
                let conditions = node.on.iter().flat_map(|(left, right)| [left, right]).chain(&node.filter);
                let used = used.and(plan, conditions);
                let (of_left, of_right) = used.split(node.left.schema().fields().len());
                if let Some(at) = look_up::table_of(&node.right, self.tables) {
                    let mut left = self.flow(&node.left, &of_left)?;
                    if left.is_updating && node.join_type == JoinType::Inner {
                        return Err(unsupported(
                            "a join of groups without a window with a table is not supported in a pipeline: a group that no longer finds a row would stay",
                            "LEFT JOIN leaves groups as many as they are",
                        ));
                    }
                    for lane in &mut left.lanes {
                        let table = (at, &self.tables[at]);
                        let look_up = LookUp::compile(self.rules, node, table, &of_right.places())?;
                        lane.steps.push(Step::LookUp(look_up));
                    }
                    return Ok(left);
                }
                let left = self.settled(&node.left, &of_left, "a join")?;
                let right = self.settled(&node.right, &of_right, "a join")?;
                let kept = [of_left.places(), of_right.places()];
                let of_sides = [&left.times[..], &right.times[..]];
                let (kind, times) = if as_of::is_as_of(node)? {
                    let (as_of, times) = AsOf::compile(self.rules, node, of_sides, kept)?;
                    (Kind::AsOf(Arc::new(as_of)), times)
                } else {
                    let (join, times) = Join::compile(self.rules, node, of_sides, kept)?;
                    (Kind::Join(Arc::new(join)), times)
                };
                let lanes = self.operator(kind, vec![left.lanes, right.lanes]);
                Ok(Flow { lanes, times, windows: Vec::new(), is_updating: false })
            }
            LogicalPlan::Distinct(Distinct::On(node)) => {
                // All: the event time, too, which no expression need name.
                let flow = self.settled(&node.input, &Used::all(&node.input), "DISTINCT ON")?;
                let (dedup, times) = Dedup::compile(self.rules, node, &flow.times)?;
                let lanes = self.operator(Kind::Dedup(Arc::new(dedup)), vec![flow.lanes]);
                Ok(Flow { lanes, times, windows: Vec::new(), is_updating: false })
            }
            other => Err(refused(other)),
        }
    }

    /// Rows that are given once.
    fn settled(&mut self, plan: &LogicalPlan, used: &Used, what: &str) -> Result<Flow> {
        let flow = self.flow(plan, used)?;
        match flow.is_updating {
            true => Err(unsupported(
                format!(
                    "{what} of groups without a window is not supported in a pipeline: they are given again when they change"
                ),
                "group by a window below, or write the inner one into a table by a pipeline of its own",
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
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => {
            ("a SELECT without a source", "name a source in FROM")
        }
        LogicalPlan::RecursiveQuery(_) => ("WITH RECURSIVE", ""),
        LogicalPlan::Subquery(_) => ("a subquery of that kind", ""),
        _ => ("a part of this query", "a pipeline reads sources, filters, derives, unites, joins and aggregates"),
    };
    unsupported(format!("{what} is not supported in a pipeline yet"), hint)
}
