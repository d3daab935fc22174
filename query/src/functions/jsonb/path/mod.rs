//! SQL/JSON paths as PostgreSQL 17 has them: `jsonb_path_query(doc, '$.items[*] ? (@.price > 10).sku')`, `@?`, `@@`.
//!
//! ```text
//! text ─ lexer ─► tokens ─ parser ─► Path (ast), whose Display is the text that PostgreSQL prints
//!                                      └─ evaluate, predicates, methods ─► items: parts of the document, never copied, and values made
//! ```
//!
//! `jsonpath` is a text known by field metadata, as `tsquery` is. A path that is constant is read when the statement is planned, so that a wrong one is
//! an error there; rows read it once per batch. What a path costs is bounded: its levels ([`parser::LEVELS_MAX`]), the steps on one document
//! ([`evaluate::STEPS_MAX`]) and in one batch, the bytes that come out.

mod ast;
mod decimal;
mod evaluate;
mod items;
mod lexer;
mod methods;
mod moment;
mod needs;
mod offsets;
mod parser;
mod predicates;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, ListBuilder, StringViewArray, StringViewBuilder},
    datatypes::{DataType, Field, FieldRef},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility::Immutable},
};
use tidemill_storage::digits::DOCUMENT_BYTES_MAX;

pub(crate) use self::needs::needs;
use self::{ast::Path, evaluate::Found, items::Item};
use super::{json_field, tree::Json};
use crate::{
    SqlError,
    functions::{
        rows::JSONB_PATH_QUERY,
        simple::{Call, Returns, Simple, any, any_of},
    },
};

/// The functions of `@?` and `@@`.
pub(crate) const EXISTS_OPERATOR: &str = "jsonb_path_exists_opr";
pub(crate) const MATCH_OPERATOR: &str = "jsonb_path_match_opr";

/// Steps on all documents of one batch, which is what runs without a look at whether the query was cancelled.
const BATCH_STEPS_MAX: u64 = 200_000_000;
/// Bytes of all that is found in one batch.
const BATCH_BYTES_MAX: usize = 1 << 30;

pub(super) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let counts = || any_of(&[2, 3, 4], Immutable);
    vec![
        Simple::tried_once("jsonb_path_exists", counts(), Returns::Field(boolean), |call| exists(call, false)),
        Simple::tried_once("jsonb_path_match", counts(), Returns::Field(boolean), |call| matches(call, false)),
        Simple::tried_once("jsonb_path_query_array", counts(), Returns::Field(jsonb), array),
        Simple::tried_once("jsonb_path_query_first", counts(), Returns::Field(jsonb), first),
        Simple::tried_once(JSONB_PATH_QUERY, counts(), Returns::Field(list), rows),
        exists_udf(),
        match_udf(),
    ]
}

/// `doc @? path`.
pub(crate) fn exists_udf() -> Arc<ScalarUDF> {
    Simple::tried_once(EXISTS_OPERATOR, any(2, Immutable), Returns::Field(boolean), |call| exists(call, true))
}

/// `doc @@ path`.
pub(crate) fn match_udf() -> Arc<ScalarUDF> {
    Simple::tried_once(MATCH_OPERATOR, any(2, Immutable), Returns::Field(boolean), |call| matches(call, true))
}

/// A text as the jsonpath that it is, as PostgreSQL prints it.
pub(crate) fn canonical(text: &str) -> Result<String, SqlError> {
    Ok(parser::parse(text)?.to_string())
}

fn boolean(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    check_constant(args)?;
    Ok(Arc::new(Field::new("found", DataType::Boolean, true)))
}

fn jsonb(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    check_constant(args)?;
    Ok(json_field("jsonb"))
}

fn list(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    check_constant(args)?;
    Ok(Arc::new(Field::new("found", DataType::new_list(DataType::Utf8View, true), true)))
}

/// A path that is wrong is an error of the statement, not of its rows.
fn check_constant(args: &ReturnFieldArgs<'_>) -> Result<(), DataFusionError> {
    if let Some(Some(value)) = args.scalar_arguments.get(1)
        && let Some(Some(path)) = value.try_as_str()
    {
        parser::parse(path)?;
    }
    Ok(())
}

/// What a function asks of the items.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Existence,
    Items,
}

