//! Rows as records: which columns are the key, headers, time and value.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use tidemill_storage::schema::{DataType, TableSchema};

use super::{
    form::{Form, SinkFormat, Wire},
    json::Column,
};
use crate::{
    Error, Result,
    decode::{json::jsonb::write_string, nearest, trial::Writer},
    schemas::Kind,
};

/// What options say of columns, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShapeOptions {
    pub format: SinkFormat,
    pub key: Vec<String>,
    pub headers: Vec<String>,
    pub timestamp: Option<String>,
    /// Whether the value is without columns of key and headers.
    pub is_rest: bool,
}

/// The same over the columns of a sink, by position.
#[derive(Clone, Debug)]
pub struct Shape {
    key: Vec<usize>,
    headers: Vec<(String, usize)>,
    timestamp: Option<usize>,
    value: Form,
    schema: SchemaRef,
}

/// One record. What is borrowed is overwritten by the next one.
#[derive(Debug)]
pub struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: &'a [(&'a str, Option<Vec<u8>>)],
    pub timestamp_ms: Option<i64>,
}

impl Record<'_> {
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 10);
        self.key.map_or(0, <[u8]>::len) + self.value.len() + headers.sum::<usize>()
    }
}

impl Shape {
    /// `Definition` for names that are no columns, for a time that is none, and for columns that the format has no form for.
    pub fn new(options: &ShapeOptions, columns: &TableSchema) -> Result<Self> {
        let find = |option: &str, name: &String| {
            let names: Vec<&str> = columns.columns.iter().map(|column| column.name.as_str()).collect();
            let at = names.iter().position(|known| known == name);
            at.ok_or_else(|| Error::Definition {
                message: format!("option '{option}' names \"{name}\", which is no column of the sink"),
                hint: Some(match nearest(name, &names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("its columns are {}", names.join(", ")),
                }),
            })
        };
        let key = options.key.iter().map(|name| find("key", name)).collect::<Result<Vec<_>>>()?;
        let headers = options.headers.iter().map(|name| Ok((name.clone(), find("headers", name)?)));
        let headers = headers.collect::<Result<Vec<_>>>()?;
        let timestamp = options.timestamp.as_ref().map(|name| find("timestamp", name)).transpose()?;
        if let Some(column) = timestamp.map(|at| &columns.columns[at])
            && !matches!(column.data_type, DataType::Timestamp | DataType::TimestampTz)
        {
            return Err(Error::Definition {
                message: format!("option 'timestamp' names \"{}\", which is {}", column.name, column.data_type),
                hint: Some("it takes a column of type TIMESTAMPTZ".into()),
            });
        }
        let is_left_out =
            |at: usize| options.is_rest && (key.contains(&at) || headers.iter().any(|(_, header)| *header == at));
        let value: Vec<_> = columns.columns.iter().enumerate().filter(|(at, _)| !is_left_out(*at)).collect();
        let value = Form::new(&options.format, &value, timestamp)?;
        Ok(Self { key, headers, timestamp, value, schema: columns.arrow() })
    }

    /// The columns of the rows that records are made of.
    pub(crate) fn columns(&self) -> &SchemaRef {
        &self.schema
    }

    /// What the schema registry has to say before records are made, of formats that need one. Blocks. `Mismatch` when it refuses the schema of these columns,
    /// `Unavailable` when it does not answer.
    pub fn wire(&self) -> Result<Wire> {
        self.value.wire()
    }

    /// The schema that would be registered after the subject's newest one, of formats that have any.
    pub fn schema_after(&self, latest: Option<&Writer<'_>>) -> Result<Option<(Kind, String)>> {
        self.value.schema_after(latest)
    }
}

/// The records of a batch, one after the other.
pub(crate) struct Records<'a> {
    shape: &'a Shape,
    wire: &'a Wire,
    columns: Vec<Column<'a>>,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(&'a str, Option<Vec<u8>>)>,
    scratch: String,
}

impl<'a> Records<'a> {
    /// `rows` have the columns of the shape.
    pub(crate) fn new(shape: &'a Shape, wire: &'a Wire, rows: &'a RecordBatch) -> Self {
        let columns = rows.columns().iter().zip(shape.schema.fields()).map(|(array, field)| Column::new(array, field));
        let columns = columns.collect();
        Self { shape, wire, columns, key: Vec::new(), value: Vec::new(), headers: Vec::new(), scratch: String::new() }
    }

    /// The record of a row, or why it has none.
    pub(crate) fn record(&mut self, row: usize) -> Result<Record<'_>, String> {
        self.key.clear();
        let has_key = match self.shape.key.as_slice() {
            [] => false,
            [one] if self.columns[*one].is_null(row) => false,
            [one] => {
                self.columns[*one].write_plain(row, &mut self.scratch, &mut self.key)?;
                true
            }
            several => {
                self.scratch.clear();
                for (at, column) in several.iter().enumerate() {
                    self.scratch.push(if at == 0 { '{' } else { ',' });
                    write_string(self.shape.schema.field(*column).name(), &mut self.scratch);
                    self.scratch.push(':');
                    self.columns[*column].write(row, &mut self.scratch)?;
                }
                self.scratch.push('}');
                self.key.extend_from_slice(self.scratch.as_bytes());
                true
            }
        };
        self.headers.clear();
        for (name, column) in &self.shape.headers {
            let column = &self.columns[*column];
            let value = match column.is_null(row) {
                true => None,
                false => {
                    let mut value = Vec::new();
                    column.write_plain(row, &mut self.scratch, &mut value)?;
                    Some(value)
                }
            };
            self.headers.push((name, value));
        }
        self.value.clear();
        self.shape.value.write(self.wire, &self.columns, row, &mut self.scratch, &mut self.value)?;
        Ok(Record {
            key: has_key.then_some(self.key.as_slice()),
            value: &self.value,
            headers: &self.headers,
            timestamp_ms: self.shape.timestamp.and_then(|column| self.columns[column].timestamp_ms(row)),
        })
    }
}
