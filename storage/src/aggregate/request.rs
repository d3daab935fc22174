//! What an aggregation asks for, and the columns of its answer.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::{Computed, ResultCache, ends::End, states::Operation};
use crate::{
    Error, Result,
    ids::ColumnId,
    predicate::Predicate,
    scan::IndexUse,
    schema::{Column, DataType, TableSchema},
};

/// Digits of a sum of integers or decimals.
pub const SUM_PRECISION: u8 = 38;

/// Groups of the rows of one table, and what is to be known of each.
#[derive(Clone, Debug)]
pub struct AggregateRequest {
    /// The schema of the snapshot, as in [`ScanRequest`](crate::scan::ScanRequest).
    pub schema: Arc<TableSchema>,
    /// What rows of one group have in common; nulls are one group. Without keys all rows are one group, which is there even
    /// when no row is.
    pub keys: Vec<GroupKey>,
    pub aggregates: Vec<Aggregate>,
    /// Columns that aggregates (not keys, not conditions) may name beside those of the schema: the ids are [`Computed::id`] of their indexes.
    pub computed: Vec<Computed>,
    /// Only rows for which this is TRUE. Evaluated exactly.
    pub predicate: Option<Predicate>,
    pub indexes: IndexUse,
    /// Where answers are kept; `None`: every one is found anew.
    pub results: Option<Arc<ResultCache>>,
    /// Whether star-trees may answer.
    pub star_tree: bool,
}

/// A column, or a column rounded down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupKey {
    pub column: ColumnId,
    pub bin: Option<Bin>,
}

/// Rounds the integer that stands for a value (microseconds of a timestamp, days of a date) down to `origin + n · width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bin {
    /// Above 0.
    pub width: i64,
    pub origin: i64,
}

/// One state column of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub function: Function,
    /// Only rows for which this is TRUE too (the FILTER clause).
    pub filter: Option<Predicate>,
}

/// | function | of columns of | its column in the answer | when no value is there |
/// |---|---|---|---|
/// | `Rows` | – | Int64 | 0 |
/// | `Count` | any type | Int64 | 0 |
/// | `Sum` | integers | Decimal128(38, 0) | null |
/// | | NUMERIC(p, s) | Decimal128(38, s) | null |
/// | | REAL, DOUBLE | Float64 | null |
/// | `Min`, `Max` | integers, NUMERIC, floats, TEXT, DATE, TIMESTAMP(TZ) | the column's type | null |
/// | `And`, `Or` | BOOLEAN | Boolean | null |
/// | `Distinct` | BOOLEAN, integers, NUMERIC, floats, TEXT, UUID, BYTEA, DATE, TIMESTAMP(TZ) | BinaryView: a [`sketch::Distinct`](crate::sketch::Distinct) | null |
/// | `Quantiles` | integers, NUMERIC, REAL, DOUBLE | BinaryView: a [`sketch::Quantiles`](crate::sketch::Quantiles) | null |
/// | `Mean`, `Squares` | integers, NUMERIC, REAL, DOUBLE | Float64: the mean, the sum of the squares of the differences from it | null |
/// | `First`, `Last` | of `value`: as `Min`, BOOLEAN, UUID, BYTEA; `by`: integers, DATE, TIMESTAMP(TZ) | that of `value`: its value where `by` is least, greatest (of several rows the first, the last) | null |
/// | `Set` | BOOLEAN, integers, NUMERIC, floats, TEXT, UUID, DATE, TIMESTAMP(TZ) | List of the column's type: its distinct values in no order | empty |
/// | `DistinctOf`, `QuantilesOf` | BYTEA that is such sketches | BinaryView: theirs put together | null |
///
/// Sums of integers and decimals are exact; one that leaves 128 bits is an error. Floats are ordered as PostgreSQL orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    Rows,
    Count(ColumnId),
    Sum(ColumnId),
    Min(ColumnId),
    Max(ColumnId),
    And(ColumnId),
    Or(ColumnId),
    Distinct(ColumnId),
    Quantiles(ColumnId),
    DistinctOf(ColumnId),
    QuantilesOf(ColumnId),
    Mean(ColumnId),
    Squares(ColumnId),
    First { value: ColumnId, by: ColumnId },
    Last { value: ColumnId, by: ColumnId },
    Set(ColumnId),
}

