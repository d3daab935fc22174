//! A stored table as DataFusion's `TableProvider`.
//!
//! The statement is planned against the schema of that moment; each execution takes a snapshot, and a column that has changed in between
//! is an error, never a wrong answer.

pub(crate) mod areas;
pub(crate) mod conditions;
pub(crate) mod documents;
pub(crate) mod physical;
pub(crate) mod pushdown;
pub(crate) mod returned;
mod statistics;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ScalarValue, config::ConfigOptions},
    datasource::TableType,
    error::DataFusionError,
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_plan::ExecutionPlan,
};
use tidemill_storage::{
    evaluate::scalar_array,
    ids::ColumnId,
    predicate::Predicate,
    scan::{IndexUse, ScanHints, ScanRequest, addressed},
    schema::{Column, TableSchema},
    table::TableSnapshot,
};

use crate::{
    SqlError, TableHandle,
    exec::{scan::SegmentScanExec, snapshots::QuerySnapshots},
    functions::session::SessionFacts,
    reuse::Refused,
};

/// The setting that says whether indexes find rows.
pub(crate) const INDEX_SETTING: &str = "rt.use_indexes";

/// The setting that says whether star-trees answer.
pub(crate) const STAR_TREE_SETTING: &str = "rt.use_star_tree";

/// The setting that has tables with a key show every row.
pub(crate) const SKIP_UPSERT_SETTING: &str = "rt.skip_upsert";

/// What a plan is told whose columns are not there any more.
pub(crate) const COLUMNS_CHANGED: &str = "cached plan must not change result type";

/// Whether the session wants every row of tables with a key.
fn skips_upsert(config: &ConfigOptions) -> bool {
    let facts = config.extensions.get::<SessionFacts>();
    facts.is_some_and(|facts| facts.shared.settings.lock().is_on(SKIP_UPSERT_SETTING))
}

/// Whether all rows that are stored are to be found.
fn reads_every_version(config: &ConfigOptions) -> bool {
    let facts = config.extensions.get::<SessionFacts>();
    facts.is_some_and(|facts| facts.shared.every_version.load(Ordering::Relaxed))
}

/// Whether star-trees may answer in the session.
pub(crate) fn star_trees(config: &ConfigOptions) -> bool {
    let facts = config.extensions.get::<SessionFacts>();
    facts.is_none_or(|facts| facts.shared.settings.lock().is_on(STAR_TREE_SETTING))
}

/// What the session has set.
fn index_use(config: &ConfigOptions) -> IndexUse {
    let facts = config.extensions.get::<SessionFacts>();
    let value = facts.and_then(|facts| facts.shared.settings.lock().show(INDEX_SETTING).ok());
    match value.as_deref() {
        Some("off") => IndexUse::Off,
        Some("always") => IndexUse::Always,
        _ => IndexUse::WhereFaster,
    }
}

/// A table in the schema it had when the statement was planned.
#[derive(Debug)]
pub struct StoredTable {
    handle: TableHandle,
    planned: Arc<TableSchema>,
    /// Whether it has the addresses of its rows, too.
    is_addressed: bool,
    arrow: SchemaRef,
    /// What INSERT puts into columns that it does not name.
    defaults: HashMap<String, Expr>,
}

impl StoredTable {
    pub fn new(handle: TableHandle) -> Self {
        let planned = handle.table.schema();
        let arrow = planned.arrow();
        let defaults = match handle.table.key() {
            Some(key) => key.arriving(&planned).columns.iter().filter_map(default_value).collect(),
            None => planned.columns.iter().filter_map(default_value).collect(),
        };
        Self { handle, planned, is_addressed: false, arrow, defaults }
    }

    /// The table with the address of each row in two more columns.
    pub(crate) fn addressed(&self) -> Self {
        let planned = Arc::new(addressed(&self.planned));
        Self {
            handle: self.handle.clone(),
            arrow: planned.arrow(),
            planned,
            is_addressed: true,
            defaults: self.defaults.clone(),
        }
    }

    pub fn handle(&self) -> &TableHandle {
        &self.handle
    }

    pub(crate) fn is_addressed(&self) -> bool {
        self.is_addressed
    }

