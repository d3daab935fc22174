//! JSON documents as rows of named and typed columns.
//!
//! `jsonb_to_recordset(doc) AS r(a int, b text)` names them itself; `jsonb_populate_recordset(NULL::orders, doc)` takes those of a table.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType as SqlType, Expr, FunctionArg, Value,
};

use super::{
    super::syntax::{function, last_part, plain},
    Columns, Known, cast, text, unnest,
};
use crate::{SqlError, functions::rows};

/// The columns that `jsonb_populate_record(NULL::table, doc)` gives; `None` for other functions.
pub(super) fn populated(name: &str, args: &[FunctionArg], known: &Known<'_>) -> Result<Option<Columns>, SqlError> {
    if !name.starts_with("jsonb_populate_record") && !name.starts_with("json_populate_record") {
        return Ok(None);
    }
    let (Some(base), 2) = (args.first().and_then(plain), args.len()) else { return Err(no_function(name)) };
    let Expr::Cast { expr, data_type: SqlType::Custom(table, _), .. } = base else {
        return Err(SqlError::new("42804", format!("first argument of {name} must be a row type"))
            .with_hint("Write NULL::table, the table whose columns are wanted."));
    };
    if !matches!(expr.as_ref(), Expr::Value(value) if value.value == Value::Null) {
        return Err(SqlError::not_supported(format!("{name} with a record that is not NULL")));
    }
    let table = last_part(table);
    let columns = (known.columns)(&table);
    columns.map(Some).ok_or_else(|| SqlError::new("42704", format!("type \"{table}\" does not exist")))
}

fn no_function(name: &str) -> SqlError {
    SqlError::new("42883", format!("function {name} of these arguments does not exist"))
}

/// `jsonb_to_recordset(doc) AS r(a int, b text)`: each column is the member of its name.
pub(super) fn record(
    name: &str,
    args: &[FunctionArg],
    columns: &[(String, SqlType)],
) -> Result<Vec<(String, Expr)>, SqlError> {
    let count = if name.contains("_populate_") { 2 } else { 1 };
    let Some(document) = args.last().and_then(plain).filter(|_| args.len() == count) else {
        return Err(no_function(name));
    };
    let row = match name {
        "jsonb_to_recordset" | "json_to_recordset" | "jsonb_populate_recordset" | "json_populate_recordset" => {
            unnest(function(rows::JSON_ELEMENTS, vec![document.clone()]))
        }
        "jsonb_to_record" | "json_to_record" | "jsonb_populate_record" | "json_populate_record" => {
            cast(document.clone(), SqlType::JSONB)
        }
        _ => {
            return Err(SqlError::new(
                "42601",
                "a column definition list is only allowed for functions returning \"record\"",
            ));
        }
    };
    Ok(columns
        .iter()
        .map(|(name, data_type)| {
            let is_json = matches!(data_type, SqlType::JSON | SqlType::JSONB);
            let is_array = matches!(
                data_type,
                SqlType::Array(ArrayElemTypeDef::SquareBracket(..) | ArrayElemTypeDef::AngleBracket(_))
            );
            let member = Expr::BinaryOp {
                left: Box::new(row.clone()),
                op: if is_json || is_array { BinaryOperator::Arrow } else { BinaryOperator::LongArrow },
                right: Box::new(text(name)),
            };
            let value = match is_array {
                true => function(rows::JSON_ELEMENTS_TEXT, vec![member]),
                false => member,
            };
            (name.clone(), if is_json { value } else { cast(value, data_type.clone()) })
        })
        .collect())
}
