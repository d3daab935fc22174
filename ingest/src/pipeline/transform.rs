//! The `AS SELECT … WHERE …` of a table that reads from a source.
//!
//! ```text
//! source rows ─ WHERE ─► kept rows ─ one output per table column ─► NOT NULL? ─► table rows
//! ```
//!
//! Evaluated on the whole batch; when that fails, on halves, until only the rows that cannot be computed are left, and these are
//! rejects. Rows that the condition leaves out are not computed.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{concat_batches, filter_record_batch, prep_null_mask_filter, take},
    datatypes::{DataType as ArrowType, Field, SchemaRef},
};
use tidemill_storage::{
    evaluate::default_array,
    ids::ColumnId,
    schema::{Column, DataType, TableSchema},
};

use super::{
    assignment::{Assignment, assign},
    bisect::bisect,
    checks::row_reject,
    expression::{Expression, definition},
    rules::Rules,
    select::{Item, Select},
};
use crate::{
    Error, Result,
    decode::parse_texts,
    message::{Reject, SourceBatch},
};

/// From rows of a source to rows of one table.
#[derive(Debug)]
pub struct Transform {
    source: SchemaRef,
    condition: Option<Expression>,
    outputs: Vec<Output>,
    target: TableSchema,
    target_arrow: SchemaRef,
}

/// Where a column of the table gets its values.
#[derive(Debug)]
enum Output {
    /// The source's column of this position.
    Column(usize, Assignment),
    Expression(Expression, Assignment),
    /// One value, for all rows.
    Constant(ArrayRef),
    Default,
}

/// What a transform makes of a source batch.
#[derive(Clone, Debug)]
pub struct TransformedBatch {
    /// The columns of the table, in order.
    pub rows: RecordBatch,
    /// The offset each row came from; never decreasing.
    pub row_offsets: Vec<u64>,
    /// Rows whose expressions failed, in offset order. The batch's own rejects are not repeated here.
    pub rejects: Vec<Reject>,
}

/// What one range of rows became.
struct Piece {
    rows: RecordBatch,
    /// The row of the batch that each came from.
    sources: Vec<usize>,
    /// Rows that lack a value which must not be null, with the column's name.
    nulls: Vec<(usize, String)>,
}

impl Transform {
    /// Whether rows of the source say what a column of the table is.
    pub(crate) fn brings(&self, column: ColumnId) -> bool {
        let at = self.target.columns.iter().position(|known| known.id == column);
        at.is_some_and(|at| !matches!(self.outputs[at], Output::Default))
    }

    /// `select` is the text of `SELECT items [WHERE condition]` without FROM; `None` takes columns by name. `*` stands for all columns of
    /// the source; a derived column replaces the one of `*` with its name. Output goes to table columns by name; columns that get nothing have
    /// their default or NULL. `Definition` for what cannot work: unknown names, a NOT NULL column without a value, a type that would have to
    /// be narrowed, aggregates.
    pub fn compile(rules: &dyn Rules, source: &SchemaRef, select: Option<&str>, target: &TableSchema) -> Result<Self> {
        let select = Select::parse(rules, select)?;
        let condition = match select.condition {
            None => None,
            Some(text) => {
                let condition = Expression::compile(rules, source, text, "WHERE")?;
                if !matches!(condition.field.data_type(), ArrowType::Boolean | ArrowType::Null) {
                    return Err(definition("the WHERE condition is not boolean"));
                }
                Some(condition)
            }
        };
        let mut outputs: Vec<Option<Output>> = target.columns.iter().map(|_| None).collect();
        for item in select.items {
            match item {
                Item::Wildcard => {
                    for (at, field) in source.fields().iter().enumerate() {
                        // Derived columns win over those of `*`, wherever it stands; columns the table does not have are left out.
                        let Some(position) = target.columns.iter().position(|column| column.name == *field.name())
                        else {
                            continue;
                        };
                        if outputs[position].is_none() {
                            let assignment = assign(field, &target.columns[position])?;
                            outputs[position] = Some(Output::Column(at, assignment));
                        }
                    }
                }
                Item::Derived { name, expression } => {
                    let Some(position) = target.columns.iter().position(|column| column.name == name) else {
                        return Err(Error::Definition {
                            message: format!("the SELECT makes a column \"{name}\", which the table does not have"),
                            hint: Some("name it after a column of the table with AS".into()),
                        });
                    };
                    if matches!(outputs[position], Some(Output::Expression(..) | Output::Constant(_))) {
                        return Err(definition(format!("the SELECT makes column \"{name}\" twice")));
                    }
                    let expression = Expression::compile(rules, source, *expression, &format!("column \"{name}\""))?;
                    outputs[position] = Some(derive(expression, &target.columns[position])?);
                }
            }
        }
        let mut bound = Vec::with_capacity(outputs.len());
        for (output, column) in outputs.into_iter().zip(&target.columns) {
            if output.is_none() && !column.nullable && column.default.is_none() {
                return Err(Error::Definition {
                    message: format!(
                        "column \"{}\" is NOT NULL, has no default and gets no value from the source",
                        column.name
                    ),
                    hint: Some("give it a default, or a value in AS SELECT".into()),
                });
            }
            bound.push(output.unwrap_or(Output::Default));
        }
        Ok(Self {
            source: SchemaRef::clone(source),
            condition,
            outputs: bound,
            target: target.clone(),
            target_arrow: target.arrow(),
        })
    }

