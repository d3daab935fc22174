//! GROUP BY of a pipeline: its keys, its window and its aggregates, which are those of queries.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
    datatypes::{DataType as ArrowType, Field, FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::{
        Column, DFSchema, DataFusionError,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::physical_planning_context::PhysicalPlanningContext,
    logical_expr::{
        Aggregate as AggregateNode, Expr, GroupingSet as GroupingSetNode, GroupsAccumulator,
        utils::grouping_set_to_exprlist,
    },
    physical_expr::{
        GroupsAccumulatorAdapter,
        aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder},
    },
};

use super::{
    super::{
        expression::{Expression, definition},
        machine::Dump,
        rules::Rules,
    },
    Time, WindowColumn, unsupported,
    windows::{self, Window, WindowCall, window_type},
};
use crate::{Error, Result};

/// Name of the column that a window has in expressions over it.
const WINDOW: &str = "window";

/// An aggregate, compiled over the rows below it.
#[derive(Debug)]
pub(crate) struct Aggregate {
    /// `None` for groups that go on for ever.
    pub(crate) timing: Option<Timing>,
    pub(crate) keys: Vec<Expression>,
    /// Those of GROUPING SETS; none for one GROUP BY.
    pub(crate) sets: Vec<GroupingSet>,
    /// Of keys, and of the number of the set behind them.
    pub(crate) key_schema: SchemaRef,
    /// What GROUP BY gives, in order.
    pub(crate) groups: Vec<GroupColumn>,
    pub(crate) calls: Vec<Call>,
    /// Group columns, then calls.
    pub(crate) output: SchemaRef,
}

/// The window of GROUP BY.
#[derive(Debug)]
pub(crate) struct Timing {
    pub(crate) window: Window,
    /// The event time of a row, and its type.
    pub(crate) time: Expression,
    pub(crate) time_type: ArrowType,
    /// How far times are behind the watermark at most.
    pub(crate) delay_us: i64,
}

/// One of the sets that rows are grouped by at once.
#[derive(Debug)]
pub(crate) struct GroupingSet {
    /// Of each key whether groups of the set have it.
    pub(crate) has: Vec<bool>,
    /// What `grouping()` is made of.
    pub(crate) number: u64,
}

/// What GROUP BY names, and of each of its sets which of these; no sets for a plain GROUP BY.
fn grouping_sets(node: &AggregateNode) -> Result<(Vec<Expr>, Vec<Vec<usize>>), DataFusionError> {
    let exprs: Vec<Expr> = grouping_set_to_exprlist(&node.group_expr)?.into_iter().cloned().collect();
    let Some(Expr::GroupingSet(of)) = node.group_expr.first() else { return Ok((node.group_expr.clone(), Vec::new())) };
    let place = |expr: &Expr| exprs.iter().position(|known| known == expr);
    let places = |set: &[Expr]| set.iter().filter_map(place).collect::<Vec<usize>>();
    let sets = match of {
        GroupingSetNode::GroupingSets(sets) => sets.iter().map(|set| places(set)).collect(),
        GroupingSetNode::Rollup(all) => (0..=all.len()).rev().map(|length| places(&all[..length])).collect(),
        GroupingSetNode::Cube(all) => {
            let set = |mask: usize| {
                (0..all.len()).filter(|at| (mask >> at) & 1 == 1).filter_map(|at| place(&all[at])).collect()
            };
            (0..1usize << all.len()).map(set).collect()
        }
    };
    Ok((exprs, sets))
}

/// `key_of`: of each of GROUP BY's expressions the key that it is.
fn sets_of(members: &[Vec<usize>], key_of: &[Option<usize>]) -> Vec<GroupingSet> {
    let mask = |set: &Vec<usize>| (0..key_of.len()).fold(0u64, |mask, at| (mask << 1) | u64::from(!set.contains(&at)));
    let set = |(at, set): (usize, &Vec<usize>)| {
        // A set that is there twice gives its groups twice.
        let again = members[..at].iter().filter(|known| mask(known) == mask(set)).count() as u64;
        let keys = key_of.iter().enumerate().filter(|(_, key)| key.is_some());
        GroupingSet {
            has: keys.map(|(at, _)| set.contains(&at)).collect(),
            number: mask(set) | again.checked_shl(key_of.len() as u32).unwrap_or(0),
        }
    };
    members.iter().enumerate().map(set).collect()
}

