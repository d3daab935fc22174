//! The one type of values that become one column or one value: of VALUES, UNION, CASE, COALESCE, GREATEST, LEAST and ARRAY.
//!
//! A literal without a type (`'x'`, NULL) takes the type of the others, so that `VALUES (DATE '2026-01-01'), ('2026-01-02')` are dates and `CASE WHEN c THEN 1
//! ELSE 'x' END` is 22P02. Types of different kinds are 42804. VALUES are seen to on the syntax tree: their columns are typed when
//! they are planned, and what stands above goes by that.
//!
//! And what must be boolean: a number is 42804 in WHEN and FILTER.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    common::{
        Column, DFSchema, NullEquality, ScalarValue,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    error::DataFusionError,
    logical_expr::{
        Cast, Expr, ExprSchemable, Join, JoinType, LogicalPlan, Projection, ReturnFieldArgs, ScalarUDF, Signature,
        Union, Volatility, cast,
        expr::{Case, ScalarFunction},
        lit,
    },
    sql::sqlparser::ast::{
        CastKind, DataType as SqlType, ExactNumberInfo, Expr as SqlExpr, SetExpr, TimezoneInfo, UnaryOperator, Value,
        Values,
    },
};
use tidemill_storage::schema::TYPE_KEY;

use super::{casts::marker, syntax::last_part, types};
use crate::{
    SqlError,
    functions::{
        pieces::is_bytes,
        rows,
        simple::{Returns, Simple},
    },
};

/// Types that no implicit cast connects with those of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Boolean,
    Number,
    /// Also what lost its mark on its way: uuid and jsonb are text in Arrow.
    Text,
    Uuid,
    Jsonb,
    Bytes,
    Moment,
    Time,
    Interval,
    List,
}

fn kind(field: &Field) -> Option<Kind> {
    Some(match field.data_type() {
        DataType::Boolean => Kind::Boolean,
        data_type if data_type.is_numeric() => Kind::Number,
        data_type if types::is_text(data_type) => match marker(field) {
            Some("uuid") => Kind::Uuid,
            Some("jsonb" | "json") => Kind::Jsonb,
            _ => Kind::Text,
        },
        data_type if is_bytes(data_type) => Kind::Bytes,
        DataType::Date32 | DataType::Timestamp(..) => Kind::Moment,
        DataType::Time64(_) => Kind::Time,
        DataType::Interval(_) => Kind::Interval,
        DataType::List(_) => Kind::List,
        _ => return None,
    })
}

fn fit(a: Kind, b: Kind) -> bool {
    a == b || matches!((a, b), (Kind::Text, Kind::Uuid | Kind::Jsonb) | (Kind::Uuid | Kind::Jsonb, Kind::Text))
}

fn mismatch(what: &str, a: &Field, b: &Field) -> SqlError {
    let (a, b) = (types::name(a), types::name(b));
    SqlError::new("42804", format!("{what} types {a} and {b} cannot be matched"))
}

/// The type that literals without one take, if there is one that is not text; 42804 when `fields` do not fit together.
fn common<'a>(what: &str, fields: impl Iterator<Item = &'a Field>) -> Result<Option<&'a Field>, SqlError> {
    let mut chosen: Option<(&Field, Kind)> = None;
    for field in fields {
        let Some(kind) = kind(field) else { continue };
        chosen = match chosen {
            None => Some((field, kind)),
            Some((first, known)) if !fit(known, kind) => return Err(mismatch(what, first, field)),
            Some((first, known)) if wider(first, field) || known == Kind::Text => Some((field, kind)),
            same => same,
        };
    }
    Ok(chosen.filter(|(_, kind)| *kind != Kind::Text).map(|(field, _)| field))
}

