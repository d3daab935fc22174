//! The `rt` schema: what the server shows of itself as SQL, and the functions through which SQL reaches the server.
//!
//! The server implements [`SystemViews`] and [`SystemFunctions`]; rows are computed when a view is scanned, so each query sees the present.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{
        SchemaProvider, Session, TableFunctionArgs, TableFunctionImpl, TableProvider, streaming::StreamingTable,
    },
    common::ScalarValue,
    datasource::{MemTable, TableType},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::Expr,
    physical_plan::{ExecutionPlan, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
};

use futures::future::BoxFuture;

use crate::SqlError;

/// The views of schema `rt`. Computing rows may take locks but not long: it runs on the query threads.
pub trait SystemViews: Send + Sync + std::fmt::Debug {
    /// Names without the schema: `sources`, `tables`, …
    fn names(&self) -> Vec<String>;
    /// `None` when there is no such view.
    fn schema(&self, name: &str) -> Option<SchemaRef>;
    /// The rows at this moment, in the columns of [`SystemViews::schema`].
    fn rows(&self, name: &str) -> Result<RecordBatch, SqlError>;
    /// Views that are asked with a value, `FROM rt.<name>(<value>)`.
    fn functions(&self) -> Vec<AskedView> {
        Vec::new()
    }
    /// The rows of such a view, when it is read; the value is of its type and not NULL. Work that takes long is not done on the thread that polls, and ends when
    /// the future is dropped.
    fn rows_for(&self, name: &str, argument: &ScalarValue) -> BoxFuture<'static, Result<RecordBatch, SqlError>> {
        let error = SqlError::not_supported(format!("rt.{name}({argument})"));
        Box::pin(async { Err(error) })
    }
    /// Whether the rows may be more than memory holds: then they are read by [`SystemViews::pages`].
    fn is_large(&self, _name: &str) -> bool {
        false
    }
    /// The rows at this moment, some at a time.
    fn pages(&self, name: &str) -> Result<ViewRows, SqlError> {
        Ok(Box::new(std::iter::once(self.rows(name))))
    }
}

/// Rows of a view, in batches that are made when they are asked for.
pub type ViewRows = Box<dyn Iterator<Item = Result<RecordBatch, SqlError>> + Send>;

/// A view that is asked with a value.
#[derive(Clone, Debug)]
pub struct AskedView {
    /// Without the schema.
    pub name: &'static str,
    /// BIGINT or TEXT (as `Utf8`).
    pub takes: DataType,
    pub schema: SchemaRef,
}

/// A function `rt.<name>(…)` that the server answers.
#[derive(Clone, Debug)]
pub struct SystemFunction {
    /// Without the schema: `drain`, `seal`, …
    pub name: &'static str,
    pub arguments: Vec<DataType>,
    pub returns: DataType,
}

/// The functions of schema `rt`.
#[async_trait]
pub trait SystemFunctions: Send + Sync + std::fmt::Debug {
    fn functions(&self) -> Vec<SystemFunction>;
    /// Called once per row. Cancelling the query drops the future.
    async fn call(&self, name: &str, arguments: Vec<ScalarValue>) -> Result<ScalarValue, SqlError>;
}

/// Schema `rt` over the server's views.
#[derive(Debug)]
pub struct SystemSchema {
    views: Arc<dyn SystemViews>,
}

impl SystemSchema {
    pub fn new(views: Arc<dyn SystemViews>) -> Self {
        Self { views }
    }
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.views.names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.views.schema(name).map(|schema| {
            Arc::new(SystemView { name: name.to_owned(), schema, views: Arc::clone(&self.views) })
                as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.views.schema(name).is_some()
    }
}

/// A view that is asked with a value.
#[derive(Debug)]
pub(crate) struct SystemViewFunction {
    view: AskedView,
    views: Arc<dyn SystemViews>,
}

impl SystemViewFunction {
    pub(crate) fn all(views: &Arc<dyn SystemViews>) -> Vec<Self> {
        let function = |view| Self { view, views: Arc::clone(views) };
        views.functions().into_iter().map(function).collect()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.view.name
    }
}

impl TableFunctionImpl for SystemViewFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let AskedView { name, takes, schema } = &self.view;
        let (type_name, what) = match takes {
            DataType::Utf8 => ("text", "text"),
            _ => ("bigint", "number"),
        };
        let wrong = || SqlError::new("42883", format!("function rt.{name}({type_name}) takes one {what}"));
        let [Expr::Literal(value, _)] = args.exprs() else { return Err(wrong().into()) };
        let argument = value.cast_to(takes)?;
        if argument.is_null() {
            return Err(wrong().into());
        }
        let asked = Asked { name, argument, schema: Arc::clone(schema), views: Arc::clone(&self.views) };
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(schema), vec![Arc::new(asked)])?))
    }
}

/// A view and the value that it is asked with, as the one stream of its scan.
#[derive(Debug)]
struct Asked {
    name: &'static str,
    argument: ScalarValue,
    schema: SchemaRef,
    views: Arc<dyn SystemViews>,
}

impl PartitionStream for Asked {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.views.rows_for(self.name, &self.argument);
        let rows = futures::stream::once(async { rows.await.map_err(DataFusionError::from) });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// One view: its rows are asked for when it is scanned.
#[derive(Debug)]
struct SystemView {
    name: String,
    schema: SchemaRef,
    views: Arc<dyn SystemViews>,
}

#[async_trait]
impl TableProvider for SystemView {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        if !self.views.is_large(&self.name) {
            let rows = self.views.rows(&self.name)?;
            let table = MemTable::try_new(Arc::clone(&self.schema), vec![vec![rows]])?;
            return table.scan(state, projection, filters, limit).await;
        }
        let rows = Rows { name: self.name.clone(), schema: Arc::clone(&self.schema), views: Arc::clone(&self.views) };
        StreamingTable::try_new(Arc::clone(&self.schema), vec![Arc::new(rows)])?
            .scan(state, projection, filters, limit)
            .await
    }
}

/// The rows of a view as the one stream of its scan.
#[derive(Debug)]
struct Rows {
    name: String,
    schema: SchemaRef,
    views: Arc<dyn SystemViews>,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches: ViewRows = match self.views.pages(&self.name) {
            Ok(batches) => batches,
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        let batches = batches.map(|batch| batch.map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(batches)))
    }
}