    pub fn planned_schema(&self) -> &Arc<TableSchema> {
        &self.planned
    }
}

/// A column's name and its default, where it has one.
fn default_value(column: &Column) -> Option<(String, Expr)> {
    let array = scalar_array(column.default.as_ref()?, &column.data_type).ok()?;
    let value = ScalarValue::try_from_array(&array, 0).ok()?;
    Some((column.name.clone(), Expr::Literal(value, None)))
}

#[async_trait]
impl TableProvider for StoredTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.arrow)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.defaults.get(column)
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>, DataFusionError> {
        Ok(filters
            .iter()
            .map(|filter| {
                if pushdown::takes(filter, &self.planned) {
                    TableProviderFilterPushDown::Exact
                } else if areas::takes(filter, &self.planned) {
                    TableProviderFilterPushDown::Inexact
                } else {
                    TableProviderFilterPushDown::Unsupported
                }
            })
            .collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let snapshots = state.config().get_extension::<QuerySnapshots>();
        let are_given = snapshots.as_ref().is_some_and(|snapshots| snapshots.are_given());
        let snapshot = match snapshots {
            Some(snapshots) => snapshots.of(&self.handle.table),
            None => self.handle.table.snapshot(),
        };
        let snapshot = match self.is_addressed {
            true => {
                let schema = Arc::new(addressed(&snapshot.schema));
                match reads_every_version(state.config_options()) {
                    true => TableSnapshot { schema, ..snapshot.with_every_version() },
                    false => TableSnapshot { schema, ..snapshot },
                }
            }
            false if !are_given && skips_upsert(state.config_options()) => snapshot.with_every_version(),
            false => snapshot,
        };
        let columns: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.planned.columns.len()).collect(),
        };
        let projection = columns
            .iter()
            .map(|index| self.unchanged(*index, &snapshot.schema))
            .collect::<Result<Vec<ColumnId>, SqlError>>()?;
        let mut conditions = Vec::with_capacity(filters.len());
        let indexes = self.handle.table.indexes();
        let mut hints = ScanHints { indexes: index_use(state.config_options()), ..ScanHints::default() };
        for filter in filters {
            for column in filter.column_refs() {
                if let Some(index) = self.planned.columns.iter().position(|known| known.name == column.name) {
                    self.unchanged(index, &snapshot.schema)?;
                }
            }
            match pushdown::predicate(filter, &self.planned, Some(state.execution_props())) {
                Some(condition) => conditions.push(condition),
                // The plan tests these again.
                None => {
                    let test = areas::test(filter, &self.planned).ok_or_else(Refused::error)?;
                    conditions.extend(test.frame(&self.planned));
                    if indexes.iter().any(|index| index.columns == [test.lat, test.lng]) {
                        hints.places.push(test.cells());
                    }
                }
            }
        }
        let predicate = match conditions.len() {
            0 => None,
            1 => conditions.pop(),
            _ => Some(Predicate::And(conditions)),
        };
        let request = Arc::new(ScanRequest {
            schema: Arc::clone(&snapshot.schema),
            projection,
            predicate,
            limit,
            batch_rows: state.config().batch_size(),
            hints,
        });
        let plan = snapshot.plan(&request);
        let output = request.output_schema().map_err(SqlError::from)?;
        let statistics = statistics::of_scan(&snapshot, self.handle.table.key().is_some(), &plan, &request, &output);
        let lanes = state.config().target_partitions();
        Ok(Arc::new(SegmentScanExec::new(self.handle.name.as_str().into(), plan, request, statistics, lanes)?))
    }
}

impl StoredTable {
    /// The id of a planned column, if the table still has it as it was planned.
    fn unchanged(&self, index: usize, now: &TableSchema) -> Result<ColumnId, SqlError> {
        let planned = &self.planned.columns[index];
        match now.column(planned.id) {
            Some(column) if column.data_type == planned.data_type && column.nullable == planned.nullable => {
                Ok(column.id)
            }
            _ => Err(SqlError::new("0A000", COLUMNS_CHANGED).with_detail(format!(
                "Column \"{}\" of table \"{}\" was changed after the statement was planned.",
                planned.name, self.handle.name
            ))),
        }
    }
}
