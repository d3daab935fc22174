//! Types of `$1`, `$2`, …: what the client said, else what the place where the parameter stands asks for, else text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{
    common::{
        DFSchema, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    error::DataFusionError,
    logical_expr::{
        Cast, Expr, ExprSchemable, LogicalPlan,
        expr::{Case, Placeholder, ScalarFunction},
        type_coercion::functions::fields_with_udf,
    },
};

use super::{common_types, types, walk};
use crate::functions::datetime::bucket::TIME_BUCKET;

/// What NUMERIC is declared as where no digits are said.
const DECLARED_NUMERIC: DataType = DataType::Decimal128(38, 10);

/// Whether a NUMERIC without digits stands where others have them: then it has these.
fn is_numeric_of(given: &DataType, place: Option<&Field>) -> bool {
    *given == DECLARED_NUMERIC && place.is_some_and(|place| place.data_type().is_decimal())
}

/// Gives every placeholder a type.
pub(crate) fn infer(plan: LogicalPlan, given: &[Option<DataType>]) -> Result<LogicalPlan, DataFusionError> {
    let typed = |field: Option<FieldRef>, id: &str| -> Option<FieldRef> {
        let number: usize = id.trim_start_matches('$').parse().ok()?;
        match given.get(number.checked_sub(1)?) {
            Some(Some(data_type)) if !is_numeric_of(data_type, field.as_deref()) => {
                Some(Arc::new(Field::new(id, data_type.clone(), true)))
            }
            _ => field.filter(|field| field.data_type() != &DataType::Null),
        }
    };
    // The first pass types what its neighbours type; a parameter that stands at two places is typed by the one that tells.
    let mut told: std::collections::BTreeMap<String, FieldRef> = std::collections::BTreeMap::new();
    let plan = walk::expressions(plan, |expr, schema, kind| {
        if kind.is_limit {
            return expr.transform_up(|expr| {
                let expr = type_placeholder(expr, &DataType::Int64).data;
                if let Expr::Placeholder(Placeholder { id, field }) = &expr
                    && let Some(field) = typed(field.clone(), id)
                {
                    told.entry(id.clone()).or_insert(field);
                }
                Ok(Transformed::yes(expr))
            });
        }
        let (expr, _) = expr.infer_placeholder_types(schema)?;
        expr.transform_up(|expr| {
            Ok(match expr {
                Expr::Cast(mut cast) => {
                    // With what tells a UUID or JSONB from a TEXT.
                    if is_open(&cast.expr)
                        && let Expr::Placeholder(placeholder) = cast.expr.as_mut()
                    {
                        let field = cast.field.as_ref().clone().with_name(&placeholder.id).with_nullable(true);
                        placeholder.field = Some(Arc::new(field));
                    }
                    Transformed::yes(Expr::Cast(cast))
                }
                Expr::ScalarFunction(mut call)
                    if call.func.name().starts_with("tidemill_a") && call.args.len() == 3 =>
                {
                    if let Ok((_, left)) = call.args[1].to_field(schema)
                        && left.data_type() != &DataType::Null
                    {
                        // With what tells a UUID or JSONB from a TEXT.
                        let item = Field::new_list_field(left.data_type().clone(), true);
                        let item = item.with_metadata(left.metadata().clone());
                        call.args[2] = type_placeholder(call.args[2].clone(), &DataType::List(Arc::new(item))).data;
                    }
                    if let Ok(DataType::List(item)) = call.args[2].get_type(schema) {
                        call.args[1] = type_placeholder(call.args[1].clone(), item.data_type()).data;
                    }
                    Transformed::yes(Expr::ScalarFunction(call))
                }
                Expr::ScalarFunction(mut call) if call.args.iter().any(is_open) => {
                    let wanted = match common_types::is_of_one_type(call.func.name()) {
                        true => vec![of_others(call.args.iter(), schema)?; call.args.len()],
                        false => told_by_name(&call).map_or_else(|| coerced(&call, schema), Ok)?,
                    };
                    for (argument, wanted) in call.args.iter_mut().zip(wanted) {
                        if let Some(wanted) = wanted {
                            *argument = type_placeholder(argument.clone(), &wanted).data;
                        }
                    }
                    Transformed::yes(Expr::ScalarFunction(call))
                }
                Expr::Case(case) => Transformed::yes(Expr::Case(of_case(case, schema)?)),
                other => Transformed::no(other),
            })
        })?
        .transform_data(|expr| {
            expr.transform_up(|expr| {
                if let Expr::Placeholder(Placeholder { id, field }) = &expr
                    && let Some(field) = typed(field.clone(), id)
                {
                    told.entry(id.clone()).or_insert(field);
                }
                Ok(Transformed::no(expr))
            })
        })
    })?;
    walk::expressions(plan, |expr, _, _| {
        expr.transform_up(|expr| {
            Ok(match expr {
                Expr::Placeholder(Placeholder { id, .. }) => {
                    let field = told
                        .get(&id)
                        .cloned()
                        .or_else(|| typed(None, &id))
                        .unwrap_or_else(|| Arc::new(Field::new(&id, DataType::Utf8View, true)));
                    Transformed::yes(Expr::Placeholder(Placeholder::new_with_field(id, Some(field))))
                }
                other => Transformed::no(other),
            })
        })
    })
}

fn is_open(expr: &Expr) -> bool {
    matches!(expr, Expr::Placeholder(Placeholder { field, .. }) if field.as_ref().is_none_or(|field| field.data_type() == &DataType::Null))
}

