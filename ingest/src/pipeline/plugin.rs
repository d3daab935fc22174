//! Transforms that a program outside of this workspace brings: `SELECT … FROM my_transform(TABLE source, 'argument')` in a pipeline.
//!
//! ```text
//! source ─ rows ─► Bound::run ─ rows, and which row each came of ─► the rest of the query
//!
//! source ─ rows, held until the watermark passed them ─► Stateful::row, Stateful::wake, with the State of the key ─ rows ─► the rest of the query
//! ```
//!
//! A program registers what it has in [`Transforms`] and hands them to the server's entry point; `examples/transform` is one.

use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};

/// A transform by its name, before it is known what it is used on.
///
/// Callers may assume that binding depends on the arguments alone and asks nothing of the outside world: a pipeline is planned again at each start of the server, and must get the same columns.
pub trait Transform: Send + Sync {
    /// As SQL calls it, in lower case.
    fn name(&self) -> &str;

    /// Makes it for rows of `input`. `arguments` are what stands behind the source, texts and numbers as text. The error is told to who makes the pipeline.
    fn bind(&self, input: &Schema, arguments: &[String]) -> Result<Arc<dyn Bound>, String>;

    /// The same for `my_transform(TABLE source PARTITION BY key, …)`. `key`: names of columns of `input`, which may not be there.
    fn bind_keyed(&self, input: &Schema, key: &[String], arguments: &[String]) -> Result<Arc<dyn Stateful>, String> {
        let _ = (input, key, arguments);
        Err("it keeps nothing of keys: leave PARTITION BY away".into())
    }
}

/// A transform of the rows of one source.
///
/// What implementers keep: the answer depends on the rows alone, each row alone (batches are cut anywhere, and rows are taken again after a crash), and rows come in the order of those they are made of. A column that has the name of the source's
/// event time is the event time of the row it came of, unchanged. What breaks otherwise: rows of pipelines that start again would be other ones.
pub trait Bound: Send + Sync {
    /// The columns that it gives; types of [`tidemill_storage::schema::DataType`].
    fn output(&self) -> SchemaRef;

    /// None, one or many rows of each. An error is tried again on halves of the rows, until a single row is a dead letter with it.
    fn run(&self, rows: &RecordBatch) -> Result<Transformed, String>;
}

/// A transform of the rows of one source that keeps a state of each key.
///
/// Callers give each row once, when the watermark has passed it, and all of them in the order of their event times (rows of one time in the order of their keys, then of their columns): the answer does not depend on the order in which they arrived. States are
/// kept with the pipeline's checkpoints. What implementers keep: the answer depends on the state and what is given alone. A column of the output that has the name of the source's event time is filled in by the caller, with the time of the row or of waking.
/// An error, or a panic, fails the pipeline with it; it is tried again from the last checkpoint.
pub trait Stateful: Send + Sync {
    /// The columns that it gives; types of [`tidemill_storage::schema::DataType`].
    fn output(&self) -> SchemaRef;

    /// What comes of the row at `at` of `rows`, which have the source's columns.
    fn row(&self, state: &mut State, rows: &RecordBatch, at: usize) -> Result<Option<RecordBatch>, String>;

    /// What comes of time: the state asked to be woken at `at_us`, and no row before it comes any more. `key`: one row of the columns behind PARTITION BY.
    fn wake(&self, state: &mut State, key: &RecordBatch, at_us: i64) -> Result<Option<RecordBatch>, String> {
        let _ = (state, key, at_us);
        Ok(None)
    }
}

/// What is kept of a key. One without bytes that does not ask to be woken is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// At most [`State::BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// The event time, in microseconds of Unix time, at which [`Stateful::wake`] is called; later than that of the row, or of the waking, at hand. It is `None` again then.
    pub wake_us: Option<i64>,
}

impl State {
    pub const BYTES_MAX: usize = 1 << 20;

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.wake_us.is_none()
    }
}

/// Rows that a transform gave.
#[derive(Clone, Debug)]
pub struct Transformed {
    /// In the columns of [`Bound::output`].
    pub rows: RecordBatch,
    /// Of each the row that it came of; never decreasing.
    pub of: Vec<u32>,
}

/// What a server knows.
#[derive(Clone, Default)]
pub struct Transforms(Vec<Arc<dyn Transform>>);

impl Transforms {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, transform: impl Transform + 'static) -> Self {
        self.0.retain(|known| known.name() != transform.name());
        self.0.push(Arc::new(transform));
        self
    }

    pub fn named(&self, name: &str) -> Option<&Arc<dyn Transform>> {
        self.0.iter().find(|known| known.name() == name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|known| known.name())
    }
}

impl fmt::Debug for Transforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
