//! Columns of a source, from a sample of its messages.
//!
//! ```text
//! JSON: every value of the sample ─► what was seen at each path ─► types        Avro, Protobuf: the schemas of the sample's messages ─► types
//!   ─► columns ─► the whole sample is decoded into them ─► a column that refuses a value becomes wider ─► again
//! ```
//!
//! Objects become columns of their members, with paths; lists of one type arrays; what is a map, a list of objects or of several types JSONB. No column is NOT NULL: a sample proves nothing of what it has not.

mod json;
mod schema;
#[cfg(test)]
mod tests;

use tidemill_storage::schema::DataType;

use super::{EpochUnit, Format, PathStep, SourceColumn, decoder, path::display_path};
use crate::{Error, Result, message::MessageBatch};

/// Columns of one source. Types that contain each other would have very many.
pub(super) const COLUMNS_MAX: usize = 400;
/// How deep objects are taken apart.
pub(super) const DEPTH_MAX: usize = 5;
/// Of a column, with room for a number behind it.
const NAME_BYTES_MAX: usize = 60;
/// Times that columns become wider.
const ROUNDS_MAX: usize = 50;

/// A column as CREATE SOURCE would have it.
#[derive(Clone, Debug, PartialEq)]
pub struct InferredColumn {
    pub name: String,
    pub data_type: DataType,
    /// `None` is the member of the column's name.
    pub path: Option<String>,
    pub epoch: Option<&'static str>,
}

/// What a sample says.
#[derive(Clone, Debug, PartialEq)]
pub struct Inferred {
    pub columns: Vec<InferredColumn>,
    /// Messages that were looked at, and those of them that are no rows of these columns.
    pub messages: usize,
    pub unreadable: usize,
}

/// A column in the making.
#[derive(Clone, Debug)]
pub(super) struct Found {
    path: Vec<String>,
    of: DataType,
    epoch: Option<&'static str>,
}

impl Found {
    pub(super) fn new(path: &[String], of: DataType) -> Self {
        Self { path: path.to_vec(), of, epoch: None }
    }
}

/// What stands in a place of a schema.
pub(super) enum Leaf {
    Column(DataType),
    /// Fields of its own.
    Record,
    /// What has no columns of its own: a map, a union, a list of records.
    Document,
}

impl Leaf {
    /// `None` is a record, to be taken apart.
    pub(super) fn data_type(self) -> Option<DataType> {
        match self {
            Self::Column(of) => Some(of),
            Self::Document => Some(DataType::Jsonb),
            Self::Record => None,
        }
    }
}

/// The columns that fit a sample. `topic` names the subject of a registry when there is no message. Blocks where a registry is asked.
pub fn infer(format: &Format, topic: Option<&str>, sample: &[MessageBatch]) -> Result<Inferred> {
    let found = match format {
        Format::Json { .. } => json::columns(sample),
        Format::Avro { schema, .. } => schema::avro(schema, topic, sample)?,
        Format::Protobuf { schema, .. } => schema::protobuf(schema, topic, sample)?,
        other => {
            return Err(Error::Unsupported {
                message: format!("columns cannot be inferred from messages of format '{}'", other.name()),
                hint: Some("INFER takes json, avro and protobuf; write the columns in parentheses".into()),
            });
        }
    };
    let messages = sample.iter().flat_map(|batch| &batch.messages).filter(|message| !message.is_null).count();
    if found.is_empty() {
        return Err(Error::Definition {
            message: match messages {
                0 => "there is no message to infer columns from".into(),
                count => format!("none of {count} messages is an object with members"),
            },
            hint: Some("write the columns in parentheses: CREATE SOURCE name (id BIGINT, …) WITH (…)".into()),
        });
    }
    let mut columns = named(found);
    let mut unreadable = 0;
    for _ in 0..ROUNDS_MAX {
        let (refusing, others) = refusals(format, &columns, sample)?;
        unreadable = others;
        let mut is_wider = false;
        for name in refusing {
            if let Some(column) = columns.iter_mut().find(|column| column.name == name) {
                is_wider |= widen(column);
            }
        }
        if !is_wider {
            break;
        }
    }
    Ok(Inferred { columns, messages, unreadable })
}

