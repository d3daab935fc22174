//! What goes from operator to operator, and what operators say of it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};

use super::{
    Counts,
    event_time::NEVER,
    keyed::Table,
    spill::{Kept, Run, Share},
    state_file::StateFile,
};

/// The place of a row that is not one of the batch at hand.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Rows on their way.
#[derive(Debug)]
pub(crate) struct Flowing {
    pub(crate) rows: RecordBatch,
    /// The watermark before each row; [`NEVER`] for rows that are on time whatever it is.
    pub(crate) before: Vec<i64>,
    /// Which row of its source's batch each is, or [`NOWHERE`].
    pub(crate) places: Vec<u32>,
}

/// What came of rows, or of time.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) given: Vec<Flowing>,
    /// Rows that came too late, by their places.
    pub(crate) late: Vec<u32>,
    /// What is to be counted beside late rows.
    pub(crate) counts: Counts,
}

/// State of an operator, as it is kept: lists of columns of the same number of rows. What they mean is the operator's, told by `kind`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// Place in the plan.
    pub(crate) operator: usize,
    pub(crate) kind: String,
    /// A number that the operator gives a meaning: where a pane begins.
    pub(crate) at: i64,
    pub(crate) rows: usize,
    pub(crate) columns: Vec<Vec<ArrayRef>>,
    /// What is in a file of its own.
    pub(crate) in_file: Option<InFile>,
}

/// State in a file beside that of the picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InFile {
    Run(Run),
    Table(Table),
}

impl InFile {
    pub(crate) fn file(&self) -> &StateFile {
        match self {
            Self::Run(run) => run.file(),
            Self::Table(table) => table.file(),
        }
    }

    /// Which of its keys count.
    pub(crate) fn share(&self) -> Share {
        match self {
            Self::Run(run) => run.share(),
            Self::Table(table) => table.share(),
        }
    }

    pub(crate) fn with_share(self, share: Share) -> Self {
        match self {
            Self::Run(run) => Self::Run(run.with_share(share)),
            Self::Table(table) => Self::Table(table.with_share(share)),
        }
    }

    /// `None` for what a picture names and nobody has taken over.
    pub(crate) fn kept(&self) -> Option<&Arc<dyn Kept>> {
        match self {
            Self::Run(run) => run.kept(),
            Self::Table(table) => table.kept(),
        }
    }
}

impl Flowing {
    /// Rows that no watermark is too far for.
    pub(crate) fn on_time(rows: RecordBatch) -> Self {
        let count = rows.num_rows();
        Self { rows, before: vec![NEVER; count], places: vec![NOWHERE; count] }
    }

    /// Some of the rows.
    pub(crate) fn pick(before: &[i64], places: &[u32], rows: impl Iterator<Item = usize>) -> (Vec<i64>, Vec<u32>) {
        rows.map(|row| (before[row], places[row])).unzip()
    }
}

impl Taken {
    pub(crate) fn of(given: Vec<RecordBatch>) -> Self {
        Self { given: given.into_iter().map(Flowing::on_time).collect(), ..Self::default() }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.given.extend(other.given);
        self.late.extend(other.late);
        self.counts.add(other.counts);
    }
}

impl Part {
    /// What the operator made, before its place is known.
    pub(crate) fn new(kind: &str, at: i64, rows: usize, columns: Vec<Vec<ArrayRef>>) -> Self {
        Self { operator: 0, kind: kind.to_owned(), at, rows, columns, in_file: None }
    }
}