/// The type of those that have one: quoted literals and other parameters do not.
fn of_others<'a>(
    mut exprs: impl Iterator<Item = &'a Expr>,
    schema: &DFSchema,
) -> Result<Option<DataType>, DataFusionError> {
    let typed = exprs.find_map(|expr| match expr {
        Expr::Placeholder(_) | Expr::Literal(..)
            if is_open(expr) || matches!(expr, Expr::Literal(value, _) if is_loose(value)) =>
        {
            None
        }
        expr => Some(expr.get_type(schema)),
    });
    Ok(typed.transpose()?.filter(|data_type| *data_type != DataType::Null))
}

fn is_loose(value: &ScalarValue) -> bool {
    value.is_null() || types::is_text(&value.data_type())
}

/// Results are of one type, so are what is compared and what it is compared with; conditions are true or false.
fn of_case(mut case: Case, schema: &DFSchema) -> Result<Case, DataFusionError> {
    let typed = |expr: &mut Box<Expr>, wanted: &Option<DataType>| {
        if let (Some(wanted), true) = (wanted, is_open(expr)) {
            **expr = type_placeholder(expr.as_ref().clone(), wanted).data;
        }
    };
    let results = case.when_then_expr.iter().map(|(_, result)| result).chain(&case.else_expr);
    let result = of_others(results.map(AsRef::as_ref), schema)?;
    let compared = match &case.expr {
        Some(base) => {
            let all = std::iter::once(base).chain(case.when_then_expr.iter().map(|(condition, _)| condition));
            of_others(all.map(AsRef::as_ref), schema)?
        }
        None => Some(DataType::Boolean),
    };
    for (condition, given) in &mut case.when_then_expr {
        typed(condition, &compared);
        typed(given, &result);
    }
    case.expr.iter_mut().for_each(|base| typed(base, &compared));
    case.else_expr.iter_mut().for_each(|given| typed(given, &result));
    Ok(case)
}

/// The types of the arguments of functions that take any.
fn told_by_name(call: &ScalarFunction) -> Option<Vec<Option<DataType>>> {
    let (int, float) = (Some(DataType::Int32), Some(DataType::Float64));
    let mut told: Vec<Option<DataType>> = match call.func.name() {
        "lpad" | "rpad" | "round" | "trunc" => vec![None, int],
        "make_date" => vec![int.clone(), int.clone(), int],
        "make_interval" => std::iter::repeat_n(int, 6).chain([float]).collect(),
        "to_timestamp" if call.args.len() == 1 => vec![float],
        "chr" => vec![int],
        "width_bucket" => vec![None, None, None, int],
        "date_bin" | TIME_BUCKET => vec![Some(types::interval())],
        _ => return None,
    };
    told.resize(call.args.len(), None);
    Some(told)
}

/// The types that the function has its arguments cast to, where it tells.
fn coerced(call: &ScalarFunction, schema: &DFSchema) -> Result<Vec<Option<DataType>>, DataFusionError> {
    let mut fields = Vec::with_capacity(call.args.len());
    for argument in &call.args {
        fields.push(match is_open(argument) {
            true => Arc::new(Field::new("parameter", DataType::Null, true)),
            false => argument.to_field(schema)?.1,
        });
    }
    // One that takes no such arguments says so later, when the parameters are texts.
    let known = fields_with_udf(&fields, call.func.as_ref()).unwrap_or_default();
    let is_told = |data_type: &DataType| {
        *data_type == DataType::Boolean
            || types::is_text(data_type)
            || types::is_float(data_type)
            || matches!(data_type, DataType::Int16 | DataType::Int32 | DataType::Int64)
    };
    let told = |field: &FieldRef| Some(field.data_type().clone()).filter(is_told);
    let mut known: Vec<Option<DataType>> = known.iter().map(told).collect();
    known.resize(call.args.len(), None);
    Ok(known)
}

/// Rows to insert are planned in the types of their columns. Where the client gives a parameter another type (Python's 1 is a smallint),
/// it is cast on its way.
pub(crate) fn cast_for_storage(plan: LogicalPlan, given: &[Option<DataType>]) -> Result<LogicalPlan, DataFusionError> {
    let told = |id: &str| -> Option<&DataType> {
        let number: usize = id.trim_start_matches('$').parse().ok()?;
        given.get(number.checked_sub(1)?)?.as_ref()
    };
    plan.transform_up(|node| {
        let LogicalPlan::Values(mut values) = node else { return Ok(Transformed::no(node)) };
        for expr in values.values.iter_mut().flatten() {
            if let Expr::Placeholder(Placeholder { id, field: Some(column) }) = expr
                && let Some(given) = told(id)
                && given != column.data_type()
                && !is_numeric_of(given, Some(column))
            {
                let parameter = Arc::new(Field::new(id.as_str(), given.clone(), true));
                let parameter = Expr::Placeholder(Placeholder::new_with_field(id.clone(), Some(parameter)));
                *expr = Expr::Cast(Cast::new_from_field(Box::new(parameter), Arc::clone(column)));
            }
        }
        Ok(Transformed::yes(LogicalPlan::Values(values)))
    })
    .map(|transformed| transformed.data)
}

/// Types `expr` if it is a placeholder without a type.
fn type_placeholder(expr: Expr, data_type: &DataType) -> Transformed<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field })
            if field.as_ref().is_none_or(|field| field.data_type() == &DataType::Null) =>
        {
            let field = Arc::new(Field::new(&id, data_type.clone(), true));
            Transformed::yes(Expr::Placeholder(Placeholder::new_with_field(id, Some(field))))
        }
        other => Transformed::no(other),
    }
}
