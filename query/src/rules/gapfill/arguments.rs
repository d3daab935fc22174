//! All arguments of the functions in their order, on the syntax tree; those that are not given are NULL.
//!
//! | written | planned as |
//! |---|---|
//! | `time_bucket_gapfill(w, ts, start, finish)` | `time_bucket_gapfill(w, ts, NULL, start, finish)` |
//! | `time_bucket_gapfill(w, ts, 'Europe/Oslo')` | `time_bucket_gapfill(w, ts, 'Europe/Oslo', NULL, NULL)` |
//! | `locf(x, treat_null_as_missing => true)` | `locf(x, NULL, true)` |

use datafusion::sql::sqlparser::ast::{
    CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};

use crate::{
    SqlError,
    functions::{
        datetime::gapfill::{BUCKET, INTERPOLATE, LOCF},
        zone::Zone,
    },
    rules::syntax::{folded, function, last_part},
};

const BUCKET_NAMES: &[&str] = &["bucket_width", "ts", "timezone", "start", "finish"];
const LOCF_NAMES: &[&str] = &["value", "prev", "treat_null_as_missing"];
const INTERPOLATE_NAMES: &[&str] = &["value", "prev", "next"];

/// The call with all its arguments, if it is one of ours.
pub(crate) fn settled(call: &Function) -> Result<Option<Expr>, SqlError> {
    let (name, names, required) = match last_part(&call.name).as_str() {
        BUCKET => (BUCKET, BUCKET_NAMES, 2),
        LOCF => (LOCF, LOCF_NAMES, 1),
        INTERPOLATE => (INTERPOLATE, INTERPOLATE_NAMES, 1),
        _ => return Ok(None),
    };
    if call.over.is_some() || call.filter.is_some() {
        let word = if call.over.is_some() { "OVER" } else { "FILTER" };
        let message = format!("{word} specified, but {name} is not a window function nor an aggregate function");
        return Err(SqlError::new("42809", message));
    }
    let unknown = || {
        SqlError::new("42883", format!("function {name} with these arguments does not exist"))
            .with_hint(format!("Its arguments are {}.", names.join(", ")))
    };
    let FunctionArguments::List(list) = &call.args else { return Err(unknown()) };
    let (mut positional, mut named) = (Vec::new(), Vec::new());
    for arg in &list.args {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if named.is_empty() => positional.push(expr.clone()),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => named.push((folded(name), expr)),
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(expr), .. } => {
                named.push((folded(name), expr));
            }
            _ => return Err(unknown()),
        }
    }
    // The zone may be left out.
    let has_zone = name != BUCKET || positional.len() == names.len() || positional.get(2).is_some_and(is_zone);
    if !has_zone && positional.len() > 2 {
        positional.insert(2, null());
    }
    if positional.len() > names.len() {
        return Err(unknown());
    }
    let mut arguments: Vec<Option<Expr>> = positional.into_iter().map(Some).collect();
    let given = arguments.len();
    arguments.resize(names.len(), None);
    for (word, expr) in named {
        let place = names.iter().position(|known| *known == word).ok_or_else(unknown)?;
        let is_filler = name == BUCKET && !has_zone && place == 2;
        if arguments[place].is_some() && !(is_filler && given > 2) {
            return Err(SqlError::syntax(format!("argument \"{word}\" of {name} is given twice")));
        }
        arguments[place] = Some(expr.clone());
    }
    if arguments.iter().take(required).any(Option::is_none) {
        return Err(unknown());
    }
    if name == INTERPOLATE {
        if arguments.iter().skip(1).flatten().any(|expr| !is_null(expr)) {
            return Err(SqlError::not_supported("a value before or after the buckets, for interpolate,"));
        }
        arguments.truncate(1);
    }
    Ok(Some(function(name, arguments.into_iter().map(|given| given.unwrap_or_else(null)).collect())))
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

/// Whether it is the name of a zone: no moment reads as one.
fn is_zone(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Zone::parse(text).is_ok(),
            _ => false,
        },
        Expr::Cast { expr, kind: CastKind::Cast | CastKind::DoubleColon, .. } => is_zone(expr),
        _ => false,
    }
}
