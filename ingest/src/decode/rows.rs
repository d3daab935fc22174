//! Rows under construction: columns that grow together, and the messages that did not make it.

use arrow::{
    array::{BooleanArray, BooleanBufferBuilder, RecordBatch, RecordBatchOptions},
    compute::filter,
    datatypes::SchemaRef,
};

use super::{
    Decoded, PathStep, SourceColumn,
    column::{Column, Refusal},
    path::display_path,
    source_schema,
};
use crate::message::{Message, MessageBatch, Reject};

/// Bytes of JSON documents that a batch holds before it ends early: `DOCUMENT_BYTES_MAX` bounds a document, this the many of one fetch.
const WRITTEN_BYTES_MAX: usize = 32 << 20;

/// Why a message is no row.
#[derive(Debug)]
pub(super) struct Fault {
    column: Option<String>,
    reason: String,
}

impl Fault {
    pub(super) fn message(reason: impl Into<String>) -> Self {
        Self { column: None, reason: reason.into() }
    }

    pub(super) fn column(name: &str, reason: String) -> Self {
        Self { column: Some(name.to_owned()), reason }
    }

    /// A column that takes no NULL has no value in the message, or a null.
    pub(super) fn not_null(column: &SourceColumn, is_null: bool) -> Self {
        Self::not_null_at(&column.name, &column.path, is_null)
    }

    /// The same of a column whose value stands elsewhere than its own path says.
    pub(super) fn not_null_at(name: &str, path: &[PathStep], is_null: bool) -> Self {
        let what = if is_null { "null" } else { "no value" };
        let path = display_path(path);
        Self::column(name, format!("column \"{name}\" is NOT NULL and the message has {what} at {path}"))
    }

    /// The message as a reject of its own copy of the bytes' handle.
    pub(super) fn reject(self, messages: &MessageBatch, message: &Message) -> Reject {
        Reject {
            offset: message.offset,
            timestamp_ms: message.timestamp_ms,
            column: self.column,
            reason: self.reason,
            raw: messages.payloads.slice(message.payload.start as usize..message.payload.end as usize),
        }
    }
}

impl From<Box<Refusal>> for Fault {
    fn from(refusal: Box<Refusal>) -> Self {
        Self { column: Some(refusal.column().to_owned()), reason: refusal.to_string() }
    }
}

/// The columns of one batch. A row is appended column by column, then ended; a row that ended badly is filled up with NULLs and left
/// out when the batch is finished.
#[derive(Debug)]
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Rows in the columns, good or bad.
    count: usize,
    offsets: Vec<u64>,
    /// Which rows are good; empty until the first bad one.
    good: BooleanBufferBuilder,
    rejects: Vec<Reject>,
    /// Columns that may hold JSON.
    documents: Vec<usize>,
    /// Messages that were given out since the last [`Self::finish`].
    taken: usize,
}

impl Rows {
    pub(super) fn new(columns: &[SourceColumn]) -> Self {
        Self {
            schema: source_schema(columns),
            columns: columns.iter().map(Column::new).collect(),
            count: 0,
            offsets: Vec::new(),
            good: BooleanBufferBuilder::new(0),
            rejects: Vec::new(),
            documents: (0..columns.len()).filter(|at| columns[*at].data_type.holds_json()).collect(),
            taken: 0,
        }
    }

    /// The next message of the batch that has a value; none when all were given out, or when the rows became very large.
    #[inline]
    pub(super) fn next<'a>(&mut self, messages: &'a MessageBatch) -> Option<&'a Message> {
        if self.documents.iter().map(|at| self.columns[*at].written()).sum::<usize>() >= WRITTEN_BYTES_MAX {
            return None;
        }
        let rest = messages.messages.get(self.taken..)?;
        let Some(at) = rest.iter().position(|message| !message.is_null) else {
            self.taken = messages.messages.len();
            return None;
        };
        self.taken += at + 1;
        rest.get(at)
    }

    #[inline]
    pub(super) fn column(&mut self, at: usize) -> &mut Column {
        &mut self.columns[at]
    }

    /// Ends the row that `message` made; columns that got no value have NULL when the row is bad.
    #[inline]
    pub(super) fn end_row(&mut self, result: Result<(), Fault>, messages: &MessageBatch, message: &Message) {
        match result {
            Ok(()) => {
                self.offsets.push(message.offset);
                if !self.good.is_empty() {
                    self.good.append(true);
                }
                self.count += 1;
            }
            Err(fault) => {
                self.rejects.push(fault.reject(messages, message));
                if self.columns.iter().all(|column| column.len() == self.count) {
                    return;
                }
                for column in self.columns.iter_mut().filter(|column| column.len() == self.count) {
                    column.append_null();
                }
                let before = self.good.len();
                self.good.append_n(self.count - before, true);
                self.good.append(false);
                self.count += 1;
            }
        }
    }

    /// Takes back the last row, which ended well: another one of its message does not.
    pub(super) fn take_back(&mut self) {
        self.offsets.pop();
        let before = self.good.len();
        self.good.append_n(self.count - before, true);
        self.good.set_bit(self.count - 1, false);
    }

    /// Everything since the last call.
    pub(super) fn finish(&mut self) -> Decoded {
        let mut arrays: Vec<_> = self.columns.iter_mut().map(Column::finish).collect();
        if !self.good.is_empty() {
            let good = BooleanArray::new(self.good.finish(), None);
            for array in &mut arrays {
                *array = filter(array, &good).expect("invariant: every column has one value per row");
            }
        }
        self.count = 0;
        let row_offsets = std::mem::take(&mut self.offsets);
        self.offsets.reserve(row_offsets.len());
        let options = RecordBatchOptions::new().with_row_count(Some(row_offsets.len()));
        let rows = RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), arrays, &options)
            .expect("invariant: columns have the schema's types, and NULL only where it is allowed");
        let rejects = std::mem::take(&mut self.rejects);
        Decoded { rows, row_offsets, rejects, taken: std::mem::take(&mut self.taken) }
    }
}
