//! Changes of rows, as Debezium writes them in JSON, with their schema or without.
//!
//! ```text
//! {"op": "u", "before": {…}, "after": {…}, "source": {…}, "ts_ms": …}        a change
//! {"schema": {…}, "payload": <a change>}                                     a change with its schema
//!
//! message ─ one walk, along the paths of both forms ─► op: which images are rows ─► read as the schema, or the column, says ─► append
//! ```
//!
//! | op | rows |
//! |---|---|
//! | `c` (created), `r` (read by a snapshot) | `after` |
//! | `u` (updated) | `after`; when the key became another one, `before` in front of it, as deleted |
//! | `d` (deleted) | `before`, as deleted |
//!
//! What always holds: a change becomes all of its rows or one reject, and so does everything that is no change of a row. Columns without a PATH are
//! members of the image, others stand where their path says, from the change on. How values are written is told in [`encoding`].

mod encoding;
#[cfg(test)]
mod tests;

use tidemill_storage::schema::DataType;

use self::encoding::{Encoding, Encodings, append, is_unavailable};
use super::{
    DebeziumOptions, Decoded, Decoder, EpochUnit, PathStep, SourceColumn,
    cursor::Unfit,
    json::{self, Kind, Span, Tree},
    rows::{Fault, Rows},
    value::Value,
};
use crate::{Error, Result, message::MessageBatch};

pub(super) struct DebeziumDecoder {
    reader: Reader,
    rows: Rows,
    scratch: Scratch,
}

/// Reused.
#[derive(Default)]
struct Scratch {
    /// For strings with escapes.
    text: String,
    /// For decimals.
    bytes: Vec<u8>,
}

/// A row before or after its change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Image {
    Before,
    After,
}

/// A column, and where in a change its value stands, by image.
struct Place {
    spec: SourceColumn,
    paths: [Vec<PathStep>; 2],
}

impl Place {
    fn new(spec: &SourceColumn) -> Self {
        let of_image = |image: &str| vec![PathStep::Field(image.into()), PathStep::Field(spec.name.clone())];
        let paths = match spec.by_name {
            true => ["before", "after"].map(of_image),
            false => [spec.path.clone(), spec.path.clone()],
        };
        Self { spec: spec.clone(), paths }
    }
}

/// Whether the column's values are those of the database's table, and not Debezium's own.
fn is_of_row(column: &SourceColumn) -> bool {
    column.by_name || matches!(column.path.first(), Some(PathStep::Field(name)) if name == "before" || name == "after")
}

/// Debezium's own times say in their names what they count.
pub(super) fn set_epochs(columns: &mut [SourceColumn]) {
    for column in columns.iter_mut().filter(|column| column.epoch == EpochUnit::ByMagnitude && !is_of_row(column)) {
        let Some(PathStep::Field(name)) = column.path.last() else { continue };
        column.epoch = match name.as_str() {
            "ts_ms" => EpochUnit::Milliseconds,
            "ts_us" => EpochUnit::Microseconds,
            "ts_ns" => EpochUnit::Nanoseconds,
            _ => continue,
        };
    }
}

/// What is looked for besides columns: around a change, and in it.
const SCHEMA: usize = 0;
const PAYLOAD: usize = 1;
const AROUND: [&str; 2] = ["schema", "payload"];
const OP: usize = 0;
const WITHIN: [&str; 3] = ["op", "before", "after"];

/// Where a column's value is found among those of a change.
fn slot(column: usize, image: Image) -> usize {
    WITHIN.len() + 2 * column + image as usize
}

struct Reader {
    /// Of the paths around a change, in a change, and in a change that is the payload.
    tree: Tree,
    found: Vec<Option<Span>>,
    columns: Vec<Place>,
    /// The column that is true in rows of what was deleted.
    deleted: usize,
    encodings: Encodings,
}

/// One message.
struct Change<'a> {
    text: &'a str,
    /// By [`slot`].
    found: &'a [Option<Span>],
    columns: &'a [Place],
    deleted: usize,
    encodings: &'a [Encoding],
    images: &'static [Image],
}

impl DebeziumDecoder {
    /// `Definition` when there is no BOOLEAN column to say what was deleted.
    pub(super) fn new(options: &DebeziumOptions, columns: &[SourceColumn]) -> Result<Self> {
        let name = &options.delete_column;
        let deleted = columns.iter().position(|column| column.name == *name).ok_or_else(|| Error::Definition {
            message: format!("format 'debezium-json' needs the column \"{name}\", which says what was deleted"),
            hint: Some("declare it as BOOLEAN, or name another one in the option delete_column".into()),
        })?;
        let column = &columns[deleted];
        if column.data_type != DataType::Boolean || !column.by_name || column.in_key {
            return Err(Error::Definition {
                message: format!("column \"{name}\" cannot say what was deleted"),
                hint: Some("it takes a BOOLEAN column without PATH, which is not of the key".into()),
            });
        }
        let columns: Vec<Place> = columns.iter().map(Place::new).collect();
        let field = |name: &str| vec![PathStep::Field(name.into())];
        let of_change: Vec<_> =
            WITHIN.map(field).into_iter().chain(columns.iter().flat_map(|column| column.paths.clone())).collect();
        let in_payload = of_change.iter().map(|path| [field(AROUND[PAYLOAD]), path.clone()].concat());
        let paths: Vec<_> = AROUND.map(field).into_iter().chain(of_change.iter().cloned()).chain(in_payload).collect();
        Ok(Self {
            rows: Rows::new(&columns.iter().map(|column| column.spec.clone()).collect::<Vec<_>>()),
            reader: Reader {
                tree: Tree::new(paths.iter().map(Vec::as_slice)),
                found: vec![None; paths.len()],
                encodings: Encodings::new(options.decimals, &columns),
                columns,
                deleted,
            },
            scratch: Scratch::default(),
        })
    }
}

