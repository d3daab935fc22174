//! Values between Arrow and PostgreSQL: which type a column is to a client, and its text and binary forms.
//!
//! [`encode`] writes columns out, [`parse`] reads text, [`binary`] reads binary; [`text`] and [`calendar`] hold the forms of single values.
//! What always holds: what a client is given in either form reads back as the same value; digits of NUMERIC are never lost.

pub mod binary;
pub mod build;
pub mod calendar;
pub mod digits;
pub mod encode;
pub mod parse;
pub mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use tidemill_storage::schema::{TYPE_KEY, UTC};

/// Marks Int32 columns that are object ids or their aliases ("oid", "regclass", …); set by the catalog tables.
pub const OID_KEY: &str = "pg.oid_alias";
/// Marks text columns of PostgreSQL's one-byte `"char"` type.
pub const CHAR_KEY: &str = "pg.char";
/// Marks text columns of PostgreSQL's `name` type.
pub const NAME_KEY: &str = "pg.name";

macro_rules! scalar_types {
    ($($variant:ident $name:literal $oid:literal $array:literal $length:literal;)*) => {
        /// A scalar type by its PostgreSQL name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Scalar { $(#[doc = $name] $variant,)* }

        impl Scalar {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// pg_type.oid
            pub const fn oid(self) -> u32 {
                match self { $(Self::$variant => $oid,)* }
            }

            /// pg_type.oid of the array of it.
            pub const fn array_oid(self) -> u32 {
                match self { $(Self::$variant => $array,)* }
            }

            /// pg_type.typname
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// pg_type.typlen: bytes, or -1 where it varies.
            pub const fn length(self) -> i16 {
                match self { $(Self::$variant => $length,)* }
            }
        }
    };
}

scalar_types! {
    Bool "bool" 16 1000 1;
    Bytea "bytea" 17 1001 -1;
    Char "char" 18 1002 1;
    Name "name" 19 1003 64;
    Int8 "int8" 20 1016 8;
    Int2 "int2" 21 1005 2;
    Int4 "int4" 23 1007 4;
    Regproc "regproc" 24 1008 4;
    Text "text" 25 1009 -1;
    Oid "oid" 26 1028 4;
    Json "json" 114 199 -1;
    Float4 "float4" 700 1021 4;
    Float8 "float8" 701 1022 8;
    Unknown "unknown" 705 1009 -2;
    Bpchar "bpchar" 1042 1014 -1;
    Varchar "varchar" 1043 1015 -1;
    Date "date" 1082 1182 4;
    Time "time" 1083 1183 8;
    Timestamp "timestamp" 1114 1115 8;
    TimestampTz "timestamptz" 1184 1185 8;
    Interval "interval" 1186 1187 16;
    Numeric "numeric" 1700 1231 -1;
    Regclass "regclass" 2205 2210 4;
    Regtype "regtype" 2206 2211 4;
    Record "record" 2249 2287 -1;
    Void "void" 2278 2278 4;
    Uuid "uuid" 2950 2951 16;
    Jsonb "jsonb" 3802 3807 -1;
}

/// A type as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PgType {
    pub scalar: Scalar,
    pub array: bool,
}

impl PgType {
    pub const fn scalar(scalar: Scalar) -> Self {
        Self { scalar, array: false }
    }

    pub const fn array(scalar: Scalar) -> Self {
        Self { scalar, array: true }
    }

    pub const fn oid(self) -> u32 {
        if self.array { self.scalar.array_oid() } else { self.scalar.oid() }
    }

    pub const fn length(self) -> i16 {
        if self.array { -1 } else { self.scalar.length() }
    }

    /// pg_type.typname: arrays begin with an underscore.
    pub fn name(self) -> String {
        if self.array { format!("_{}", self.scalar.name()) } else { self.scalar.name().to_owned() }
    }

    pub fn of_oid(oid: u32) -> Option<Self> {
        Scalar::ALL.iter().find_map(|scalar| {
            if scalar.oid() == oid {
                Some(Self::scalar(*scalar))
            } else if scalar.array_oid() == oid {
                Some(Self::array(*scalar))
            } else {
                None
            }
        })
    }

