//! A result that is read in pieces: SQL cursors and protocol portals.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::StreamExt;
use tokio::sync::Mutex;

use super::{Batches, Column, error::Result};

/// Rows that wait to be fetched. Moves forward only; the query behind it runs no further than it is read.
pub struct Cursor {
    pub schema: SchemaRef,
    pub columns: Arc<[Column]>,
    /// Survives the end of the transaction.
    pub hold: bool,
    /// Results in binary: DECLARE … BINARY.
    pub binary: bool,
    rows: Arc<Mutex<Rows>>,
}

struct Rows {
    batches: Batches,
    /// What was left of the last batch.
    rest: Option<RecordBatch>,
    ended: bool,
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
}

impl Cursor {
    pub fn new(schema: SchemaRef, columns: Arc<[Column]>, batches: Batches, hold: bool, binary: bool) -> Self {
        let rows = Arc::new(Mutex::new(Rows { batches, rest: None, ended: false }));
        Self { schema, columns, hold, binary, rows }
    }

    /// The next `count` rows (`None`: all), as a stream of their own.
    pub fn fetch(&self, count: Option<u64>) -> Batches {
        let rows = Arc::clone(&self.rows);
        let left = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        Box::pin(futures::stream::unfold((rows, left), |(rows, left)| async move {
            let next = rows.lock().await.next(left).await?;
            let left = match &next {
                Ok(batch) => left.saturating_sub(batch.num_rows()),
                Err(_) => 0,
            };
            Some((next, (rows, left)))
        }))
    }
}
