//! A join of two streams whose rows belong together when their keys are equal and their times near.
//!
//! ```text
//! l JOIN r ON l.id = r.id AND r.ts BETWEEN l.ts + low AND l.ts + high AND anything else
//! ```
//!
//! Without both bounds on the times rows would have to be kept for ever, so they are demanded.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::{
    common::{Column, DFSchema, DFSchemaRef, JoinType, tree_node::TreeNode},
    logical_expr::{
        BinaryExpr, Expr, Join as JoinNode, Operator,
        utils::{conjunction, split_conjunction_owned},
    },
};

use super::{
    super::{expression::Expression, rules::Rules},
    Time,
    marks::{self, LATEST},
    shift::shift_us,
    unsupported,
};
use crate::{Error, Result};

/// A join, compiled.
#[derive(Debug)]
pub(crate) struct Join {
    /// Left and right.
    pub(crate) sides: [Side; 2],
    /// The right time less the left one is at least `low_us` and at most `high_us`.
    pub(crate) low_us: i64,
    pub(crate) high_us: i64,
    /// Of each side whether its rows without a partner are given, with NULLs.
    pub(crate) outer: [bool; 2],
    /// What else is to hold of a pair.
    pub(crate) residual: Option<Expression>,
    /// Columns of the left, then of the right.
    pub(crate) output: SchemaRef,
}

#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) keys: Vec<Expression>,
    pub(crate) time: Expression,
    /// How far its times are behind the watermark at most.
    pub(crate) delay_us: i64,
    pub(crate) schema: SchemaRef,
    /// Columns that are asked for; of others nothing is kept.
    pub(crate) kept: Vec<usize>,
}

const SHAPE: &str = "write l JOIN r ON l.id = r.id AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '10 minutes', with the columns of WATERMARK";

impl Join {
    /// Also which columns of it are event times. `times`: those of each side; `kept`: the columns of each that are asked for.
    pub(super) fn compile(
        rules: &dyn Rules,
        node: &JoinNode,
        times: [&[Time]; 2],
        kept: [Vec<usize>; 2],
    ) -> Result<(Self, Vec<Time>)> {
        let outer = match node.join_type {
            JoinType::Inner => [false, false],
            JoinType::Left => [true, false],
            JoinType::Right => [false, true],
            JoinType::Full => [true, true],
            other => {
                return Err(unsupported(
                    format!("a join of kind {other} is not supported in a pipeline"),
                    "a pipeline joins by JOIN, LEFT, RIGHT and FULL JOIN",
                ));
            }
        };
        let inputs = [node.left.schema(), node.right.schema()];
        let mut conditions =
            Conditions { rules, inputs, times, keys: Vec::new(), low: None, high: None, columns: None };
        conditions.keys.extend(node.on.iter().cloned());
        let mut rest = Vec::new();
        for part in node.filter.iter().cloned().flat_map(split_conjunction_owned) {
            if marks::argument(&part, LATEST)?.is_some() {
                return Err(unsupported(
                    "JOIN LATEST takes a table",
                    "FOR SYSTEM_TIME AS OF takes a source with a WATERMARK, whose rows are the versions of their keys",
                ));
            }
            if !conditions.take(&part)? {
                rest.push(part);
            }
        }
        let Conditions { keys, low, high, columns, .. } = conditions;
        if keys.is_empty() {
            return Err(unsupported("a join without equal keys is not supported in a pipeline", SHAPE));
        }
        let (Some(low_us), Some(high_us), Some(columns)) = (low, high, columns) else {
            return Err(unsupported(
                "a join of streams needs two bounds on how far the event times of its sides are apart",
                SHAPE,
            ));
        };
        if low_us > high_us {
            return Err(Error::Definition {
                message: "the bounds on the times of the join exclude each other: no two rows would belong together"
                    .into(),
                hint: Some(SHAPE.into()),
            });
        }
        let [of_left, of_right] = kept;
        let left = side(rules, inputs[0], keys.iter().map(|(left, _)| left), columns[0], times[0], of_left)?;
        let right = side(rules, inputs[1], keys.iter().map(|(_, right)| right), columns[1], times[1], of_right)?;
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
        // What is not late may come with a time that is as far behind the watermark as the bounds say, and bring a partner from as far away; see the operator.
        let (of_left, of_right) = (left.delay_us, right.delay_us);
        let late_left = of_left.saturating_add(high_us.max(0));
        let late_right = of_right.saturating_add(high_us);
        let left_delay = late_left.max(late_right);
        let right_delay = late_left.max(late_right).saturating_sub(low_us);
        // A right row without a partner waits until none can come that is not late.
        let alone = of_left.saturating_add(high_us.max(high_us.saturating_sub(low_us))).saturating_sub(low_us);
        let right_delay = if outer[1] { right_delay.max(alone) } else { right_delay };
        let mut given = Vec::new();
        // Of rows without a partner on the other side the time of that is NULL.
        if !outer[1] {
            given.push(Time { column: columns[0], delay_us: left_delay, is_end: false });
        }
        if !outer[0] {
            let column = inputs[0].fields().len() + columns[1];
            given.push(Time { column, delay_us: right_delay, is_end: false });
        }
        Ok((Self { sides: [left, right], low_us, high_us, outer, residual, output }, given))
    }

