//! What conditions on JSON documents ask of them, as indexes of documents know it.
//!
//! The condition itself is tested on the documents that are left; so this may say less than it, never more.
//!
//! | condition | asks that |
//! |---|---|
//! | `doc @> '{"a": {"b": 1}, "tags": ["x"]}'` | `a.b` is 1, and an element of `tags` is "x" |
//! | `doc->'a'->>'b' = 'x'`, `IN ('x', 'y')`, `doc #>> '{a,b}' = 'x'` | the text of `a.b` is one of these |
//! | `(doc->>'n')::numeric > 5`, BETWEEN | `n` is a number from 5 on, or something else that is not null |
//! | `doc @? '$.a ? (@.n > 5)'`, `doc @@ '$.b == "x"'` | what the path [needs](crate::functions::jsonb::path::needs) |
//! | `doc ? 'a'`, `doc->'a' IS NOT NULL` | `a` is there |

use arrow::datatypes::DataType as Arrow;
use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList},
};
use tidemill_storage::{
    documents::{DocumentTest, Step, ValueTest},
    ids::ColumnId,
    schema::{DataType, TableSchema},
};

use crate::functions::jsonb::{path as json_path, tree::Json};

/// What a document must hold, at least, that passes the filter.
pub(crate) fn test(filter: &Expr, schema: &TableSchema) -> Option<DocumentTest> {
    match filter {
        Expr::Alias(alias) => test(&alias.expr, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            match (test(left, schema), test(right, schema)) {
                (Some(left), Some(right)) => Some(DocumentTest::And(vec![left, right])),
                (one, other) => one.or(other),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(DocumentTest::Or(vec![test(left, schema)?, test(right, schema)?]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (side, value, op) = match (constant(left), constant(right)) {
                (None, Some(value)) => (left, value, *op),
                (Some(value), None) => (right, value, op.swap()?),
                _ => return None,
            };
            compared(side, op, value, schema)
        }
        Expr::Between(between) if !between.negated => {
            let low = compared(&between.expr, Operator::GtEq, constant(&between.low)?, schema)?;
            let high = compared(&between.expr, Operator::LtEq, constant(&between.high)?, schema)?;
            Some(match (low, high) {
                // One value lies within both bounds.
                (
                    DocumentTest::At { column, path, value: ValueTest::Cast { low, .. } },
                    DocumentTest::At { value: ValueTest::Cast { high, .. }, .. },
                ) => DocumentTest::At { column, path, value: ValueTest::Cast { low, high } },
                (low, high) => DocumentTest::And(vec![low, high]),
            })
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let values = list.iter().filter(|item| !matches!(item, Expr::Literal(value, _) if value.is_null()));
            let tests = values.map(|item| compared(expr, Operator::Eq, constant(item)?, schema));
            let tests: Vec<DocumentTest> = tests.collect::<Option<_>>()?;
            (!tests.is_empty()).then_some(DocumentTest::Or(tests))
        }
        Expr::IsNotNull(inner) => {
            let (column, path) = text_path(inner, schema).or_else(|| path(inner, schema))?;
            (!path.is_empty()).then_some(DocumentTest::At { column, path, value: ValueTest::Exists })
        }
        Expr::ScalarFunction(call) => {
            let [document, wanted] = call.args.as_slice() else { return None };
            let (column, path) = path(document, schema)?;
            let wanted = text(constant(wanted)?)?;
            match call.func.name() {
                json_path::EXISTS_OPERATOR => json_path::needs(wanted, column, &path, false),
                json_path::MATCH_OPERATOR => json_path::needs(wanted, column, &path, true),
                "jsonb_contains" => contains(column, path, &wanted.parse().ok()?),
                "jsonb_exists" => {
                    let at = |step: Option<Step>, value| DocumentTest::At {
                        column,
                        path: path.iter().cloned().chain(step).collect(),
                        value,
                    };
                    let is_key = || ValueTest::String(wanted.to_owned());
                    Some(DocumentTest::Or(vec![
                        at(Some(Step::Key(wanted.to_owned())), ValueTest::Exists),
                        at(Some(Step::Element), is_key()),
                        at(None, is_key()),
                    ]))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// A text of a document, or a number that it is read as, compared with a value.
fn compared(side: &Expr, op: Operator, value: &ScalarValue, schema: &TableSchema) -> Option<DocumentTest> {
    if let (Some((column, path)), Operator::Eq, Some(text)) = (text_path(side, schema), op, text(value)) {
        return Some(DocumentTest::At { column, path, value: ValueTest::Text(text.to_owned()) });
    }
    let (column, path) = text_path(as_number(side)?, schema)?;
    let number = number(value)?;
    // Rounding keeps the order, so that bounds that are rounded too leave out nothing.
    let (low, high) = match op {
        Operator::Eq => (number, number),
        Operator::Lt | Operator::LtEq => (f64::NEG_INFINITY, number),
        Operator::Gt | Operator::GtEq => (number, f64::INFINITY),
        _ => return None,
    };
    Some(DocumentTest::At { column, path, value: ValueTest::Cast { low, high } })
}

/// What is cast to NUMERIC or DOUBLE PRECISION, which hold every number of a document.
fn as_number(expr: &Expr) -> Option<&Expr> {
    let takes = |target: &Arrow| matches!(target, Arrow::Float64 | Arrow::Decimal128(..) | Arrow::Decimal256(..));
    match expr {
        Expr::Alias(alias) => as_number(&alias.expr),
        Expr::Cast(cast) if takes(cast.field.data_type()) => Some(as_number(&cast.expr).unwrap_or(&cast.expr)),
        Expr::ScalarFunction(call) => match (call.func.name(), call.args.as_slice()) {
            ("cast_to_numeric" | "cast_to_double_precision", [inner]) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

/// The documents that hold `wanted`, as `@>` has it.
fn contains(column: ColumnId, path: Vec<Step>, wanted: &Json) -> Option<DocumentTest> {
    if wanted.is_scalar() {
        // An array may hold a bare element.
        let inside = path.iter().cloned().chain([Step::Element]).collect();
        return Some(DocumentTest::Or(
            [path, inside].map(|path| DocumentTest::At { column, path, value: scalar(wanted) }).into(),
        ));
    }
    let mut tests = Vec::new();
    held(column, &path, wanted, &mut tests);
    match tests.len() {
        0 => None,
        1 => tests.pop(),
        _ => Some(DocumentTest::And(tests)),
    }
}

fn held(column: ColumnId, path: &[Step], wanted: &Json, tests: &mut Vec<DocumentTest>) {
    let with = |step: Step| path.iter().cloned().chain([step]).collect::<Vec<_>>();
    match wanted {
        Json::Object(members) if !members.is_empty() => {
            members.iter().for_each(|(key, value)| held(column, &with(Step::Key(key.clone())), value, tests));
        }
        Json::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| held(column, &with(Step::Element), item, tests));
        }
        Json::Object(_) | Json::Array(_) => {
            if !path.is_empty() {
                tests.push(DocumentTest::At { column, path: path.to_vec(), value: ValueTest::Exists });
            }
        }
        scalar_value => tests.push(DocumentTest::At { column, path: path.to_vec(), value: scalar(scalar_value) }),
    }
}

fn scalar(value: &Json) -> ValueTest {
    match value {
        Json::Null => ValueTest::Null,
        Json::Bool(value) => ValueTest::Boolean(*value),
        Json::Text(text) => ValueTest::String(text.clone()),
        Json::Number(digits) => match digits.parse() {
            Ok(number) => ValueTest::Number { low: number, high: number },
            Err(_) => ValueTest::Exists,
        },
        Json::Array(_) | Json::Object(_) => ValueTest::Exists,
    }
}

/// Where `expr`, a text by `->>` or `#>>`, lies in the document of a column.
fn text_path(expr: &Expr, schema: &TableSchema) -> Option<(ColumnId, Vec<Step>)> {
    match expr {
        Expr::Alias(alias) => text_path(&alias.expr, schema),
        Expr::Cast(cast) if is_text(cast.field.data_type()) => text_path(&cast.expr, schema),
        Expr::ScalarFunction(call) if call.func.name() == "json_as_text" => stepped(&call.args, schema),
        _ => None,
    }
}

/// Where `expr`, a JSON value, lies in the document of a column.
fn path(expr: &Expr, schema: &TableSchema) -> Option<(ColumnId, Vec<Step>)> {
    match expr {
        Expr::Alias(alias) => path(&alias.expr, schema),
        Expr::Cast(cast) if is_text(cast.field.data_type()) => path(&cast.expr, schema),
        Expr::Column(column) => {
            let column = schema.column_named(&column.name)?;
            (column.data_type == DataType::Jsonb).then(|| (column.id, Vec::new()))
        }
        Expr::ScalarFunction(call) => match call.func.name() {
            "with_metadata" => path(call.args.first()?, schema),
            "json_get_json" => stepped(&call.args, schema),
            _ => None,
        },
        _ => None,
    }
}

/// A document, and keys and places one inside the other.
fn stepped(args: &[Expr], schema: &TableSchema) -> Option<(ColumnId, Vec<Step>)> {
    let (document, steps) = args.split_first()?;
    let (column, mut path) = path(document, schema)?;
    for step in steps {
        let value = constant(step)?;
        path.push(match text(value) {
            Some(key) => Step::Key(key.to_owned()),
            None if value.data_type().is_integer() => Step::Element,
            None => return None,
        });
    }
    Some((column, path))
}

fn is_text(data_type: &Arrow) -> bool {
    matches!(data_type, Arrow::Utf8 | Arrow::Utf8View | Arrow::LargeUtf8)
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => Some(value),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(Some(v)) | ScalarValue::Utf8View(Some(v)) | ScalarValue::LargeUtf8(Some(v)) => Some(v),
        _ => None,
    }
}

/// The nearest float.
fn number(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Float64(Some(v)) => (!v.is_nan()).then_some(*v),
        ScalarValue::Decimal128(Some(v), _, scale) => format!("{v}e{}", -i16::from(*scale)).parse().ok(),
        ScalarValue::Int64(Some(v)) => Some(*v as f64),
        ScalarValue::Int32(Some(v)) => Some(f64::from(*v)),
        _ => None,
    }
}
