//! Dead letters of a sink once more, after the cause is gone (the topic takes larger records, the sink was altered).
//!
//! ```text
//! file of letters ─► records ─ commit {records, place, which letters} ─► a checkpoint forgets these letters ─► commit {place}
//! ```
//!
//! What always holds: a letter is in `rt.dlq`, or its record is in the topic, and for no longer than a start takes in both: the commit says which letters of which file it has, and whoever takes
//! over forgets these before anything else is sent. Without transactions a crash between the two has records come again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::datatypes::{Field, SchemaRef};
use tidemill_storage::{ids::StreamId, schema::DataType};

use super::{
    Board,
    letters::Owner,
    thread::{Delivering, Ended},
};
use crate::{
    Error, Result,
    commit::DeadLetterRecord,
    consumer::messages_of,
    dead_letters::{DeadLetter, DeadLetterReader},
    decode::{self, EpochUnit, Format, SourceColumn, decode_batch},
    message::SourceBatch,
    sink::{Outlet, Records, Resent, Undelivered, Wire},
};

/// Letters and bytes of one commit.
const LETTERS_MAX: usize = 10_000;
const BYTES_MAX: usize = 32 << 20;
/// Brokers keep notes of 4096 bytes: ranges of letters that one commit can name.
const RANGES_MAX: usize = 200;

/// What somebody asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) enum Asked {
    #[default]
    Nothing,
    Wanted,
    Done(Result<u64>),
}

impl Board {
    pub(in crate::pipeline::run) fn ask_again(&self) {
        *self.again.lock() = Asked::Wanted;
    }

    /// What came of it; nothing is asked for any more.
    pub(in crate::pipeline::run) fn answer(&self) -> Option<Result<u64>> {
        let mut asked = self.again.lock();
        match std::mem::take(&mut *asked) {
            Asked::Done(done) => Some(done),
            other => {
                *asked = other;
                None
            }
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(*self.again.lock(), Asked::Wanted)
    }

    /// Says what came of it, if anybody waits for that.
    pub(super) fn tell_again(&self, done: Result<u64>) {
        let mut asked = self.again.lock();
        if matches!(*asked, Asked::Wanted) {
            *asked = Asked::Done(done);
        }
    }
}

/// Letters of one file that can be sent.
struct Chunk {
    file: String,
    /// Rows as the sink has them, which are records.
    batches: Vec<SourceBatch>,
    /// Places in the file by the row in the log.
    places: BTreeMap<u64, u32>,
}

impl Delivering {
    /// Sends letters again, when somebody asked for that. Everything before `position` is committed, and nothing else was put.
    pub(super) fn send_again(&mut self, outlet: &mut dyn Outlet, wire: &Wire, position: u64) -> Result<(), Ended> {
        while let Some(resent) = self.put_first(outlet, wire)? {
            let count: u64 = resent.letters.iter().map(|(from, to)| u64::from(to - from)).sum();
            self.resent = Some(resent);
            self.is_sending_again = true;
            let committed = self.commit(outlet, position, 0);
            self.is_sending_again = false;
            committed?;
            self.forget_again()?;
            self.commit(outlet, position, 0)?;
            self.sent_again += count;
        }
        self.board.tell_again(Ok(std::mem::take(&mut self.sent_again)));
        self.aside.clear();
        self.is_alone_again = false;
        self.shared.changed.notify_waiters();
        Ok(())
    }

    /// Puts what of the first file that has any can be sent in one commit. What is left of the file comes into another one.
    fn put_first(&mut self, outlet: &mut dyn Outlet, wire: &Wire) -> Result<Option<Resent>, Ended> {
        for file in self.letters.log.dead_letters(self.shared.id)? {
            while let Some(chunk) = self.chunk(&file)? {
                if let Some(resent) = self.put_again(outlet, wire, chunk)? {
                    return Ok(Some(resent));
                }
            }
        }
        Ok(None)
    }

