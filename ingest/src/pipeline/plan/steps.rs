//! What becomes of a row alone: conditions and expressions, in the order of the query.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{filter, filter_record_batch, prep_null_mask_filter, take},
    datatypes::{DataType as ArrowType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::DFSchemaRef,
    logical_expr::{Expr, LogicalPlan},
};

use super::{
    super::{
        expression::{Expression, Uncomputed, definition},
        rules::Rules,
        tables::Asking,
    },
    ask::Ask,
    look_up::LookUp,
    transformed::Call,
    unnest::Unnest,
};
use crate::Result;

/// One step of a row's way.
#[derive(Debug)]
pub(crate) enum Step {
    Filter(Expression),
    Project(Vec<Expression>, SchemaRef),
    LookUp(LookUp),
    Unnest(Unnest),
    Ask(Ask),
    Transform(Call),
}

/// Rows after some steps. `places`: which of the rows before each of them came of; `None`: all of them, one of each.
pub(crate) struct Stepped {
    pub(crate) rows: RecordBatch,
    pub(crate) places: Option<UInt32Array>,
    /// Rows before that a service refused, and why; they are not among the others.
    pub(crate) refused: Vec<(u32, String)>,
}

impl Step {
    pub(super) fn filter(rules: &dyn Rules, input: &LogicalPlan, predicate: Expr) -> Result<Self> {
        let condition = Expression::of_plan(rules, input.schema(), predicate, "WHERE")?;
        if !matches!(condition.field.data_type(), ArrowType::Boolean | ArrowType::Null) {
            return Err(definition("the condition is not boolean"));
        }
        Ok(Self::Filter(condition))
    }

    pub(super) fn project(
        rules: &dyn Rules,
        input: &DFSchemaRef,
        exprs: &[Expr],
        output: &DFSchemaRef,
    ) -> Result<Self> {
        let mut compiled = Vec::with_capacity(exprs.len());
        let mut fields = Vec::with_capacity(exprs.len());
        for (expr, field) in exprs.iter().zip(output.fields()) {
            let what = format!("column \"{}\"", field.name());
            let expression = Expression::of_plan(rules, input, expr.clone(), &what)?;
            let metadata = field.metadata().clone();
            fields.push(Field::new(field.name(), expression.field.data_type().clone(), true).with_metadata(metadata));
            compiled.push(expression);
        }
        Ok(Self::Project(compiled, Arc::new(Schema::new(fields))))
    }

    fn run(&self, input: Stepped, asking: &mut Asking) -> Result<Stepped, Uncomputed> {
        let Stepped { rows, places, mut refused } = input;
        match self {
            Self::Ask(ask) => {
                let asked = ask.run(&rows, asking)?;
                if asked.refused.is_empty() {
                    return Ok(Stepped { rows: asked.rows, places, refused });
                }
                let place = |row: u32| places.as_ref().map_or(row, |places| places.value(row as usize));
                refused.extend(asked.refused.into_iter().map(|(row, reason)| (place(row), reason)));
                Ok(Stepped { rows: asked.rows, places: Some(followed(places, asked.of)?), refused })
            }
            Self::LookUp(look_up) => {
                let (rows, of) = look_up.run(&rows, asking)?;
                Ok(Stepped { rows, places: Some(followed(places, of)?), refused })
            }
            Self::Transform(call) => {
                let (rows, of) = call.run(&rows)?;
                Ok(Stepped { rows, places: Some(followed(places, of)?), refused })
            }
            Self::Unnest(unnest) => {
                let (rows, of) = unnest.run(&rows)?;
                Ok(Stepped { rows, places: Some(followed(places, of)?), refused })
            }
            Self::Filter(condition) => {
                let mask = mask(condition, &rows)?;
                if mask.true_count() == mask.len() {
                    return Ok(Stepped { rows, places, refused });
                }
                let places = match places {
                    Some(places) => {
                        let kept = filter(&places, &mask).map_err(|error| error.to_string())?;
                        kept.as_primitive().clone()
                    }
                    None => mask.values().set_indices().map(|row| row as u32).collect(),
                };
                let rows = filter_record_batch(&rows, &mask).map_err(|error| error.to_string())?;
                Ok(Stepped { rows, places: Some(places), refused })
            }
            Self::Project(expressions, schema) => {
                let columns = expressions.iter().map(|expression| expression.compute(&rows));
                let columns = columns.collect::<Result<Vec<_>, _>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
                let rows = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
                    .map_err(|error| error.to_string())?;
                Ok(Stepped { rows, places, refused })
            }
        }
    }
}

/// Which rows a condition is TRUE of.
pub(crate) fn mask(condition: &Expression, rows: &RecordBatch) -> Result<BooleanArray, Uncomputed> {
    let mask = condition.compute(rows)?;
    Ok(match mask.as_boolean_opt() {
        Some(mask) if mask.null_count() > 0 => prep_null_mask_filter(mask),
        Some(mask) => mask.clone(),
        None => BooleanArray::from(vec![false; rows.num_rows()]),
    })
}

/// Where rows that were rows `of` others are, when these were at `places`.
fn followed(places: Option<UInt32Array>, of: UInt32Array) -> Result<UInt32Array, String> {
    match places {
        Some(places) => {
            let places = take(&places, &of, None).map_err(|error| error.to_string())?;
            Ok(places.as_primitive().clone())
        }
        None => Ok(of),
    }
}

/// Runs steps one after the other.
pub(crate) fn run(steps: &[Step], rows: RecordBatch, asking: &mut Asking) -> Result<Stepped, Uncomputed> {
    let begin = Stepped { rows, places: None, refused: Vec::new() };
    steps.iter().try_fold(begin, |stepped, step| step.run(stepped, asking))
}
