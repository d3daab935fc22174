//! SUBSCRIBE: the rows of a query, and from then on what changes in them, as soon as it is visible.
//!
//! ```text
//! a table publishes ─ Wake ─► snapshots ─► is anything in them other than in the last ones?
//!                                            │ the query is linear                    │ it is not
//!                                            ▼                                        ▼
//!                    the query over the rows that came and over those that went    the whole query, against the rows that it gave last
//!                                            └──────────► rows with +n and -n ◄───────┘
//! ```
//!
//! What always holds: the rows sent so far, added up by their counts, are the result over the snapshots that were looked at last; all rows of one look
//! have its time and come one after the other. Nothing is queued: while a client reads slowly, or the query takes long, changes gather in the
//! table, and the next look finds what they are together. A subscription of which nothing changes waits and does nothing.

mod counts;
mod limits;
mod run;
mod shape;

use std::{panic::AssertUnwindSafe, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::FutureExt;
use tidemill_storage::table::TableWatcher;
use tokio::sync::{Notify, mpsc};

pub(crate) use self::limits::Limits;
use self::{counts::Counts, run::Subscription};
use crate::{
    CancelHandle, Plan, QueryStream, Session, SqlError,
    exec::work::Work,
    rules::types,
    stream::{BATCHES_IN_FLIGHT, Handed},
};

/// The setting that says whether rows that changed are looked at alone.
pub(crate) const CHANGES_SETTING: &str = "rt.subscribe_to_changes";

/// What WITH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// First the result as it is.
    pub snapshot: bool,
    /// A row after each look that says so.
    pub progress: bool,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { snapshot: true, progress: false }
    }
}

/// The columns of a subscription: those that tell when and how often, then the query's.
pub fn subscribed_schema(query: &Schema, options: SubscribeOptions) -> SchemaRef {
    let mut fields = vec![Field::new("rt_time", types::timestamptz(), false)];
    if options.progress {
        fields.push(Field::new("rt_progressed", DataType::Boolean, false));
    }
    fields.push(Field::new("rt_diff", DataType::Int64, options.progress));
    let nullable = |field: &Arc<Field>| {
        let is_nullable = field.is_nullable() || options.progress;
        field.as_ref().clone().with_nullable(is_nullable)
    };
    fields.extend(query.fields().iter().map(nullable));
    Arc::new(Schema::new(fields))
}

impl Plan {
    /// 0A000 for what cannot be subscribed to.
    pub fn check_subscribable(&self) -> Result<(), SqlError> {
        shape::tables(self).map(drop)
    }
}

impl Session {
    /// Starts a subscription to the result of `plan`, whose parameters are bound; `sql` is what the registry of queries shows. Its rows have the columns of
    /// [`subscribed_schema`] and end with an error, or when the query reads no table. `statement_timeout` is not theirs. Must be called inside a tokio runtime.
    pub fn subscribe(&self, plan: &Plan, sql: Arc<str>, options: SubscribeOptions) -> Result<QueryStream, SqlError> {
        let tables = shape::tables(plan)?;
        let engine = self.engine();
        let place = engine.subscriptions().begin()?;
        let (is_on, every_version) = {
            let settings = self.settings();
            (settings.is_on(CHANGES_SETTING), settings.is_on(crate::table::SKIP_UPSERT_SETTING))
        };
        let wake = Arc::new(Wake::default());
        for watched in &tables {
            watched.handle.table.watch(&(Arc::clone(&wake) as Arc<dyn TableWatcher>));
        }
        let cancel = CancelHandle::default();
        let ticket = engine.queries().begin(self.pid(), self.user(), sql, cancel.clone());
        let schema = subscribed_schema(plan.schema(), options);
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT);
        let work = Work::new(engine.queries().works());
        let stop = work.stop_flag();
        let kept = match is_on && shape::is_linear(&plan.logical) {
            true => None,
            false => Some(Counts::new(engine.subscriptions().hold())),
        };
        let subscription = Subscription {
            plan: plan.clone(),
            options,
            schema: Arc::clone(&schema),
            tables,
            every_version,
            wake,
            states: self.states(),
            shared: Arc::clone(self.shared()),
            clock: Arc::clone(&engine.clock),
            batch_rows: engine.config().batch_rows,
            limits: Arc::clone(engine.subscriptions()),
            work,
            sender: sender.clone(),
            last_us: i64::MIN,
            sending_us: 0,
        };
        let task = engine.runtime.start(async move {
            let _place = place;
            let run = AssertUnwindSafe(subscription.run(kept)).catch_unwind();
            let last = match run.await {
                Ok(Ok(())) => Handed::End,
                Ok(Err(error)) => Handed::Failed(error),
                Err(_) => Handed::Failed(SqlError::internal("the subscription panicked; see the server's log")),
            };
            // The reader may be gone; then nobody wants to know.
            let _ = sender.send(last).await;
        });
        Ok(QueryStream::new(schema, receiver, (task, stop), cancel, None, ticket))
    }
}

/// Remembers that a table changed until somebody looks.
#[derive(Debug, Default)]
struct Wake(Notify);

impl TableWatcher for Wake {
    fn changed(&self) {
        self.0.notify_one();
    }
}