    /// The columns of the rows that it takes.
    pub(crate) fn source(&self) -> &SchemaRef {
        &self.source
    }

    /// The columns of the rows that it makes.
    pub fn target(&self) -> &TableSchema {
        &self.target
    }

    /// Filters and derives. Never fails as a whole.
    ///
    /// Rows of another schema than the one compiled for (a source's schema may change while its rows are under way) are brought into it by column
    /// name: columns that are not there are NULL (or the table's default, where the column is taken as it is), others are cast.
    pub fn apply(&self, batch: &SourceBatch) -> TransformedBatch {
        let mut pieces = Vec::new();
        let mut faults: Vec<(usize, Option<String>, String)> = Vec::new();
        let rows = &batch.rows;
        if rows.num_rows() > 0 {
            bisect(
                0..rows.num_rows(),
                &mut |range| self.evaluate(&rows.slice(range.start, range.len()), range.start),
                &mut |_, piece| pieces.push(piece),
                &mut |row, reason| faults.push((row, None, reason)),
            );
        }
        for piece in &mut pieces {
            faults.extend(piece.nulls.drain(..).map(|(row, column)| {
                let reason = format!("null value in column \"{column}\", which is NOT NULL");
                (row, Some(column), reason)
            }));
        }
        faults.sort_by_key(|(row, ..)| *row);
        let rejects = faults.into_iter().map(|(row, column, reason)| row_reject(batch, row, column, reason)).collect();
        let row_offsets = pieces.iter().flat_map(|piece| &piece.sources).map(|row| batch.row_offsets[*row]).collect();
        let rows = match pieces.as_slice() {
            [piece] => piece.rows.clone(),
            pieces => concat_batches(&self.target_arrow, pieces.iter().map(|piece| &piece.rows))
                .expect("invariant: all pieces have the table's columns"),
        };
        TransformedBatch { rows, row_offsets, rejects }
    }

