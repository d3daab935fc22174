//! From the logical node to the operator: what is constant gets its value.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{DataType, Schema},
};
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchema, ScalarValue},
    logical_expr::{
        ColumnarValue, Expr, LogicalPlan, UserDefinedLogicalNode, physical_planning_context::PhysicalPlanningContext,
    },
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::{FillSpec, GapFillExec, Result, Spec, filler::DAY_US};
use crate::{
    SqlError,
    functions::{datetime::bucket::Buckets, zone::Zone},
    rules::gapfill::{Bound, GapFill, Way, unbounded},
};

pub(crate) struct GapFillPlanner;

#[async_trait]
impl ExtensionPlanner for GapFillPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(fill) = node.as_any().downcast_ref::<GapFill>() else { return Ok(None) };
        let constants = Constants { planner, session, context };
        let spec = constants.spec(fill)?;
        let input = match inputs.first() {
            Some(input) => Arc::clone(input),
            // It was hidden from the optimizer.
            None => planner.create_physical_plan(&session.optimize(&fill.input)?, session).await?,
        };
        let schema = UserDefinedLogicalNode::schema(fill).inner();
        Ok(Some(Arc::new(GapFillExec::new(input, spec, Arc::clone(schema)))))
    }
}

struct Constants<'a> {
    planner: &'a dyn PhysicalPlanner,
    session: &'a dyn Session,
    context: &'a PhysicalPlanningContext,
}

impl Constants<'_> {
    fn spec(&self, fill: &GapFill) -> Result<Spec> {
        let is_date = *fill.input.schema().field(fill.bucket).data_type() == DataType::Date32;
        let width = match self.value(&fill.width)? {
            ScalarValue::IntervalMonthDayNano(Some(width)) => width,
            _ => return Err(SqlError::invalid_parameter("the width of time_bucket_gapfill is NULL").into()),
        };
        let zone = match &fill.zone {
            None => Zone::UTC,
            Some(zone) => match self.value(zone)?.try_as_str().flatten() {
                Some(name) => Zone::parse(name)?,
                None => return Err(SqlError::invalid_parameter("the time zone of time_bucket_gapfill is NULL").into()),
            },
        };
        let (given_start, given_finish) = (self.moment(fill.start.as_ref())?, self.moment(fill.finish.as_ref())?);
        if let (Some(start), Some(finish)) = (given_start, given_finish)
            && start >= finish
        {
            return Err(SqlError::invalid_parameter("start of time_bucket_gapfill must be before its finish").into());
        }
        let start = match given_start {
            Some(start) => start,
            None => self.bounds(&fill.from)?.into_iter().max().ok_or_else(|| unbounded("start"))?,
        };
        let finish = match given_finish {
            Some(finish) => finish,
            None => self.bounds(&fill.to)?.into_iter().min().ok_or_else(|| unbounded("finish"))?,
        };
        // The first day that is not before it.
        let start = match is_date {
            true => start.div_euclid(DAY_US) * DAY_US + if start.rem_euclid(DAY_US) > 0 { DAY_US } else { 0 },
            false => start,
        };
        let fills = fill.fills.iter().map(|fill| {
            Ok(match &fill.way {
                Way::Interpolate => FillSpec::Interpolate { source: fill.source },
                Way::Locf { before, nulls_are_missing } => {
                    let nulls_are_missing = self.value(nulls_are_missing)? == ScalarValue::Boolean(Some(true));
                    FillSpec::Locf { source: fill.source, before: *before, nulls_are_missing }
                }
            })
        });
        Ok(Spec {
            bucket: fill.bucket,
            keys: fill.keys.clone(),
            by: fill.by.clone(),
            columns: fill.columns,
            fills: fills.collect::<Result<_>>()?,
            buckets: Buckets::new(width, zone, is_date)?,
            start,
            finish,
        })
    }

    /// What the conditions say; one that compares with NULL holds for no row and says nothing.
    fn bounds(&self, bounds: &[Bound]) -> Result<Vec<i64>> {
        let each = bounds.iter().map(|bound| {
            let moment = self.moment(Some(&bound.at))?;
            Ok(moment.map(|moment| moment.saturating_add(i64::from(bound.is_after))))
        });
        each.filter_map(Result::transpose).collect()
    }

    fn moment(&self, expr: Option<&Expr>) -> Result<Option<i64>> {
        let Some(expr) = expr else { return Ok(None) };
        match self.value(expr)? {
            ScalarValue::TimestampMicrosecond(moment, _) => Ok(moment),
            other if other.is_null() => Ok(None),
            other => Err(SqlError::internal(format!("{} is no moment", other.data_type())).into()),
        }
    }

    fn value(&self, expr: &Expr) -> Result<ScalarValue> {
        if let Expr::Literal(value, _) = expr {
            return Ok(value.clone());
        }
        let expr = self.planner.create_physical_expr(expr, &DFSchema::empty(), self.session, self.context)?;
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)?;
        match expr.evaluate(&row)? {
            ColumnarValue::Scalar(value) => Ok(value),
            ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0),
        }
    }
}
