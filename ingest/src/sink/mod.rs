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
    /// Dead letters that were sent with it, and may still be among the letters.
    pub resent: Option<Resent>,
}

/// Letters of one file of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resent {
    pub file: String,
    /// Places in the file, from 0: half-open ranges, ascending.
    pub letters: Vec<(u32, u32)>,
}

impl Resent {
    pub(crate) fn has(&self, letter: u32) -> bool {
        self.letters.iter().any(|(from, to)| (*from..*to).contains(&letter))
    }

    /// Adds the letter behind all others that there are.
    pub(crate) fn push(&mut self, letter: u32) {
        match self.letters.last_mut() {
            Some((_, to)) if *to == letter => *to = letter + 1,
            _ => self.letters.push((letter, letter + 1)),
        }
    }
}

impl Place {
    /// What is kept beside the position: `mark`, or `mark file from-to,from-to`.
    pub(crate) fn note(&self) -> String {
        let mark = self.mark.map(|mark| mark.to_string()).unwrap_or_default();
        match &self.resent {
            None => mark,
            Some(Resent { file, letters }) => {
                let ranges: Vec<String> = letters.iter().map(|(from, to)| format!("{from}-{to}")).collect();
                format!("{mark} {file} {}", ranges.join(","))
            }
        }
    }

    /// Reads what [`Self::note`] wrote. What a person wrote says nothing.
    pub(crate) fn noted(position: u64, note: &str) -> Self {
        let mut words = note.split(' ');
        let mark = words.next().and_then(|mark| mark.parse().ok());
        let range = |text: &str| {
            let (from, to) = text.split_once('-')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        let resent = words.next().zip(words.next()).and_then(|(file, ranges)| {
            Some(Resent { file: file.to_owned(), letters: ranges.split(',').map(range).collect::<Option<_>>()? })
        });
        Self { position, mark, resent }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_were_written() {
        let mut resent = Resent { file: "d00000000000000000012.dead".into(), letters: Vec::new() };
        for letter in [0, 1, 2, 5, 7, 8] {
            resent.push(letter);
        }
        assert_eq!(resent.letters, [(0, 3), (5, 6), (7, 9)]);
        assert!(resent.has(5) && !resent.has(3) && !resent.has(9));
        for place in [
            Place { position: 7, mark: Some(1_700_000), resent: None },
            Place { position: 7, mark: None, resent: None },
            Place { position: 7, mark: Some(1_700_000), resent: Some(resent) },
        ] {
            assert_eq!(Place::noted(7, &place.note()), place);
        }
        for foreign in ["", "by hand", "5 file", "5 file 1-x", "a b c-d e"] {
            assert_eq!(Place::noted(0, foreign).resent, None, "{foreign}");
        }
    }
}
