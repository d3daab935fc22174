//! `SELECT DISTINCT ON (key) … FROM … WITHIN INTERVAL '1 hour'`: what is made of it.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::{DistinctOn, Expr};

use super::{
    super::{expression::Expression, rules::Rules},
    Time,
    marks::{self, WITHIN},
    shift::length_us,
    unsupported,
};
use crate::{Error, Result};

/// As long as times are, and no sum of it and a time overflows by much.
const FOR_EVER_US: i64 = i64::MAX / 8;

/// Rows of which one of each key is kept for a time.
#[derive(Debug)]
pub(crate) struct Dedup {
    pub(crate) keys: Vec<Expression>,
    /// The event time.
    pub(crate) time: Expression,
    /// How far its times are behind the watermark at most.
    pub(crate) delay_us: i64,
    pub(crate) within_us: i64,
    /// What is given of a row.
    pub(crate) select: Vec<Expression>,
    pub(crate) output: SchemaRef,
}

impl Dedup {
    /// Also which of its columns are event times.
    pub(super) fn compile(rules: &dyn Rules, node: &DistinctOn, times: &[Time]) -> Result<(Self, Vec<Time>)> {
        let input = node.input.schema();
        let mut within = None;
        let mut keys = Vec::new();
        for expr in &node.on_expr {
            match marks::argument(expr, WITHIN)? {
                Some(length) => {
                    let length_us = length_us(rules, &length, "WITHIN").ok().filter(|us| *us > 0);
                    within = Some(length_us.ok_or_else(|| Error::Definition {
                        message: "WITHIN takes a constant length of time above zero".into(),
                        hint: Some("write WITHIN INTERVAL '1 hour'; days and less".into()),
                    })?);
                }
                None => keys.push(Expression::of_plan(rules, input, expr.clone(), "DISTINCT ON")?),
            }
        }
        let within_us = within.unwrap_or(FOR_EVER_US);
        if node.sort_expr.as_ref().is_some_and(|sort| !sort.is_empty()) {
            return Err(unsupported(
                "ORDER BY with DISTINCT ON is not supported in a pipeline",
                "the row of the earliest event time is kept",
            ));
        }
        let Some(time) = times.first() else {
            return Err(unsupported(
                "DISTINCT ON … WITHIN goes by event time, and its rows have none",
                "say WATERMARK FOR column AS column - INTERVAL '…' in CREATE SOURCE, and select that column",
            ));
        };
        let column = Expr::Column(input.qualified_field(time.column).into());
        let mut select = Vec::new();
        let mut fields = Vec::new();
        let mut kept = Vec::new();
        for (at, (expr, field)) in node.select_expr.iter().zip(node.schema.fields()).enumerate() {
            let compiled = Expression::of_plan(rules, input, expr.clone(), &format!("column \"{}\"", field.name()))?;
            let made = Field::new(field.name(), compiled.field.data_type().clone(), true);
            fields.push(made.with_metadata(field.metadata().clone()));
            select.push(compiled);
            if let Expr::Column(column) = expr.clone().unalias_nested().data
                && let Ok(from) = input.index_of_column(&column)
                && let Some(time) = times.iter().find(|time| time.column == from)
            {
                kept.push(Time { column: at, ..*time });
            }
        }
        let dedup = Self {
            keys,
            time: Expression::of_plan(rules, input, column, "the event time")?,
            delay_us: time.delay_us,
            within_us,
            select,
            output: Arc::new(Schema::new(fields)),
        };
        Ok((dedup, kept))
    }

    pub(super) fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(Expression::describe).collect();
        let within = match self.within_us {
            FOR_EVER_US => "the first".to_owned(),
            within_us => format!("within {within_us} microseconds"),
        };
        format!("Distinct: on [{}] {within} of {}", keys.join(", "), self.time.describe())
    }
}