/// Whether `b` holds what `a` does and more.
fn wider(a: &Field, b: &Field) -> bool {
    let rank = |field: &Field| match field.data_type() {
        DataType::Int16 | DataType::Date32 => 1,
        DataType::Int32 | DataType::Timestamp(_, None) => 2,
        DataType::Int64 | DataType::Timestamp(_, Some(_)) => 3,
        DataType::Decimal128(..) => 4,
        DataType::Float32 => 5,
        DataType::Float64 => 6,
        _ => 0,
    };
    rank(b) > rank(a)
}

/// A quoted literal, NULL, a parameter: what has no type of its own.
fn is_unknown(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => value.is_null() || types::is_text(&value.data_type()),
        Expr::Placeholder(_) => true,
        Expr::Alias(alias) => is_unknown(&alias.expr),
        _ => false,
    }
}

fn is_quoted(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if !value.is_null() && types::is_text(&value.data_type()))
}

/// A quoted literal in the type of `target`.
fn typed(expr: Expr, target: &Field) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            *alias.expr = typed(*alias.expr, target);
            Expr::Alias(alias)
        }
        expr if is_quoted(&expr) => {
            let metadata = match target.data_type() {
                DataType::Decimal128(..) => [(TYPE_KEY.to_owned(), "numeric".to_owned())].into(),
                _ => target.metadata().clone(),
            };
            let field = Field::new("", target.data_type().clone(), true).with_metadata(metadata);
            Expr::Cast(Cast { expr: Box::new(expr), field: Arc::new(field) })
        }
        other => other,
    }
}

/// A numeric among floats is a float; DataFusion would make numerics of the floats.
fn as_float(expr: Expr, target: &Field, schema: &DFSchema) -> Expr {
    let is_numeric = || expr.get_type(schema).is_ok_and(|data_type| types::is_decimal(&data_type));
    match types::is_float(target.data_type()) && is_numeric() {
        true => cast(expr, target.data_type().clone()),
        false => expr,
    }
}

/// `expr` known as what the values in it are: CASE and its like forget it.
fn known_as(expr: Expr, target: &Field) -> Expr {
    match marker(target) {
        Some(kind @ ("uuid" | "jsonb")) => Expr::ScalarFunction(ScalarFunction::new_udf(
            datafusion::functions::core::with_metadata(),
            vec![expr, lit(TYPE_KEY), lit(kind)],
        )),
        _ => expr,
    }
}

/// Settles CASE, COALESCE and their like, and refuses what must be boolean and is not.
pub(super) fn settle(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>, DataFusionError> {
    let field = |expr: &Expr| if is_unknown(expr) { None } else { expr.to_field(schema).ok().map(|(_, field)| field) };
    Ok(match expr {
        Expr::Case(Case { expr: value, when_then_expr, else_expr }) => {
            if value.is_none() {
                when_then_expr.iter().try_for_each(|(when, _)| boolean("CASE/WHEN", when, schema))?;
            }
            let results = else_expr.iter().chain(when_then_expr.iter().map(|(_, then)| then));
            let fields: Vec<FieldRef> = results.filter_map(|expr| field(expr)).collect();
            let Some(target) = common("CASE", fields.iter().map(AsRef::as_ref))? else {
                return Ok(Transformed::no(Expr::Case(Case { expr: value, when_then_expr, else_expr })));
            };
            let made = |expr: Box<Expr>| Box::new(as_float(typed(*expr, target), target, schema));
            let branches = when_then_expr.into_iter().map(|(when, then)| (when, made(then)));
            let otherwise = else_expr.map(made);
            Transformed::yes(known_as(Expr::Case(Case::new(value, branches.collect(), otherwise)), target))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let Some((what, function)) = variadic(func.name()) else {
                return Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args })));
            };
            let fields: Vec<FieldRef> = args.iter().filter_map(field).collect();
            let target = common(what, fields.iter().map(AsRef::as_ref))?;
            let args = match target {
                Some(target) => args.into_iter().map(|arg| as_float(typed(arg, target), target, schema)).collect(),
                None => args,
            };
            let call = Expr::ScalarFunction(ScalarFunction { func: function, args });
            Transformed::yes(match target {
                Some(target) => known_as(call, target),
                None => call,
            })
        }
        Expr::AggregateFunction(call) => {
            if let Some(filter) = &call.params.filter {
                boolean("FILTER", filter, schema)?;
            }
            Transformed::no(Expr::AggregateFunction(call))
        }
        other => Transformed::no(other),
    })
}

