//! Documents made of others: `||`, `jsonb_set`, `jsonb_insert`, `#-`.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringViewArray},
    datatypes::DataType,
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use super::{
    access::texts,
    jsonb,
    tree::{Json, place},
};
use crate::{
    SqlError,
    functions::simple::{Call, Simple, any, any_of},
};

pub(super) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        concat_udf(),
        Simple::udf("jsonb_set", any_of(&[3, 4], Immutable), jsonb(), |call| changed(call, Change::Set)),
        Simple::udf("jsonb_insert", any_of(&[3, 4], Immutable), jsonb(), |call| changed(call, Change::Insert)),
        delete_path_udf(),
    ]
}

/// `doc #- path`.
pub(crate) fn delete_path_udf() -> Arc<ScalarUDF> {
    Simple::udf("jsonb_delete_path", any(2, Immutable), jsonb(), |call| changed(call, Change::Delete))
}

/// `a || b`: members of both objects, or items of both, where what is no array counts as one item.
pub(crate) fn concat_udf() -> Arc<ScalarUDF> {
    Simple::udf("jsonb_concat", any(2, Immutable), jsonb(), |call| {
        let (left, right) = (call.text(0)?, call.text(1)?);
        let rows = left.iter().zip(right.iter()).map(|(left, right)| match (left, right) {
            (Some(left), Some(right)) => Ok(Some(joined(left.parse()?, right.parse()?)?.to_string())),
            _ => Ok(None),
        });
        Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
    })
}

fn joined(left: Json, right: Json) -> Result<Json, SqlError> {
    Ok(match (left, right) {
        (Json::Object(mut members), Json::Object(more)) => {
            members.extend(more);
            Json::object(members)
        }
        (Json::Array(mut items), Json::Array(more)) => {
            items.extend(more);
            Json::Array(items)
        }
        (Json::Array(mut items), one) => {
            items.push(one);
            Json::Array(items)
        }
        (one, Json::Array(mut items)) => {
            items.insert(0, one);
            Json::Array(items)
        }
        (Json::Object(_), _) | (_, Json::Object(_)) => {
            return Err(SqlError::invalid_parameter("invalid concatenation of jsonb objects"));
        }
        (left, right) => Json::Array(vec![left, right]),
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// With whether to make what is missing.
    Set,
    /// With whether to insert behind the place.
    Insert,
    Delete,
}

fn changed(call: &Call<'_>, change: Change) -> Result<ArrayRef, DataFusionError> {
    let documents = call.text(0)?;
    let paths = texts(call, 1)?;
    let values = if change == Change::Delete { None } else { Some(call.text(2)?) };
    let flags = if call.arrays.len() == 4 { Some(call.cast(3, &DataType::Boolean)?) } else { None };
    let rows = (0..call.rows).map(|row| {
        let path = paths[row].as_ref().and_then(|path| path.iter().map(Option::as_deref).collect::<Option<Vec<_>>>());
        let value = match &values {
            Some(values) if values.is_null(row) => return Ok(None),
            Some(values) => values.value(row).parse()?,
            None => Json::Null,
        };
        let flag = match &flags {
            Some(flags) if flags.is_null(row) => return Ok(None),
            Some(flags) => flags.as_boolean().value(row),
            None => change == Change::Set,
        };
        let (false, Some(path)) = (documents.is_null(row), path) else { return Ok(None) };
        let mut json: Json = documents.value(row).parse()?;
        if json.is_scalar() {
            let message =
                if change == Change::Delete { "cannot delete path in scalar" } else { "cannot set path in scalar" };
            return Err(SqlError::invalid_parameter(message));
        }
        apply(&mut json, &path, &value, change, flag)?;
        Ok(Some(json.to_string()))
    });
    Ok(Arc::new(rows.collect::<Result<StringViewArray, SqlError>>()?))
}

fn apply(json: &mut Json, path: &[&str], value: &Json, change: Change, flag: bool) -> Result<(), SqlError> {
    let Some((step, rest)) = path.split_first() else { return Ok(()) };
    match json {
        Json::Object(members) => {
            let at = members.iter().position(|(key, _)| key == step);
            match (at, rest.is_empty()) {
                (Some(at), false) => apply(&mut members[at].1, rest, value, change, flag)?,
                (Some(at), true) => match change {
                    Change::Set => members[at].1 = value.clone(),
                    Change::Delete => {
                        members.remove(at);
                    }
                    Change::Insert => {
                        return Err(SqlError::invalid_parameter("cannot replace existing key")
                            .with_hint("Try using the function jsonb_set to replace key value."));
                    }
                },
                (None, true) if change == Change::Insert || (change == Change::Set && flag) => {
                    let mut made = std::mem::take(members);
                    made.push(((*step).to_owned(), value.clone()));
                    *json = Json::object(made);
                }
                (None, _) => {}
            }
        }
        Json::Array(items) => {
            let index: i64 = step.trim().parse().map_err(|_| {
                SqlError::new("22P02", format!("path element at position 1 is not an integer: \"{step}\""))
            })?;
            let at = place(items.len(), index);
            match (at, rest.is_empty()) {
                (Some(at), false) => apply(&mut items[at], rest, value, change, flag)?,
                (Some(at), true) => match change {
                    Change::Set => items[at] = value.clone(),
                    Change::Insert => items.insert(if flag { at + 1 } else { at }, value.clone()),
                    Change::Delete => {
                        items.remove(at);
                    }
                },
                // Before the first or behind the last.
                (None, true) if change == Change::Insert || (change == Change::Set && flag) => {
                    let end = if index < 0 { 0 } else { items.len() };
                    items.insert(end, value.clone());
                }
                (None, _) => {}
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_postgresql_15_changes_documents() {
        let run = |document: &str, path: &[&str], value: &str, change, flag| {
            let mut json: Json = document.parse().unwrap();
            apply(&mut json, path, &value.parse().unwrap(), change, flag).unwrap();
            json.to_string()
        };
        assert_eq!(run(r#"[{"f1":1},2]"#, &["0", "f1"], "[2,3]", Change::Set, true), r#"[{"f1": [2, 3]}, 2]"#);
        assert_eq!(run(r#"{"a":1}"#, &["b"], "2", Change::Set, true), r#"{"a": 1, "b": 2}"#);
        assert_eq!(run(r#"{"a":1}"#, &["b"], "2", Change::Set, false), r#"{"a": 1}"#);
        assert_eq!(run(r#"{"a":[0,1]}"#, &["a", "1"], "9", Change::Insert, false), r#"{"a": [0, 9, 1]}"#);
        assert_eq!(run(r#"{"a":[0,1]}"#, &["a", "1"], "9", Change::Insert, true), r#"{"a": [0, 1, 9]}"#);
        assert_eq!(run("[1,2]", &["-1"], "0", Change::Delete, false), "[1]");
        assert_eq!(run("[1,2]", &["7"], "0", Change::Set, true), "[1, 2, 0]");
    }
}
