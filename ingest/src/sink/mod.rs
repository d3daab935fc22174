//! Sinks: where a pipeline's rows go outside.
//!
//! ```text
//! log behind a pipeline ─ transform ─► rows of the sink's columns ─ shape, form ─► records ─ outlet ─► topic
//! ```
//!
//! A [`Connector`] knows one topic; an [`Outlet`] is one pipeline's way into it. What is given to an outlet is seen by nobody until it is committed together with the *place*
//! in the log up to which it reaches. So the place is kept where the records are, in the same transaction: whoever takes over reads there how far the one before came, and there is no
//! moment in which one of the two is known and the other is not.

mod form;
mod json;
pub mod kafka;
mod options;
mod record;

use std::{collections::BTreeSet, fmt};

pub(crate) use self::record::{Record, Records};
pub use self::{
    form::{Registration, SinkFormat, Wire},
    options::{Delivery, SinkOptions},
    record::{Shape, ShapeOptions},
};
use crate::{Error, Result};

/// How far a pipeline's rows were delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The offset in the log behind the pipeline before which everything was.
    pub position: u64,
    /// Who said so: when the pipeline was opened that delivered it. `None` when a person has put the place there.
    pub mark: Option<i64>,
}

/// One sink. Waits for nothing but where it says so.
pub trait Connector: Send + Sync + fmt::Debug {
    /// Finds what rows are to go into, and makes it when the options say so. Blocks.
    fn check(&self) -> Result<()>;

    /// How far deliveries of an identity are, without taking anything over. Blocks. `None` when nothing is known, and without transactions.
    fn peek(&self, identity: &str, delivery: Delivery) -> Result<Option<Place>>;

    /// Takes over from whoever delivered under the same identity before: that one commits nothing any more. Blocks. `alone` are offsets of rows that are to be sent in no company,
    /// since one of them was refused.
    fn open(&self, identity: &str, delivery: Delivery, alone: &BTreeSet<u64>) -> Result<Box<dyn Outlet>>;
}

/// Why records were not delivered.
#[derive(Debug)]
pub enum Undelivered {
    /// The outlet is of no use any more; what was not committed is to be delivered again by another one.
    Again(Error),
    /// Somebody refuses a record among these, for good.
    Refused { offsets: BTreeSet<u64>, reason: String },
}

impl From<Error> for Undelivered {
    fn from(error: Error) -> Self {
        Self::Again(error)
    }
}

/// One pipeline's way into a sink.
pub trait Outlet: Send {
    /// How far deliveries had come when it took over; `None` when nothing is known of any.
    fn place(&self) -> Option<Place>;

    /// Why a record cannot be taken, before it is put.
    fn refuses(&self, record: &Record<'_>) -> Option<String>;

    /// Gives the record of the row at `offset`, in the order of the rows. Blocks while too many wait.
    fn put(&mut self, offset: u64, record: &Record<'_>) -> Result<(), Undelivered>;

    /// Lets everything be seen that was put, and keeps the place with it: both or neither. Blocks. Without transactions records are seen before, and the place is the caller's to keep.
    fn commit(&mut self, place: &Place) -> Result<(), Undelivered>;
}
