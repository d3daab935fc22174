//! Full-text search: `to_tsvector`, `to_tsquery` and its kin, `@@`.
//!
//! `tsvector` and `tsquery` are texts, as PostgreSQL prints them, told apart by field metadata. There is one configuration, `simple`. What is asked of
//! a text itself ([`TEXT_MATCHES`]) needs no vector, and of a column it is a predicate that segments evaluate.

mod parse;
mod vector;

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int32Array, StringViewArray},
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    common::DFSchema,
    error::DataFusionError,
    logical_expr::{
        Cast, Expr, ExprSchemable, ReturnFieldArgs, ScalarUDF, Volatility::Immutable, expr::ScalarFunction,
    },
    scalar::ScalarValue,
};
use tidemill_storage::search::TextQuery;

use self::parse::Form;
pub(crate) use self::vector::canonical as canonical_vector;
use super::{
    jsonb::json_field,
    simple::{Call, Returns, Simple, any, any_of},
};
use crate::{
    SqlError,
    rules::{casts::marker, types},
};

/// Whether the words of a text answer a question.
pub(crate) const TEXT_MATCHES: &str = "tidemill_text_matches";
/// Whether a vector answers a question.
const VECTOR_MATCHES: &str = "ts_match_vq";
/// The one configuration, also under its full name.
const CONFIGURATIONS: [&str; 2] = ["simple", "pg_catalog.simple"];

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let query =
        || Returns::Field(|_: &ReturnFieldArgs<'_>| -> Result<FieldRef, DataFusionError> { Ok(json_field("tsquery")) });
    let vector = || {
        Returns::Field(|_: &ReturnFieldArgs<'_>| -> Result<FieldRef, DataFusionError> { Ok(json_field("tsvector")) })
    };
    let texts = || any_of(&[1, 2], Immutable);
    vec![
        Simple::udf(TEXT_MATCHES, any(2, Immutable), Returns::Type(DataType::Boolean), text_matches),
        matches_vector(),
        plain_query(),
        Simple::udf("to_tsquery", texts(), query(), |call| queries(call, Form::Operators)),
        Simple::udf("phraseto_tsquery", texts(), query(), |call| queries(call, Form::Phrase)),
        Simple::udf("websearch_to_tsquery", texts(), query(), |call| queries(call, Form::Web)),
        Simple::udf("to_tsvector", texts(), vector(), |call| each(call, |text| Ok(vector::of_text(text)))),
        Simple::udf("strip", any(1, Immutable), vector(), |call| each(call, vector::stripped)),
        Simple::udf("tsvector_length", any(1, Immutable), Returns::Type(DataType::Int32), |call| {
            let lengths = call.text(0)?.iter().map(|text| text.map(length).transpose()).collect::<Result<_, _>>();
            let lengths: Int32Array = lengths?;
            Ok(Arc::new(lengths))
        }),
    ]
}

fn matches_text() -> Arc<ScalarUDF> {
    udfs().swap_remove(0)
}

fn matches_vector() -> Arc<ScalarUDF> {
    Simple::udf(VECTOR_MATCHES, any(2, Immutable), Returns::Type(DataType::Boolean), |call| {
        asked(call, vector::answers)
    })
}

fn plain_query() -> Arc<ScalarUDF> {
    let query =
        Returns::Field(|_: &ReturnFieldArgs<'_>| -> Result<FieldRef, DataFusionError> { Ok(json_field("tsquery")) });
    Simple::udf("plainto_tsquery", any_of(&[1, 2], Immutable), query, |call| queries(call, Form::All))
}

fn length(text: &str) -> Result<i32, SqlError> {
    i32::try_from(vector::length(text)?).map_err(|_| SqlError::out_of_range("integer"))
}

/// A text as the tsquery that it is.
pub(crate) fn canonical_query(text: &str) -> Result<String, SqlError> {
    Ok(parse::query(text, Form::Written)?.to_string())
}

/// The question that a constant is, or one of the functions that make it of a constant.
pub(crate) fn constant_query(expr: &Expr) -> Option<TextQuery> {
    let text = |expr: &Expr| match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text.clone()),
        _ => None,
    };
    match expr {
        Expr::Alias(alias) => constant_query(&alias.expr),
        Expr::ScalarFunction(call) => match (Form::of_function(call.func.name()), call.args.as_slice()) {
            (Some(form), [written]) => parse::query(&text(written)?, form).ok(),
            (Some(form), [configuration, written]) if is_simple(configuration) => {
                parse::query(&text(written)?, form).ok()
            }
            _ => None,
        },
        other => parse::query(&text(other)?, Form::Written).ok(),
    }
}

fn is_simple(configuration: &Expr) -> bool {
    match configuration {
        Expr::Literal(value, _) => {
            value.try_as_str().flatten().is_some_and(|name| CONFIGURATIONS.contains(&name.to_lowercase().as_str()))
        }
        Expr::Cast(cast) => is_simple(&cast.expr),
        _ => false,
    }
}

