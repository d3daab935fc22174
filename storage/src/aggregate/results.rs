//! Answers kept: what a run of a committed segment's rows said to a request, for when it is asked again.
//!
//! A committed segment never changes, so its answers need no invalidation; they leave when memory is wanted for newer ones. Of a table that grows
//! all but the youngest rows are in such segments: a dashboard that asks every second pays for these.
//!
//! What tells two requests apart is what they mean *for the segment*: a condition that all of its rows satisfy (`ts > now() - interval '7 days'`,
//! other at each refresh) is no part of the key. Kept is only what took long to find.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions},
    datatypes::DataType as ArrowType,
};
use quick_cache::{Weighter, sync::Cache};

use super::{Aggregate, AggregateRequest, Aggregation, Function, GroupKey};
use crate::{
    Result,
    clock::Clock,
    predicate::{CompareOp, Predicate},
    prune::{Run, settled},
    scalar::Scalar,
    scan::ScanMetrics,
    segment::Segment,
};

/// Microseconds that an answer must have taken to be kept: less is found again as fast as it is looked up.
const PAYS_US: i64 = 100;
/// Bytes that an entry takes besides its key and its columns.
const ENTRY_BYTES: usize = 256;
/// No answer may take more than this part of the cache.
const LARGEST_PART: usize = 16;
/// Bytes of an answer that are expected, for the size of the cache's table.
const USUAL_BYTES: usize = 4096;