/// A column of GROUP BY.
#[derive(Debug)]
pub(crate) enum GroupColumn {
    /// The key of this place.
    Key(usize),
    /// Made of the window.
    Window(Expression),
}

/// One aggregate function.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) function: Arc<AggregateFunctionExpr>,
    pub(crate) arguments: Vec<Expression>,
    /// FILTER (WHERE …).
    pub(crate) filter: Option<Expression>,
    text: String,
}

impl Call {
    /// An accumulator for many groups.
    pub(crate) fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator();
        }
        let function = Arc::clone(&self.function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }
}

impl Aggregate {
    /// `times`: columns of the input that are event times.
    pub(super) fn compile(rules: &dyn Rules, node: &AggregateNode, times: &[Time]) -> Result<Self> {
        let input = node.input.schema();
        let fail = |error: DataFusionError| definition(rules.reader()(&error));
        let (group_exprs, members) = grouping_sets(node).map_err(fail)?;
        let call = call_in(rules, &group_exprs)?;
        let ends = group_exprs.iter().filter_map(|group| time_column(group, input, times)).filter(|time| time.is_end);
        let timing = match (&call, ends.min_by_key(|time| time.delay_us)) {
            (None, Some(end)) => {
                let column = Expr::Column(Column::from(input.qualified_field(end.column)));
                let time = Expression::of_plan(rules, input, column, "the end of the window")?;
                // Rows of one moment are the window.
                let window = Window::Tumble { size: 1 };
                Some(Timing { window, time_type: time.field.data_type().clone(), time, delay_us: end.delay_us })
            }
            (None, None) if group_exprs.is_empty() => {
                return Err(unsupported(
                    "an aggregate without GROUP BY is not supported in a pipeline",
                    "group by TUMBLE(time, INTERVAL '1' MINUTE), or by the primary key of the table",
                ));
            }
            (None, None) => None,
            (Some(call), _) => {
                let delay_us = delay_of(call, input, times)?;
                let time = Expression::of_plan(rules, input, call.time.clone(), "the time of the window")?;
                Some(Timing { window: call.window, time_type: time.field.data_type().clone(), time, delay_us })
            }
        };
        let has_window = |expr: &Expr| expr.exists(|expr| Ok(windows::is_window(expr)));
        if !members.is_empty() {
            let is_of_window = |expr: &Expr| match &call {
                Some(_) => has_window(expr).unwrap_or(false),
                None => time_column(expr, input, times).is_some_and(|time| time.is_end),
            };
            let of_window: Vec<usize> = (0..group_exprs.len()).filter(|at| is_of_window(&group_exprs[*at])).collect();
            if of_window.is_empty() || members.iter().any(|set| of_window.iter().any(|at| !set.contains(at))) {
                return Err(unsupported(
                    "GROUPING SETS, ROLLUP and CUBE without a window in each set are not supported in a pipeline",
                    "write GROUP BY TUMBLE(time, INTERVAL '1' MINUTE), ROLLUP (…)",
                ));
            }
        }
        let window = timing.iter().map(|timing| Field::new(WINDOW, window_type(&timing.time_type), true));
        let window_schema = Arc::new(Schema::new(window.collect::<Vec<_>>()));
        let window_schema = Arc::new(DFSchema::try_from(window_schema).map_err(fail)?);
        let mut keys = Vec::new();
        let mut key_fields = Vec::new();
        let mut groups = Vec::new();
        let mut fields = Vec::new();
        // Of each of GROUP BY's expressions the key that it is.
        let mut key_of: Vec<Option<usize>> = Vec::new();
        for (group, field) in group_exprs.iter().zip(node.schema.fields()) {
            let has_window = has_window(group).map_err(fail)?;
            let what = format!("GROUP BY {}", field.name());
            let compiled = if has_window {
                let over_window = group.clone().transform(|expr| {
                    Ok(match windows::is_window(&expr) {
                        true => Transformed::yes(Expr::Column(Column::from_name(WINDOW))),
                        false => Transformed::no(expr),
                    })
                });
                let over_window = over_window.map_err(fail)?.data;
                Expression::of_plan(rules, &window_schema, over_window, &what)?
            } else {
                Expression::of_plan(rules, input, group.clone(), &what)?
            };
            let metadata = field.metadata().clone();
            let made = Field::new(field.name(), compiled.field.data_type().clone(), true).with_metadata(metadata);
            fields.push(made.clone());
            key_of.push((!has_window).then_some(keys.len()));
            if has_window {
                groups.push(GroupColumn::Window(compiled));
            } else {
                groups.push(GroupColumn::Key(keys.len()));
                key_fields.push(Field::new(format!("k{}", keys.len()), made.data_type().clone(), true));
                keys.push(compiled);
            }
        }
        let sets = sets_of(&members, &key_of);
        if !sets.is_empty() {
            // Which set a group is of is a key, too, and stands behind the others.
            let field = node.schema.field(group_exprs.len());
            fields.push(Field::new(field.name(), field.data_type().clone(), true));
            groups.push(GroupColumn::Key(keys.len()));
            key_fields.push(Field::new(format!("k{}", keys.len()), field.data_type().clone(), true));
        }
        let mut calls = Vec::new();
        let of_calls = node.schema.fields().iter().skip(fields.len());
        for (expr, field) in node.aggr_expr.iter().zip(of_calls) {
            let call = self::call(rules, expr, input)?;
            let made = call.function.field();
            fields
                .push(Field::new(field.name(), made.data_type().clone(), true).with_metadata(field.metadata().clone()));
            calls.push(call);
        }
        Ok(Self {
            timing,
            keys,
            sets,
            key_schema: Arc::new(Schema::new(key_fields)),
            groups,
            calls,
            output: Arc::new(Schema::new(fields)),
        })
    }

