//! Rows as lines of CSV, without their ends and without a header: one record, one line.

use tidemill_storage::schema::{Column as SchemaColumn, DataType};

use super::super::json::Column;
use crate::decode::CsvOptions;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Clone, Debug)]
pub(in crate::sink) struct CsvForm {
    delimiter: u8,
    quote: u8,
    null: String,
    /// And whether it is BYTEA.
    columns: Vec<(usize, bool)>,
}

impl CsvForm {
    pub(super) fn new(options: &CsvOptions, columns: &[(usize, &SchemaColumn)]) -> Self {
        let columns = columns.iter().map(|(at, column)| (*at, column.data_type == DataType::Bytea));
        let CsvOptions { delimiter, quote, null, .. } = options.clone();
        Self { delimiter, quote, null, columns: columns.collect() }
    }

    pub(super) fn write(
        &self,
        columns: &[Column<'_>],
        row: usize,
        scratch: &mut String,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut field = Vec::new();
        for (number, (at, is_bytes)) in self.columns.iter().enumerate() {
            if number > 0 {
                out.push(self.delimiter);
            }
            let column = &columns[*at];
            if column.is_null(row) {
                out.extend_from_slice(self.null.as_bytes());
                continue;
            }
            field.clear();
            column.write_plain(row, scratch, &mut field)?;
            if *is_bytes {
                field =
                    format!("\\x{}", field.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).into_bytes();
            }
            let is_special =
                |byte: &u8| *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r');
            // What looks like NULL, an empty text, which could pass for no field at all, and what readers take off.
            let is_quoted = field.is_empty()
                || field == self.null.as_bytes()
                || field.starts_with(BYTE_ORDER_MARK)
                || field.iter().any(is_special);
            if !is_quoted {
                out.extend_from_slice(&field);
                continue;
            }
            out.push(self.quote);
            for byte in &field {
                if *byte == self.quote {
                    out.push(self.quote);
                }
                out.push(*byte);
            }
            out.push(self.quote);
        }
        Ok(())
    }
}
