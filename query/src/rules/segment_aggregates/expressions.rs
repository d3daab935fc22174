//! Group keys, aggregates and their conditions, from physical expressions to what segments are asked.

use std::sync::Arc;

use arrow::datatypes::DataType as ArrowType;
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    config::ConfigOptions,
    error::DataFusionError,
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        aggregate::AggregateFunctionExpr,
        expressions::{CastExpr, Column, Literal},
    },
    physical_plan::projection::ProjectionExec,
};
use tidemill_storage::{
    aggregate::{Aggregate, Bin, Computed, Function, GroupKey, state_type},
    ids::ColumnId,
    predicate::Predicate,
    scan::ScanRequest,
    schema::{Column as StoredColumn, DataType},
};

use crate::{
    exec::{
        computed::{OverColumns, computed, over_columns},
        states::State,
    },
    functions::{datetime::rounding::Step, floats, zone::Zone},
    table::{
        conditions,
        physical::{logical, stored_column},
        pushdown,
    },
};

/// What `count(DISTINCT x)` is called here: its state is the values.
const DISTINCT_COUNT: &str = "count distinct";

/// The scan below, and how its columns reach the aggregate.
pub(super) struct Reading<'a> {
    pub(super) source: &'a ScanRequest,
    /// From the aggregate down.
    pub(super) projections: &'a [&'a ProjectionExec],
    pub(super) config: &'a ConfigOptions,
    /// Arguments that are expressions over the scan's columns, with the columns that they become.
    pub(super) computed: Vec<(Arc<dyn PhysicalExpr>, Computed)>,
}

/// What `first_value` and `last_value` choose by.
struct Order {
    by: ColumnId,
    is_last: bool,
}

/// A key of the plan's groups.
pub(super) struct Key {
    /// Its place among the keys that segments are asked for.
    pub(super) index: usize,
    /// What makes it of that one, which is column 0; nothing, where it is that one.
    pub(super) of: Option<Arc<dyn PhysicalExpr>>,
}

