//! A row as JSON text: what a dead letter keeps of a row that was decoded but not wanted.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType as ArrowType, Field},
    util::display::{ArrayFormatter, FormatOptions},
};
use tidemill_storage::schema::DataType;

use crate::decode::json::jsonb::{write_bytes, write_string};

/// `{"a": 1, "b": "x"}`: numbers and JSONB as they are, everything else as a string in the form in which SQL prints it.
pub(super) fn row_json(rows: &RecordBatch, row: usize) -> String {
    let mut out = String::from("{");
    for (at, (field, array)) in rows.schema().fields().iter().zip(rows.columns()).enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write_string(field.name(), &mut out);
        out.push_str(": ");
        write_value(field, array, row, &mut out);
    }
    out.push('}');
    out
}

fn write_value(field: &Field, array: &dyn Array, row: usize, out: &mut String) {
    if array.is_null(row) {
        out.push_str("null");
        return;
    }
    match array.data_type() {
        ArrowType::Utf8View if DataType::of_field(field) == Some(DataType::Jsonb) => {
            out.push_str(array.as_string_view().value(row));
        }
        ArrowType::Utf8View => write_string(array.as_string_view().value(row), out),
        ArrowType::BinaryView => {
            write_bytes(array.as_binary_view().value(row), out);
        }
        ArrowType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            out.push('[');
            for at in 0..items.len() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_value(item, &items, at, out);
            }
            out.push(']');
        }
        other => {
            let text = match ArrayFormatter::try_new(array, &FormatOptions::default()) {
                Ok(formatter) => formatter.value(row).to_string(),
                Err(error) => error.to_string(),
            };
            let is_bare = (other.is_numeric() || other == &ArrowType::Boolean)
                && !text.bytes().any(|byte| matches!(byte, b'N' | b'i' | b'n'));
            if is_bare || matches!(text.as_str(), "true" | "false") {
                out.push_str(&text)
            } else {
                write_string(&text, out)
            }
        }
    }
}