    /// What a result column is to a client. Types that PostgreSQL has not are shown as text.
    pub fn of_field(field: &Field) -> Self {
        let scalar = |scalar| Self::scalar(scalar);
        match field.data_type() {
            DataType::Boolean => scalar(Scalar::Bool),
            DataType::Int8 | DataType::Int16 | DataType::UInt8 => scalar(Scalar::Int2),
            DataType::Int32 | DataType::UInt32 | DataType::Int64 if field.metadata().contains_key(OID_KEY) => {
                scalar(match field.metadata()[OID_KEY].as_str() {
                    "regclass" => Scalar::Regclass,
                    "regtype" => Scalar::Regtype,
                    "regproc" => Scalar::Regproc,
                    _ => Scalar::Oid,
                })
            }
            DataType::Int32 | DataType::UInt16 => scalar(Scalar::Int4),
            DataType::Int64 | DataType::UInt32 => scalar(Scalar::Int8),
            DataType::UInt64 | DataType::Decimal32(..) | DataType::Decimal64(..) => scalar(Scalar::Numeric),
            DataType::Decimal128(..) | DataType::Decimal256(..) => scalar(Scalar::Numeric),
            DataType::Float16 | DataType::Float32 => scalar(Scalar::Float4),
            DataType::Float64 => scalar(Scalar::Float8),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let metadata = field.metadata();
                scalar(match metadata.get(TYPE_KEY).map(String::as_str) {
                    Some("uuid") => Scalar::Uuid,
                    Some("jsonb") => Scalar::Jsonb,
                    Some("json") => Scalar::Json,
                    _ if metadata.contains_key(CHAR_KEY) => Scalar::Char,
                    _ if metadata.contains_key(NAME_KEY) => Scalar::Name,
                    _ => Scalar::Text,
                })
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                scalar(Scalar::Bytea)
            }
            DataType::Date32 | DataType::Date64 => scalar(Scalar::Date),
            DataType::Time32(_) | DataType::Time64(_) => scalar(Scalar::Time),
            DataType::Timestamp(_, None) => scalar(Scalar::Timestamp),
            DataType::Timestamp(_, Some(_)) => scalar(Scalar::TimestampTz),
            DataType::Interval(_) | DataType::Duration(_) => scalar(Scalar::Interval),
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => Self::array(Self::of_field(item).scalar),
            DataType::Struct(_) => scalar(Scalar::Record),
            DataType::Dictionary(_, values) => {
                let field = Field::new("", values.as_ref().clone(), true).with_metadata(field.metadata().clone());
                Self::of_field(&field)
            }
            _ => scalar(Scalar::Text),
        }
    }

    /// pg_attribute.atttypmod of a column: precision and scale of NUMERIC, else -1. Only for columns of tables: what expressions give has
    /// none in PostgreSQL either.
    pub fn modifier(field: &Field) -> i32 {
        match field.data_type() {
            DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
                ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
            }
            _ => -1,
        }
    }

    /// The Arrow type that a parameter of this type is given to the planner in. NUMERIC is given with the digits it has, so this is
    /// only what is declared.
    pub fn arrow(self) -> DataType {
        let scalar = match self.scalar {
            Scalar::Bool => DataType::Boolean,
            Scalar::Int2 => DataType::Int16,
            Scalar::Int4 => DataType::Int32,
            Scalar::Int8 => DataType::Int64,
            Scalar::Oid | Scalar::Regclass | Scalar::Regtype | Scalar::Regproc => DataType::Int64,
            Scalar::Float4 => DataType::Float32,
            Scalar::Float8 => DataType::Float64,
            Scalar::Numeric => DataType::Decimal128(38, 10),
            Scalar::Bytea => DataType::BinaryView,
            Scalar::Date => DataType::Date32,
            Scalar::Time => DataType::Time64(TimeUnit::Microsecond),
            Scalar::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Scalar::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
            Scalar::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            _ => DataType::Utf8View,
        };
        if self.array { DataType::List(Arc::new(Field::new("item", scalar, true))) } else { scalar }
    }
}