    pub(super) fn describe(&self) -> String {
        let keys = self.sides[0].keys.iter().zip(&self.sides[1].keys);
        let keys: Vec<String> = keys.map(|(l, r)| format!("{} = {}", l.describe(), r.describe())).collect();
        let kind = match self.outer {
            [false, false] => "Join",
            [true, false] => "LeftJoin",
            [false, true] => "RightJoin",
            [true, true] => "FullJoin",
        };
        let residual = self.residual.as_ref().map_or_else(String::new, |rest| format!(", where {}", rest.describe()));
        format!(
            "{kind}: on [{}], {} − {} within {}..{} microseconds{residual}",
            keys.join(", "),
            self.sides[1].time.describe(),
            self.sides[0].time.describe(),
            self.low_us,
            self.high_us
        )
    }
}

/// A side of a join. `times` says how far its times are behind the watermark.
pub(super) fn side<'e>(
    rules: &dyn Rules,
    schema: &DFSchemaRef,
    keys: impl Iterator<Item = &'e Expr>,
    column: usize,
    times: &[Time],
    kept: Vec<usize>,
) -> Result<Side> {
    let time = Expr::Column(Column::from(schema.qualified_field(column)));
    let stored = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Ok(Side {
        keys: keys.map(|key| Expression::of_plan(rules, schema, key.clone(), "ON")).collect::<Result<_>>()?,
        time: Expression::of_plan(rules, schema, time, "the event time")?,
        delay_us: times.iter().find(|time| time.column == column).map_or(0, |time| time.delay_us),
        schema: Arc::new(Schema::new(stored.collect::<Vec<Field>>())),
        kept,
    })
}

