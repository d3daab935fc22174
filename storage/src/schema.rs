//! Column types and table schemas, and what they are in Arrow.
//!
//! | SQL type | Arrow type |
//! |---|---|
//! | BOOLEAN | Boolean |
//! | SMALLINT, INT, BIGINT | Int16, Int32, Int64 |
//! | REAL, DOUBLE PRECISION | Float32, Float64 |
//! | NUMERIC(p,s) | Decimal128(p,s) |
//! | TEXT | Utf8View |
//! | BYTEA | BinaryView |
//! | DATE | Date32 |
//! | TIMESTAMP | Timestamp(Microsecond) |
//! | TIMESTAMPTZ | Timestamp(Microsecond, "UTC") |
//! | UUID | Utf8View, canonical lower case, marked by field metadata |
//! | JSONB | Utf8View, canonical text, marked by field metadata |
//! | T[] | List(T) |
//!
//! The metadata key [`TYPE_KEY`] on an Arrow field names the SQL type where the Arrow type alone does not tell.

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{ColumnId, SchemaVersion},
    scalar::Scalar,
};

/// Key of the Arrow field metadata that names a SQL type ("uuid", "jsonb").
pub const TYPE_KEY: &str = "tidemill.type";
/// The time zone of every TIMESTAMPTZ column in Arrow.
pub const UTC: &str = "UTC";

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataType {
    Boolean,
    SmallInt,
    Int,
    BigInt,
    Real,
    Double,
    /// Precision 1 to 38, scale 0 to precision.
    Numeric {
        precision: u8,
        scale: i8,
    },
    Text,
    Bytea,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    Jsonb,
    /// Of a scalar type; never of an array.
    Array(Box<DataType>),
}

impl DataType {
    /// Whether a condition on a column that is now of type `current` means the same on its values as they were written, of this type: the
    /// same type, or integers of another width.
    pub(crate) fn compares_as(&self, current: &Self) -> bool {
        use DataType::{BigInt, Int, SmallInt};
        self == current || matches!((self, current), (SmallInt | Int | BigInt, SmallInt | Int | BigInt))
    }

    pub fn arrow(&self) -> ArrowType {
        match self {
            Self::Boolean => ArrowType::Boolean,
            Self::SmallInt => ArrowType::Int16,
            Self::Int => ArrowType::Int32,
            Self::BigInt => ArrowType::Int64,
            Self::Real => ArrowType::Float32,
            Self::Double => ArrowType::Float64,
            Self::Numeric { precision, scale } => ArrowType::Decimal128(*precision, *scale),
            Self::Text | Self::Uuid | Self::Jsonb => ArrowType::Utf8View,
            Self::Bytea => ArrowType::BinaryView,
            Self::Date => ArrowType::Date32,
            Self::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => ArrowType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Self::Array(item) => ArrowType::List(Arc::new(item.field("item", true))),
        }
    }

    /// Whether COMPRESSION means anything to a column of the type: booleans are a bit each.
    pub fn is_compressible(&self) -> bool {
        match self {
            Self::Boolean => false,
            Self::Array(item) => item.is_compressible(),
            _ => true,
        }
    }

    /// Whether values are JSON documents or arrays of them.
    pub fn holds_json(&self) -> bool {
        match self {
            Self::Array(item) => item.holds_json(),
            other => *other == Self::Jsonb,
        }
    }

    pub fn field(&self, name: &str, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        match self {
            Self::Uuid => field.with_metadata(HashMap::from([(TYPE_KEY.into(), "uuid".into())])),
            Self::Jsonb => field.with_metadata(HashMap::from([(TYPE_KEY.into(), "jsonb".into())])),
            _ => field,
        }
    }

    /// The SQL type that an Arrow field of ours stands for; `None` for Arrow types that no column has.
    pub fn of_field(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            ArrowType::Boolean => Self::Boolean,
            ArrowType::Int16 => Self::SmallInt,
            ArrowType::Int32 => Self::Int,
            ArrowType::Int64 => Self::BigInt,
            ArrowType::Float32 => Self::Real,
            ArrowType::Float64 => Self::Double,
            ArrowType::Decimal128(precision, scale) => Self::Numeric { precision: *precision, scale: *scale },
            ArrowType::Utf8View => match field.metadata().get(TYPE_KEY).map(String::as_str) {
                Some("uuid") => Self::Uuid,
                Some("jsonb") => Self::Jsonb,
                _ => Self::Text,
            },
            ArrowType::BinaryView => Self::Bytea,
            ArrowType::Date32 => Self::Date,
            ArrowType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            ArrowType::Timestamp(TimeUnit::Microsecond, Some(_)) => Self::TimestampTz,
            ArrowType::List(item) => match Self::of_field(item)? {
                Self::Array(_) => return None,
                item => Self::Array(Box::new(item)),
            },
            _ => return None,
        })
    }

    /// Whether every value of `self` is a value of `to`, so that ALTER COLUMN TYPE needs no rewrite:
    /// SMALLINT → INT → BIGINT → NUMERIC with room, REAL → DOUBLE, SMALLINT and INT → DOUBLE, NUMERIC to one with at least the
    /// same digits on both sides of the point, UUID → TEXT, DATE → TIMESTAMP.
    pub fn widens_to(&self, to: &Self) -> bool {
        use DataType::{BigInt, Date, Double, Int, Numeric, Real, SmallInt, Text, Timestamp, Uuid};
        match (self, to) {
            (a, b) if a == b => true,
            (SmallInt, Int | BigInt | Double) | (Int, BigInt | Double) | (Real, Double) => true,
            (Uuid, Text) | (Date, Timestamp) => true,
            (SmallInt, Numeric { precision, scale }) => *precision as i16 - *scale as i16 >= 5,
            (Int, Numeric { precision, scale }) => *precision as i16 - *scale as i16 >= 10,
            (BigInt, Numeric { precision, scale }) => *precision as i16 - *scale as i16 >= 19,
            (Numeric { precision: p1, scale: s1 }, Numeric { precision: p2, scale: s2 }) => {
                s2 >= s1 && (*p2 as i16 - *s2 as i16) >= (*p1 as i16 - *s1 as i16)
            }
            _ => false,
        }
    }
}