/// How PostgreSQL calls it, and DataFusion's own function.
fn variadic(name: &str) -> Option<(&'static str, Arc<ScalarUDF>)> {
    use datafusion::functions::core;
    Some(match name {
        "coalesce" => ("COALESCE", core::coalesce()),
        "greatest" => ("GREATEST", core::greatest()),
        "least" => ("LEAST", core::least()),
        _ => return None,
    })
}

/// Whether the arguments of the function are of one type.
pub(super) fn is_of_one_type(name: &str) -> bool {
    variadic(name).is_some() || matches!(name, "nullif" | rows::SERIES)
}

/// `coalesce`, `greatest` and `least` of what DataFusion's would not take, until they become DataFusion's.
pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let loose = |name| {
        Simple::udf(name, Signature::variadic_any(Volatility::Immutable), Returns::Field(loosely), |call| {
            Err(DataFusionError::Internal(format!("{} of loose types", call.returns.name())))
        })
    };
    ["coalesce", "greatest", "least"].map(loose).into()
}

fn loosely(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    let is_unknown = |value: Option<&ScalarValue>| value.is_some_and(|v| v.is_null() || types::is_text(&v.data_type()));
    let known = args.arg_fields.iter().zip(args.scalar_arguments).filter(|(_, value)| !is_unknown(**value));
    let known: Vec<&Field> = known.map(|(field, _)| field.as_ref()).collect();
    let chosen = common("COALESCE", known.iter().copied())?.or_else(|| known.first().copied());
    Ok(match chosen {
        Some(field) => Arc::new(field.clone().with_name("value").with_nullable(true)),
        None => Arc::new(Field::new("value", DataType::Utf8View, true)),
    })
}