impl Reading<'_> {
    /// The expression over the scan's columns.
    fn grounded(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
        let mut expr = Arc::clone(expr);
        for projection in self.projections {
            let below = projection.expr();
            expr = expr
                .transform_up(|node| {
                    Ok(match node.downcast_ref::<Column>().and_then(|column| below.get(column.index())) {
                        Some(inner) => Transformed::yes(Arc::clone(&inner.expr)),
                        None => Transformed::no(node),
                    })
                })
                .ok()?
                .data;
        }
        Some(expr)
    }

    fn column(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<&StoredColumn> {
        stored_column(expr, self.source)
    }

    /// The place of the key among `keys`, and the expression that makes it of what is found there (its column 0).
    pub(super) fn key(&self, expr: &Arc<dyn PhysicalExpr>, keys: &mut Vec<GroupKey>) -> Option<Key> {
        let expr = self.grounded(expr)?;
        let (column, key, of) = match self.column(&expr) {
            Some(column) => (column, GroupKey { column: column.id, bin: None }, None),
            None => match self.rounded(&expr) {
                Some((column, bin)) => (column, GroupKey { column: column.id, bin: Some(bin) }, None),
                None => {
                    let OverColumns { inputs, expr, .. } = over_columns(&expr, self.source)?;
                    let [id] = inputs.as_slice() else { return None };
                    (self.source.schema.column(*id)?, GroupKey { column: *id, bin: None }, Some(expr))
                }
            },
        };
        if !key.is_supported(&column.data_type) {
            return None;
        }
        let known = if of.is_some() { keys.iter().position(|known| *known == key) } else { None };
        let index = known.unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        });
        Some(Key { index, of })
    }

    /// `date_trunc` to a unit of fixed length, `date_bin`, `time_bucket`.
    fn rounded(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<(&StoredColumn, Bin)> {
        let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
        let constant = |expr: &Arc<dyn PhysicalExpr>| Some(expr.downcast_ref::<Literal>()?.value().clone());
        let (first, time, third) = match call.args() {
            [first, time] => (constant(first)?, time, None),
            [first, time, third] => (constant(first)?, time, Some(constant(third)?)),
            _ => return None,
        };
        let column = self.column(time)?;
        if !matches!(column.data_type, DataType::Timestamp | DataType::TimestampTz) {
            return None;
        }
        let (source, zone) = (column.data_type.arrow(), Zone::of(self.config).ok()?);
        // In zones that change their clocks days, and hours of some, do not have one length.
        match Step::of_call(call.name(), &first, third.as_ref(), &source, zone)? {
            Step::Bins { width, origin } => Some((column, Bin { width, origin })),
            _ => None,
        }
    }

    /// The states of one call, and what they are made of added to `aggregates`.
    pub(super) fn aggregate(
        &mut self,
        call: &AggregateFunctionExpr,
        filter: Option<&Arc<dyn PhysicalExpr>>,
        aggregates: &mut Vec<Aggregate>,
    ) -> Result<Option<Vec<State>>, DataFusionError> {
        let is_set = call.is_distinct() && call.fun().name() == "count";
        let name = if is_set { DISTINCT_COUNT } else { call.fun().name() };
        // Their share, and the order it goes by, are for the end: the state is that of all shares.
        let is_percentile = matches!(name, "approx_percentile_cont" | "approx_median");
        let is_end = matches!(name, "first_value" | "last_value");
        let is_other_set = call.is_distinct() && !is_set;
        if is_other_set || call.ignore_nulls() || !(is_percentile || is_end || call.order_bys().is_empty()) {
            return Ok(None);
        }
        let arguments = call.expressions();
        let argument = match arguments.as_slice() {
            [argument] => argument,
            [argument, _] if is_percentile => argument,
            _ => return Ok(None),
        };
        let filter = match filter {
            None => None,
            Some(filter) => match self.predicate(filter) {
                // What is true of every row.
                Some(Predicate::And(all)) if all.is_empty() => None,
                Some(predicate) => Some(predicate),
                None => return Ok(None),
            },
        };
        let Some(mut argument) = self.grounded(argument) else { return Ok(None) };
        // Segments take floats that are equal for one by themselves.
        if is_set && let Some(inner) = floats::without(&argument) {
            argument = Arc::clone(inner);
        }
        let fields = call.state_fields()?;
        let types: Vec<&ArrowType> = fields.iter().map(|field| field.data_type()).collect();
        let mut place = |function: Function| {
            let aggregate = Aggregate { function, filter: filter.clone() };
            aggregates.iter().position(|known| *known == aggregate).unwrap_or_else(|| {
                aggregates.push(aggregate);
                aggregates.len() - 1
            })
        };
        if name == "count"
            && let Some(literal) = argument.downcast_ref::<Literal>()
        {
            let counts = !literal.value().is_null() && matches!(types[..], [ArrowType::Int64]);
            return Ok(counts.then(|| vec![State::Same(place(Function::Rows))]));
        }
        if is_end {
            let Some(by) = self.order(call, filter.as_ref()) else { return Ok(None) };
            return Ok(self.end(&argument, &by, &types, &mut place));
        }
        if let Some((column, cast)) = self.number(&argument)
            && let Some(states) = states(name, column, cast.as_ref(), &types, &mut place)
        {
            return Ok(Some(states));
        }
        if self.column(&argument).is_some() {
            return Ok(None);
        }
        Ok(self.over_computed(argument, |column| states(name, column, None, &types, &mut place)))
    }

    /// The states of a column that is computed: `argument`. Where nothing becomes of them, no column is left behind.
    fn over_computed(
        &mut self,
        argument: Arc<dyn PhysicalExpr>,
        states: impl FnOnce(&StoredColumn) -> Option<Vec<State>>,
    ) -> Option<Vec<State>> {
        if let Some((_, known)) = self.computed.iter().find(|(known, _)| known == &argument) {
            return states(&known.column);
        }
        let fresh = computed(&argument, self.source, self.computed.len())?;
        let states = states(&fresh.column)?;
        self.computed.push((argument, fresh));
        Some(states)
    }

    /// The column by which `first_value` and `last_value` choose, if it has a value wherever they look.
    fn order(&self, call: &AggregateFunctionExpr, filter: Option<&Predicate>) -> Option<Order> {
        let [by] = call.order_bys() else { return None };
        let expr = self.grounded(&by.expr)?;
        let column = self.column(floats::without(&expr).unwrap_or(&expr))?;
        let has_values = !column.nullable
            || [filter, self.source.predicate.as_ref()].into_iter().flatten().any(|one| one.needs_value_of(column.id));
        let is_last = (call.fun().name() == "last_value") != by.options.descending;
        has_values.then_some(Order { by: column.id, is_last })
    }

    fn end(
        &mut self,
        argument: &Arc<dyn PhysicalExpr>,
        order: &Order,
        types: &[&ArrowType],
        place: &mut impl FnMut(Function) -> usize,
    ) -> Option<Vec<State>> {
        let [of_value, of_order, ArrowType::Boolean] = types else { return None };
        let Order { by, is_last } = *order;
        let source = self.source;
        let type_of = |id| source.schema.column(id).map(|column| &column.data_type);
        let extreme = if is_last { Function::Max(by) } else { Function::Min(by) };
        let orders = state_type(&extreme, type_of(by)).as_ref() == Some(*of_order);
        let end = |value| if is_last { Function::Last { value, by } } else { Function::First { value, by } };
        if !orders || !end(by).is_ordered_by(type_of) {
            return None;
        }
        let mut states = |column: &StoredColumn| {
            let end = end(column.id);
            (state_type(&end, Some(&column.data_type)).as_ref() == Some(*of_value)).then(|| {
                vec![State::Same(place(end)), State::Same(place(extreme)), State::Any(place(Function::Count(by)))]
            })
        };
        match self.column(argument) {
            Some(column) => states(column),
            None => self.over_computed(Arc::clone(argument), states),
        }
    }

    /// A column, or a cast of one.
    fn number(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<(&StoredColumn, Option<ArrowType>)> {
        if let Some(column) = self.column(expr) {
            return Some((column, None));
        }
        // A cast of NUMERIC is a function: it rounds as PostgreSQL does.
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
            && let ("cast_to_double_precision", [argument]) = (call.name(), call.args())
        {
            return Some((self.column(argument)?, Some(ArrowType::Float64)));
        }
        let cast = expr.downcast_ref::<CastExpr>()?;
        Some((self.column(cast.expr())?, Some(cast.cast_type().clone())))
    }

    /// A FILTER clause that segments evaluate.
    fn predicate(&self, expr: &Arc<dyn PhysicalExpr>) -> Option<Predicate> {
        let expr = self.grounded(expr)?;
        let by_form =
            logical(&expr, self.source).and_then(|expr| pushdown::predicate(&expr, &self.source.schema, None));
        by_form.or_else(|| {
            let OverColumns { inputs, expr, .. } = over_columns(&expr, self.source)?;
            let [id] = inputs.as_slice() else { return None };
            conditions::holding(expr, self.source.schema.column(*id)?)
        })
    }
}

/// The states of an aggregate of a column (cast to `cast`), if they have these types; `place` gives the place of what they are made of.
fn states(
    name: &str,
    column: &StoredColumn,
    cast: Option<&ArrowType>,
    types: &[&ArrowType],
    place: &mut impl FnMut(Function) -> usize,
) -> Option<Vec<State>> {
    let id = column.id;
    match (name, types) {
        ("count", [ArrowType::Int64]) if cast.is_none() => Some(vec![State::Same(place(Function::Count(id)))]),
        (DISTINCT_COUNT, [to]) if cast.is_none() => {
            let function = Function::Set(id);
            let fits = state_type(&function, Some(&column.data_type)).as_ref() == Some(*to);
            fits.then(|| vec![State::Same(place(function))])
        }
        ("sum", [to]) => sum(column, cast, to).map(|()| vec![State::Sum(place(Function::Sum(id)), (*to).clone())]),
        ("avg", [ArrowType::UInt64, to]) => sum(column, cast, to).map(|()| {
            vec![State::Unsigned(place(Function::Count(id))), State::Sum(place(Function::Sum(id)), (*to).clone())]
        }),
        ("min" | "max" | "bool_and" | "bool_or", [to]) if cast.is_none() => {
            let function = match name {
                "min" => Function::Min(id),
                "max" => Function::Max(id),
                "bool_and" => Function::And(id),
                _ => Function::Or(id),
            };
            let fits = state_type(&function, Some(&column.data_type)).as_ref() == Some(*to);
            fits.then(|| vec![State::Same(place(function))])
        }
        ("var" | "var_pop" | "stddev" | "stddev_pop", [ArrowType::UInt64, ArrowType::Float64, ArrowType::Float64]) => {
            let is_number =
                matches!(cast, Some(ArrowType::Float64)) || (cast.is_none() && column.data_type == DataType::Double);
            let fits = is_number && state_type(&Function::Mean(id), Some(&column.data_type)).is_some();
            fits.then(|| {
                let count = State::Counted(place(Function::Count(id)));
                vec![count, State::Number(place(Function::Mean(id))), State::Number(place(Function::Squares(id)))]
            })
        }
        ("approx_distinct" | "approx_percentile_cont" | "approx_median", [to]) if cast.is_none() => {
            let function = if name == "approx_distinct" { Function::Distinct(id) } else { Function::Quantiles(id) };
            let fits = state_type(&function, Some(&column.data_type)).as_ref() == Some(*to);
            fits.then(|| vec![State::Same(place(function))])
        }
        _ => None,
    }
}

/// Whether the exact sum of a column's values is that of the values cast to `cast`, and can be written as `to`.
fn sum(column: &StoredColumn, cast: Option<&ArrowType>, to: &ArrowType) -> Option<()> {
    let written = column.data_type.arrow();
    let summed = cast.unwrap_or(&written);
    let fits = match (&column.data_type, summed) {
        (DataType::SmallInt | DataType::Int | DataType::BigInt, ArrowType::Int64) => matches!(to, ArrowType::Int64),
        (DataType::SmallInt, ArrowType::Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 5 && *s >= 0,
        (DataType::Int, ArrowType::Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 10 && *s >= 0,
        (DataType::BigInt, ArrowType::Decimal128(p, s)) => i16::from(*p) - i16::from(*s) >= 19 && *s >= 0,
        (DataType::Numeric { precision, scale }, ArrowType::Decimal128(p, s)) => {
            s >= scale && i16::from(*p) - i16::from(*s) >= i16::from(*precision) - i16::from(*scale)
        }
        (DataType::Real | DataType::Double, ArrowType::Float64) => matches!(to, ArrowType::Float64),
        _ => false,
    };
    let same_scale = match (summed, to) {
        (ArrowType::Decimal128(_, s), ArrowType::Decimal128(_, to) | ArrowType::Decimal256(_, to)) => s == to,
        (ArrowType::Decimal128(..), _) => false,
        _ => true,
    };
    (fits && same_scale).then_some(())
}
