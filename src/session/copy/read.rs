//! COPY … FROM STDIN: bytes become batches of the table's columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use tidemill_storage::{evaluate::default_array, schema::Column};

use super::{
    binary::{self, Tuples},
    lines::{self, Lines},
    options::{Format, Options},
};
use crate::session::{
    backend::WriteTarget,
    error::{Result, SqlError, state},
    value::{
        binary as binary_values,
        build::{ColumnBuilder, ReadStyle},
    },
    write::{Staged, check_not_null},
};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

enum Rows {
    Lines(Lines),
    Tuples(Tuples),
}

/// A COPY that takes data. Nothing is stored before all of it was read without an error.
pub struct CopyIn {
    target: WriteTarget,
    options: Options,
    /// Index in the table's columns, in the order of the data.
    columns: Vec<usize>,
    builders: Vec<ColumnBuilder>,
    rows: Rows,
    building: usize,
    header_seen: bool,
    tuple: u64,
    staged: Staged,
}

impl CopyIn {
    /// `columns`: names, empty for all of the table.
    pub fn new(target: WriteTarget, columns: &[String], options: Options, style: ReadStyle) -> Result<Self> {
        let indices: Vec<usize> = if columns.is_empty() {
            (0..target.schema.columns.len()).collect()
        } else {
            let mut indices = Vec::new();
            for name in columns {
                let index = target.schema.columns.iter().position(|column| &column.name == name).ok_or_else(|| {
                    SqlError::new(
                        state::UNDEFINED_COLUMN,
                        format!("column \"{name}\" of relation \"{}\" does not exist", target.name),
                    )
                })?;
                if indices.contains(&index) {
                    return Err(SqlError::new(
                        state::DUPLICATE_COLUMN,
                        format!("column \"{name}\" specified more than once"),
                    ));
                }
                indices.push(index);
            }
            indices
        };
        let builders = indices
            .iter()
            .map(|index| ColumnBuilder::for_column(&target.schema.columns[*index].data_type, style))
            .collect();
        let rows = match options.format {
            Format::Binary => Rows::Tuples(Tuples::default()),
            _ => Rows::Lines(Lines::new(options.clone())),
        };
        Ok(Self {
            target,
            options,
            columns: indices,
            builders,
            rows,
            building: 0,
            header_seen: false,
            tuple: 0,
            staged: Staged::default(),
        })
    }

