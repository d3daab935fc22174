//! A join of a stream with a table: each row looks up what the table has of its key.
//!
//! ```text
//! s [LEFT] JOIN t ON t.key = s.column              the row of the primary key, as the table is when the row of the stream is taken
//! s [LEFT] JOIN LATEST t ON t.a = s.a AND …        of the rows that fulfil the condition the one of the greatest time
//! ```
//!
//! A row is looked at alone, so this is a step of a lane and keeps nothing.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::{
    common::{Column, JoinType},
    logical_expr::{
        BinaryExpr, Cast, Expr, Join as JoinNode, LogicalPlan, Operator, TryCast,
        utils::{conjunction, split_conjunction_owned},
    },
};

use tidemill_storage::schema::DataType;

use super::{
    super::{expression::Expression, rules::Rules},
    marks::{self, AS_OF, LATEST},
    unsupported,
};
use crate::{Error, Result};

/// A table as a pipeline looks into it.
#[derive(Clone, Debug)]
pub struct PlanTable {
    pub name: String,
    pub schema: SchemaRef,
    /// Places of the columns of its primary key; none for a table without one.
    pub key: Vec<usize>,
    /// The column that tells which of its rows is later.
    pub time: Option<usize>,
}

/// A look-up, compiled.
#[derive(Debug)]
pub(crate) struct LookUp {
    /// Place among the tables of the plan.
    pub(crate) table: usize,
    /// What a row looks for, and in which column of the table.
    pub(crate) keys: Vec<(Expression, usize)>,
    /// Whether rows that find nothing stay, with NULLs.
    pub(crate) is_outer: bool,
    /// Of several rows the one that is greatest in this column of the table.
    pub(crate) latest: Option<usize>,
    /// What else is to hold of a pair.
    pub(crate) residual: Option<Expression>,
    /// Columns of the table that are asked for.
    pub(crate) kept: Vec<usize>,
    /// Columns of the stream, then of the table.
    pub(crate) output: SchemaRef,
    name: String,
}

const SHAPE: &str =
    "write source JOIN table ON table.key = source.column, with every column of the table's primary key";

/// The table that a side of a join is, if it is one.
pub(super) fn table_of(plan: &LogicalPlan, tables: &[PlanTable]) -> Option<usize> {
    match plan {
        LogicalPlan::TableScan(scan) => tables.iter().position(|table| table.name == scan.table_name.table()),
        LogicalPlan::SubqueryAlias(node) => table_of(&node.input, tables),
        _ => None,
    }
}