/// Answers of committed segments, up to a number of bytes.
#[derive(Debug)]
pub struct ResultCache {
    answers: Cache<Key, RecordBatch, Weight>,
    bytes_max: usize,
    /// In microseconds.
    pays: i64,
    clock: Arc<dyn Clock>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl ResultCache {
    /// At most about `bytes_max` bytes; with 0 nothing is kept.
    pub fn new(bytes_max: usize, clock: Arc<dyn Clock>) -> Self {
        Self::keeping(bytes_max, PAYS_US, clock)
    }

    /// The same, of answers that took at least `pays` microseconds.
    pub fn keeping(bytes_max: usize, pays: i64, clock: Arc<dyn Clock>) -> Self {
        Self {
            answers: Cache::with_weighter((bytes_max / USUAL_BYTES).max(16), bytes_max as u64, Weight),
            bytes_max,
            pays,
            clock,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// Bytes that the answers take.
    pub fn bytes(&self) -> u64 {
        self.answers.weight()
    }

    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// How often an answer was there.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How often a committed segment was asked for an answer that was not there.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    fn get(&self, key: &Key) -> Option<RecordBatch> {
        let found = self.answers.get(key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn put(&self, key: Key, answer: &RecordBatch) -> Result<()> {
        let answer = compact(answer)?;
        if Weight.weight(&key, &answer) as usize <= self.bytes_max / LARGEST_PART {
            self.answers.insert(key, answer);
        }
        Ok(())
    }
}

/// Everything that the answer depends on, in bytes.
type Key = Box<[u8]>;

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, RecordBatch> for Weight {
    fn weight(&self, key: &Key, answer: &RecordBatch) -> u64 {
        (ENTRY_BYTES + key.len() + answer.get_array_memory_size()) as u64
    }
}

/// A list of values in memory of their own.
fn own_list(list: &ListArray) -> ArrayRef {
    match list.values().data_type() {
        ArrowType::Utf8View => {
            let (field, offsets, values, nulls) = list.clone().into_parts();
            let values = Arc::new(values.as_string_view().gc());
            Arc::new(ListArray::new(field, offsets, values, nulls))
        }
        _ => Arc::new(list.clone()),
    }
}

/// The answer in memory of its own: texts are views of the segment's file, which is not to be held by them.
fn compact(answer: &RecordBatch) -> Result<RecordBatch> {
    let column = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            ArrowType::Utf8View => Arc::new(column.as_string_view().gc()),
            ArrowType::BinaryView => Arc::new(column.as_binary_view().gc()),
            ArrowType::List(_) => own_list(column.as_list()),
            _ => Arc::clone(column),
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(answer.num_rows()));
    let columns = answer.columns().iter().map(column).collect();
    Ok(RecordBatch::try_new_with_options(answer.schema(), columns, &options)?)
}

/// Begins the aggregation of rows, or gives the answer that is kept.
pub(super) fn begin(
    cache: &Arc<ResultCache>,
    segment: &Arc<dyn Segment>,
    rows: Range<u32>,
    request: &Arc<AggregateRequest>,
    metrics: &Arc<ScanMetrics>,
) -> Result<Box<dyn Aggregation>> {
    let plain = || Arc::clone(segment).aggregate(rows.clone(), Arc::clone(request), Arc::clone(metrics));
    // A segment whose file is gone has no answers, whatever is kept.
    let Some(serial) = segment.as_committed().and_then(|segment| segment.serial()) else { return plain() };
    let key = key(serial, &rows, segment.as_ref(), request);
    if let Some(answer) = cache.get(&key) {
        return Ok(Box::new(Kept { answer: Some(answer), schema: request.output_schema()? }));
    }
    let start = cache.clock.monotonic_us();
    let run = plain()?;
    let spent = cache.clock.monotonic_us() - start;
    Ok(Box::new(Keeping { run, key: Some(key), cache: Arc::clone(cache), is_done: false, spent }))
}

/// An answer that was kept.
#[derive(Debug)]
struct Kept {
    answer: Option<RecordBatch>,
    schema: arrow::datatypes::SchemaRef,
}

impl Aggregation for Kept {
    fn step(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn take(&mut self) -> Result<RecordBatch> {
        match self.answer.take() {
            // The same columns, by the names that they have now.
            Some(answer) => Ok(answer.with_schema(Arc::clone(&self.schema))?),
            None => Ok(RecordBatch::new_empty(Arc::clone(&self.schema))),
        }
    }

    fn way(&self) -> &'static str {
        "kept answer"
    }
}

/// A run whose answer will be kept.
#[derive(Debug)]
struct Keeping {
    run: Box<dyn Aggregation>,
    /// `None` when only a part of the answer was taken, or all of it.
    key: Option<Key>,
    cache: Arc<ResultCache>,
    is_done: bool,
    /// Microseconds.
    spent: i64,
}

impl Aggregation for Keeping {
    fn step(&mut self) -> Result<bool> {
        let start = self.cache.clock.monotonic_us();
        let has_more = self.run.step()?;
        self.spent += self.cache.clock.monotonic_us() - start;
        self.is_done |= !has_more;
        Ok(has_more)
    }

    fn memory_bytes(&self) -> usize {
        self.run.memory_bytes()
    }

    fn take(&mut self) -> Result<RecordBatch> {
        let answer = self.run.take()?;
        if let Some(key) = self.key.take()
            && self.is_done
            && self.spent >= self.cache.pays
        {
            self.cache.put(key, &answer)?;
        }
        Ok(answer)
    }

    fn way(&self) -> &'static str {
        self.run.way()
    }
}

/// The bytes of a key. Every part says what it is and how long, so that two requests have the same bytes only if they are the same.
struct Writer(Vec<u8>);

fn key(serial: u64, rows: &Range<u32>, segment: &dyn Segment, request: &AggregateRequest) -> Key {
    let mut out = Writer(Vec::with_capacity(128));
    out.number(serial);
    out.number(u64::from(rows.start) << 32 | u64::from(rows.end));
    out.number(u64::from(request.schema.version.0));
    // Sums of floats by documents may differ from those by rows, and who turned trees off wants the latter.
    out.tag(u8::from(request.star_tree));
    out.length(request.keys.len());
    for GroupKey { column, bin } in &request.keys {
        out.number(u64::from(column.0));
        match bin {
            None => out.tag(0),
            Some(bin) => {
                out.tag(1);
                out.number(bin.width as u64);
                out.number(bin.origin as u64);
            }
        }
    }
    let run = Run {
        rows: u64::from(segment.rows()),
        written: segment.schema(),
        stats: |index: usize| segment.stats(segment.schema().columns.get(index)?.id),
    };
    let settled = |predicate: &Predicate| settled(predicate, &request.schema, &run);
    out.length(request.aggregates.len());
    for Aggregate { function, filter } in &request.aggregates {
        out.function(function);
        out.condition(filter.as_ref().and_then(settled).as_ref());
    }
    out.condition(request.predicate.as_ref().and_then(settled).as_ref());
    out.0.into_boxed_slice()
}

impl Writer {
    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn function(&mut self, function: &Function) {
        self.tag(function.code());
        self.number(function.column().map_or(0, |column| u64::from(column.0)));
        self.number(function.subject().map_or(0, |column| u64::from(column.0)));
    }

    fn condition(&mut self, condition: Option<&Predicate>) {
        match condition {
            None => self.tag(0),
            Some(condition) => {
                self.tag(1);
                self.predicate(condition);
            }
        }
    }

    fn predicate(&mut self, predicate: &Predicate) {
        match predicate {
            Predicate::And(children) | Predicate::Or(children) => {
                self.tag(if matches!(predicate, Predicate::And(_)) { 0 } else { 1 });
                self.length(children.len());
                for child in children {
                    self.predicate(child);
                }
            }
            Predicate::Compare { column, op, value } => {
                self.tag(2);
                self.number(u64::from(column.0));
                self.tag(match op {
                    CompareOp::Eq => 0,
                    CompareOp::NotEq => 1,
                    CompareOp::Less => 2,
                    CompareOp::LessEq => 3,
                    CompareOp::Greater => 4,
                    CompareOp::GreaterEq => 5,
                });
                self.scalar(value);
            }
            Predicate::In { column, values, negated } => {
                self.tag(3);
                self.number(u64::from(column.0));
                self.tag(u8::from(*negated));
                self.length(values.len());
                for value in values {
                    self.scalar(value);
                }
            }
            Predicate::Like { column, pattern, negated, case_insensitive } => {
                self.tag(4);
                self.number(u64::from(column.0));
                self.tag(u8::from(*negated) << 1 | u8::from(*case_insensitive));
                self.bytes(pattern.as_bytes());
            }
            Predicate::Matches { column, query, negated } => {
                self.tag(6);
                self.number(u64::from(column.0));
                self.tag(u8::from(*negated));
                self.bytes(query.to_string().as_bytes());
            }
            // Answers that depend on these are not kept.
            Predicate::Holds { column, .. } => {
                self.tag(7);
                self.number(u64::from(column.0));
            }
            Predicate::IsNull { column, negated } => {
                self.tag(5);
                self.number(u64::from(column.0));
                self.tag(u8::from(*negated));
            }
        }
    }

    fn scalar(&mut self, value: &Scalar) {
        match value {
            Scalar::Boolean(value) => {
                self.tag(0);
                self.tag(u8::from(*value));
            }
            Scalar::Int(value) => {
                self.tag(1);
                self.number(*value as u64);
            }
            Scalar::Float(value) => {
                self.tag(2);
                self.number(value.to_bits());
            }
            Scalar::Decimal(value) => {
                self.tag(3);
                self.0.extend_from_slice(&value.to_le_bytes());
            }
            Scalar::Text(value) => {
                self.tag(4);
                self.bytes(value.as_bytes());
            }
            Scalar::Bytes(value) => {
                self.tag(5);
                self.bytes(value);
            }
        }
    }
}