    pub fn is_binary(&self) -> bool {
        self.options.format == Format::Binary
    }

    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Takes the next piece of data.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.rows {
            Rows::Lines(lines) => lines.push(bytes),
            Rows::Tuples(tuples) => tuples.push(bytes)?,
        }
        self.read(false)
    }

    /// The data is complete: the target and its rows.
    pub fn finish(mut self) -> Result<(WriteTarget, Staged)> {
        self.read(true)?;
        if let Rows::Tuples(tuples) = &self.rows {
            tuples.finish().map_err(|error| self.located(error, None))?;
        }
        self.batch()?;
        Ok((self.target, self.staged))
    }

    fn read(&mut self, last: bool) -> Result<()> {
        loop {
            let more = match &mut self.rows {
                Rows::Lines(lines) => match lines.next(last) {
                    Ok(lines::Next::Row(fields)) => {
                        self.line(fields)?;
                        true
                    }
                    Ok(_) => false,
                    Err(error) => return Err(self.located(error, None)),
                },
                Rows::Tuples(tuples) => match tuples.next(self.columns.len()) {
                    Ok(binary::Next::Tuple(fields)) => {
                        self.tuple += 1;
                        for (index, field) in fields.iter().enumerate() {
                            let appended = match field {
                                Some(bytes) => self.builders[index].append_binary(bytes),
                                None => {
                                    self.builders[index].append_null();
                                    Ok(())
                                }
                            };
                            appended.map_err(|error| self.located(error, Some(index)))?;
                        }
                        self.building += 1;
                        true
                    }
                    Ok(_) => false,
                    Err(error) => return Err(self.located(error, None)),
                },
            };
            if self.building >= BATCH_ROWS {
                self.batch()?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn line(&mut self, fields: lines::Fields) -> Result<()> {
        if self.options.header && !self.header_seen {
            self.header_seen = true;
            return self.header(&fields);
        }
        if fields.len() != self.columns.len() {
            let error = if fields.len() > self.columns.len() {
                SqlError::new(state::BAD_COPY_FILE_FORMAT, "extra data after last expected column")
            } else {
                let missing = self.column(fields.len()).name.clone();
                SqlError::new(state::BAD_COPY_FILE_FORMAT, format!("missing data for column \"{missing}\""))
            };
            return Err(self.located(error, None));
        }
        for (index, field) in fields.into_iter().enumerate() {
            let name = &self.column(index).name;
            let field = match field {
                None if self.options.force_not_null.covers(name) => Some(self.options.null.clone().into_bytes()),
                Some(value) if value == self.options.null.as_bytes() && self.options.force_null.covers(name) => None,
                field => field,
            };
            let appended = match &field {
                None => {
                    self.builders[index].append_null();
                    Ok(())
                }
                Some(bytes) => {
                    binary_values::text(bytes, "text").and_then(|text| self.builders[index].append_text(text))
                }
            };
            appended.map_err(|error| match &field {
                Some(bytes) => {
                    let error = self.located(error, Some(index));
                    let context = error.context.clone().unwrap_or_default();
                    let shown: String = String::from_utf8_lossy(bytes).chars().take(100).collect();
                    error.with_context(format!("{context}: \"{shown}\""))
                }
                None => error,
            })?;
        }
        self.building += 1;
        Ok(())
    }

    fn header(&self, fields: &lines::Fields) -> Result<()> {
        if !self.options.header_match {
            return Ok(());
        }
        let wrong = |message: String| Err(self.located(SqlError::new(state::BAD_COPY_FILE_FORMAT, message), None));
        if fields.len() != self.columns.len() {
            return wrong(format!(
                "wrong number of fields in header line: got {}, expected {}",
                fields.len(),
                self.columns.len()
            ));
        }
        for (index, field) in fields.iter().enumerate() {
            let expected = &self.column(index).name;
            if field.as_deref() != Some(expected.as_bytes()) {
                let got = String::from_utf8_lossy(field.as_deref().unwrap_or_default()).into_owned();
                return wrong(format!(
                    "column name mismatch in header line field {}: got \"{got}\", expected \"{expected}\"",
                    index + 1
                ));
            }
        }
        Ok(())
    }

    fn column(&self, index: usize) -> &Column {
        &self.target.schema.columns[self.columns[index]]
    }

    fn batch(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.building);
        if rows == 0 {
            return Ok(());
        }
        let mut given: Vec<Option<ArrayRef>> = vec![None; self.target.schema.columns.len()];
        for (builder, index) in self.builders.iter_mut().zip(&self.columns) {
            given[*index] = Some(builder.finish()?);
        }
        let columns = given
            .into_iter()
            .zip(&self.target.schema.columns)
            .map(|(given, column)| match given {
                Some(array) => Ok(array),
                None => Ok(default_array(column, rows)?),
            })
            .collect::<Result<Vec<_>>>()?;
        for (column, array) in self.target.schema.columns.iter().zip(&columns) {
            check_not_null(&self.target, column, array)?;
        }
        // Nullability is checked above with PostgreSQL's words.
        let schema = self.target.schema.arrow();
        self.staged.push(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    }

    /// `COPY t, line 3, column a`
    fn located(&self, error: SqlError, column: Option<usize>) -> SqlError {
        let line = match &self.rows {
            Rows::Lines(lines) => lines.line,
            Rows::Tuples(_) => self.tuple.max(1),
        };
        let column = column.map(|index| format!(", column {}", self.column(index).name)).unwrap_or_default();
        error.with_context(format!("COPY {}, line {line}{column}", self.target.name))
    }
}
