//! Which PostgreSQL type a column has.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use tidemill_storage::schema::TYPE_KEY;

use super::definitions::OID_KEY;

/// A PostgreSQL type with its modifier, as in `pg_attribute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    pub oid: i32,
    /// `pg_type.typname`.
    pub name: &'static str,
    /// As `format_type` and information_schema say it.
    pub sql_name: &'static str,
    /// Bytes; -1 for varying.
    pub length: i16,
    /// -1, or precision and scale of a NUMERIC as PostgreSQL packs them.
    pub modifier: i32,
}

const fn t(oid: i32, name: &'static str, sql_name: &'static str, length: i16) -> PgType {
    PgType { oid, name, sql_name, length, modifier: -1 }
}

pub const TEXT: PgType = t(25, "text", "text", -1);

/// Every type a column of ours can have, and its array type.
const TYPES: &[(PgType, PgType)] = &[
    (t(16, "bool", "boolean", 1), t(1000, "_bool", "boolean[]", -1)),
    (t(17, "bytea", "bytea", -1), t(1001, "_bytea", "bytea[]", -1)),
    (t(18, "char", "\"char\"", 1), t(1002, "_char", "\"char\"[]", -1)),
    (t(19, "name", "name", 64), t(1003, "_name", "name[]", -1)),
    (t(20, "int8", "bigint", 8), t(1016, "_int8", "bigint[]", -1)),
    (t(21, "int2", "smallint", 2), t(1005, "_int2", "smallint[]", -1)),
    (t(23, "int4", "integer", 4), t(1007, "_int4", "integer[]", -1)),
    (t(24, "regproc", "regproc", 4), t(1008, "_regproc", "regproc[]", -1)),
    (TEXT, t(1009, "_text", "text[]", -1)),
    (t(26, "oid", "oid", 4), t(1028, "_oid", "oid[]", -1)),
    (t(700, "float4", "real", 4), t(1021, "_float4", "real[]", -1)),
    (t(701, "float8", "double precision", 8), t(1022, "_float8", "double precision[]", -1)),
    (t(1082, "date", "date", 4), t(1182, "_date", "date[]", -1)),
    (t(1083, "time", "time without time zone", 8), t(1183, "_time", "time without time zone[]", -1)),
    (
        t(1114, "timestamp", "timestamp without time zone", 8),
        t(1115, "_timestamp", "timestamp without time zone[]", -1),
    ),
    (t(1184, "timestamptz", "timestamp with time zone", 8), t(1185, "_timestamptz", "timestamp with time zone[]", -1)),
    (t(1186, "interval", "interval", 16), t(1187, "_interval", "interval[]", -1)),
    (t(1700, "numeric", "numeric", -1), t(1231, "_numeric", "numeric[]", -1)),
    (t(2950, "uuid", "uuid", 16), t(2951, "_uuid", "uuid[]", -1)),
    (t(3802, "jsonb", "jsonb", -1), t(3807, "_jsonb", "jsonb[]", -1)),
    (t(114, "json", "json", -1), t(199, "_json", "json[]", -1)),
    (t(1043, "varchar", "character varying", -1), t(1015, "_varchar", "character varying[]", -1)),
    (t(2206, "regtype", "regtype", 4), t(2211, "_regtype", "regtype[]", -1)),
    (t(2205, "regclass", "regclass", 4), t(2210, "_regclass", "regclass[]", -1)),
];

/// By `pg_type.typname`; arrays begin with `_`.
pub fn named(name: &str) -> Option<PgType> {
    TYPES.iter().flat_map(|(item, array)| [item, array]).find(|known| known.name == name).copied()
}

/// By oid.
pub fn with_oid(oid: i32) -> Option<PgType> {
    TYPES.iter().flat_map(|(item, array)| [item, array]).find(|known| known.oid == oid).copied()
}

/// Of a column or a result.
pub fn of_field(field: &Field) -> PgType {
    if let Some(kind) = field.metadata().get(OID_KEY)
        && let Some(known) = named(kind)
    {
        return known;
    }
    let name = match field.data_type() {
        DataType::Boolean => "bool",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "int2",
        DataType::UInt16 | DataType::Int32 => "int4",
        DataType::UInt32 | DataType::Int64 => "int8",
        DataType::Float16 | DataType::Float32 => "float4",
        DataType::Float64 => "float8",
        DataType::UInt64 => "numeric",
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            let modifier = ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4;
            return PgType { modifier, ..named("numeric").unwrap_or(TEXT) };
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            match field.metadata().get(TYPE_KEY).map(String::as_str) {
                Some("uuid") => "uuid",
                Some("jsonb") => "jsonb",
                Some("json") => "json",
                _ => "text",
            }
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano)
        | DataType::Duration(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond) => {
            "interval"
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let item = of_field(item);
            return TYPES
                .iter()
                .find(|(known, _)| known.oid == item.oid)
                .map_or(TEXT, |(_, array)| PgType { modifier: item.modifier, ..*array });
        }
        DataType::Dictionary(_, value) => return of_field(&Field::new("", value.as_ref().clone(), true)),
        _ => "text",
    };
    named(name).unwrap_or(TEXT)
}

/// `format_type(oid, typmod)`.
pub fn format_type(oid: i32, modifier: Option<i32>) -> String {
    let Some(known) = with_oid(oid) else {
        return match oid {
            0 => "-".into(),
            1042 => "character".into(),
            2249 => "record".into(),
            2278 => "void".into(),
            2276 => "\"any\"".into(),
            2277 => "anyarray".into(),
            2283 => "anyelement".into(),
            2275 => "cstring".into(),
            2281 => "internal".into(),
            2279 => "trigger".into(),
            _ => "???".into(),
        };
    };
    match (known.name, modifier) {
        ("numeric" | "_numeric", Some(modifier)) if modifier >= 4 => {
            let packed = modifier - 4;
            let suffix = if known.name.starts_with('_') { "[]" } else { "" };
            format!("numeric({},{}){suffix}", packed >> 16, packed & 0x7ff)
        }
        _ => known.sql_name.into(),
    }
}
