//! Changes of rows, as Debezium writes them in JSON without a schema.
//!
//! ```text
//! {"before": null, "after": {…}, "op": "c", "ts_ms": …}     a row
//! {"before": {…}, "after": null, "op": "d", "ts_ms": …}     a row that says that it is deleted
//! ```
//!
//! A row that comes again with the same key is another `c`: who follows changes by keys takes it in the place of the one before. Values are those of format json,
//! but BYTEA is Base64 and a document is a string, as Debezium has them. `ts_ms` is there when the sink says which column is the time of a record.

use base64::{Engine, engine::general_purpose::STANDARD};
use tidemill_storage::schema::{Column as SchemaColumn, DataType};

use super::{super::json::Column, members};
use crate::{Error, Result, decode::json::jsonb::write_string};

#[derive(Clone, Debug)]
pub(in crate::sink) struct DebeziumForm {
    /// `"name":` of each column of the image, its position and how it is written.
    members: Vec<(String, usize, Value)>,
    /// The column that is true in rows of what was deleted.
    deleted: Option<usize>,
    /// The one that is the time of a record.
    timestamp: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Plain,
    Bytes,
    Document,
}

impl DebeziumForm {
    /// `Definition` when the column that tells what is deleted is no BOOLEAN.
    pub(super) fn new(
        delete_column: &str,
        columns: &[(usize, &SchemaColumn)],
        timestamp: Option<usize>,
    ) -> Result<Self> {
        let deleted = columns.iter().find(|(_, column)| column.name == delete_column);
        if let Some((_, column)) = deleted.filter(|(_, column)| column.data_type != DataType::Boolean) {
            return Err(Error::Definition {
                message: format!("column \"{delete_column}\" tells what is deleted, and is {}", column.data_type),
                hint: Some("it takes a BOOLEAN; call it otherwise, or name another one: delete_column = '…'".into()),
            });
        }
        let deleted = deleted.map(|(at, _)| *at);
        let image: Vec<_> = columns.iter().filter(|(at, _)| Some(*at) != deleted).copied().collect();
        let value = |column: &SchemaColumn| match column.data_type {
            DataType::Bytea => Value::Bytes,
            DataType::Jsonb => Value::Document,
            _ => Value::Plain,
        };
        let named = members(&image).into_iter().zip(&image);
        let members = named.map(|((name, at), (_, column))| (name, at, value(column))).collect();
        Ok(Self { members, deleted, timestamp })
    }

    pub(super) fn write(
        &self,
        columns: &[Column<'_>],
        row: usize,
        scratch: &mut String,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let is_deleted = self.deleted.is_some_and(|column| columns[column].is_true(row));
        scratch.clear();
        scratch.push_str(if is_deleted { r#"{"before":{"# } else { r#"{"before":null,"after":{"# });
        for (at, (name, column, value)) in self.members.iter().enumerate() {
            if at > 0 {
                scratch.push(',');
            }
            scratch.push_str(name);
            let column = &columns[*column];
            match value {
                _ if column.is_null(row) => scratch.push_str("null"),
                Value::Plain => column.write(row, scratch)?,
                Value::Bytes => write_string(&STANDARD.encode(column.bytes(row)), scratch),
                Value::Document => write_string(column.text(row), scratch),
            }
        }
        scratch.push_str(if is_deleted { r#"},"after":null,"op":"d""# } else { r#"},"op":"c""# });
        if let Some(ms) = self.timestamp.and_then(|column| columns[column].timestamp_ms(row)) {
            scratch.push_str(",\"ts_ms\":");
            scratch.push_str(&ms.to_string());
        }
        scratch.push('}');
        out.extend_from_slice(scratch.as_bytes());
        Ok(())
    }
}
