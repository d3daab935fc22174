//! Predicates on encoded columns: a leaf of a [`Predicate`] is translated once per segment ([`ColumnReader::prepare`]) and then
//! evaluated on runs of rows ([`ColumnReader::select`]), where the encoding allows it without decoding.
//!
//! Its plain twin is [`evaluate`](crate::evaluate::evaluate) on the decoded rows.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, RecordBatch},
    datatypes::Schema as ArrowSchema,
};

use super::ColumnReader;
use crate::{
    Error, Result,
    bitpack::Bitmask,
    evaluate::evaluate,
    ids::{ColumnId, SchemaVersion},
    predicate::Predicate,
    scan::ScanRequest,
    schema::{Column, TableSchema},
};

/// A leaf of a predicate in the terms of one column of one segment.
#[derive(Debug)]
pub struct ColumnTest {
    kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// No row passes.
    Nothing,
    /// Every row passes.
    Everything,
    /// The rows that are not null pass, or those that are.
    Null { pass: bool },
    /// Decode and compare.
    Decoded(Box<ScanRequest>),
}

impl ColumnTest {
    /// No row of the segment passes: it need not be read.
    pub fn selects_nothing(&self) -> bool {
        matches!(self.kind, Kind::Nothing)
    }

    /// Every row of the segment passes: the leaf need not be evaluated.
    pub fn selects_everything(&self) -> bool {
        matches!(self.kind, Kind::Everything)
    }
}

impl ColumnReader {
    /// Translates a leaf (not AND, not OR) whose column is this one and whose values are of this column's type.
    pub fn prepare(&self, leaf: &Predicate) -> Result<ColumnTest> {
        let id = leaf_column(leaf)?;
        let kind = match leaf {
            Predicate::IsNull { negated, .. } => match (self.null_count(), negated) {
                (0, true) => Kind::Everything,
                (0, false) => Kind::Nothing,
                (nulls, negated) if nulls == u64::from(self.rows()) => {
                    if *negated {
                        Kind::Nothing
                    } else {
                        Kind::Everything
                    }
                }
                _ => Kind::Null { pass: !negated },
            },
            _ if self.null_count() == u64::from(self.rows()) => Kind::Nothing,
            _ => Kind::Decoded(Box::new(self.request(id, leaf))),
        };
        Ok(ColumnTest { kind })
    }

    /// Takes out of `mask` (one bit per row of `rows`) the rows that do not pass.
    pub fn select(&self, rows: Range<u32>, test: &ColumnTest, mask: &mut Bitmask) -> Result<()> {
        self.check(rows.clone())?;
        if mask.len() != rows.len() {
            return Err(Error::Invalid(format!("a mask of {} rows for {} rows", mask.len(), rows.len())));
        }
        match &test.kind {
            Kind::Everything => {}
            Kind::Nothing => mask.clear(),
            Kind::Null { pass } => match (self.validity(rows)?, pass) {
                (None, false) => {}
                (None, true) => mask.clear(),
                (Some(valid), false) => mask.and(&Bitmask::from_boolean_buffer(valid.inner())),
                (Some(valid), true) => mask.and_not(&Bitmask::from_boolean_buffer(valid.inner())),
            },
            Kind::Decoded(request) => {
                let array = self.decode(rows)?;
                let field = self.data_type().field("", true);
                let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(vec![field])), vec![array])?;
                if let Some(passed) = evaluate(request, &request.schema, &batch)? {
                    let passed = match passed.nulls() {
                        None => passed.values().clone(),
                        Some(known) => passed.values() & known.inner(),
                    };
                    mask.and(&Bitmask::from_boolean_buffer(&passed));
                }
            }
        }
        Ok(())
    }

    /// A request that evaluates the leaf on a batch of this column alone.
    fn request(&self, id: ColumnId, leaf: &Predicate) -> ScanRequest {
        let column =
            Column { id, name: String::new(), data_type: self.data_type().clone(), nullable: true, default: None };
        ScanRequest {
            schema: Arc::new(TableSchema { version: SchemaVersion(0), columns: vec![column], time_column: None }),
            projection: Vec::new(),
            predicate: Some(leaf.clone()),
            limit: None,
            batch_rows: usize::MAX,
        }
    }
}

fn leaf_column(leaf: &Predicate) -> Result<ColumnId> {
    match leaf {
        Predicate::Compare { column, .. }
        | Predicate::In { column, .. }
        | Predicate::Like { column, .. }
        | Predicate::IsNull { column, .. } => Ok(*column),
        Predicate::And(_) | Predicate::Or(_) => Err(Error::Invalid("AND and OR are not tests of one column".into())),
    }
}
