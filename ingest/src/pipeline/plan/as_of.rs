//! A join of a stream with the versions that another stream brings: of each key the one that was in force at the time of the row.
//!
//! ```text
//! l [LEFT] JOIN r FOR SYSTEM_TIME AS OF l.ts ON r.key = l.key AND anything else
//!   rows of r:   k at 10:00 = a        k at 10:07 = b
//!   rows of l:         10:03 → a   10:07 → b   9:59 → none
//! ```

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::{
    common::JoinType,
    logical_expr::{
        Expr, Join as JoinNode,
        utils::{conjunction, split_conjunction_owned},
    },
};

use super::{
    super::{expression::Expression, rules::Rules},
    Time,
    join::{Side, keys_of, side},
    marks::{self, AS_OF, LATEST},
    unsupported,
};
use crate::Result;

/// See the module.
#[derive(Debug)]
pub(crate) struct AsOf {
    /// Rows, and versions. Both have the greater delay of the two.
    pub(crate) sides: [Side; 2],
    /// Whether rows without a version are given, with NULLs.
    pub(crate) is_outer: bool,
    /// What else is to hold of a row and its version.
    pub(crate) residual: Option<Expression>,
    /// Columns of the left, then of the right.
    pub(crate) output: SchemaRef,
}

const SHAPE: &str = "write l JOIN r FOR SYSTEM_TIME AS OF l.ts ON r.key = l.key, where l.ts is the column of WATERMARK";

/// Whether a join is one.
pub(super) fn is_as_of(node: &JoinNode) -> Result<bool> {
    Ok(match &node.filter {
        Some(filter) => marks::argument(filter, AS_OF)?.is_some(),
        None => false,
    })
}

impl AsOf {
    /// Also which columns of it are event times. `times`: those of each side; `kept`: the columns of each that are asked for.
    pub(super) fn compile(
        rules: &dyn Rules,
        node: &JoinNode,
        times: [&[Time]; 2],
        kept: [Vec<usize>; 2],
    ) -> Result<(Self, Vec<Time>)> {
        let is_outer = match node.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            other => {
                return Err(unsupported(
                    format!("a join of kind {other} FOR SYSTEM_TIME AS OF is not supported"),
                    "versions are joined by JOIN and LEFT JOIN, from the right",
                ));
            }
        };
        let inputs = [node.left.schema(), node.right.schema()];
        let mut keys = node.on.clone();
        let (mut left_time, mut rest) = (None, Vec::new());
        for part in node.filter.iter().cloned().flat_map(split_conjunction_owned) {
            if marks::argument(&part, LATEST)?.is_some() {
                return Err(unsupported("JOIN LATEST takes a table", "FOR SYSTEM_TIME AS OF alone takes a source"));
            }
            match (&part, marks::argument(&part, AS_OF)?) {
                (_, None) => match keys_of(&part, inputs) {
                    Some(pair) => keys.push(pair),
                    None => rest.push(part),
                },
                (Expr::ScalarFunction(_), Some(Expr::Column(column))) => {
                    let place = inputs[0].maybe_index_of_column(&column);
                    left_time = times[0].iter().find(|time| Some(time.column) == place);
                    if left_time.is_none() {
                        return Err(unsupported(
                            format!("FOR SYSTEM_TIME AS OF {column}, which is not the event time of the left side"),
                            SHAPE,
                        ));
                    }
                }
                _ => {
                    return Err(unsupported(
                        "FOR SYSTEM_TIME AS OF with OR beside its condition cannot be read",
                        SHAPE,
                    ));
                }
            }
        }
        if keys.is_empty() {
            return Err(unsupported("FOR SYSTEM_TIME AS OF without equal keys is not supported", SHAPE));
        }
        let (Some(left_time), Some(right_time)) = (left_time, times[1].first()) else {
            return Err(unsupported(
                "the versions of FOR SYSTEM_TIME AS OF have no event time",
                "say WATERMARK FOR column AS column - INTERVAL '…' in CREATE SOURCE of the right side",
            ));
        };
        let delay_us = left_time.delay_us.max(right_time.delay_us);
        let both = [Time { delay_us, ..*left_time }, Time { delay_us, ..*right_time }];
        let [of_left, of_right] = kept;
        let left = side(rules, inputs[0], keys.iter().map(|(left, _)| left), left_time.column, &both[..1], of_left)?;
        let right =
            side(rules, inputs[1], keys.iter().map(|(_, right)| right), right_time.column, &both[1..], of_right)?;
        for (left, right) in left.keys.iter().zip(&right.keys) {
            if !left.field.data_type().equals_datatype(right.field.data_type()) {
                return Err(unsupported("the keys of the join are of two types", "cast one of them"));
            }
        }
        let residual = match conjunction(rest) {
            Some(rest) => Some(Expression::of_plan(rules, &node.schema, rest, "ON")?),
            None => None,
        };
        let fields = node.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let output = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        let given = vec![both[0]];
        Ok((Self { sides: [left, right], is_outer, residual, output }, given))
    }

    pub(super) fn describe(&self) -> String {
        let keys = self.sides[0].keys.iter().zip(&self.sides[1].keys);
        let keys: Vec<String> = keys.map(|(l, r)| format!("{} = {}", l.describe(), r.describe())).collect();
        let kind = if self.is_outer { "LeftVersion" } else { "Version" };
        let residual = self.residual.as_ref().map_or_else(String::new, |rest| format!(", where {}", rest.describe()));
        let times = self.sides.each_ref().map(|side| side.time.describe());
        format!("{kind}: on [{}], the last of {} up to {}{residual}", keys.join(", "), times[1], times[0])
    }
}