/// `left @@ right`; `None` where there is no such operator.
///
/// | left | right | is |
/// |---|---|---|
/// | text | text | its words answer `plainto_tsquery(right)` |
/// | text, `to_tsvector(text)` | tsquery | its words answer that |
/// | tsvector | tsquery | |
/// | tsvector | a quoted literal, a parameter | the same of a tsquery |
/// | tsquery | tsvector, or such a literal | the other way round |
pub(crate) fn matches(left: &Expr, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Text,
        /// Text, or whatever fits.
        Open,
        Vector,
        Query,
    }
    let kind = |expr: &Expr| -> Option<Kind> {
        let (_, field) = expr.to_field(schema).ok()?;
        let is_open = matches!(expr, Expr::Literal(..) | Expr::Placeholder(_));
        match marker(&field) {
            Some("tsquery") => Some(Kind::Query),
            Some("tsvector") => Some(Kind::Vector),
            None if types::is_text(field.data_type()) || *field.data_type() == DataType::Null => {
                Some(if is_open { Kind::Open } else { Kind::Text })
            }
            _ => None,
        }
    };
    let call =
        |function: Arc<ScalarUDF>, args: Vec<Expr>| Expr::ScalarFunction(ScalarFunction::new_udf(function, args));
    let as_kind = |expr: &Expr, name| Expr::Cast(Cast::new_from_field(Box::new(expr.clone()), json_field(name)));
    let of_vector = |vector: &Expr, query: Expr| match words_of(vector) {
        Some(text) => call(matches_text(), vec![text.clone(), query]),
        None => call(matches_vector(), vec![vector.clone(), query]),
    };
    let of_text = |text: &Expr, query: Expr| call(matches_text(), vec![text.clone(), query]);
    Some(match (kind(left)?, kind(right)?) {
        (Kind::Vector, Kind::Query) => of_vector(left, right.clone()),
        (Kind::Query, Kind::Vector) => of_vector(right, left.clone()),
        (Kind::Vector, Kind::Open) => of_vector(left, as_kind(right, "tsquery")),
        (Kind::Open, Kind::Vector) => of_vector(right, as_kind(left, "tsquery")),
        (Kind::Text | Kind::Open, Kind::Query) => of_text(left, right.clone()),
        (Kind::Query, Kind::Open) => of_vector(&as_kind(right, "tsvector"), left.clone()),
        (Kind::Text | Kind::Open, Kind::Text | Kind::Open) => of_text(left, call(plain_query(), vec![right.clone()])),
        _ => return None,
    })
}

/// The text whose vector this is.
fn words_of(vector: &Expr) -> Option<&Expr> {
    let Expr::ScalarFunction(call) = vector else { return None };
    match call.args.as_slice() {
        _ if call.func.name() != "to_tsvector" => None,
        [text] => Some(text),
        [configuration, text] if is_simple(configuration) => Some(text),
        _ => None,
    }
}

/// Refuses configurations that there are not.
fn check_configuration(call: &Call<'_>) -> Result<(), DataFusionError> {
    if call.arrays.len() < 2 {
        return Ok(());
    }
    for name in call.text(0)?.iter().flatten() {
        if !CONFIGURATIONS.contains(&name.to_lowercase().as_str()) {
            return Err(SqlError::new("42704", format!("text search configuration \"{name}\" does not exist"))
                .with_hint("The only one is \"simple\": words in lower case, none left out, none cut to its stem.")
                .into());
        }
    }
    Ok(())
}

/// The last argument, as something made of each text. With a configuration that is NULL, so is what is made.
fn each(call: &Call<'_>, make: impl Fn(&str) -> Result<String, SqlError>) -> Result<ArrayRef, DataFusionError> {
    check_configuration(call)?;
    let texts = call.text(call.arrays.len() - 1)?;
    let is_configured = |row: usize| call.arrays.len() < 2 || call.arrays[0].is_valid(row);
    let made = texts.iter().enumerate().map(|(row, text)| text.filter(|_| is_configured(row)).map(&make).transpose());
    Ok(Arc::new(made.collect::<Result<StringViewArray, SqlError>>()?))
}

fn queries(call: &Call<'_>, form: Form) -> Result<ArrayRef, DataFusionError> {
    each(call, |text| Ok(parse::query(text, form)?.to_string()))
}

fn text_matches(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut room = Vec::new();
    asked(call, |text, query| Ok(query.finds(text, &mut room)))
}

/// Whether each of the first arguments answers the second.
fn asked(
    call: &Call<'_>,
    mut answers: impl FnMut(&str, &TextQuery) -> Result<bool, SqlError>,
) -> Result<ArrayRef, DataFusionError> {
    let (texts, written) = (call.text(0)?, call.text(1)?);
    let mut last: Option<(&str, TextQuery)> = None;
    let mut out = Vec::with_capacity(call.rows);
    for (text, written) in texts.iter().zip(written.iter()) {
        let (Some(text), Some(written)) = (text, written) else {
            out.push(None);
            continue;
        };
        let query = match &mut last {
            Some((known, query)) if *known == written => &*query,
            last => &last.insert((written, parse::query(written, Form::Written)?)).1,
        };
        out.push(Some(answers(text, query)?));
    }
    Ok(Arc::new(BooleanArray::from(out)))
}
