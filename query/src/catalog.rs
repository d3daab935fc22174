//! What the engine knows of tables: the trait the server states them through, and DataFusion's view of it.
//!
//! Schema `public` asks the [`TableCatalog`] at each planning, so that DDL needs no notice here. Further schemas (`rt`, `pg_catalog`,
//! `information_schema`) are registered by the server. Names are looked up along the session's `search_path`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider},
    error::DataFusionError,
};
use futures::future::BoxFuture;
use parking_lot::RwLock;
use tidemill_storage::{ids::TableId, table::Table};

use crate::{SqlError, table::StoredTable};

/// The one database there is.
pub const DATABASE: &str = "tidemill";
/// Where user tables live.
pub const PUBLIC: &str = "public";
/// The tables of [`PUBLIC`] with the addresses of their rows; a name that no statement can write.
pub(crate) const ROWS: &str = "\u{1}rows";
/// The same with only those rows that the statement writes.
pub(crate) const RETURNED: &str = "\u{1}returned";

/// A table as SQL sees it.
#[derive(Clone, Debug)]
pub struct TableHandle {
    pub name: String,
    /// `pg_class.oid`; goes into RowDescription.
    pub oid: u32,
    pub table: Arc<Table>,
}

/// A view as SQL sees it.
#[derive(Clone, Debug)]
pub struct ViewHandle {
    pub name: String,
    /// `pg_class.oid`.
    pub oid: u32,
    /// Its query, as SQL.
    pub query: Arc<str>,
    pub columns: Vec<ViewColumn>,
}

/// A column of a view.
#[derive(Clone, Debug)]
pub struct ViewColumn {
    pub name: String,
    /// What the query calls it.
    pub source: String,
    /// `pg_type.typname`, and the modifier.
    pub type_name: String,
    pub modifier: i32,
}

/// The tables of schema `public`. Asked while planning: answers from memory, never blocks.
pub trait TableCatalog: Send + Sync + std::fmt::Debug {
    fn table(&self, name: &str) -> Option<TableHandle>;
    /// All tables, in the order of their names.
    fn tables(&self) -> Vec<TableHandle>;

    fn view(&self, _name: &str) -> Option<ViewHandle> {
        None
    }

    /// All views, in the order of their names.
    fn views(&self) -> Vec<ViewHandle> {
        Vec::new()
    }

    fn has_views(&self) -> bool {
        !self.views().is_empty()
    }

    /// Waits, for as long as `wait`, until the table has everything that was in its sources at some moment of the last `within`; 55000 when it
    /// has not. Called while executing, before snapshots are taken, on a runtime with timers.
    fn fresh(&self, _table: TableId, _within: Duration, _wait: Duration) -> BoxFuture<'static, Result<(), SqlError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Schema `public`.
#[derive(Debug)]
pub(crate) struct PublicSchema {
    pub(crate) tables: Arc<dyn TableCatalog>,
}

#[async_trait]
impl SchemaProvider for PublicSchema {
    fn table_names(&self) -> Vec<String> {
        let tables = self.tables.tables().into_iter().map(|handle| handle.name);
        tables.chain(self.tables.views().into_iter().map(|view| view.name)).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.tables.table(name).map(|handle| Arc::new(StoredTable::new(handle)) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table(name).is_some()
    }
}

/// The schemas of the one database.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    schemas: RwLock<BTreeMap<String, Arc<dyn SchemaProvider>>>,
}

impl Schemas {
    pub(crate) fn put(&self, name: &str, schema: Arc<dyn SchemaProvider>) {
        self.schemas.write().insert(name.to_owned(), schema);
    }
}

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        self.schemas.read().keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.read().get(name).cloned()
    }
}

/// The list of databases: one.
#[derive(Debug)]
pub(crate) struct Databases {
    pub(crate) schemas: Arc<Schemas>,
}

impl CatalogProviderList for Databases {
    fn register_catalog(&self, _name: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![DATABASE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == DATABASE).then(|| Arc::clone(&self.schemas) as Arc<dyn CatalogProvider>)
    }
}
