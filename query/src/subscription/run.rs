//! A subscription at work: it waits, looks, and sends what it finds.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray, new_null_array},
    datatypes::{Field, Schema, SchemaRef},
};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tidemill_storage::{clock::Clock, ids::TableId, schema::UTC, table::TableSnapshot};
use tokio::sync::mpsc;

use super::{
    SubscribeOptions, Wake,
    counts::{Counts, Difference, Part, Side},
    limits::Limits,
    shape::Watched,
};
use crate::{
    Plan, SqlError,
    exec::{snapshots::QuerySnapshots, work::Work},
    execution::{Execution, States},
    session::SessionShared,
    stream::Handed,
    table::COLUMNS_CHANGED,
};

/// Parts that rows are compared in, at most, one after the other, where they are too many for memory.
const PARTS_MAX: u64 = 1024;
/// How long changes may gather because the last look took so long.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is read: a snapshot of each table.
type Snapshots = HashMap<TableId, TableSnapshot>;

/// Why there is nothing more to do.
enum Stop {
    /// Nobody reads any more.
    Unread,
    Failed(SqlError),
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Self::Failed(error)
    }
}

/// See the module.
pub(super) struct Subscription {
    pub(super) plan: Plan,
    pub(super) options: SubscribeOptions,
    pub(super) schema: SchemaRef,
    pub(super) tables: Vec<Watched>,
    /// Rows that lost are rows, too.
    pub(super) every_version: bool,
    pub(super) wake: Arc<Wake>,
    pub(super) states: Arc<States>,
    pub(super) shared: Arc<SessionShared>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) batch_rows: usize,
    pub(super) limits: Arc<Limits>,
    pub(super) work: Arc<Work>,
    pub(super) sender: mpsc::Sender<Handed>,
    /// Of the last look.
    pub(super) last_us: i64,
    /// Spent since the last look with waiting for the client.
    pub(super) sending_us: i64,
}

impl Subscription {
    /// Ends when it fails, when nobody reads any more, and after the first rows of a query that reads no table. `kept`: what a query that is not linear gave
    /// last.
    pub(super) async fn run(mut self, kept: Option<Counts>) -> Result<(), SqlError> {
        match self.looks(kept).await {
            Ok(()) | Err(Stop::Unread) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn looks(&mut self, mut kept: Option<Counts>) -> Result<(), Stop> {
        self.execution(HashMap::new()).fresh(&self.plan).await?;
        let mut before = self.look()?;
        self.first(&before, kept.as_mut()).await?;
        while !self.tables.is_empty() {
            self.wake.0.notified().await;
            let (began_us, now) = (self.clock.monotonic_us(), self.look()?);
            self.sending_us = 0;
            if self.changed(&before, &now, kept.as_mut()).await? {
                self.progress().await?;
            }
            before = now;
            // So that looking takes half of the time at most, however often rows come.
            let busy_us = self.clock.monotonic_us() - began_us - self.sending_us;
            tokio::time::sleep(Duration::from_micros(busy_us.max(0) as u64).min(PAUSE_MAX)).await;
        }
        Ok(())
    }

    /// What is there now, and when that is.
    fn look(&mut self) -> Result<Snapshots, SqlError> {
        if let Some(gone) = self.tables.iter().find(|watched| watched.handle.table.is_dropped()) {
            return Err(SqlError::new("42P01", format!("table \"{}\" was dropped", gone.handle.name))
                .with_hint("The subscription is over: nothing can come of the table any more."));
        }
        let snapshots = self.tables.iter().map(|watched| {
            let snapshot = watched.snapshot();
            let snapshot = if self.every_version { snapshot.with_every_version() } else { snapshot };
            (watched.handle.table.id(), snapshot)
        });
        let snapshots = snapshots.collect();
        self.last_us = self.clock.now_us().max(self.last_us.saturating_add(1));
        Ok(snapshots)
    }

    fn execution(&self, snapshots: Snapshots) -> Execution {
        Execution {
            states: Arc::clone(&self.states),
            shared: Arc::clone(&self.shared),
            now_us: self.last_us,
            snapshots: Arc::new(QuerySnapshots::given(snapshots)),
            work: Arc::clone(&self.work),
            written: Arc::default(),
        }
    }

    /// The query over these snapshots.
    async fn query(&self, snapshots: &Snapshots) -> Result<SendableRecordBatchStream, SqlError> {
        self.execution(snapshots.clone()).stream(&self.plan).await.map_err(|error| self.located(&error))
    }

    fn located(&self, error: &datafusion::error::DataFusionError) -> SqlError {
        let error = SqlError::from_datafusion(error, self.plan.sql());
        if error.message == COLUMNS_CHANGED {
            return SqlError { message: "columns that the subscription reads were changed".into(), ..error }
                .with_hint("Subscribe again, to the table as it is now.");
        }
        error
    }

    async fn first(&mut self, now: &Snapshots, kept: Option<&mut Counts>) -> Result<(), Stop> {
        let Some(kept) = kept else {
            if self.options.snapshot {
                self.send_all(now, 1).await?;
            }
            return self.progress().await;
        };
        let mut batches = self.query(now).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.located(&error))?;
            kept.add(&batch, Side::Now, Part::ALL)?;
            if self.options.snapshot {
                self.send_counted(&batch, 1).await?;
            }
        }
        kept.settle();
        self.progress().await
    }