/// Columns with names of their own: the whole path, with a number where another column has it.
fn named(mut found: Vec<Found>) -> Vec<InferredColumn> {
    found.truncate(COLUMNS_MAX);
    let mut columns: Vec<InferredColumn> = Vec::with_capacity(found.len());
    // Members of the message itself keep their names.
    let own: Vec<String> = found.iter().filter(|one| one.path.len() == 1).map(|one| one.path[0].clone()).collect();
    for Found { path, of, epoch } in found {
        let steps: Vec<PathStep> = path.iter().cloned().map(PathStep::Field).collect();
        let is_own = path.len() == 1;
        let whole = shortened(&path.join("_"));
        let is_free =
            |name: &String| columns.iter().all(|column| column.name != *name) && (is_own || !own.contains(name));
        let name = (1..)
            .map(|number| if number == 1 { whole.clone() } else { format!("{whole}_{number}") })
            .find(|name| is_free(name))
            .unwrap_or_default();
        let path = (!is_own || name != path[0]).then(|| display_path(&steps));
        columns.push(InferredColumn { name, data_type: of, path, epoch });
    }
    columns
}

/// A name that a column can have; the member's own stands in the path.
fn shortened(name: &str) -> String {
    let end = name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= NAME_BYTES_MAX).last();
    match &name[..end.unwrap_or(0)] {
        "" => "_".into(),
        name => name.to_owned(),
    }
}

/// Columns that refuse a message of the sample, and how many messages are refused for other reasons.
fn refusals(format: &Format, columns: &[InferredColumn], sample: &[MessageBatch]) -> Result<(Vec<String>, usize)> {
    let source_column = |column: &InferredColumn| -> Result<SourceColumn> {
        let mut made = SourceColumn::new(&column.name, column.data_type.clone(), true);
        if let Some(path) = &column.path {
            made = made.with_path(super::parse_path(path)?);
        }
        if let Some(unit) = column.epoch.and_then(EpochUnit::parse) {
            made = made.with_epoch(unit);
        }
        Ok(made)
    };
    let columns = columns.iter().map(source_column).collect::<Result<Vec<_>>>()?;
    let mut decoder = decoder(format, &columns)?;
    let (mut refusing, mut others) = (Vec::new(), 0);
    for batch in sample {
        let mut rest = Some(batch.clone());
        while let Some(mut batch) = rest.take() {
            let decoded = decoder.decode(&batch)?;
            rest = batch.split_off(decoded.taken.max(1));
            for reject in decoded.rejects {
                match reject.column {
                    Some(column) if !refusing.contains(&column) => refusing.push(column),
                    Some(_) => {}
                    None => others += 1,
                }
            }
        }
    }
    Ok((refusing, others))
}

/// A type that takes more; whether there is one.
fn widen(column: &mut InferredColumn) -> bool {
    let wider = match (&column.data_type, column.epoch) {
        (DataType::Date | DataType::Timestamp | DataType::TimestampTz, Some(_))
        | (DataType::SmallInt | DataType::Int, _) => DataType::BigInt,
        (DataType::BigInt, _) => DataType::Numeric { precision: 38, scale: 0 },
        (DataType::Real, _) => DataType::Double,
        (DataType::Numeric { scale, .. }, _) if *scale > 0 => DataType::Double,
        (DataType::Text | DataType::Uuid | DataType::Date | DataType::Timestamp | DataType::TimestampTz, _)
            if column.data_type != DataType::Text =>
        {
            DataType::Text
        }
        (DataType::Jsonb, _) => return false,
        _ => DataType::Jsonb,
    };
    column.data_type = wider;
    column.epoch = None;
    true
}