    /// Has a checkpoint forget letters that were sent.
    pub(super) fn forget_again(&mut self) -> Result<(), Ended> {
        fail::fail_point!("delivery::before_forget", |_| Err(Ended::Again(Error::Unavailable(
            "failpoint delivery::before_forget".into()
        ))));
        let Some(resent) = &self.resent else { return Ok(()) };
        let forgotten = self.shared.forgetting.ask(resent.clone());
        self.output.want_checkpoint();
        loop {
            if let Some(done) = forgotten.lock().take() {
                done?;
                break;
            }
            if self.is_finishing() {
                return Err(
                    Error::Unavailable("the pipeline ends before letters that were sent are forgotten".into()).into()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.resent = None;
        self.letters.known = None;
        Ok(())
    }

    fn owner(&self) -> Owner<'_> {
        Owner { log: self.stream.source, sink: self.spec.id, name: &self.spec.name }
    }

    /// The first letters of a file that are the sink's, and that nobody has refused again.
    fn chunk(&self, file: &DeadLetterRecord) -> Result<Option<Chunk>> {
        let (mut rows, mut outputs): (BTreeMap<u64, DeadLetter>, BTreeMap<u64, DeadLetter>) = Default::default();
        let (mut places, mut bytes) = (BTreeMap::new(), 0);
        let owner = self.owner();
        for (at, letter) in DeadLetterReader::open(&self.letters.directory.join(&file.file))?.enumerate() {
            let letter = letter?;
            let offset = letter.reject.offset;
            // Of a row that was cut the rest is gone.
            let is_whole = letter.raw_length == letter.reject.raw.len() as u64;
            if !owner.has(&letter) || !is_whole || self.aside.contains(&offset) || places.contains_key(&offset) {
                continue;
            }
            bytes += letter.reject.raw.len();
            places.insert(offset, at as u32);
            let is_row = letter.reject.column.is_none() && has_names(&letter.reject.raw, self.spec.shape.columns());
            if is_row {
                rows.insert(offset, letter)
            } else {
                outputs.insert(offset, letter)
            };
            if places.len() >= LETTERS_MAX || bytes >= BYTES_MAX {
                break;
            }
        }
        if places.is_empty() {
            return Ok(None);
        }
        let mut batches = decoded(self.stream, &rows, self.spec.shape.columns())?;
        for batch in decoded(self.stream, &outputs, self.spec.transform.source())? {
            let made = self.spec.transform.apply(&batch);
            batches.push(SourceBatch { rows: made.rows, row_offsets: made.row_offsets, ..batch });
        }
        Ok(Some(Chunk { file: file.file.clone(), batches, places }))
    }

    /// Puts the records of a chunk; which letters these are. Those that are refused again stay letters, and are not looked at any more.
    fn put_again(&mut self, outlet: &mut dyn Outlet, wire: &Wire, chunk: Chunk) -> Result<Option<Resent>, Ended> {
        let shape = Arc::clone(&self.spec.shape);
        let mut left: BTreeSet<u64> = chunk.places.keys().copied().collect();
        let (mut sent, mut ranges): (BTreeSet<u32>, usize) = Default::default();
        for batch in &chunk.batches {
            let mut records = Records::new(&shape, wire, &batch.rows);
            for (row, offset) in batch.row_offsets.iter().enumerate() {
                let Some(place) = chunk.places.get(offset) else { continue };
                let Ok(record) = records.record(row) else { continue };
                if outlet.refuses(&record).is_some() {
                    continue;
                }
                left.remove(offset);
                let has_before = place.checked_sub(1).is_some_and(|before| sent.contains(&before));
                let grown = ranges + 1 - usize::from(has_before) - usize::from(sent.contains(&(place + 1)));
                // The next commit has it.
                if grown > RANGES_MAX {
                    continue;
                }
                ranges = grown;
                sent.insert(*place);
                let put = outlet.put(*offset, &record);
                put.map_err(|undelivered| self.refused_again(undelivered))?;
            }
        }
        self.aside.extend(left);
        let mut resent = Resent { file: chunk.file, letters: Vec::new() };
        sent.iter().for_each(|place| resent.push(*place));
        Ok((!sent.is_empty()).then_some(resent))
    }

    /// A broker refuses some of them: those stay letters, and the others are tried without them.
    pub(super) fn refused_again(&mut self, undelivered: Undelivered) -> Ended {
        match undelivered {
            Undelivered::Again(error) => Ended::Again(error),
            Undelivered::Refused { offsets, .. } => {
                if offsets.len() == 1 || self.is_alone_again {
                    self.aside.extend(offsets);
                } else {
                    self.is_alone_again = true;
                }
                Ended::Poison
            }
        }
    }
}

/// Whether the members of a document are these columns.
fn has_names(raw: &[u8], columns: &SchemaRef) -> bool {
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(raw) {
        Ok(members) => {
            members.len() == columns.fields().len()
                && columns.fields().iter().all(|field| members.contains_key(field.name()))
        }
        Err(_) => false,
    }
}

/// Letters as the rows that they were made of. Those that cannot be read are left out.
fn decoded(stream: StreamId, letters: &BTreeMap<u64, DeadLetter>, columns: &SchemaRef) -> Result<Vec<SourceBatch>> {
    let column = |field: &Arc<Field>| {
        let of = DataType::of_field(field).unwrap_or(DataType::Text);
        SourceColumn::new(field.name(), of, true).with_path(vec![decode::PathStep::Field(field.name().clone())])
    };
    let columns: Vec<SourceColumn> = columns.fields().iter().map(column).collect();
    let mut batches = Vec::new();
    if letters.is_empty() {
        return Ok(batches);
    }
    let mut decoder = decode::decoder(&Format::Json { epoch: EpochUnit::default() }, &columns)?;
    let mut rest = Some(messages_of(stream, letters)?);
    while let Some(batch) = rest {
        let made;
        (made, rest) = decode_batch(&mut *decoder, stream, batch)?;
        batches.push(SourceBatch { origin: None, ..made });
    }
    Ok(batches)
}