    /// Which of its columns are times that windows may go by again, and which are windows. `times`: those of the input.
    pub(super) fn times(&self, node: &AggregateNode, times: &[Time]) -> (Vec<Time>, Vec<WindowColumn>) {
        let Some(timing) = &self.timing else { return (Vec::new(), Vec::new()) };
        let (mut given, mut columns) = (Vec::new(), Vec::new());
        let Ok((group_exprs, _)) = grouping_sets(node) else { return (Vec::new(), Vec::new()) };
        for (column, group) in group_exprs.iter().enumerate() {
            let of = WindowColumn { column, window: timing.window, delay_us: timing.delay_us };
            let plain = group.clone().unalias_nested().data;
            if windows::is_window(&plain) {
                columns.push(of);
            } else if let Some((true, is_end)) =
                windows::end_of(&plain).map(|(of, is_end)| (windows::is_window(of), is_end))
            {
                given.extend(of.time(column, is_end));
            } else if let Some(time) = time_column(group, node.input.schema(), times)
                && timing.window == (Window::Tumble { size: 1 })
                && time.is_end
                && time.delay_us == timing.delay_us
            {
                given.push(Time { column, ..time });
            }
        }
        (given, columns)
    }

    pub(super) fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(Expression::describe).collect();
        let calls: Vec<&str> = self.calls.iter().map(|call| call.text.as_str()).collect();
        let window = self.timing.as_ref().map_or_else(
            || "groups that are given again when they change".to_owned(),
            |timing| format!("window {:?} (microseconds) over {}", timing.window, timing.time.describe()),
        );
        format!("Aggregate: {window}, keys [{}], {}", keys.join(", "), calls.join(", "))
    }

    /// Rows of GROUP BY's columns and the aggregates. `window`: the window of each, as the column `window`.
    pub(crate) fn assemble(
        &self,
        count: usize,
        keys: &[ArrayRef],
        results: Vec<ArrayRef>,
        window: Option<&RecordBatch>,
    ) -> Result<RecordBatch, DataFusionError> {
        let mut columns = Vec::with_capacity(self.output.fields().len());
        for group in &self.groups {
            columns.push(match (group, window) {
                (GroupColumn::Key(at), _) => Arc::clone(&keys[*at]),
                (GroupColumn::Window(expression), Some(window)) => {
                    expression.evaluate(window).map_err(DataFusionError::Execution)?
                }
                (GroupColumn::Window(_), None) => {
                    return Err(DataFusionError::Internal("a group without a window has none to show".into()));
                }
            });
        }
        columns.extend(results);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options).map_err(Into::into)
    }

    /// Groups out of a file, when they are groups of this aggregate: keys, then the state of each accumulator.
    pub(crate) fn dump_of(&self, groups: usize, mut columns: Vec<Vec<ArrayRef>>) -> Result<Dump, DataFusionError> {
        let types = |fields: &[FieldRef]| fields.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let mut expected = vec![types(self.key_schema.fields())];
        for call in &self.calls {
            expected.push(types(&call.function.state_fields()?));
        }
        let fits = |(columns, types): (&Vec<ArrayRef>, &Vec<ArrowType>)| {
            let all = columns.iter().zip(types);
            columns.len() == types.len() && all.into_iter().all(|(column, of)| column.data_type().equals_datatype(of))
        };
        if columns.len() != expected.len() || !columns.iter().zip(&expected).all(fits) {
            return Err(DataFusionError::Execution(
                "the state was made by another version, whose aggregates keep other columns".into(),
            ));
        }
        Ok(Dump { groups, states: columns.split_off(1), keys: columns.remove(0) })
    }
}