/// The items of an array that is written out, in one type.
pub(super) fn items(items: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Expr>, DataFusionError> {
    let known = items.iter().filter(|item| !is_unknown(item));
    let fields = known.filter_map(|item| item.to_field(schema).ok().map(|(_, field)| field)).collect::<Vec<FieldRef>>();
    Ok(match common("ARRAY", fields.iter().map(AsRef::as_ref))? {
        Some(target) => items.into_iter().map(|item| typed(item, target)).collect(),
        None => items,
    })
}

/// 42804 for a condition that is no boolean, nor a literal that may read as one.
fn boolean(what: &str, condition: &Expr, schema: &DFSchema) -> Result<(), DataFusionError> {
    if is_unknown(condition) {
        return Ok(());
    }
    match condition.to_field(schema) {
        Ok((_, field)) if kind(&field).is_some_and(|kind| kind != Kind::Boolean) => {
            let name = types::name(&field);
            Err(SqlError::new("42804", format!("argument of {what} must be type boolean, not type {name}")).into())
        }
        _ => Ok(()),
    }
}

// ---- UNION ---------------------------------------------------------------------------------------------------------------

/// Gives literals in the selects of a UNION the types of the others' columns.
pub(super) fn unions(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let changed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Union(union) => of_union(union),
        LogicalPlan::Join(join) => {
            check_pairs(&join)?;
            Ok(Transformed::no(LogicalPlan::Join(join)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    if !changed.transformed {
        return Ok(changed.data);
    }
    Ok(changed.data.transform_up_with_subqueries(|node| node.recompute_schema().map(Transformed::yes))?.data)
}

/// `input` with one of its columns cast.
fn with_cast(input: &Arc<LogicalPlan>, column: usize, to: &DataType) -> Result<LogicalPlan, DataFusionError> {
    let items = input.schema().iter().enumerate().map(|(index, (qualifier, field))| {
        let item = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match index == column {
            true => cast(item, to.clone()).alias_qualified(qualifier.cloned(), field.name()),
            false => item,
        }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(items.collect(), Arc::clone(input))?))
}

fn of_union(union: Union) -> Result<Transformed<LogicalPlan>, DataFusionError> {
    let mut inputs = union.inputs.clone();
    let mut changed = false;
    for column in 0..union.schema.fields().len() {
        let fields: Vec<FieldRef> = inputs
            .iter()
            .filter(|input| !item(input, column).is_some_and(is_unknown))
            .filter_map(|input| input.schema().fields().get(column).cloned())
            .collect();
        let Some(target) = common("UNION", fields.iter().map(AsRef::as_ref))? else { continue };
        for input in &mut inputs {
            // DataFusion's common type of dates and timestamps has nanoseconds, and with them no room for most years.
            if matches!(target.data_type(), DataType::Timestamp(..))
                && input.schema().field(column).data_type() == &DataType::Date32
            {
                *input = Arc::new(with_cast(input, column, target.data_type())?);
                changed = true;
                continue;
            }
            let asks = matches!(item(input, column), Some(Expr::Alias(alias)) if is_quoted(&alias.expr))
                || item(input, column).is_some_and(is_quoted);
            if let (true, LogicalPlan::Projection(projection)) = (asks, input.as_ref()) {
                let mut items = projection.expr.clone();
                let (qualifier, name) = items[column].qualified_name();
                let value = typed(items[column].clone(), target);
                items[column] = match value {
                    named @ Expr::Alias(_) => named,
                    value => value.alias_qualified(qualifier, name),
                };
                let projection = Projection::try_new(items, Arc::clone(&projection.input))?;
                *input = Arc::new(LogicalPlan::Projection(projection));
                changed = true;
            }
        }
    }
    match changed {
        true => Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))),
        false => Ok(Transformed::new(LogicalPlan::Union(union), false, TreeNodeRecursion::Continue)),
    }
}

/// The columns of INTERSECT and EXCEPT, which are joins by now.
fn check_pairs(join: &Join) -> Result<(), DataFusionError> {
    let what = match (join.join_type, join.null_equality) {
        (JoinType::LeftSemi, NullEquality::NullEqualsNull) => "INTERSECT",
        (JoinType::LeftAnti, NullEquality::NullEqualsNull) => "EXCEPT",
        _ => return Ok(()),
    };
    for (column, (left, right)) in join.on.iter().enumerate() {
        let written = [&join.left, &join.right].iter().any(|side| item(side, column).is_some_and(is_unknown));
        let (left, right) = (left.to_field(join.left.schema())?.1, right.to_field(join.right.schema())?.1);
        if !written {
            common(what, [left.as_ref(), right.as_ref()].into_iter())?;
        }
    }
    Ok(())
}

fn item(input: &LogicalPlan, column: usize) -> Option<&Expr> {
    match input {
        LogicalPlan::Projection(projection) => projection.expr.get(column),
        _ => None,
    }
}

// ---- VALUES --------------------------------------------------------------------------------------------------------------

/// Gives the cells of VALUES without a type that of the others in their column.
pub(super) fn rows(body: &mut SetExpr) -> Result<(), SqlError> {
    let SetExpr::Values(values) = body else { return Ok(()) };
    let columns = values.rows.first().map_or(0, |row| row.content.len());
    for column in 0..columns {
        of_column(values, column)?;
    }
    Ok(())
}

fn of_column(values: &mut Values, column: usize) -> Result<(), SqlError> {
    let cells = || values.rows.iter().filter_map(|row| row.content.get(column));
    let asks = |cell: &SqlExpr| matches!(cell, SqlExpr::Value(value) if matches!(value.value, Value::SingleQuotedString(_) | Value::Null));
    let mut told = Vec::new();
    for cell in cells() {
        if let Some(sql_type) = written_type(cell) {
            told.push((types::field(&sql_type)?, sql_type));
        }
    }
    let Some(target) = common("VALUES", told.iter().map(|(field, _)| field))? else { return Ok(()) };
    let is_marked = !target.metadata().is_empty();
    if !is_marked && !cells().any(asks) {
        return Ok(());
    }
    let (target, is_number) = (target.clone(), kind(target) == Some(Kind::Number));
    let Some(sql_type) = told.into_iter().find(|(field, _)| *field == target).map(|(_, sql_type)| sql_type) else {
        return Ok(());
    };
    for cell in values.rows.iter_mut().filter_map(|row| row.content.get_mut(column)) {
        let is_null = matches!(cell, SqlExpr::Value(value) if value.value == Value::Null);
        let same = written_type(cell).is_some_and(|written| written == sql_type);
        let wanted = if is_marked { !same } else { asks(cell) && !(is_null && is_number) };
        if wanted {
            let expr = Box::new(std::mem::replace(cell, SqlExpr::Value(Value::Null.into())));
            let data_type = sql_type.clone();
            *cell = SqlExpr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None };
        }
    }
    Ok(())
}

