//! `FROM generate_series(1, 1000000)` of constant whole numbers: a relation that makes its rows, in order, as they are read.

use std::{any::Any, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider},
    common::ScalarValue,
    datasource::TableType,
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::{
        ExecutionPlan,
        memory::{LazyBatchGenerator, LazyMemoryExec},
    },
};
use parking_lot::RwLock;

use super::{INT4_RELATION, INT8_RELATION};
use crate::SqlError;

/// The functions of both types, by their names.
pub(crate) fn functions() -> [(&'static str, Arc<dyn TableFunctionImpl>); 2] {
    [
        (INT4_RELATION, Arc::new(SeriesFunction { data_type: DataType::Int32 })),
        (INT8_RELATION, Arc::new(SeriesFunction { data_type: DataType::Int64 })),
    ]
}

/// Takes first, last and step, all constant, and a step that is not 0.
#[derive(Debug)]
struct SeriesFunction {
    data_type: DataType,
}

impl TableFunctionImpl for SeriesFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let wrong = || SqlError::internal("a series takes three constant numbers");
        let numbers = args.exprs().iter().map(|expr| match expr {
            Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(number)) => number,
                _ => None,
            },
            _ => None,
        });
        let numbers = numbers.collect::<Option<Vec<i64>>>().ok_or_else(wrong)?;
        let [start, stop, step] = <[i64; 3]>::try_from(numbers).map_err(|_| wrong())?;
        if step == 0 {
            return Err(SqlError::invalid_parameter("step size cannot equal zero").into());
        }
        let schema = Arc::new(Schema::new(vec![Field::new("value", self.data_type.clone(), false)]));
        Ok(Arc::new(Series { schema, start, stop, step }))
    }
}

/// Whether it is such a relation, which never changes.
pub(crate) fn is_series(provider: &dyn TableProvider) -> bool {
    provider.downcast_ref::<Series>().is_some()
}

#[derive(Debug)]
struct Series {
    schema: SchemaRef,
    start: i64,
    stop: i64,
    step: i64,
}

#[async_trait]
impl TableProvider for Series {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let rows = Rows {
            schema: Arc::clone(&self.schema),
            next: Some(self.start),
            start: self.start,
            stop: self.stop,
            step: self.step,
            batch_rows: state.config().batch_size(),
        };
        let generator: Arc<RwLock<dyn LazyBatchGenerator>> = Arc::new(RwLock::new(rows));
        let exec = LazyMemoryExec::try_new(Arc::clone(&self.schema), vec![generator])?;
        Ok(Arc::new(exec.with_projection(projection.cloned())))
    }
}

#[derive(Clone, Debug)]
struct Rows {
    schema: SchemaRef,
    /// `None` behind the last number of the type.
    next: Option<i64>,
    start: i64,
    stop: i64,
    step: i64,
    batch_rows: usize,
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generate_series: {} to {} by {}", self.start, self.stop, self.step)
    }
}

impl Rows {
    fn numbers(&mut self) -> Vec<i64> {
        let mut numbers = Vec::new();
        while numbers.len() < self.batch_rows.max(1) {
            let ahead = self.step > 0;
            let Some(number) = self.next.filter(|n| if ahead { *n <= self.stop } else { *n >= self.stop }) else {
                break;
            };
            numbers.push(number);
            self.next = number.checked_add(self.step);
        }
        numbers
    }
}

impl LazyBatchGenerator for Rows {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn generate_next_batch(&mut self) -> Result<Option<RecordBatch>, DataFusionError> {
        let numbers = self.numbers();
        if numbers.is_empty() {
            return Ok(None);
        }
        let column: ArrayRef = match self.schema.field(0).data_type() {
            DataType::Int32 => {
                let narrow = |number: i64| i32::try_from(number).map_err(|_| SqlError::out_of_range("integer"));
                Arc::new(Int32Array::from(numbers.into_iter().map(narrow).collect::<Result<Vec<_>, _>>()?))
            }
            _ => Arc::new(Int64Array::from(numbers)),
        };
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), vec![column])?))
    }

    fn reset_state(&self) -> Arc<RwLock<dyn LazyBatchGenerator>> {
        Arc::new(RwLock::new(Self { next: Some(self.start), ..self.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_go_on_where_the_last_one_ended() {
        let rows = |start, stop, step| Rows {
            schema: Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)])),
            next: Some(start),
            start,
            stop,
            step,
            batch_rows: 2,
        };
        let mut up = rows(1, 3, 1);
        assert_eq!((up.numbers(), up.numbers(), up.numbers()), (vec![1, 2], vec![3], vec![]));
        let mut down = rows(i64::MIN + 1, i64::MIN, -1);
        assert_eq!((down.numbers(), down.numbers()), (vec![i64::MIN + 1, i64::MIN], vec![]));
    }
}
