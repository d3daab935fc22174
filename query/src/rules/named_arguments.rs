//! Arguments by name in their places, on the syntax tree. What is left out between them has its default.
//!
//! | written | planned as |
//! |---|---|
//! | `make_interval(days => 3)` | `make_interval(0, 0, 0, 3)` |
//! | `jsonb_path_exists(doc, '$.a', silent => true)` | `jsonb_path_exists(doc, '$.a', '{}', true)` |
//! | `time_bucket('1 day', ts, "offset" => '6 hours')` | `time_bucket('1 day', ts, CAST('6 hours' AS interval))` |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, FunctionArgOperator,
    FunctionArguments, ObjectName, Statement, TableFactor, Value, VisitMut, VisitorMut,
};

use super::syntax::{folded, last_part};
use crate::{
    SqlError,
    functions::datetime::{
        bucket::TIME_BUCKET,
        gapfill::{BUCKET, INTERPOLATE, LOCF},
    },
};

/// What is meant where an argument is not given.
#[derive(Clone, Copy)]
enum Default {
    Zero,
    Truth(bool),
    Text(&'static str),
}

type Names = &'static [&'static str];

/// The names of the arguments, and the defaults of the last ones. Where arguments may end early without having defaults, the names alone are longer.
fn arguments_of(function: &str) -> Option<(Names, &'static [Default])> {
    const PATH: Names = &["target", "path", "vars", "silent"];
    const JSON: Names = &["from_json"];
    const REGEX: Names = &["string", "pattern", "flags"];
    Some(match function {
        "jsonb_path_exists"
        | "jsonb_path_match"
        | "jsonb_path_query"
        | "jsonb_path_query_array"
        | "jsonb_path_query_first" => (PATH, &[Default::Text("{}"), Default::Truth(false)]),
        "jsonb_set" => (&["jsonb_in", "path", "replacement", "create_if_missing"], &[Default::Truth(true)]),
        "jsonb_insert" => (&["jsonb_in", "path", "replacement", "insert_after"], &[Default::Truth(false)]),
        "json_strip_nulls" | "jsonb_strip_nulls" => (&["target"], &[]),
        "json_array_elements"
        | "json_array_elements_text"
        | "json_each"
        | "json_each_text"
        | "jsonb_array_elements"
        | "jsonb_array_elements_text"
        | "jsonb_each"
        | "jsonb_each_text" => (JSON, &[]),
        "json_populate_record" | "json_populate_recordset" => (&["base", "from_json"], &[]),
        "make_date" => (&["year", "month", "day"], &[]),
        "make_time" => (&["hour", "min", "sec"], &[]),
        "make_timestamp" => (&["year", "month", "mday", "hour", "min", "sec"], &[]),
        "make_timestamptz" => (&["year", "month", "mday", "hour", "min", "sec", "timezone"], &[]),
        "make_interval" => (&["years", "months", "weeks", "days", "hours", "mins", "secs"], &[Default::Zero; 7]),
        "parse_ident" => (&["str", "strict"], &[Default::Truth(true)]),
        "regexp_count" => (&["string", "pattern", "start", "flags"], &[]),
        "regexp_instr" => (&["string", "pattern", "start", "N", "endoption", "flags", "subexpr"], &[]),
        "regexp_like" | "regexp_match" | "regexp_matches" | "regexp_split_to_array" | "regexp_split_to_table" => {
            (REGEX, &[])
        }
        "regexp_replace" => (&["string", "pattern", "replacement", "flags"], &[]),
        "regexp_substr" => (&["string", "pattern", "start", "N", "flags", "subexpr"], &[]),
        TIME_BUCKET => (&["bucket_width", "ts", "timezone", "origin", "offset"], &[]),
        "geo_cell" => (&["lat", "lng", "res"], &[]),
        "geo_distance" => (&["lat1", "lng1", "lat2", "lng2"], &[]),
        "geo_within" => (&["lat", "lng", "polygon"], &[]),
        _ => return None,
    })
}