/// The type that an expression shows in its words.
fn written_type(expr: &SqlExpr) -> Option<SqlType> {
    match expr {
        SqlExpr::Cast { data_type, .. } => Some(data_type.clone()),
        SqlExpr::TypedString(typed) => Some(typed.data_type.clone()),
        SqlExpr::Interval(_) => Some(SqlType::Interval { fields: None, precision: None }),
        SqlExpr::Nested(inner) | SqlExpr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } => {
            written_type(inner)
        }
        SqlExpr::Value(value) => match &value.value {
            Value::Boolean(_) => Some(SqlType::Boolean),
            Value::Number(digits, _) => Some(match digits.parse::<i64>() {
                Ok(number) if i32::try_from(number).is_ok() => SqlType::Integer(None),
                Ok(_) => SqlType::BigInt(None),
                // Those of one scale go together as they are.
                Err(_) => SqlType::Numeric(ExactNumberInfo::PrecisionAndScale(38, scale(digits)?)),
            }),
            _ => None,
        },
        SqlExpr::Function(call) => Some(match last_part(&call.name).as_str() {
            "now" | "current_timestamp" | "transaction_timestamp" | "statement_timestamp" | "clock_timestamp" => {
                SqlType::Timestamp(None, TimezoneInfo::WithTimeZone)
            }
            "current_date" => SqlType::Date,
            "gen_random_uuid" => SqlType::Uuid,
            "to_jsonb" | "jsonb_build_object" | "jsonb_build_array" => SqlType::JSONB,
            _ => return None,
        }),
        _ => None,
    }
}

/// Digits behind the point; none are told of a number with an exponent.
fn scale(digits: &str) -> Option<i64> {
    let (_, fraction) = digits.split_once('.')?;
    (!digits.contains(['e', 'E'])).then(|| i64::try_from(fraction.len()).unwrap_or(0).min(37))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_do_not_fit_are_told_by_name() {
        let (number, text) = (Field::new("", DataType::Int32, true), Field::new("", DataType::Utf8View, true));
        let error = common("CASE", [&text, &number].into_iter()).unwrap_err();
        assert_eq!(
            (error.sqlstate, error.message.as_str()),
            ("42804", "CASE types text and integer cannot be matched")
        );
        let wide = Field::new("", DataType::Int64, true);
        assert_eq!(common("CASE", [&number, &wide, &number].into_iter()).unwrap(), Some(&wide));
        assert_eq!(common("CASE", [&text].into_iter()).unwrap(), None);
        assert!(is_unknown(&Expr::Literal(ScalarValue::Utf8(None), None)));
    }
}
