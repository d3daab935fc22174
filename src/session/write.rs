//! Rows on their way into a table: checked, held until the statement has all of them, then appended at once.

use arrow::array::{Array, ArrayRef, RecordBatch};
use tidemill_storage::schema::Column;

use super::{
    backend::WriteTarget,
    error::{Result, SqlError, state},
};

/// Bytes of Arrow data that one INSERT or COPY may hold before it is stored.
pub const STAGED_BYTES_MAX: usize = 512 << 20;

/// The rows of one statement.
#[derive(Debug, Default)]
pub struct Staged {
    pub batches: Vec<RecordBatch>,
    pub rows: u64,
    bytes: usize,
}

impl Staged {
    /// 54000 when the statement holds too much.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.bytes += batch.get_array_memory_size();
        if self.bytes > STAGED_BYTES_MAX {
            return Err(SqlError::new(
                state::PROGRAM_LIMIT_EXCEEDED,
                format!("one statement can insert at most {} MB at a time", STAGED_BYTES_MAX >> 20),
            )
            .with_hint("split it into several statements, or read a file through a SOURCE with connector = 'file'"));
        }
        self.batches.push(batch);
        Ok(())
    }
}

/// 23502 when a column that must not be null is.
pub fn check_not_null(target: &WriteTarget, column: &Column, array: &ArrayRef) -> Result<()> {
    if column.nullable || array.null_count() == 0 {
        return Ok(());
    }
    Err(SqlError::new(
        state::NOT_NULL_VIOLATION,
        format!(
            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
            column.name, target.name
        ),
    ))
}
