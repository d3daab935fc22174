//! Lines of separated fields, one record per message.
//!
//! RFC 4180: a field may stand in quotes, a quote inside is doubled, a quoted field may hold line breaks. An unquoted field equal
//! to the null text is NULL. A record has as many fields as the header, or without a header as the source has columns (or as the highest
//! position that a column's path names).

use super::{
    CsvOptions, Decoded, Decoder, PathStep, SourceColumn,
    json::utf8,
    path::display_path,
    rows::{Fault, Rows},
    value::Value,
};
use crate::{Error, Result, message::MessageBatch};

#[derive(Debug)]
pub(super) struct CsvDecoder {
    options: CsvOptions,
    columns: Vec<SourceColumn>,
    /// The field of each column.
    positions: Vec<usize>,
    fields_wanted: usize,
    rows: Rows,
    fields: Vec<Field>,
    /// Text of quoted fields that held doubled quotes, end to end.
    unquoted: String,
}

/// A field of the record at hand.
#[derive(Clone, Debug)]
struct Field {
    is_quoted: bool,
    /// In `unquoted` rather than in the record.
    is_copied: bool,
    start: usize,
    end: usize,
}

impl CsvDecoder {
    pub(super) fn new(options: CsvOptions, columns: &[SourceColumn]) -> Result<Self> {
        let mut positions = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            positions.push(match (column.path.as_slice(), &options.header) {
                ([PathStep::Index(index)], _) => *index,
                ([PathStep::Field(name)], Some(header)) => {
                    header.iter().position(|known| known == name).ok_or_else(|| Error::Definition {
                        message: format!("column \"{}\" is not in the header: no field '{name}'", column.name),
                        hint: Some(format!("the header has {}", header.join(", "))),
                    })?
                }
                ([PathStep::Field(name)], None) if *name == column.name => at,
                (path, _) => {
                    return Err(Error::Definition {
                        message: format!(
                            "column \"{}\" has the path {}, which csv has not",
                            column.name,
                            display_path(path)
                        ),
                        hint: Some("name a field of csv.header, or give its position as $[0]".into()),
                    });
                }
            });
        }
        let highest = positions.iter().max().map_or(0, |highest| highest + 1);
        let fields_wanted = match &options.header {
            Some(header) => header.len(),
            None => highest,
        };
        if highest > fields_wanted {
            return Err(Error::Definition {
                message: format!("a column's path names field {}, but the header has {fields_wanted}", highest - 1),
                hint: None,
            });
        }
        Ok(Self {
            rows: Rows::new(columns),
            columns: columns.to_vec(),
            options,
            positions,
            fields_wanted,
            fields: Vec::new(),
            unquoted: String::new(),
        })
    }

    fn row(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let text = utf8(payload)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        self.split(text)?;
        if self.fields.len() != self.fields_wanted {
            return Err(Fault::message(format!(
                "the record has {} fields instead of {}",
                self.fields.len(),
                self.fields_wanted
            )));
        }
        for (at, position) in self.positions.iter().enumerate() {
            let field = &self.fields[*position];
            let text = &(if field.is_copied { self.unquoted.as_str() } else { text })[field.start..field.end];
            if !field.is_quoted && text == self.options.null {
                let spec = &self.columns[at];
                if !spec.nullable {
                    let reason =
                        format!("column \"{}\" is NOT NULL and field {position} of the record is null", spec.name);
                    return Err(Fault::column(&spec.name, reason));
                }
                self.rows.column(at).append_null();
            } else {
                self.rows.column(at).append(Value::Text(text))?;
            }
        }
        Ok(())
    }

    fn split(&mut self, text: &str) -> Result<(), Fault> {
        self.fields.clear();
        self.unquoted.clear();
        let bytes = text.as_bytes();
        let (delimiter, quote) = (self.options.delimiter, self.options.quote);
        let mut at = 0;
        loop {
            let mut field = Field { is_quoted: bytes.get(at) == Some(&quote), is_copied: false, start: at, end: at };
            if field.is_quoted {
                at = self.quoted(text, &mut field)?;
            } else {
                let length = bytes[at..].iter().position(|byte| *byte == delimiter || *byte == quote || *byte == b'\n');
                at = length.map_or(bytes.len(), |length| at + length);
                field.end = at;
            }
            self.fields.push(field);
            match bytes.get(at) {
                None => return Ok(()),
                Some(byte) if *byte == delimiter => at += 1,
                Some(b'\n') => return Err(Fault::message(format!("a line break outside quotes at byte {at}"))),
                Some(_) if bytes[at] == quote => {
                    return Err(Fault::message(format!("a quote inside an unquoted field at byte {at}")));
                }
                Some(_) => return Err(Fault::message(format!("text after a closing quote at byte {at}"))),
            }
        }
    }

    /// A field in quotes; returns the position after it.
    fn quoted(&mut self, text: &str, field: &mut Field) -> Result<usize, Fault> {
        let quote = char::from(self.options.quote);
        let copied = self.unquoted.len();
        let mut from = field.start + 1;
        loop {
            let Some(length) = text[from..].find(quote) else {
                return Err(Fault::message(format!("the quote at byte {} is not closed", field.start)));
            };
            let close = from + length;
            if text[close + 1..].starts_with(quote) {
                self.unquoted.push_str(&text[from..=close]);
                field.is_copied = true;
                from = close + 2;
                continue;
            }
            if field.is_copied {
                self.unquoted.push_str(&text[from..close]);
                (field.start, field.end) = (copied, self.unquoted.len());
            } else {
                (field.start, field.end) = (from, close);
            }
            return Ok(close + 1);
        }
    }
}

impl Decoder for CsvDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        while let Some(message) = self.rows.next(messages) {
            let result = self.row(messages.payload(message));
            self.rows.end_row(result, messages, message);
        }
        Ok(self.rows.finish())
    }
}
