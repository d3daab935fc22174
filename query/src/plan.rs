//! A planned statement: what pgwire describes before it runs, with parameters that may still be open.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::{
    common::{Column, ScalarValue, tree_node::TreeNode},
    logical_expr::{Expr, LogicalPlan},
};

use tidemill_storage::schema::TableSchema;

use crate::{
    SqlError, TableHandle,
    explain::Explain,
    reuse::{self, Reusable},
};

/// The table column that a result column comes from, as RowDescription names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnOrigin {
    pub table_oid: u32,
    /// Counted from 1, in the order of the table's columns.
    pub column: i16,
}

/// A statement that can be bound and executed any number of times; each execution sees its own snapshot.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) sql: Arc<str>,
    pub(crate) logical: Arc<LogicalPlan>,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: Vec<FieldRef>,
    /// Of the parameters, once they are bound.
    pub(crate) values: Arc<[ScalarValue]>,
    /// Shared by all bound copies.
    pub(crate) reusable: Arc<Reusable>,
    pub(crate) origins: Vec<Option<ColumnOrigin>>,
    pub(crate) explain: Option<Explain>,
    pub(crate) write: Option<Write>,
}

/// What a statement does to a table with the rows that executing its plan gives.
#[derive(Clone, Debug)]
pub struct Write {
    pub table: TableHandle,
    /// The columns that the table had when the statement was planned.
    pub schema: Arc<TableSchema>,
    pub kind: WriteKind,
    pub returning: Option<Returning>,
}

/// What a statement returns of the rows that it writes.
#[derive(Clone, Debug)]
pub enum Returning {
    /// A query of the new rows, to be executed over them before they are written. It takes the parameters of the statement.
    Query(Arc<Plan>),
    /// Of deleted rows: what the plan gives before their addresses.
    Read { schema: SchemaRef, origins: Vec<Option<ColumnOrigin>> },
}

impl Returning {
    /// Names and types of what is returned.
    pub fn schema(&self) -> &SchemaRef {
        match self {
            Self::Query(plan) => plan.schema(),
            Self::Read { schema, .. } => schema,
        }
    }

    /// One entry per column.
    pub fn origins(&self) -> &[Option<ColumnOrigin>] {
        match self {
            Self::Query(plan) => plan.origins(),
            Self::Read { origins, .. } => origins,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// The rows, in all columns of the table, in order, are added.
    Insert,
    /// The same with the addresses of the rows whose places they take.
    Update,
    /// The addresses of rows that are deleted, after what is returned of them.
    Delete,
}

impl Plan {
    pub fn sql(&self) -> &Arc<str> {
        &self.sql
    }

    /// Names and types of the rows that executing gives. Field metadata tells UUID and JSONB from TEXT.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Types of `$1`, `$2`, … as inferred; Text where nothing tells.
    pub fn parameters(&self) -> &[FieldRef] {
        &self.parameters
    }

    /// One entry per result column.
    pub fn origins(&self) -> &[Option<ColumnOrigin>] {
        &self.origins
    }

    /// For INSERT, UPDATE and DELETE: what the server does with the rows. EXPLAIN of them does nothing.
    pub fn write(&self) -> Option<&Write> {
        self.write.as_ref()
    }

    /// Whether it is a query of stored tables alone: such a plan gives today's rows whenever it is executed, as long as no definition
    /// changes. What other tables give may be found while planning.
    pub fn reads_stored_tables(&self) -> bool {
        self.write.is_none() && self.explain.is_none() && reuse::reads_stored_tables(&self.logical)
    }

    pub fn is_explain(&self) -> bool {
        self.explain.is_some()
    }

    pub(crate) fn open_parameters(logical: &LogicalPlan) -> Result<Vec<FieldRef>, SqlError> {
        let mut known = BTreeMap::new();
        for (id, field) in logical.get_parameter_fields()? {
            let number: usize = id
                .strip_prefix('$')
                .and_then(|digits| digits.parse().ok())
                .filter(|number| (1..=usize::from(u16::MAX)).contains(number))
                .ok_or_else(|| SqlError::new("42P02", format!("there is no parameter {id}")))?;
            known.insert(number, field);
        }
        let last = known.keys().next_back().copied().unwrap_or(0);
        Ok((1..=last)
            .map(|number| match known.get(&number) {
                Some(Some(field)) if field.data_type() != &DataType::Null => Arc::clone(field),
                _ => Arc::new(Field::new(format!("${number}"), DataType::Utf8View, true)),
            })
            .collect())
    }

    /// Checks that as many values are given as the statement has parameters.
    pub(crate) fn check_parameters(&self, values: &[ScalarValue]) -> Result<(), SqlError> {
        if values.len() == self.parameters.len() {
            return Ok(());
        }
        Err(SqlError::new(
            "08P01",
            format!("bind supplies {} parameters, but the statement requires {}", values.len(), self.parameters.len()),
        ))
    }
}

/// The column of the output that expression `expr` merely passes on, if it does.
pub(crate) fn passed_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => passed_column(&alias.expr),
        _ => None,
    }
}

/// Whether `plan` still has parameters.
pub(crate) fn has_parameters(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if matches!(expr, Expr::Placeholder(_)) {
                    found = true;
                }
                Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
            })
        })
    });
    found
}
