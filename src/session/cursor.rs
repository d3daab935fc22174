//! A result that is read in pieces: SQL cursors and protocol portals.

use std::{ops::Range, sync::Arc, time::Duration};

use arrow::{
    array::{RecordBatch, UInt64Array},
    compute::take_record_batch,
    datatypes::SchemaRef,
};
use futures::{FutureExt, StreamExt};
use tokio::sync::Mutex;

use super::{
    Batches, Column,
    error::{Result, SqlError, state},
    statement::Step,
};

/// Bytes of rows that a SCROLL cursor keeps to go back to.
const SCROLL_BYTES_MAX: usize = 256 << 20;

/// Rows that wait to be fetched; the query behind it runs no further than it is read.
pub struct Cursor {
    pub schema: SchemaRef,
    pub columns: Arc<[Column]>,
    /// Survives the end of the transaction.
    pub hold: bool,
    /// Results in binary: DECLARE … BINARY.
    pub binary: bool,
    /// Its rows go on coming: SUBSCRIBE.
    pub live: bool,
    /// May go back: DECLARE … SCROLL.
    scroll: bool,
    rows: Arc<Mutex<Rows>>,
}

struct Rows {
    batches: Batches,
    /// What was left of the last batch.
    rest: Option<RecordBatch>,
    ended: bool,
    /// What a SCROLL cursor has read.
    kept: Vec<RecordBatch>,
    kept_rows: u64,
    kept_bytes: usize,
    /// The row that a SCROLL cursor stands on, from 1; 0 is before the first, one more than there are behind the last.
    place: u64,
}

impl Rows {
    /// The next rows, at most `limit`; `None` at the end.
    async fn next(&mut self, limit: usize) -> Option<Result<RecordBatch>> {
        if limit == 0 {
            return None;
        }
        let batch = loop {
            if let Some(rest) = self.rest.take() {
                break rest;
            }
            if self.ended {
                return None;
            }
            match self.batches.next().await {
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => break batch,
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => {
                    self.ended = true;
                    return None;
                }
            }
        };
        if batch.num_rows() <= limit {
            return Some(Ok(batch));
        }
        self.rest = Some(batch.slice(limit, batch.num_rows() - limit));
        Some(Ok(batch.slice(0, limit)))
    }

    /// Goes a step; the rows that it gives.
    async fn scroll(&mut self, step: Step) -> Result<Vec<RecordBatch>> {
        let wanted = match step {
            Step::Forward(Some(rows)) => self.place.saturating_add(rows),
            Step::Backward(_) => 0,
            Step::Absolute(row) if row >= 0 => row.unsigned_abs(),
            Step::Relative(rows) => self.place.saturating_add_signed(rows),
            Step::Forward(None) | Step::Absolute(_) => u64::MAX,
        };
        while self.kept_rows < wanted {
            let Some(batch) = self.next(usize::MAX).await else { break };
            let batch = batch?;
            self.kept_bytes += batch.get_array_memory_size();
            if self.kept_bytes > SCROLL_BYTES_MAX {
                return Err(SqlError::new(
                    state::PROGRAM_LIMIT_EXCEEDED,
                    format!("a SCROLL cursor keeps {} MB of rows at most", SCROLL_BYTES_MAX >> 20),
                )
                .with_hint("declare the cursor with NO SCROLL, or fetch fewer rows"));
            }
            self.kept_rows += batch.num_rows() as u64;
            self.kept.push(batch);
        }
        let (place, rows, reversed) = walked(self.place, self.kept_rows, step);
        self.place = place;
        self.slices(rows, reversed)
    }

    /// Kept rows, counted from 0.
    fn slices(&self, rows: Range<u64>, reversed: bool) -> Result<Vec<RecordBatch>> {
        let mut slices = Vec::new();
        let mut start = 0;
        for batch in &self.kept {
            let end = start + batch.num_rows() as u64;
            let (from, to) = (rows.start.max(start), rows.end.min(end));
            if from < to {
                let slice = batch.slice((from - start) as usize, (to - from) as usize);
                slices.push(match reversed {
                    true => take_record_batch(&slice, &UInt64Array::from_iter_values((0..to - from).rev()))?,
                    false => slice,
                });
            }
            start = end;
        }
        if reversed {
            slices.reverse();
        }
        Ok(slices)
    }
}