impl Function {
    /// The column of which a row must have a value.
    pub fn column(&self) -> Option<ColumnId> {
        match self {
            Self::Rows => None,
            Self::Count(id)
            | Self::Sum(id)
            | Self::Min(id)
            | Self::Max(id)
            | Self::And(id)
            | Self::Or(id)
            | Self::Distinct(id)
            | Self::Quantiles(id)
            | Self::DistinctOf(id)
            | Self::QuantilesOf(id)
            | Self::Mean(id)
            | Self::Squares(id)
            | Self::Set(id)
            | Self::First { by: id, .. }
            | Self::Last { by: id, .. } => Some(*id),
        }
    }

    /// The column that the answer is made of.
    pub fn subject(&self) -> Option<ColumnId> {
        match self {
            Self::First { value, .. } | Self::Last { value, .. } => Some(*value),
            other => other.column(),
        }
    }

    /// Whether rows can be ordered by the column that it orders them by, if any; `type_of`: of columns.
    pub fn is_ordered_by<'t>(&self, type_of: impl FnOnce(ColumnId) -> Option<&'t DataType>) -> bool {
        use DataType::{BigInt, Date, Int, SmallInt, Timestamp, TimestampTz};
        match self {
            Self::First { by, .. } | Self::Last { by, .. } => {
                type_of(*by).is_some_and(|of| matches!(of, SmallInt | Int | BigInt | Date | Timestamp | TimestampTz))
            }
            _ => true,
        }
    }

    /// What stands for it in the definition of a star-tree, on disk, and in what answers are kept by.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Rows => 0,
            Self::Count(_) => 1,
            Self::Sum(_) => 2,
            Self::Min(_) => 3,
            Self::Max(_) => 4,
            Self::And(_) => 5,
            Self::Or(_) => 6,
            Self::Distinct(_) => 7,
            Self::Quantiles(_) => 8,
            Self::DistinctOf(_) => 9,
            Self::QuantilesOf(_) => 10,
            Self::Mean(_) => 11,
            Self::Squares(_) => 12,
            Self::First { .. } => 13,
            Self::Last { .. } => 14,
            Self::Set(_) => 15,
        }
    }

    /// What puts states of this function together that are values of column `id`; `None` where no column has all that it takes.
    pub(crate) fn over_states(&self, id: ColumnId) -> Option<Self> {
        Some(match self {
            Self::Rows | Self::Count(_) | Self::Sum(_) => Self::Sum(id),
            Self::Min(_) => Self::Min(id),
            Self::Max(_) => Self::Max(id),
            Self::And(_) => Self::And(id),
            Self::Or(_) => Self::Or(id),
            Self::Distinct(_) | Self::DistinctOf(_) => Self::DistinctOf(id),
            Self::Quantiles(_) | Self::QuantilesOf(_) => Self::QuantilesOf(id),
            Self::Mean(_) | Self::Squares(_) | Self::First { .. } | Self::Last { .. } | Self::Set(_) => return None,
        })
    }

    pub(crate) fn operation(&self) -> Option<Operation> {
        Some(match self {
            Self::Rows | Self::Count(_) => return None,
            Self::Sum(_) => Operation::Sum,
            Self::Min(_) | Self::And(_) => Operation::Min,
            Self::Max(_) | Self::Or(_) => Operation::Max,
            Self::Distinct(_) => Operation::Distinct,
            Self::Quantiles(_) => Operation::Quantiles,
            Self::DistinctOf(_) => Operation::DistinctOf,
            Self::QuantilesOf(_) => Operation::QuantilesOf,
            Self::Mean(_) | Self::Squares(_) => Operation::Moments,
            Self::First { value, .. } => Operation::End(End::First, *value),
            Self::Last { value, .. } => Operation::End(End::Last, *value),
            Self::Set(_) => Operation::Set,
        })
    }
}

impl GroupKey {
    /// Whether columns of the type may be keys.
    pub fn is_supported(&self, data_type: &DataType) -> bool {
        use DataType::{BigInt, Boolean, Date, Int, Numeric, SmallInt, Text, Timestamp, TimestampTz, Uuid};
        match self.bin {
            None => matches!(
                data_type,
                Boolean | SmallInt | Int | BigInt | Numeric { .. } | Text | Uuid | Date | Timestamp | TimestampTz
            ),
            Some(bin) => bin.width > 0 && matches!(data_type, Date | Timestamp | TimestampTz),
        }
    }
}