/// The event time that an expression is.
pub(super) fn time_column(expr: &Expr, input: &DFSchema, times: &[Time]) -> Option<Time> {
    let Expr::Column(column) = expr.clone().unalias_nested().data else { return None };
    let at = input.index_of_column(&column).ok()?;
    times.iter().find(|time| time.column == at).copied()
}

/// The call of a group function that expressions are made of, if there is one; two of them are refused.
pub(super) fn call_in(rules: &dyn Rules, exprs: &[Expr]) -> Result<Option<WindowCall>> {
    let fail = |error: DataFusionError| definition(rules.reader()(&error));
    let mut call: Option<WindowCall> = None;
    for expr in exprs {
        expr.apply(|expr| {
            if windows::is_window(expr) && call.as_ref().is_none_or(|known| known.call != *expr) {
                let read = windows::read(rules, expr).map_err(|error| DataFusionError::External(Box::new(error)))?;
                if call.replace(read).is_some() {
                    let two = unsupported("two windows in one GROUP BY are not supported", "use one of them");
                    return Err(DataFusionError::External(Box::new(two)));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(|error| match error {
            DataFusionError::External(error) => match error.downcast::<Error>() {
                Ok(error) => *error,
                Err(error) => definition(error.to_string()),
            },
            error => fail(error),
        })?;
    }
    Ok(call)
}

/// Windows go by the event time: only of it is known when they are complete. How far behind the watermark it is at most.
pub(super) fn delay_of(call: &WindowCall, input: &DFSchema, times: &[Time]) -> Result<i64> {
    let plain = call.time.clone().unalias_nested().data;
    if let Some(time) = time_column(&plain, input, times) {
        return Ok(time.delay_us);
    }
    Err(Error::Unsupported {
        message: format!("{plain} is not the event time of its source, and windows go by that"),
        hint: Some(
            "say WATERMARK FOR column AS column - INTERVAL '…' in CREATE SOURCE, and group by that column; of a LEFT JOIN the left one".into(),
        ),
    })
}

fn call(rules: &dyn Rules, expr: &Expr, input: &Arc<DFSchema>) -> Result<Call> {
    let fail = |error: DataFusionError| definition(rules.reader()(&error));
    let text = expr.to_string();
    let expr = Expression::simplified(rules, input, expr.clone(), &text)?;
    let plain = expr.clone().unalias_nested().data;
    let Expr::AggregateFunction(function) = &plain else {
        return Err(unsupported(format!("{text} is not supported in a pipeline yet"), ""));
    };
    if !function.params.order_by.is_empty() {
        return Err(unsupported(
            format!("{text}: ORDER BY within an aggregate is not supported in a pipeline yet"),
            "rows come in the order of their arrival",
        ));
    }
    let props = rules.state().execution_props();
    let context = PhysicalPlanningContext::default();
    let lowered = LoweredAggregateBuilder::new(&plain, input, input.as_arrow(), props, &context).build();
    let lowered = lowered.map_err(fail)?;
    let (function, filter) = (lowered.aggregate, lowered.filter);
    let schema = Arc::new(input.as_arrow().clone());
    let compile = |physical| Expression::of_physical(rules, physical, &schema).map_err(fail);
    let arguments = function.expressions().into_iter().map(compile).collect::<Result<Vec<_>>>()?;
    let filter = filter.map(compile).transpose()?;
    Ok(Call { function, arguments, filter, text })
}