/// Where a step from `place` ends when `known` rows are known (all that the step may reach), the rows that it gives, counted from 0, and
/// whether from the last to the first.
fn walked(place: u64, known: u64, step: Step) -> (u64, Range<u64>, bool) {
    let one = |row: u64| match (1..=known).contains(&row) {
        true => (row, row - 1..row, false),
        false => (row.min(known + 1), 0..0, false),
    };
    match step {
        // The row that it stands on, once more.
        Step::Forward(Some(0)) | Step::Relative(0) => {
            let rows = if (1..=known).contains(&place) { place - 1..place } else { 0..0 };
            (place, rows, false)
        }
        Step::Forward(rows) => {
            let to = rows.map_or(u64::MAX, |rows| place.saturating_add(rows));
            (to.min(known + 1), place.min(known)..to.min(known), false)
        }
        Step::Backward(rows) => {
            let to = rows.map_or(0, |rows| place.saturating_sub(rows));
            let last = place.saturating_sub(1).min(known);
            (to, to.saturating_sub(1).min(last)..last, true)
        }
        Step::Absolute(row) if row >= 0 => one(row.unsigned_abs()),
        Step::Absolute(row) => one((known + 1).saturating_sub(row.unsigned_abs())),
        Step::Relative(rows) => one(place.saturating_add_signed(rows)),
    }
}

impl Cursor {
    pub fn new(
        schema: SchemaRef,
        columns: Arc<[Column]>,
        batches: Batches,
        hold: bool,
        binary: bool,
        scroll: bool,
    ) -> Self {
        let rows = Rows { batches, rest: None, ended: false, kept: Vec::new(), kept_rows: 0, kept_bytes: 0, place: 0 };
        Self { schema, columns, hold, binary, live: false, scroll, rows: Arc::new(Mutex::new(rows)) }
    }

    pub fn of_live(self, live: bool) -> Self {
        Self { live, ..self }
    }

    /// What FETCH gives: as [`Cursor::fetch`], but of rows that go on coming, once there is one (or after `timeout`), those that are there.
    pub fn fetch_some(&self, step: Step, timeout: Option<Duration>) -> Result<Batches> {
        let all = self.fetch(step)?;
        if !self.live {
            return Ok(all);
        }
        Ok(Box::pin(futures::stream::unfold((all, true), move |(mut all, is_first)| async move {
            let next = match (is_first, timeout) {
                (true, None) => all.next().await,
                (true, Some(timeout)) => tokio::time::timeout(timeout, all.next()).await.ok().flatten(),
                // A row that is taken from the stream is not lost when it is not waited for: the cursor has it still.
                (false, _) => all.next().now_or_never().flatten(),
            };
            next.map(|next| (next, (all, false)))
        })))
    }

    /// The rows that a step gives, as a stream of their own. 55000 when the cursor cannot go there.
    pub fn fetch(&self, step: Step) -> Result<Batches> {
        let rows = Arc::clone(&self.rows);
        if self.scroll {
            let gone = async move { rows.lock().await.scroll(step).await };
            return Ok(Box::pin(futures::stream::once(gone).flat_map(|gone| {
                let given: Vec<Result<RecordBatch>> = match gone {
                    Ok(batches) => batches.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                };
                futures::stream::iter(given)
            })));
        }
        let count = match step {
            Step::Forward(rows) => rows,
            Step::Relative(1) => Some(1),
            _ => {
                return Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, "cursor can only scan forward")
                    .with_hint("Declare it with SCROLL option to enable backward scan."));
            }
        };
        let left = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        Ok(Box::pin(futures::stream::unfold((rows, left), |(rows, left)| async move {
            let next = rows.lock().await.next(left).await?;
            let left = match &next {
                Ok(batch) => left.saturating_sub(batch.num_rows()),
                Err(_) => 0,
            };
            Some((next, (rows, left)))
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps through three rows, as PostgreSQL 15 takes them: the step, where it ends, the rows.
    #[test]
    fn steps_end_where_postgresql_ends() {
        let mut place = 0;
        for (step, end, rows, reversed) in [
            (Step::Backward(Some(1)), 0, 0..0, true),
            (Step::Forward(Some(2)), 2, 0..2, false),
            (Step::Backward(Some(1)), 1, 0..1, true),
            (Step::Forward(Some(0)), 1, 0..1, false),
            (Step::Forward(None), 4, 1..3, false),
            (Step::Forward(Some(1)), 4, 3..3, false),
            (Step::Relative(0), 4, 0..0, false),
            (Step::Backward(Some(2)), 2, 1..3, true),
            (Step::Backward(None), 0, 0..1, true),
            (Step::Absolute(-1), 3, 2..3, false),
            (Step::Relative(-2), 1, 0..1, false),
            (Step::Absolute(9), 4, 0..0, false),
            (Step::Absolute(-9), 0, 0..0, false),
            (Step::Relative(3), 3, 2..3, false),
        ] {
            let (to, given, is_reversed) = walked(place, 3, step);
            assert_eq!((to, given.clone(), is_reversed), (end, rows.clone(), reversed), "{step:?} from {place}");
            place = to;
        }
    }
}