/// Rewrites `statement` in place.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<(), SqlError> {
    match VisitMut::visit(statement, &mut Rewriter) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = SqlError;

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        let settled = match factor {
            TableFactor::Table { name, args: Some(arguments), .. } => settle(name, &mut arguments.args),
            TableFactor::Function { name, args, .. } => settle(name, args),
            _ => Ok(()),
        };
        settled.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let settled = match expr {
            Expr::Function(call) => match &mut call.args {
                FunctionArguments::List(list) => settle(&call.name, &mut list.args),
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        settled.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

/// The name and the value of an argument that has one.
fn named(arg: &FunctionArg) -> Option<(String, &FunctionArgExpr)> {
    let is_name = |operator: &FunctionArgOperator| {
        matches!(operator, FunctionArgOperator::RightArrow | FunctionArgOperator::Assignment)
    };
    match arg {
        FunctionArg::Named { name, arg, operator } if is_name(operator) => Some((folded(name), arg)),
        FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, operator } if is_name(operator) => {
            Some((folded(name), arg))
        }
        _ => None,
    }
}

/// PostgreSQL's older `name := value`, which is parsed as an expression, as `name => value`.
fn renamed(arg: &mut FunctionArg) {
    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::BinaryOp { left, op: BinaryOperator::Assignment, right })) =
        arg
        && let Expr::Identifier(name) = left.as_ref()
    {
        *arg = FunctionArg::Named {
            name: name.clone(),
            arg: FunctionArgExpr::Expr(right.as_ref().clone()),
            operator: FunctionArgOperator::Assignment,
        };
    }
}

/// Puts all arguments in their places.
fn settle(function: &ObjectName, args: &mut Vec<FunctionArg>) -> Result<(), SqlError> {
    args.iter_mut().for_each(renamed);
    let Some(first) = args.iter().position(|arg| named(arg).is_some()) else { return Ok(()) };
    let name = last_part(function);
    // These have rules of their own.
    if [BUCKET, LOCF, INTERPOLATE].contains(&name.as_str()) {
        return Ok(());
    }
    if args[first..].iter().any(|arg| named(arg).is_none()) {
        return Err(SqlError::syntax("positional argument cannot follow named argument"));
    }
    let missing = |hint: String| {
        SqlError::new("42883", format!("function {name} with these arguments does not exist")).with_hint(hint)
    };
    let Some((names, defaults)) = arguments_of(&name) else {
        return Err(missing(format!("No argument of {name} is known by a name: give them in their order.")));
    };
    let unknown = || missing(format!("Its arguments are {}.", names.join(", ")));
    let mut places: Vec<Option<FunctionArgExpr>> = Vec::new();
    for arg in &args[..first] {
        match arg {
            FunctionArg::Unnamed(value) => places.push(Some(value.clone())),
            _ => return Err(unknown()),
        }
    }
    if places.len() > names.len() {
        return Err(unknown());
    }
    places.resize(names.len(), None);
    let mut seen: Vec<String> = Vec::new();
    for (word, value) in args.iter().filter_map(named) {
        if seen.contains(&word) {
            return Err(SqlError::syntax(format!("argument name \"{word}\" used more than once")));
        }
        let place = names.iter().position(|known| *known == word).ok_or_else(unknown)?;
        if places[place].is_some() {
            return Err(unknown());
        }
        places[place] = Some(value.clone());
        seen.push(word);
    }
    if name == TIME_BUCKET {
        places = bucket(places)?;
    }
    let given = places.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    let required = names.len() - defaults.len();
    let settled: Option<Vec<FunctionArgExpr>> = places
        .into_iter()
        .take(given)
        .enumerate()
        .map(|(place, value)| value.or_else(|| Some(default(*defaults.get(place.checked_sub(required)?)?))))
        .collect();
    let settled = settled.ok_or_else(unknown)?;
    *args = settled.into_iter().map(FunctionArg::Unnamed).collect();
    Ok(())
}

fn default(default: Default) -> FunctionArgExpr {
    let value = match default {
        Default::Zero => Value::Number("0".to_owned(), false),
        Default::Truth(truth) => Value::Boolean(truth),
        Default::Text(text) => Value::SingleQuotedString(text.to_owned()),
    };
    FunctionArgExpr::Expr(Expr::Value(value.into()))
}

/// `time_bucket` takes one of zone, origin and offset, as its third argument, and tells them by their types.
fn bucket(mut places: Vec<Option<FunctionArgExpr>>) -> Result<Vec<Option<FunctionArgExpr>>, SqlError> {
    let shifts: Vec<(usize, FunctionArgExpr)> =
        (2..places.len()).filter_map(|place| Some((place, places[place].clone()?))).collect();
    places.truncate(2);
    match shifts.as_slice() {
        [] => {}
        [(place, FunctionArgExpr::Expr(value))] => {
            let data_type = match place {
                2 => Some(SqlType::Text),
                4 => Some(SqlType::Interval { fields: None, precision: None }),
                _ => None,
            };
            let is_text = matches!(value, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
            let shift = match data_type {
                Some(data_type) if is_text => Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(value.clone()),
                    data_type,
                    array: false,
                    format: None,
                },
                _ => value.clone(),
            };
            places.push(Some(FunctionArgExpr::Expr(shift)));
        }
        _ => return Err(SqlError::not_supported("more than one of timezone, origin and offset in time_bucket")),
    }
    Ok(places)
}