impl Decoder for DebeziumDecoder {
    fn decode(&mut self, messages: &MessageBatch) -> Result<Decoded> {
        let Self { reader, rows, scratch } = self;
        while let Some(message) = rows.next(messages) {
            let change = match reader.read(messages.payload(message)) {
                Ok(Some(change)) => change,
                Ok(None) => continue,
                Err(fault) => {
                    rows.end_row(Err(fault), messages, message);
                    continue;
                }
            };
            for (at, image) in change.images.iter().enumerate() {
                let result = change.append(*image, rows, scratch);
                let is_bad = result.is_err();
                if is_bad && at > 0 {
                    rows.take_back();
                }
                rows.end_row(result, messages, message);
                if is_bad {
                    break;
                }
            }
        }
        Ok(rows.finish())
    }
}

impl Reader {
    /// The change that a message is; none for a tombstone.
    fn read<'a>(&'a mut self, payload: &'a [u8]) -> Result<Option<Change<'a>>, Fault> {
        let text = json::find(&self.tree, payload, &mut self.found)?;
        let (around, changes) = self.found.split_at(AROUND.len());
        let (bare, wrapped) = changes.split_at(changes.len() / 2);
        let (found, schema) = match around[PAYLOAD] {
            Some(payload) if bare[OP].is_none() => {
                // Some converters give tombstones a schema, too.
                if payload.kind == Kind::Null && around[SCHEMA].is_some() {
                    return Ok(None);
                }
                (wrapped, around[SCHEMA].filter(|schema| schema.kind == Kind::Object))
            }
            _ => (bare, None),
        };
        let images = images(text, found, &self.columns)?;
        let encodings = self.encodings.of(schema.map(|schema| schema.of(text)), &self.columns)?;
        Ok(Some(Change { text, found, columns: &self.columns, deleted: self.deleted, encodings, images }))
    }
}

/// Which images of a change are rows.
fn images(text: &str, found: &[Option<Span>], columns: &[Place]) -> Result<&'static [Image], Fault> {
    let op = match found[OP] {
        Some(Span { kind: Kind::PlainString, start, end }) => &text[start + 1..end - 1],
        _ => {
            let reason = "the message has no \"op\" of Debezium (events that were flattened are of format 'json')";
            return Err(Fault::message(reason));
        }
    };
    let images: &'static [Image] = match op {
        "c" | "r" => &[Image::After],
        "u" if is_moved(text, found, columns) => &[Image::Before, Image::After],
        "u" => &[Image::After],
        "d" => &[Image::Before],
        "t" => return Err(Fault::message("op \"t\": the table was truncated, and its rows stay here")),
        "m" => return Err(Fault::message("op \"m\": a message of the database is no change of a row")),
        _ => {
            let shown: String = op.chars().take(20).collect();
            return Err(Fault::message(format!("op \"{shown}\" is none of c, r, u and d")));
        }
    };
    for image in images {
        let name = WITHIN[1 + *image as usize];
        if !is_row(found, *image) {
            return Err(Fault::message(format!("op \"{op}\" needs the row in \"{name}\", which is not there")));
        }
    }
    Ok(images)
}

fn is_row(found: &[Option<Span>], image: Image) -> bool {
    found[1 + image as usize].is_some_and(|span| span.kind == Kind::Object)
}

/// Whether an update gave its row another key. A key that is the same in other words may look like one: its row is then deleted and comes anew.
fn is_moved(text: &str, found: &[Option<Span>], columns: &[Place]) -> bool {
    let mut is_other = false;
    for at in (0..columns.len()).filter(|at| columns[*at].spec.in_key) {
        let [before, after] = [Image::Before, Image::After].map(|image| found[slot(at, image)]);
        // Databases send keys as a whole, or not at all.
        let Some(before) = before.filter(|before| before.kind != Kind::Null) else { return false };
        is_other |= after.is_none_or(|after| before.of(text) != after.of(text));
    }
    is_other && is_row(found, Image::Before)
}

impl Change<'_> {
    fn append(&self, image: Image, rows: &mut Rows, scratch: &mut Scratch) -> Result<(), Fault> {
        for (at, Place { spec, paths }) in self.columns.iter().enumerate() {
            let column = rows.column(at);
            if at == self.deleted {
                column.append(Value::Boolean(image == Image::Before))?;
                continue;
            }
            let span = self.found[slot(at, image)];
            let value = match span {
                None => Value::Null,
                Some(span) => json::value(span, self.text, &mut scratch.text)
                    .map_err(|misfit| column.refusal(Value::Json(span.of(self.text)), misfit))?,
            };
            // Of what is deleted, the key counts.
            if value == Value::Null || (image == Image::Before && is_unavailable(value)) {
                if !spec.nullable {
                    return Err(Fault::not_null_at(&spec.name, &paths[image as usize], span.is_some()));
                }
                column.append_null();
                continue;
            }
            append(column, &self.encodings[at], value, &mut scratch.bytes).map_err(|unfit| match unfit {
                Unfit::Fault(fault) => fault,
                Unfit::Broken(broken) => broken.into(),
                Unfit::Misfit(misfit) => column.refusal(value, misfit).into(),
            })?;
        }
        Ok(())
    }
}