    /// Sends what changed in the result; false when nothing changed in the tables.
    async fn changed(&mut self, before: &Snapshots, now: &Snapshots, kept: Option<&mut Counts>) -> Result<bool, Stop> {
        let (mut came, mut went) = (Snapshots::new(), Snapshots::new());
        let (mut any_came, mut any_went, mut is_altered) = (false, false, false);
        for (id, now) in now {
            let Some(before) = before.get(id) else { continue };
            let changes = now.changes_since(before);
            any_came |= changes.came.rows() > 0;
            any_went |= changes.went.rows() > 0;
            is_altered |= now.schema.version != before.schema.version;
            came.insert(*id, changes.came);
            went.insert(*id, changes.went);
        }
        match kept {
            None if any_came && any_went => self.send_difference(&came, &went).await?,
            None if any_went => self.send_all(&went, -1).await?,
            // Without a row it tells whether the query can still be asked.
            None if any_came || is_altered => self.send_all(&came, 1).await?,
            Some(kept) if any_came || any_went || is_altered => self.again(now, kept).await?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Asks the whole query and sends what is other than it was.
    async fn again(&mut self, now: &Snapshots, kept: &mut Counts) -> Result<(), Stop> {
        let mut batches = self.query(now).await?;
        while let Some(batch) = batches.next().await {
            kept.add(&batch.map_err(|error| self.located(&error))?, Side::Now, Part::ALL)?;
        }
        drop(batches);
        self.send_differences(kept).await?;
        kept.settle();
        Ok(())
    }

    /// Sends the result over some rows, each as often as it is in it.
    async fn send_all(&mut self, rows: &Snapshots, diff: i64) -> Result<(), Stop> {
        let mut batches = self.query(rows).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|error| self.located(&error))?;
            self.send_counted(&batch, diff).await?;
        }
        Ok(())
    }

    /// Sends what is left of rows that came and rows that went when those that are the same cancel out. What is too much for memory is compared in parts.
    async fn send_difference(&mut self, came: &Snapshots, went: &Snapshots) -> Result<(), Stop> {
        let pattern = Counts::new(self.limits.hold());
        let mut parts = vec![Part::ALL];
        while let Some(part) = parts.pop() {
            let mut counts = pattern.alike(self.limits.hold());
            let counted = match self.count(went, &mut counts, Side::Before, part).await {
                Ok(()) => self.count(came, &mut counts, Side::Now, part).await,
                failed => failed,
            };
            match counted {
                Ok(()) => self.send_differences(&counts).await?,
                Err(error) if error.sqlstate == "53200" && part.parts < PARTS_MAX => parts.extend(part.halves()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn count(&self, rows: &Snapshots, counts: &mut Counts, side: Side, part: Part) -> Result<(), SqlError> {
        let mut batches = self.query(rows).await?;
        while let Some(batch) = batches.next().await {
            counts.add(&batch.map_err(|error| self.located(&error))?, side, part)?;
        }
        Ok(())
    }

    async fn send_differences(&mut self, counts: &Counts) -> Result<(), Stop> {
        for some in counts.differences().chunks(self.batch_rows.max(1)) {
            let diffs = Int64Array::from_iter_values(some.iter().map(|(_, count): &Difference<'_>| *count));
            self.send(counts.columns(some)?, diffs).await?;
        }
        Ok(())
    }

    async fn send_counted(&mut self, batch: &RecordBatch, diff: i64) -> Result<(), Stop> {
        self.send(batch.columns().to_vec(), Int64Array::from_value(diff, batch.num_rows())).await
    }

    async fn send(&mut self, columns: Vec<ArrayRef>, diffs: Int64Array) -> Result<(), Stop> {
        let rows = diffs.len();
        if rows == 0 {
            return Ok(());
        }
        let mut all = self.leading(rows, false);
        all.push(Arc::new(diffs));
        all.extend(columns);
        self.hand(all).await
    }

    /// Tells that nothing comes any more with the time of this look, where that is wanted.
    async fn progress(&mut self) -> Result<(), Stop> {
        if !self.options.progress {
            return Ok(());
        }
        let mut all = self.leading(1, true);
        let of_query = &self.schema.fields()[all.len()..];
        all.extend(of_query.iter().map(|field| new_null_array(field.data_type(), 1)).collect::<Vec<_>>());
        self.hand(all).await
    }

    /// The columns before the counts.
    fn leading(&self, rows: usize, progressed: bool) -> Vec<ArrayRef> {
        let times = TimestampMicrosecondArray::from_value(self.last_us, rows).with_timezone(UTC);
        let mut leading: Vec<ArrayRef> = vec![Arc::new(times)];
        if self.options.progress {
            leading.push(Arc::new(BooleanArray::from(vec![progressed; rows])));
        }
        leading
    }

    async fn hand(&mut self, columns: Vec<ArrayRef>) -> Result<(), Stop> {
        // Values are of the types that the query gave them in, which may be others of the same kind.
        let fields = self.schema.fields().iter().zip(&columns).map(|(field, column)| {
            let field = field.as_ref().clone().with_nullable(true);
            Field::with_data_type(field, column.data_type().clone())
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns).map_err(SqlError::from)?;
        let began_us = self.clock.monotonic_us();
        let sent = self.sender.send(Handed::Batch(batch)).await;
        self.sending_us += self.clock.monotonic_us() - began_us;
        sent.map_err(|_| Stop::Unread)
    }
}
