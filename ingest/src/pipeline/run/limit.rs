//! What a pipeline may keep in memory: state, and arrivals since the last checkpoint.

use std::{collections::VecDeque, mem};

use super::super::{machine::Arrival, tables::Answers};
use crate::message::SourceBatch;

/// Bytes of arrivals since the last checkpoint after which another one is made at once.
const RETAINED_BYTES: usize = 64 << 20;
/// Bytes of these at which nothing more is taken.
const RETAINED_BYTES_MAX: usize = 256 << 20;
/// State that a few batches of any source may bring: so much more is taken when they may free what others brought.
const BATCHES_BYTES: u64 = 32 << 20;

/// The state takes more than it may.
pub(super) struct OverLimit {
    pub(super) limit: u64,
    /// Bytes when that was seen, and now.
    pub(super) first: u64,
    pub(super) now: u64,
}

impl OverLimit {
    /// Whether what was read to let the watermark go on did not help.
    pub(super) fn is_far(&self) -> bool {
        self.now >= self.first.saturating_add(self.limit.max(BATCHES_BYTES))
    }
}

/// What was applied since the last checkpoint, and what tables said for it.
#[derive(Default)]
pub(super) struct Retained {
    arrivals: VecDeque<(Arrival, Answers, usize)>,
    bytes: usize,
}

impl Retained {
    pub(super) fn push(&mut self, arrival: Arrival, answers: Answers) {
        let kept = light(arrival);
        let bytes = weight(&kept) + answers.bytes();
        self.bytes += bytes;
        self.arrivals.push_back((kept, answers, bytes));
    }

    /// A checkpoint covers the first `count`.
    pub(super) fn drop_first(&mut self, count: usize) {
        for (.., bytes) in self.arrivals.drain(..count.min(self.arrivals.len())) {
            self.bytes -= bytes;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arrival, &Answers)> {
        self.arrivals.iter().map(|(arrival, answers, _)| (arrival, answers))
    }

    pub(super) fn is_much(&self) -> bool {
        self.bytes >= RETAINED_BYTES
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= RETAINED_BYTES_MAX
    }
}

/// An arrival without the bytes of its messages.
fn light(mut arrival: Arrival) -> Arrival {
    let lighten = |batch: &mut SourceBatch| {
        batch.origin = None;
        for reject in &mut batch.rejects {
            mem::take(&mut reject.raw);
        }
    };
    match &mut arrival {
        Arrival::Rows { batch, .. } => lighten(batch),
        Arrival::Again { batches } => batches.iter_mut().for_each(|(_, batch)| lighten(batch)),
        _ => {}
    }
    arrival
}

fn weight(arrival: &Arrival) -> usize {
    let of_batch = |batch: &SourceBatch| batch.rows.get_array_memory_size() + batch.row_offsets.len() * 8;
    match arrival {
        Arrival::Rows { batch, .. } => of_batch(batch),
        Arrival::Again { batches } => batches.iter().map(|(_, batch)| of_batch(batch)).sum(),
        _ => mem::size_of::<Arrival>(),
    }
}
