//! Expressions that segments compute for an aggregate: `sum(price * quantity)`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType as ArrowType, Schema, TimeUnit},
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    logical_expr::Volatility,
    physical_expr::{PhysicalExpr, ScalarFunctionExpr, expressions::Column},
};
use tidemill_storage::{
    Error,
    aggregate::{Computation, Computed},
    ids::ColumnId,
    scan::ScanRequest,
    schema::{Column as StoredColumn, DataType},
};

use crate::table::physical::stored_column;

/// A physical expression over the inputs' columns, in their order.
#[derive(Debug)]
struct Expression(Arc<dyn PhysicalExpr>);

impl Computation for Expression {
    fn values(&self, rows: &RecordBatch) -> Result<ArrayRef, Error> {
        let values = self.0.evaluate(rows).and_then(|values| values.into_array(rows.num_rows()));
        values.map_err(|error| Error::Computation(Arc::new(error)))
    }
}

/// An expression over stored columns alone.
pub(crate) struct OverColumns {
    pub(crate) inputs: Vec<ColumnId>,
    /// The inputs, in their order.
    schema: Schema,
    pub(crate) expr: Arc<dyn PhysicalExpr>,
}

/// `expr`, over the output of a scan for `request`, over those columns that it needs. `None` where it needs more than a row's own values, or none
/// of them.
pub(crate) fn over_columns(expr: &Arc<dyn PhysicalExpr>, request: &ScanRequest) -> Option<OverColumns> {
    let mut inputs: Vec<ColumnId> = Vec::new();
    let mut is_plain = true;
    let mut fields = Vec::new();
    expr.apply(|node| {
        if let Some(call) = node.downcast_ref::<ScalarFunctionExpr>()
            && call.fun().signature().volatility == Volatility::Volatile
        {
            is_plain = false;
        }
        if node.downcast_ref::<Column>().is_some() {
            match stored_column(node, request) {
                Some(column) if !inputs.contains(&column.id) => {
                    inputs.push(column.id);
                    fields.push(column.data_type.field(&column.name, column.nullable));
                }
                Some(_) => {}
                None => is_plain = false,
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .ok()?;
    if !is_plain || inputs.is_empty() {
        return None;
    }
    let schema = Schema::new(fields);
    let placed = Arc::clone(expr)
        .transform_up(|node| {
            let Some(id) = stored_column(&node, request).map(|column| column.id) else {
                return Ok(Transformed::no(node));
            };
            let at = inputs.iter().position(|input| *input == id).unwrap_or_default();
            Ok(Transformed::yes(Arc::new(Column::new(schema.field(at).name(), at)) as Arc<dyn PhysicalExpr>))
        })
        .ok()?
        .data;
    Some(OverColumns { inputs, schema, expr: placed })
}

/// The column that `expr`, over the output of a scan for `request`, is: the `index`th that is computed. `None` where each row needs more
/// than its own values, or where no column has the expression's type.
pub(crate) fn computed(expr: &Arc<dyn PhysicalExpr>, request: &ScanRequest, index: usize) -> Option<Computed> {
    let OverColumns { inputs, schema, expr: placed } = over_columns(expr, request)?;
    let field = placed.return_field(&schema).ok()?;
    // What metadata tells from plain texts and numbers (UUID, JSONB, oids) is nothing to calculate with.
    let data_type = data_type(field.data_type()).filter(|_| field.metadata().is_empty())?;
    let mut column = StoredColumn::new(Computed::id(index), expr.to_string(), data_type);
    column.nullable = true;
    Some(Computed { column, inputs, computation: Arc::new(Expression(placed)) })
}

/// The type of columns whose values are such arrays.
fn data_type(arrow: &ArrowType) -> Option<DataType> {
    Some(match arrow {
        ArrowType::Boolean => DataType::Boolean,
        ArrowType::Int16 => DataType::SmallInt,
        ArrowType::Int32 => DataType::Int,
        ArrowType::Int64 => DataType::BigInt,
        ArrowType::Float32 => DataType::Real,
        ArrowType::Float64 => DataType::Double,
        ArrowType::Decimal128(precision, scale) if *scale >= 0 => {
            DataType::Numeric { precision: *precision, scale: *scale }
        }
        ArrowType::Date32 => DataType::Date,
        ArrowType::Timestamp(TimeUnit::Microsecond, None) => DataType::Timestamp,
        ArrowType::Utf8View => DataType::Text,
        _ => return None,
    })
}