impl LookUp {
    /// `used`: columns of the table that are asked for above.
    pub(super) fn compile(
        rules: &dyn Rules,
        node: &JoinNode,
        (at, table): (usize, &PlanTable),
        used: &[usize],
    ) -> Result<Self> {
        let name = &table.name;
        let is_outer = match node.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            other => {
                return Err(unsupported(
                    format!("a join of kind {other} with table \"{name}\" is not supported in a pipeline"),
                    "a stream is joined with a table by JOIN and LEFT JOIN, the stream on the left",
                ));
            }
        };
        let inputs = [node.left.schema(), node.right.schema()];
        let mut found = Vec::new();
        for (left, right) in &node.on {
            found.push((left.clone(), right.clone()));
        }
        let (mut is_latest, mut rest) = (false, Vec::new());
        for part in node.filter.iter().cloned().flat_map(split_conjunction_owned) {
            if marks::argument(&part, AS_OF)?.is_some() {
                return Err(unsupported(
                    format!(
                        "table \"{name}\" cannot be joined FOR SYSTEM_TIME AS OF: of a key it keeps the last row, and what was before is gone"
                    ),
                    "JOIN LATEST takes the row as it is now; FOR SYSTEM_TIME AS OF takes a source with a WATERMARK, whose rows are the versions of their keys",
                ));
            }
            if marks::argument(&part, LATEST)?.is_some() {
                if !matches!(part, Expr::ScalarFunction(_)) {
                    return Err(unsupported(
                        "JOIN LATEST with OR beside its condition cannot be read",
                        "put the condition behind ON in parentheses",
                    ));
                }
                is_latest = true;
                continue;
            }
            match equation(&part, inputs) {
                Some(pair) => found.push(pair),
                None => rest.push(part),
            }
        }
        let mut keys: Vec<(Expression, usize)> = Vec::new();
        for (of_stream, of_table) in found {
            let column = column_of(&of_table).and_then(|(column, wide)| {
                let place = inputs[1].maybe_index_of_column(column)?;
                let known = table.schema.field(place).data_type();
                (wide.is_none_or(|wide| is_integer(known) && is_integer(wide))).then_some((place, known))
            });
            let column = column.filter(|(place, _)| is_comparable(table.schema.field(*place)));
            let again = keys.iter().any(|(_, known)| column.is_some_and(|(place, _)| place == *known));
            let Some((place, known)) = column.filter(|_| !again) else {
                rest.push(Expr::BinaryExpr(BinaryExpr::new(Box::new(of_stream), Operator::Eq, Box::new(of_table))));
                continue;
            };
            let given = Expression::of_plan(rules, inputs[0], of_stream.clone(), "ON")?;
            // What does not fit the column is in no row of it.
            let value = match given.field.data_type().equals_datatype(known) {
                true => given,
                false => {
                    let narrow = Expr::TryCast(TryCast::new(Box::new(of_stream), known.clone()));
                    Expression::of_plan(rules, inputs[0], narrow, "ON")?
                }
            };
            keys.push((value, place));
        }
        let has_key = !table.key.is_empty() && table.key.iter().all(|key| keys.iter().any(|(_, known)| known == key));
        if keys.is_empty() {
            return Err(unsupported(
                format!("a join with table \"{name}\" without equal keys is not supported in a pipeline"),
                SHAPE,
            ));
        }
        if !has_key && !is_latest {
            return Err(unsupported(
                format!(
                    "the join with table \"{name}\" does not name its primary key, so that a row may have many partners"
                ),
                match table.key.is_empty() {
                    true => format!(
                        "JOIN LATEST {name} takes the latest of them; a table with a PRIMARY KEY is joined by that"
                    ),
                    false => format!("{SHAPE}; JOIN LATEST {name} takes the latest of them"),
                },
            ));
        }
        if !has_key && table.time.is_none() {
            return Err(Error::Unsupported {
                message: format!(
                    "table \"{name}\" has no time_column, so that nobody knows which of its rows is the latest"
                ),
                hint: Some(format!("{SHAPE}, or give the table WITH (time_column = …)")),
            });
        }
        let latest = table.time.filter(|_| !has_key);
        let residual = match conjunction(rest) {
            Some(rest) => Some(Expression::of_plan(rules, &node.schema, rest, "ON")?),
            None => None,
        };
        let mut kept = used.to_vec();
        kept.extend(latest.filter(|latest| !used.contains(latest)));
        let fields = node.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let output = Arc::new(Schema::new(fields.collect::<Vec<Field>>()));
        Ok(Self { table: at, keys, is_outer, latest, residual, kept, output, name: name.clone() })
    }

    pub(super) fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(|(value, _)| value.describe()).collect();
        let kind = if self.is_outer { "LeftLookUp" } else { "LookUp" };
        let latest = if self.latest.is_some() { ", the latest" } else { "" };
        let residual = self.residual.as_ref().map_or_else(String::new, |rest| format!(", where {}", rest.describe()));
        format!("{kind}: table {}, by [{}]{latest}{residual}", self.name, keys.join(", "))
    }
}

/// `expression of the stream = expression of the table`, either way round.
fn equation(part: &Expr, inputs: [&datafusion::common::DFSchemaRef; 2]) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = part else { return None };
    let all_of = |expr: &Expr, side: usize| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| inputs[side].maybe_index_of_column(column).is_some())
    };
    // A constant is of the stream's side: all rows look for it.
    let of_stream = |expr: &Expr| expr.column_refs().is_empty() || all_of(expr, 0);
    match () {
        () if of_stream(left) && all_of(right, 1) => Some(((**left).clone(), (**right).clone())),
        () if of_stream(right) && all_of(left, 1) => Some(((**right).clone(), (**left).clone())),
        () => None,
    }
}

/// A column, and the wider type that it was brought to.
fn column_of(expr: &Expr) -> Option<(&Column, Option<&ArrowType>)> {
    match expr {
        Expr::Column(column) => Some((column, None)),
        Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
            Expr::Column(column) => Some((column, Some(field.data_type()))),
            _ => None,
        },
        _ => None,
    }
}

/// Whether values of the column are equal when they look alike.
fn is_comparable(field: &Field) -> bool {
    !field.data_type().is_nested() && DataType::of_field(field) != Some(DataType::Jsonb)
}

fn is_integer(data_type: &ArrowType) -> bool {
    matches!(data_type, ArrowType::Int16 | ArrowType::Int32 | ArrowType::Int64)
}