/// Gives `each` what is found in each row, `None` where an argument is NULL, and whether errors are suppressed.
fn evaluate(
    call: &Call<'_>,
    asked: Asked,
    is_silent: bool,
    mut each: impl FnMut(Option<Found<'_>>, bool) -> Result<(), SqlError>,
) -> Result<(), DataFusionError> {
    let (documents, paths) = (call.text(0)?, call.text(1)?);
    let variables = if call.arrays.len() > 2 { Some(call.text(2)?) } else { None };
    let silent = match call.arrays.len() {
        4 => Some(call.cast(3, &DataType::Boolean)?),
        _ => None,
    };
    let mut known: Option<(&str, Path)> = None;
    let mut given: Option<(&str, Json)> = None;
    let mut steps = 0;
    for row in 0..call.rows {
        let is_null = documents.is_null(row)
            || paths.is_null(row)
            || variables.as_ref().is_some_and(|variables| variables.is_null(row))
            || silent.as_ref().is_some_and(|silent| silent.is_null(row));
        if is_null {
            each(None, true)?;
            continue;
        }
        let text = paths.value(row);
        let path = match &mut known {
            Some((read, path)) if *read == text => &*path,
            known => &known.insert((text, parser::parse(text)?)).1,
        };
        let document: Json = documents.value(row).parse()?;
        let members = match &variables {
            Some(variables) => Some(match &mut given {
                Some((read, object)) if *read == variables.value(row) => &*object,
                given => &given.insert((variables.value(row), object(variables.value(row))?)).1,
            }),
            None => None,
        };
        let is_silent = is_silent || silent.as_ref().is_some_and(|silent| silent.as_boolean().value(row));
        let found = evaluate::run(path, &document, members, !is_silent, asked == Asked::Existence, &mut steps)?;
        if steps > BATCH_STEPS_MAX {
            return Err(SqlError::new("54000", "the JSON path takes too many steps")
                .with_detail(format!("It takes more than {BATCH_STEPS_MAX} on the rows of one batch."))
                .into());
        }
        each(Some(found), is_silent)?;
    }
    Ok(())
}

/// What `vars` gives to `$name`.
fn object(text: &str) -> Result<Json, SqlError> {
    match text.parse()? {
        object @ Json::Object(_) => Ok(object),
        _ => Err(SqlError::invalid_parameter("\"vars\" argument is not an object")
            .with_detail("Jsonpath parameters should be encoded as key-value pairs of \"vars\" object.")),
    }
}

fn exists(call: &Call<'_>, is_silent: bool) -> Result<ArrayRef, DataFusionError> {
    let mut out = BooleanBuilder::with_capacity(call.rows);
    evaluate(call, Asked::Existence, is_silent, |found, _| {
        out.append_option(found.filter(|found| !found.is_cut).map(|found| !found.items.is_empty()));
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

/// The one truth that the path gives.
fn matches(call: &Call<'_>, is_silent: bool) -> Result<ArrayRef, DataFusionError> {
    let mut out = Vec::with_capacity(call.rows);
    evaluate(call, Asked::Items, is_silent, |found, is_silent| {
        let Some(found) = found else {
            out.push(None);
            return Ok(());
        };
        out.push(match found.items.as_slice() {
            [one] if matches!(one.json(), Some(Json::Bool(true))) => Some(true),
            [one] if matches!(one.json(), Some(Json::Bool(false))) => Some(false),
            [one] if matches!(one.json(), Some(Json::Null)) => None,
            _ if is_silent => None,
            _ => return Err(SqlError::new("22038", "single boolean result is expected")),
        });
        Ok(())
    })?;
    Ok(Arc::new(BooleanArray::from(out)))
}

/// Room for the texts of one batch.
struct Printer {
    batch: usize,
}

impl Printer {
    /// Prints items, each at most as long as a document, all of one document, too.
    fn print(&mut self, items: &[Item<'_>], mut out: impl FnMut(String)) -> Result<(), SqlError> {
        let mut bytes = 0;
        for item in items {
            let text = item.printed();
            bytes += text.len() + 2;
            if bytes > DOCUMENT_BYTES_MAX {
                return Err(SqlError::new("54000", "the JSON path finds too much")
                    .with_detail(format!("What it finds in one document has more than {DOCUMENT_BYTES_MAX} bytes.")));
            }
            out(text);
        }
        self.batch += bytes;
        if self.batch > BATCH_BYTES_MAX {
            return Err(SqlError::new("54000", "the JSON path finds too much").with_detail(format!(
                "What it finds in the rows of one batch has more than {BATCH_BYTES_MAX} bytes."
            )));
        }
        Ok(())
    }
}

fn array(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut printer = Printer { batch: 0 };
    let mut out = StringViewBuilder::new();
    evaluate(call, Asked::Items, false, |found, _| {
        let Some(found) = found else {
            out.append_null();
            return Ok(());
        };
        let mut texts = Vec::new();
        printer.print(&found.items, |text| texts.push(text))?;
        out.append_value(format!("[{}]", texts.join(", ")));
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}

fn first(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut printer = Printer { batch: 0 };
    let mut out: Vec<Option<String>> = Vec::with_capacity(call.rows);
    evaluate(call, Asked::Items, false, |found, _| {
        let items = found.map(|found| found.items).unwrap_or_default();
        let mut text = None;
        printer.print(items.get(..1).unwrap_or_default(), |printed| text = Some(printed))?;
        out.push(text);
        Ok(())
    })?;
    Ok(Arc::new(out.into_iter().collect::<StringViewArray>()))
}

/// `jsonb_path_query`, as lists that `unnest` makes rows of.
fn rows(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let mut printer = Printer { batch: 0 };
    let mut out = ListBuilder::new(StringViewBuilder::new());
    evaluate(call, Asked::Items, false, |found, _| {
        let is_valid = found.is_some();
        let items = found.map(|found| found.items).unwrap_or_default();
        printer.print(&items, |text| out.values().append_value(text))?;
        out.append(is_valid);
        Ok(())
    })?;
    Ok(Arc::new(out.finish()))
}
