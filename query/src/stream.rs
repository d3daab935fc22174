//! The rows of a running query, and the handle that stops it.
//!
//! The work runs as one task (and the tasks that DataFusion starts under it) on the CPU runtime and hands batches over through a bounded
//! channel, so that a slow client holds the work back and never fills memory. Cancel, deadline and drop all end in the same place:
//! the task is aborted, which drops the operators at their next yield, and operators that do not yield find the stop flag raised
//! (`exec/work.rs`). The deadline is watched from the reader's side, because
//! the CPU threads may all be busy with the very query that is to be stopped.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{Stream, StreamExt, task::AtomicWaker};
use tokio::{sync::mpsc, task::AbortHandle, time::Sleep};

use crate::{SqlError, exec::work::StopFlag, registry::QueryTicket};

/// Batches between the work and the client.
pub(crate) const BATCHES_IN_FLIGHT: usize = 4;

/// What the work hands over. A channel that closes without `End` or `Failed` means that the work died, never that the rows are all there.
#[derive(Debug)]
pub(crate) enum Handed {
    Batch(RecordBatch),
    Failed(SqlError),
    End,
}

#[derive(Debug, Default)]
struct Cancelling {
    cancelled: AtomicBool,
    waker: AtomicWaker,
}

/// Stops a query from anywhere. Clones stop the same query.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {
    inner: Arc<Cancelling>,
}

impl CancelHandle {
    /// The reader of the stream gets 57014 at once; the work ends soon after. Harmless when the query has ended.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        self.inner.waker.wake();
    }

    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }
}

/// Where rows come from.
#[derive(Debug)]
enum Source {
    Work {
        batches: mpsc::Receiver<Handed>,
        task: AbortHandle,
        stop: StopFlag,
    },
    /// They are there already.
    Ready(Option<Result<RecordBatch, SqlError>>),
}

/// Rows as they come. Dropping it stops the query.
#[derive(Debug)]
pub struct QueryStream {
    schema: SchemaRef,
    source: Source,
    cancel: CancelHandle,
    deadline: Option<Pin<Box<Sleep>>>,
    ticket: QueryTicket,
    ended: bool,
}

impl QueryStream {
    pub(crate) fn new(
        schema: SchemaRef,
        batches: mpsc::Receiver<Handed>,
        (task, stop): (AbortHandle, StopFlag),
        cancel: CancelHandle,
        timeout: Option<Duration>,
        ticket: QueryTicket,
    ) -> Self {
        let deadline = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
        let source = Source::Work { batches, task, stop };
        Self { schema, source, cancel, deadline, ticket, ended: false }
    }

    /// Rows that are there already, or why they are not.
    pub(crate) fn ready(
        schema: SchemaRef,
        rows: Result<RecordBatch, SqlError>,
        cancel: CancelHandle,
        ticket: QueryTicket,
    ) -> Self {
        Self { schema, source: Source::Ready(Some(rows)), cancel, deadline: None, ticket, ended: false }
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// All batches at once; for small results and tests.
    pub async fn collect_all(mut self) -> Result<Vec<RecordBatch>, SqlError> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.push(batch?);
        }
        Ok(all)
    }

    fn end_work(&self) {
        if let Source::Work { task, stop, .. } = &self.source {
            stop.raise();
            task.abort();
        }
    }

    fn fail(&mut self, error: SqlError) -> Poll<Option<Result<RecordBatch, SqlError>>> {
        self.ended = true;
        self.end_work();
        if let Source::Work { batches, .. } = &mut self.source {
            batches.close();
        }
        self.ticket.fail(&error);
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, SqlError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        this.cancel.inner.waker.register(context.waker());
        if this.cancel.is_cancelled() {
            return this.fail(SqlError::cancelled());
        }
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return this.fail(SqlError::timed_out());
        }
        let handed = match &mut this.source {
            Source::Work { batches, .. } => batches.poll_recv(context),
            Source::Ready(rows) => Poll::Ready(Some(match rows.take() {
                Some(Ok(batch)) if batch.num_rows() > 0 => Handed::Batch(batch),
                Some(Err(error)) => Handed::Failed(error),
                _ => Handed::End,
            })),
        };
        match handed {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Handed::Batch(batch))) => {
                this.ticket.add_rows(batch.num_rows());
                Poll::Ready(Some(Ok(batch)))
            }
            Poll::Ready(Some(Handed::Failed(error))) => this.fail(error),
            Poll::Ready(Some(Handed::End)) => {
                this.ended = true;
                this.ticket.finish();
                Poll::Ready(None)
            }
            Poll::Ready(None) => this.fail(SqlError::internal("the query's task ended early; see the server's log")),
        }
    }
}

impl Drop for QueryStream {
    fn drop(&mut self) {
        self.end_work();
    }
}
