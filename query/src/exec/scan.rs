//! Reads a table snapshot in lanes.
//!
//! Lanes take units (runs of rows of a segment) from one shared counter, so that they end together however uneven the segments are.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{Statistics, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::TaskContext,
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, RecordBatchStream, SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
    },
};
use futures::Stream;
use tidemill_storage::scan::{BatchIterator, ScanMetrics, ScanPlan, ScanRequest};

/// The leaf of every plan over a stored table.
#[derive(Debug)]
pub struct SegmentScanExec {
    table: Arc<str>,
    plan: Arc<ScanPlan>,
    request: Arc<ScanRequest>,
    schema: SchemaRef,
    /// Rows left to give, over all lanes; not exact: each lane stops by itself.
    next: Arc<AtomicUsize>,
    properties: Arc<PlanProperties>,
    statistics: Arc<Statistics>,
    metrics: ExecutionPlanMetricsSet,
}
