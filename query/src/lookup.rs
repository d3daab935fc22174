//! Queries for the row of one primary key, answered without a physical plan and without leaving the thread of the connection.
//!
//! `SELECT a, b FROM t WHERE id = $1`, with every column of the key in an equation and nothing else in the condition: tables keep a map of their
//! keys ([`tidemill_storage::table::Table::look_up`]), and asking it costs less than planning to. The plain twin is the plan: it answers where the
//! map cannot, and wherever a setting wants it (`rt.use_indexes = off`).

use std::{panic::AssertUnwindSafe, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
};
use datafusion::{
    common::ScalarValue,
    datasource::source_as_provider,
    logical_expr::{
        Expr, FetchType, LogicalPlan, Operator, SkipType, TableScan, expr::BinaryExpr, utils::split_conjunction,
    },
};
use tidemill_storage::{
    schema::TableSchema,
    table::{Found, Table},
};

use crate::{
    SqlError,
    plan::passed_column,
    reuse,
    settings::Settings,
    table::{INDEX_SETTING, SKIP_UPSERT_SETTING, StoredTable},
};

/// A query that is one look-up.
#[derive(Debug)]
pub(crate) struct KeyLookup {
    table: Arc<Table>,
    schema: Arc<TableSchema>,
    /// Of each column of the key.
    key: Vec<KeyValue>,
    /// What each column of the result is, by its place in `schema`.
    columns: Vec<usize>,
    name: String,
}

#[derive(Debug)]
enum KeyValue {
    Literal(ArrayRef),
    /// Counted from 0.
    Parameter(usize),
}

impl KeyLookup {
    /// `plan`, which is optimized, as a look-up, if it is one.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<Self> {
        let (scan, columns) = selected(plan)?;
        let provider = source_as_provider(&scan.source).ok()?;
        let stored = provider.downcast_ref::<StoredTable>().filter(|stored| !stored.is_addressed())?;
        let (handle, schema) = (stored.handle(), Arc::clone(stored.planned_schema()));
        let spec = handle.table.key()?;
        let mut key: Vec<Option<KeyValue>> = spec.columns.iter().map(|_| None).collect();
        for condition in scan.filters.iter().flat_map(split_conjunction) {
            let (name, value) = equation(condition)?;
            let column = schema.columns.iter().find(|column| column.name == name)?;
            let place = key.get_mut(spec.columns.iter().position(|id| *id == column.id)?)?;
            if place.is_some() {
                return None;
            }
            *place = Some(match value {
                Expr::Literal(value, _) if value.data_type() == column.data_type.arrow() && !value.is_null() => {
                    KeyValue::Literal(value.to_array().ok()?)
                }
                Expr::Placeholder(placeholder) => KeyValue::Parameter(reuse::number(placeholder)? - 1),
                _ => return None,
            });
        }
        let key = key.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Self { table: Arc::clone(&handle.table), schema, key, columns, name: handle.name.clone() })
    }

    /// Of the table.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn key_columns(&self) -> Vec<&str> {
        let ids = self.table.key().map(|spec| spec.columns.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| Some(self.schema.column(*id)?.name.as_str())).collect()
    }

    /// Whether these settings leave it to the key map.
    pub(crate) fn is_wanted(settings: &Settings) -> bool {
        let indexes = settings.show(INDEX_SETTING);
        !settings.is_on(SKIP_UPSERT_SETTING) && indexes.as_deref() != Ok("off") && settings.max_staleness_ms().is_none()
    }

    /// The row, or none; `None`: the plan is to be asked.
    pub(crate) fn run(&self, values: &[ScalarValue], schema: &SchemaRef) -> Result<Option<RecordBatch>, SqlError> {
        let spec = self.table.key().map(|spec| spec.columns.as_slice()).unwrap_or_default();
        let mut key = Vec::with_capacity(self.key.len());
        for (id, value) in spec.iter().zip(&self.key) {
            let array = match value {
                KeyValue::Literal(array) => Arc::clone(array),
                KeyValue::Parameter(at) => match values.get(*at).filter(|value| !value.is_null()) {
                    Some(value) => value.to_array()?,
                    None => return Ok(None),
                },
            };
            let is_of_type = |array: &ArrayRef| {
                self.schema.column(*id).is_some_and(|column| column.data_type.arrow() == *array.data_type())
            };
            if !is_of_type(&array) {
                return Ok(None);
            }
            key.push(array);
        }
        let looked =
            std::panic::catch_unwind(AssertUnwindSafe(|| self.table.look_up(&self.schema, &key, &self.columns)));
        let found = looked.map_err(|_| SqlError::internal("the look-up panicked; see the server's log"))??;
        Ok(match found {
            Found::Row(values) => Some(RecordBatch::try_new(Arc::clone(schema), values)?),
            Found::Nothing => Some(RecordBatch::new_empty(Arc::clone(schema))),
            Found::Unknown => None,
        })
    }
}

/// The scan that `plan` gives columns of, in the scan's order of rows and all of them while they are no more than one, and which columns of the table these are.
fn selected(plan: &LogicalPlan) -> Option<(&TableScan, Vec<usize>)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let all = || (0..scan.source.schema().fields().len()).collect();
            (scan.fetch != Some(0)).then(|| (scan, scan.projection.clone().unwrap_or_else(all)))
        }
        LogicalPlan::Projection(projection) => {
            let (scan, of_input) = selected(&projection.input)?;
            let place = |expr: &Expr| {
                let index = projection.input.schema().maybe_index_of_column(passed_column(expr)?)?;
                of_input.get(index).copied()
            };
            Some((scan, projection.expr.iter().map(place).collect::<Option<_>>()?))
        }
        LogicalPlan::SubqueryAlias(alias) => selected(&alias.input),
        LogicalPlan::Sort(sort) if sort.fetch != Some(0) => selected(&sort.input),
        LogicalPlan::Limit(limit) => {
            let keeps_one = matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
                && matches!(limit.get_fetch_type(), Ok(FetchType::Literal(fetch)) if fetch != Some(0));
            keeps_one.then(|| selected(&limit.input)).flatten()
        }
        _ => None,
    }
}

/// `column = value`, either way round.
fn equation(condition: &Expr) -> Option<(&str, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), value) | (value, Expr::Column(column)) => Some((&column.name, value)),
        _ => None,
    }
}