/// The name that Postgres' `format_type` gives.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("integer"),
            Self::BigInt => f.write_str("bigint"),
            Self::Real => f.write_str("real"),
            Self::Double => f.write_str("double precision"),
            Self::Numeric { precision, scale } => write!(f, "numeric({precision},{scale})"),
            Self::Text => f.write_str("text"),
            Self::Bytea => f.write_str("bytea"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp without time zone"),
            Self::TimestampTz => f.write_str("timestamp with time zone"),
            Self::Uuid => f.write_str("uuid"),
            Self::Jsonb => f.write_str("jsonb"),
            Self::Array(item) => write!(f, "{item}[]"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub id: ColumnId,
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// What rows have that were written before the column was added, and rows that do not give it.
    pub default: Option<Scalar>,
    /// Of segments that are sealed from now on.
    #[serde(default, skip_serializing_if = "Compression::is_default")]
    pub compression: Compression,
    /// What becomes of the value of the row before, in a table that merges the rows of a key.
    #[serde(default, skip_serializing_if = "Merge::is_default")]
    pub merge: Merge,
}

impl Column {
    /// A column that may be null, without a default.
    pub fn new(id: ColumnId, name: impl Into<String>, data_type: DataType) -> Self {
        Self {
            id,
            name: name.into(),
            data_type,
            nullable: true,
            default: None,
            compression: Compression::default(),
            merge: Merge::default(),
        }
    }
}

/// How the values of a column are compressed when a segment is sealed. It says nothing about dictionaries, which come before it: of these, it is
/// about the values and about ids that repeat at a distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd, where it saves much; what predicates and groups run on stays as it is.
    #[default]
    Default,
    /// zstd wherever it saves anything worth a name.
    Zstd,
    /// LZ4 likewise: larger, and read about twice as fast.
    Lz4,
    /// Nothing is compressed; packing and dictionaries stay.
    None,
}

impl Compression {
    pub const ALL: [Self; 4] = [Self::Default, Self::Zstd, Self::Lz4, Self::None];

    /// As in COMPRESSION of a column definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::None => "none",
        }
    }

    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// What a new row of a key makes of the value that the row before it has. NULL on either side leaves the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// The new value.
    #[default]
    Overwrite,
    /// The sum, at most the greatest value of the type.
    Increment,
    /// The items of the old array, then those of the new one.
    Append,
    /// The same, each item once.
    Union,
    /// The old value.
    Ignore,
    Max,
    Min,
}

impl Merge {
    pub const ALL: [Self; 7] =
        [Self::Overwrite, Self::Increment, Self::Append, Self::Union, Self::Ignore, Self::Max, Self::Min];

    /// As after MERGE in a column definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overwrite => "overwrite",
            Self::Increment => "increment",
            Self::Append => "append",
            Self::Union => "union",
            Self::Ignore => "ignore",
            Self::Max => "max",
            Self::Min => "min",
        }
    }

    /// Whether values of the type can be merged so.
    pub fn takes(self, data_type: &DataType) -> bool {
        use DataType::{Array, BigInt, Double, Int, Jsonb, Numeric, Real, SmallInt};
        match self {
            Self::Overwrite | Self::Ignore => true,
            Self::Increment => matches!(data_type, SmallInt | Int | BigInt | Real | Double | Numeric { .. }),
            Self::Append | Self::Union => matches!(data_type, Array(_)),
            Self::Max | Self::Min => !matches!(data_type, Jsonb | Array(_)),
        }
    }

    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The columns of a table at one version. Columns keep their ids over every change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableSchema {
    pub version: SchemaVersion,
    pub columns: Vec<Column>,
    /// The column that retention and time pruning go by; a DATE, TIMESTAMP or TIMESTAMPTZ.
    pub time_column: Option<ColumnId>,
}

impl TableSchema {
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|column| column.id == id)
    }

    pub fn column_named(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub fn index_of(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// The Arrow schema of a batch that has every column, in order.
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(ArrowSchema::new(
            self.columns.iter().map(|c| c.data_type.field(&c.name, c.nullable)).collect::<Vec<_>>(),
        ))
    }
}