/// What the condition of the join says, as far as it is understood.
struct Conditions<'a> {
    rules: &'a dyn Rules,
    inputs: [&'a DFSchemaRef; 2],
    times: [&'a [Time]; 2],
    keys: Vec<(Expr, Expr)>,
    low: Option<i64>,
    high: Option<i64>,
    /// The times that the bounds are on.
    columns: Option<[usize; 2]>,
}

impl Conditions<'_> {
    /// Whether the part was taken; otherwise it is asked of each pair.
    fn take(&mut self, part: &Expr) -> Result<bool> {
        if let Expr::Between(between) = part
            && !between.negated
        {
            let bound =
                |op, with: &Expr| Expr::BinaryExpr(BinaryExpr::new(between.expr.clone(), op, Box::new(with.clone())));
            let both = [bound(Operator::GtEq, &between.low), bound(Operator::LtEq, &between.high)];
            // Either both are bounds on times, or it is a condition like others.
            if both.iter().all(|bound| self.bound(bound).is_some()) {
                for part in &both {
                    self.take(part)?;
                }
                return Ok(true);
            }
            return Ok(false);
        }
        if let Some(pair) = keys_of(part, self.inputs) {
            self.keys.push(pair);
            return Ok(true);
        }
        let Some(Bound { op, us, columns }) = self.bound(part) else { return Ok(false) };
        if self.columns.is_some_and(|known| known != columns) {
            return Ok(false);
        }
        self.columns = Some(columns);
        match op {
            Operator::GtEq => self.low = Some(self.low.map_or(us, |low| low.max(us))),
            Operator::Gt => self.low = Some(self.low.map_or(us + 1, |low| low.max(us + 1))),
            Operator::LtEq => self.high = Some(self.high.map_or(us, |high| high.min(us))),
            _ => self.high = Some(self.high.map_or(us - 1, |high| high.min(us - 1))),
        }
        Ok(true)
    }

    /// A comparison of the two times, as the right one less the left one against a constant.
    fn bound(&self, part: &Expr) -> Option<Bound> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = part else { return None };
        let (a, b) = (self.time_of(left)?, self.time_of(right)?);
        let (op, of_left, of_right) = match (a.side, b.side) {
            (1, 0) => (*op, b, a),
            (0, 1) => (op.swap()?, a, b),
            _ => return None,
        };
        if !matches!(op, Operator::Gt | Operator::GtEq | Operator::Lt | Operator::LtEq) {
            return None;
        }
        let us = of_left.shift_us.checked_sub(of_right.shift_us)?;
        Some(Bound { op, us, columns: [of_left.column, of_right.column] })
    }

    /// An expression that is an event time, moved by a constant.
    fn time_of(&self, expr: &Expr) -> Option<Moved> {
        let columns = expr.column_refs();
        let mut columns = columns.into_iter();
        let column = columns.next()?.clone();
        if columns.next().is_some() {
            return None;
        }
        let (side, at) = (0..2).find_map(|side| Some((side, self.inputs[side].maybe_index_of_column(&column)?)))?;
        self.times[side].iter().find(|time| time.column == at)?;
        let data_type: &ArrowType = self.inputs[side].field(at).data_type();
        let alone = expr.clone().transform(|expr| {
            Ok(match &expr {
                Expr::Column(_) => {
                    datafusion::common::tree_node::Transformed::yes(Expr::Column(Column::from_name("time")))
                }
                _ => datafusion::common::tree_node::Transformed::no(expr),
            })
        });
        let alone = alone.ok()?.data;
        let shift_us =
            shift_us(data_type, |schema: &Arc<DFSchema>| Expression::of_plan(self.rules, schema, alone, "ON").ok())?;
        Some(Moved { side, column: at, shift_us })
    }
}

/// An equality of an expression of each side: that of the left, and that of the right.
pub(super) fn keys_of(part: &Expr, inputs: [&DFSchemaRef; 2]) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part else { return None };
    let side_of = |expr: &Expr| {
        let columns = expr.column_refs();
        let all_of = |side: usize| columns.iter().all(|column| inputs[side].maybe_index_of_column(column).is_some());
        (!columns.is_empty()).then(|| (0..2).find(|side| all_of(*side))).flatten()
    };
    match (side_of(left)?, side_of(right)?) {
        (0, 1) => Some(((**left).clone(), (**right).clone())),
        (1, 0) => Some(((**right).clone(), (**left).clone())),
        _ => None,
    }
}

/// The right time less the left one, compared with a constant.
struct Bound {
    op: Operator,
    us: i64,
    columns: [usize; 2],
}

struct Moved {
    side: usize,
    column: usize,
    shift_us: i64,
}
