//! CHECK constraints of a source: a row for which one is FALSE is a dead letter; NULL passes, as in Postgres.

use arrow::{
    array::{Array, AsArray, BooleanArray},
    compute::filter_record_batch,
    datatypes::{DataType as ArrowType, SchemaRef},
};
use bytes::Bytes;

use super::{
    bisect::bisect,
    expression::{Expression, definition, parse},
    row_json::row_json,
    rules::Rules,
};
use crate::{
    Result,
    message::{Reject, SourceBatch},
};

/// The compiled CHECK constraints of one source.
#[derive(Debug)]
pub struct Checks {
    constraints: Vec<(String, Expression)>,
}

impl Checks {
    /// `checks` are (constraint name, SQL expression) over the columns of `schema`; they mean what `rules` say. `Definition` for an
    /// expression that is not boolean, does not parse or names what is not there.
    pub fn compile(rules: &dyn Rules, schema: &SchemaRef, checks: &[(String, String)]) -> Result<Self> {
        let mut constraints = Vec::with_capacity(checks.len());
        for (name, text) in checks {
            let what = format!("constraint \"{name}\"");
            let expression = Expression::compile(rules, schema, parse(rules, text)?, &what)?;
            if !matches!(expression.field.data_type(), ArrowType::Boolean | ArrowType::Null) {
                return Err(definition(format!("{what}: the expression {text} is not boolean")));
            }
            constraints.push((name.clone(), expression));
        }
        Ok(Self { constraints })
    }

    /// Moves each row for which a constraint is FALSE, or cannot be computed, to the rejects. Costs nothing more than the
    /// constraints themselves when all rows pass.
    pub fn apply(&self, mut batch: SourceBatch) -> SourceBatch {
        let rows = batch.rows.num_rows();
        let mut failures: Vec<(usize, String)> = Vec::new();
        for (name, expression) in &self.constraints {
            let mut failed = Vec::new();
            bisect(
                0..rows,
                &mut |range| expression.evaluate(&batch.rows.slice(range.start, range.len())),
                &mut |range, passed| {
                    let false_rows = false_rows(&passed);
                    failed.extend(
                        false_rows.map(|row| (range.start + row, format!("row violates check constraint \"{name}\""))),
                    );
                },
                &mut |row, reason| {
                    failures.push((row, format!("check constraint \"{name}\" cannot be computed: {reason}")))
                },
            );
            failures.append(&mut failed);
        }
        if failures.is_empty() {
            return batch;
        }
        // Stable: of several constraints the first one stated gives the reason.
        failures.sort_by_key(|(row, _)| *row);
        failures.dedup_by_key(|(row, _)| *row);
        reject_rows(&mut batch, failures);
        batch
    }
}

fn false_rows(passed: &dyn Array) -> impl Iterator<Item = usize> {
    let passed = passed.as_boolean_opt();
    let any_false = passed.is_some_and(|passed| passed.true_count() + passed.null_count() < passed.len());
    passed
        .filter(|_| any_false)
        .into_iter()
        .flat_map(|passed: &BooleanArray| (0..passed.len()).filter(|row| passed.is_valid(*row) && !passed.value(*row)))
}

/// Takes rows (ascending) out of a batch and puts them among the rejects, which stay in offset order.
fn reject_rows(batch: &mut SourceBatch, failures: Vec<(usize, String)>) {
    let mut keep = vec![true; batch.rows.num_rows()];
    for (row, reason) in failures {
        keep[row] = false;
        let reject = row_reject(batch, row, None, reason);
        batch.rejects.push(reject);
    }
    batch.rejects.sort_by_key(|reject| reject.offset);
    let mut kept = keep.iter();
    batch.row_offsets.retain(|_| *kept.next().expect("invariant: one offset per row"));
    batch.rows = filter_record_batch(&batch.rows, &BooleanArray::from(keep)).expect("invariant: one flag per row");
}

/// A reject of a row that was decoded well.
pub(super) fn row_reject(batch: &SourceBatch, row: usize, column: Option<String>, reason: String) -> Reject {
    let offset = batch.row_offsets[row];
    let (timestamp_ms, raw) = batch.origin_of(offset);
    let raw = raw.unwrap_or_else(|| Bytes::from(row_json(&batch.rows, row)));
    Reject { offset, timestamp_ms, column, reason, raw }
}
