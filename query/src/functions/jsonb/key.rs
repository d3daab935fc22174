//! The order and equality of jsonb as texts: two documents are equal when their keys are, and stand in the order of their keys.
//!
//! Printed documents do not tell: `1.0` equals `1`, `2` comes before `10`, and arrays and objects are compared by their number of items first. What
//! compares, sorts, groups or joins by jsonb does so by [`udf`] of it ([`keys`](crate::rules::keys)).
//!
//! Each value is a character for its kind and what compares within it; all are self-delimiting, so that items can stand one after the other.
//! Texts compare by their bytes, and so by their characters. They are texts and no bytea because windows cannot go by ranges of bytea.
//!
//! | value | key |
//! |---|---|
//! | `[]` as the whole document, below all others, as PostgreSQL has it | 0 |
//! | null | 1 |
//! | text | 2, its characters (U+0000 as 0 255), 0 0 |
//! | number | 3, `number::key` |
//! | false, true | 4, 5 |
//! | array | 6, number of items, items |
//! | object | 7, number of members, each as a text and a value |

use std::sync::Arc;

use arrow::{array::StringViewArray, datatypes::DataType};
use datafusion::logical_expr::{ScalarUDF, Volatility::Immutable};

use super::{number, tree::Json};
use crate::{
    SqlError,
    functions::{
        interval,
        simple::{Returns, Simple, any},
    },
};

/// The key of a jsonb value, as text; of an interval, as a number.
pub(crate) fn udf() -> Arc<ScalarUDF> {
    let kind = |arguments: &[DataType]| match arguments {
        [DataType::Interval(_) | DataType::Duration(_)] => Ok(interval::KEY),
        _ => Ok(DataType::Utf8View),
    };
    Simple::udf("tidemill_key", any(1, Immutable), Returns::Of(kind), |call| {
        if *call.returns.data_type() == interval::KEY {
            return interval::keys(call);
        }
        let texts = call.text(0)?;
        let keys = texts.iter().map(|text| text.map(|text| Ok(key(&text.parse()?))).transpose());
        Ok(Arc::new(keys.collect::<Result<StringViewArray, SqlError>>()?))
    })
}

/// A text that compares as the document does.
pub(crate) fn key(document: &Json) -> String {
    let mut out = String::new();
    match document {
        Json::Array(items) if items.is_empty() => out.push('\0'),
        other => value(other, &mut out),
    }
    out
}

fn value(json: &Json, out: &mut String) {
    let count = |out: &mut String, length: usize| {
        out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes().map(char::from));
    };
    match json {
        Json::Null => out.push('\u{1}'),
        Json::Text(content) => {
            out.push('\u{2}');
            text(content, out);
        }
        Json::Number(digits) => {
            out.push('\u{3}');
            number::key(digits, out);
        }
        Json::Bool(false) => out.push('\u{4}'),
        Json::Bool(true) => out.push('\u{5}'),
        Json::Array(items) => {
            out.push('\u{6}');
            count(out, items.len());
            items.iter().for_each(|item| value(item, out));
        }
        Json::Object(members) => {
            out.push('\u{7}');
            count(out, members.len());
            for (name, member) in members {
                text(name, out);
                value(member, out);
            }
        }
    }
}

fn text(content: &str, out: &mut String) {
    for (index, part) in content.split('\0').enumerate() {
        if index > 0 {
            out.push_str("\0\u{ff}");
        }
        out.push_str(part);
    }
    out.push_str("\0\0");
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    /// PostgreSQL's rules read aloud, on numbers that a float holds.
    fn order(a: &Json, b: &Json, whole: bool) -> Ordering {
        let rank = |json: &Json| match json {
            Json::Array(items) if whole && items.is_empty() => 0,
            Json::Null => 1,
            Json::Text(_) => 2,
            Json::Number(_) => 3,
            Json::Bool(_) => 4,
            Json::Array(_) => 5,
            Json::Object(_) => 6,
        };
        rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
            (Json::Text(a), Json::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
            (Json::Number(a), Json::Number(b)) => {
                a.parse::<f64>().unwrap().partial_cmp(&b.parse::<f64>().unwrap()).unwrap()
            }
            (Json::Array(a), Json::Array(b)) => a.len().cmp(&b.len()).then_with(|| {
                a.iter().zip(b).map(|(a, b)| order(a, b, false)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
            }),
            (Json::Object(a), Json::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
                let members = a.iter().zip(b);
                let mut orders =
                    members.map(|((a, v), (b, w))| a.as_bytes().cmp(b.as_bytes()).then(order(v, w, false)));
                orders.find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
            }),
            _ => Ordering::Equal,
        })
    }

    fn document() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            proptest::bool::ANY.prop_map(Json::Bool),
            r"-?(0|[1-9][0-9]{0,2})(\.[0-9]{1,2})?([eE][+-]?[0-3])?".prop_map(Json::Number),
            "[ab\u{0}é]{0,3}".prop_map(Json::Text),
        ];
        leaf.prop_recursive(3, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
                prop::collection::vec(("[ab]{1,2}", inner), 0..3).prop_map(Json::object),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn keys_compare_as_the_documents(a in document(), b in document()) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), order(&a, &b, true), "{} and {}", a, b);
        }
    }
}
