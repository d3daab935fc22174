//! The demo: a plausible stream of food-delivery orders.

mod options;

use std::sync::Arc;

use tidemill_storage::schema::DataType;

pub use self::options::GeneratorOptions;
use super::{ConnectContext, Connector};
use crate::{Error, Result, decode::SourceColumn};

/// The columns that the generator knows: what a source has that is created without columns.
pub fn columns() -> Vec<SourceColumn> {
    let text_array = DataType::Array(Box::new(DataType::Text));
    vec![
        SourceColumn::new("order_id", DataType::BigInt, false),
        SourceColumn::new("restaurant_id", DataType::BigInt, false),
        SourceColumn::new("customer_id", DataType::BigInt, false),
        SourceColumn::new("courier_id", DataType::BigInt, true),
        SourceColumn::new("city", DataType::Text, false),
        SourceColumn::new("status", DataType::Text, false),
        SourceColumn::new("items", DataType::Int, false),
        SourceColumn::new("total_price", DataType::Double, false),
        SourceColumn::new("tags", text_array, false),
        SourceColumn::new("lat", DataType::Double, false),
        SourceColumn::new("lon", DataType::Double, false),
        SourceColumn::new("ts", DataType::TimestampTz, false),
    ]
}

pub(super) fn connect(_options: &GeneratorOptions, _context: &ConnectContext) -> Result<Arc<dyn Connector>> {
    Err(Error::Unavailable("generator sources are being built".into()))
}