/// The type of the function's column in the answer; `None` where columns of the type ([`Function::subject`]'s) have no such aggregate.
pub fn state_type(function: &Function, column: Option<&DataType>) -> Option<ArrowType> {
    use DataType::{
        Array, BigInt, Boolean, Bytea, Date, Double, Int, Jsonb, Numeric, Real, SmallInt, Text, Timestamp, TimestampTz,
    };
    let is_scalar = |data_type: &DataType| !matches!(data_type, Jsonb | Array(_));
    Some(match (function, column) {
        (Function::Rows, _) | (Function::Count(_), Some(_)) => ArrowType::Int64,
        (Function::Sum(_), Some(SmallInt | Int | BigInt)) => ArrowType::Decimal128(SUM_PRECISION, 0),
        (Function::Sum(_), Some(Numeric { scale, .. })) => ArrowType::Decimal128(SUM_PRECISION, *scale),
        (Function::Sum(_), Some(Real | Double)) => ArrowType::Float64,
        (
            Function::Min(_) | Function::Max(_),
            Some(
                data_type @ (SmallInt
                | Int
                | BigInt
                | Numeric { .. }
                | Real
                | Double
                | Text
                | Date
                | Timestamp
                | TimestampTz),
            ),
        ) => data_type.arrow(),
        (Function::And(_) | Function::Or(_), Some(Boolean)) => ArrowType::Boolean,
        (Function::Distinct(_), Some(data_type)) if is_scalar(data_type) => ArrowType::BinaryView,
        (Function::Set(_), Some(data_type)) if is_scalar(data_type) && *data_type != Bytea => {
            ArrowType::List(Arc::new(Field::new_list_field(data_type.arrow(), true)))
        }
        (Function::First { .. } | Function::Last { .. }, Some(data_type)) if is_scalar(data_type) => data_type.arrow(),
        (Function::Quantiles(_), Some(SmallInt | Int | BigInt | Numeric { .. } | Real | Double))
        | (Function::DistinctOf(_) | Function::QuantilesOf(_), Some(Bytea)) => ArrowType::BinaryView,
        (Function::Mean(_) | Function::Squares(_), Some(SmallInt | Int | BigInt | Numeric { .. } | Real | Double)) => {
            ArrowType::Float64
        }
        _ => return None,
    })
}

impl AggregateRequest {
    /// About all rows of a segment of the schema; a star-tree may answer.
    pub(crate) fn of_all(schema: &Arc<TableSchema>, keys: Vec<GroupKey>, aggregates: Vec<Aggregate>) -> Self {
        Self {
            schema: Arc::clone(schema),
            keys,
            aggregates,
            computed: Vec::new(),
            predicate: None,
            indexes: IndexUse::Off,
            results: None,
            star_tree: true,
        }
    }

    /// Whether the layer above computes values or conditions for it.
    pub(crate) fn computes(&self) -> bool {
        let mut filters = self.aggregates.iter().filter_map(|aggregate| aggregate.filter.as_ref());
        !self.computed.is_empty()
            || self.predicate.as_ref().is_some_and(Predicate::may_fail)
            || filters.any(Predicate::may_fail)
    }

    pub(crate) fn column(&self, id: ColumnId) -> Result<&Column> {
        let computed = || self.computed.iter().map(|computed| &computed.column).find(|column| column.id == id);
        let found = self.schema.column(id).or_else(computed);
        found.ok_or_else(|| Error::Invalid(format!("the table has no column with id {id}")))
    }

    /// The answer's columns: the keys, then the state of each aggregate. Errors: `Invalid` for what no aggregation gives.
    pub fn output_schema(&self) -> Result<SchemaRef> {
        let mut fields = Vec::with_capacity(self.keys.len() + self.aggregates.len());
        for key in &self.keys {
            let column = self.column(key.column)?;
            if !key.is_supported(&column.data_type) {
                return Err(Error::Invalid(format!("rows are not grouped by {key:?} of type {}", column.data_type)));
            }
            fields.push(column.data_type.field(&column.name, column.nullable));
        }
        for Aggregate { function, .. } in &self.aggregates {
            let column = function.subject().map(|id| self.column(id)).transpose()?;
            let state = state_type(function, column.map(|column| &column.data_type))
                .filter(|_| function.is_ordered_by(|id| self.column(id).ok().map(|column| &column.data_type)))
                .ok_or_else(|| Error::Invalid(format!("{function:?} does not fit the type of its column")))?;
            let nullable = !matches!(function, Function::Rows | Function::Count(_) | Function::Set(_));
            fields.push(Field::new(column.map_or("*", |column| &column.name), state, nullable));
        }
        Ok(Arc::new(ArrowSchema::new(fields)))
    }
}