    fn evaluate(&self, rows: &RecordBatch, first: usize) -> Result<Piece, String> {
        let rows = &self.conform(rows)?;
        let (kept, mut sources) = match &self.condition {
            None => (rows.clone(), (first..first + rows.num_rows()).collect()),
            Some(condition) => {
                let mask = condition.evaluate(rows)?;
                let mask = match mask.as_boolean_opt() {
                    Some(mask) if mask.null_count() > 0 => prep_null_mask_filter(mask),
                    Some(mask) => mask.clone(),
                    // NULL for every row.
                    None => BooleanArray::from(vec![false; rows.num_rows()]),
                };
                let sources: Vec<usize> = mask.values().set_indices().map(|row| first + row).collect();
                (filter_record_batch(rows, &mask).map_err(|error| error.to_string())?, sources)
            }
        };
        let mut columns = Vec::with_capacity(self.outputs.len());
        for (output, column) in self.outputs.iter().zip(&self.target.columns) {
            let array = self.output(output, column, &kept)?;
            debug_assert_eq!(
                array.data_type(),
                &column.data_type.arrow(),
                "invariant: an assignment gives the column's type"
            );
            columns.push(array);
        }
        let mut nulls = Vec::new();
        for (array, column) in columns.iter().zip(&self.target.columns) {
            if !column.nullable && array.null_count() > 0 {
                nulls.extend((0..array.len()).filter(|row| array.is_null(*row)).map(|row| (row, column.name.clone())));
            }
        }
        nulls.sort_by_key(|(row, _)| *row);
        nulls.dedup_by_key(|(row, _)| *row);
        if !nulls.is_empty() {
            let mut keep = vec![true; kept.num_rows()];
            for (row, _) in &mut nulls {
                keep[*row] = false;
                *row = sources[*row];
            }
            let mut flags = keep.iter();
            sources.retain(|_| *flags.next().expect("invariant: one flag per row"));
            let keep = BooleanArray::from(keep);
            for array in &mut columns {
                *array = arrow::compute::filter(array, &keep).map_err(|error| error.to_string())?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(sources.len()));
        let rows = RecordBatch::try_new_with_options(SchemaRef::clone(&self.target_arrow), columns, &options)
            .map_err(|error| error.to_string())?;
        Ok(Piece { rows, sources, nulls })
    }

    fn output(&self, output: &Output, column: &Column, rows: &RecordBatch) -> Result<ArrayRef, String> {
        match output {
            Output::Column(at, assignment) => assignment.apply(rows.column(*at), column),
            Output::Expression(expression, assignment) => assignment.apply(&expression.evaluate(rows)?, column),
            Output::Constant(value) => {
                take(value, &UInt32Array::from(vec![0; rows.num_rows()]), None).map_err(|error| error.to_string())
            }
            Output::Default => default_array(column, rows.num_rows()).map_err(|error| error.to_string()),
        }
    }

    /// The rows in the schema that was compiled for.
    fn conform(&self, rows: &RecordBatch) -> Result<RecordBatch, String> {
        let schema = rows.schema();
        let is_same = schema.fields().len() == self.source.fields().len()
            && schema
                .fields()
                .iter()
                .zip(self.source.fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if is_same {
            return Ok(rows.clone());
        }
        let columns =
            self.source.fields().iter().enumerate().map(|(at, field)| match rows.column_by_name(field.name()) {
                Some(array) => super::assignment::cast_checked(array, field.data_type()),
                None => self.absent(at, field, rows.num_rows()),
            });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        // Columns that were not there may be null whatever the schema says; the table's own NOT NULL is looked at later.
        let fields: Vec<Field> =
            self.source.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(arrow::datatypes::Schema::new(fields)), columns, &options)
            .map_err(|error| error.to_string())
    }

    fn absent(&self, at: usize, field: &Field, rows: usize) -> Result<ArrayRef, String> {
        let taken_as_is = self.outputs.iter().zip(&self.target.columns).find_map(|(output, column)| match output {
            Output::Column(from, Assignment::AsIs) if *from == at => Some(column),
            _ => None,
        });
        match taken_as_is {
            Some(column) => default_array(column, rows).map_err(|error| error.to_string()),
            None => Ok(arrow::array::new_null_array(field.data_type(), rows)),
        }
    }
}

/// Binds an expression to a column: a literal is turned into the column's type now, anything else row by row.
fn derive(expression: Expression, column: &Column) -> Result<Output> {
    let Some(literal) = &expression.literal else {
        let assignment = assign(&expression.field, column)?;
        return Ok(Output::Expression(expression, assignment));
    };
    if literal.is_null() {
        if !column.nullable {
            return Err(definition(format!("column \"{}\" is NOT NULL and the SELECT gives it NULL", column.name)));
        }
        return Ok(Output::Constant(arrow::array::new_null_array(&column.data_type.arrow(), 1)));
    }
    if let Some(Some(text)) = literal.try_as_str()
        && column.data_type != DataType::Text
    {
        // A quoted literal is of no type until it meets a column, as in Postgres.
        let array = parse_texts(&column.name, &column.data_type, [Some(text)].into_iter()).map_err(definition)?;
        return Ok(Output::Constant(array));
    }
    let assignment = assign(&expression.field, column)?;
    let value = literal.to_array().map_err(Error::from)?;
    let value = assignment
        .apply(&value, column)
        .map_err(|reason| definition(format!("column \"{}\": {reason}", column.name)))?;
    Ok(Output::Constant(value))
}
