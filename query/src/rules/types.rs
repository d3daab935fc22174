//! SQL type names as our Arrow types: `timestamptz` in microseconds, `numeric` without a limit, `uuid` and `jsonb` marked by metadata.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::{
    error::DataFusionError,
    logical_expr::planner::TypePlanner,
    sql::sqlparser::{
        ast::{self, ArrayElemTypeDef, ExactNumberInfo, TimezoneInfo},
        dialect::PostgreSqlDialect,
        parser::Parser,
    },
};
use tidemill_storage::schema::{TYPE_KEY, TableSchema, UTC};

use crate::{SqlError, pg_catalog::OID_KEY};

/// What a cast to plain `numeric` becomes until the type of its operand is known.
pub(crate) const NUMERIC: DataType = DataType::Decimal128(38, 16);

/// Plans the types that DataFusion would plan otherwise.
#[derive(Debug)]
pub struct PostgresTypes;

impl TypePlanner for PostgresTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>, DataFusionError> {
        Ok(Some(Arc::new(field(sql_type)?)))
    }
}

fn plain(data_type: DataType) -> Field {
    Field::new("", data_type, true)
}

fn marked(data_type: DataType, name: &str) -> Field {
    plain(data_type).with_metadata(HashMap::from([(TYPE_KEY.to_owned(), name.to_owned())]))
}

/// The field that a cast to `sql_type` gives.
pub(crate) fn field(sql_type: &ast::DataType) -> Result<Field, SqlError> {
    use ast::DataType as Sql;
    Ok(match sql_type {
        Sql::Boolean | Sql::Bool => plain(DataType::Boolean),
        Sql::SmallInt(_) | Sql::Int2(_) => plain(DataType::Int16),
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => plain(DataType::Int32),
        Sql::BigInt(_) | Sql::Int8(_) => plain(DataType::Int64),
        Sql::Real | Sql::Float4 => plain(DataType::Float32),
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => plain(DataType::Float64),
        Sql::Float(info) => match info {
            ExactNumberInfo::Precision(bits) if *bits <= 24 => plain(DataType::Float32),
            _ => plain(DataType::Float64),
        },
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => numeric(info)?,
        Sql::Text
        | Sql::Varchar(_)
        | Sql::CharVarying(_)
        | Sql::CharacterVarying(_)
        | Sql::Char(_)
        | Sql::Character(_)
        | Sql::String(_) => plain(DataType::Utf8View),
        Sql::Bytea => plain(DataType::BinaryView),
        Sql::Date => plain(DataType::Date32),
        Sql::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            plain(DataType::Timestamp(TimeUnit::Microsecond, None))
        }
        Sql::Timestamp(_, _) => plain(timestamptz()),
        Sql::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            plain(DataType::Time64(TimeUnit::Microsecond))
        }
        Sql::Interval { .. } => plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        Sql::Uuid => marked(DataType::Utf8View, "uuid"),
        Sql::TsQuery => marked(DataType::Utf8View, "tsquery"),
        Sql::TsVector => marked(DataType::Utf8View, "tsvector"),
        Sql::JSONB | Sql::JSON => marked(DataType::Utf8View, "jsonb"),
        Sql::Array(ArrayElemTypeDef::SquareBracket(item, _) | ArrayElemTypeDef::AngleBracket(item)) => {
            let item = field(item)?.with_name("item");
            plain(DataType::List(Arc::new(item)))
        }
        Sql::Custom(name, _) => {
            let last = name.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase()).unwrap_or_default();
            match last.as_str() {
                "name" | "bpchar" | "regconfig" | "regclass" | "regtype" | "regproc" | "citext" | "unknown" => {
                    plain(DataType::Utf8View)
                }
                // Marked, so that a parameter `$1::oid[]` is described as oid[]: asyncpg looks up any array type but that.
                "oid" => plain(DataType::Int64).with_metadata(HashMap::from([(OID_KEY.to_owned(), "oid".to_owned())])),
                "jsonpath" => marked(DataType::Utf8View, "jsonpath"),
                "int4" => plain(DataType::Int32),
                "int8" => plain(DataType::Int64),
                "int2" => plain(DataType::Int16),
                "float8" => plain(DataType::Float64),
                "float4" => plain(DataType::Float32),
                "bool" => plain(DataType::Boolean),
                "timestamptz" => plain(timestamptz()),
                _ => return Err(SqlError::new("42704", format!("type \"{last}\" does not exist"))),
            }
        }
        other => {
            let name = other.to_string().to_lowercase();
            return Err(SqlError::new("42704", format!("type \"{name}\" does not exist")));
        }
    })
}

fn numeric(info: &ExactNumberInfo) -> Result<Field, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(marked(NUMERIC, "numeric")),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale))
            if scale >= 0 && u64::try_from(scale).is_ok_and(|s| s <= u64::from(precision)) =>
        {
            Ok(plain(DataType::Decimal128(precision, scale)))
        }
        _ => Err(SqlError::invalid_parameter(format!(
            "NUMERIC precision {precision} must be between 1 and 38, and scale {scale} between 0 and it"
        ))),
    }
}

/// TIMESTAMPTZ in Arrow.
pub(crate) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// TIMESTAMP in Arrow.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

pub(crate) fn interval() -> DataType {
    DataType::Interval(IntervalUnit::MonthDayNano)
}

pub(crate) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(crate) fn is_int(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

pub(crate) fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

pub(crate) fn is_decimal(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// The columns of a table with their types as SQL writes them.
pub(crate) fn columns_of(schema: &TableSchema) -> Vec<(String, ast::DataType)> {
    let columns = schema.columns.iter().filter_map(|column| {
        let text = column.data_type.to_string();
        let parsed =
            Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_data_type());
        Some((column.name.clone(), parsed.ok()?))
    });
    columns.collect()
}

/// PostgreSQL's name of an Arrow type.
pub(crate) fn name(field: &Field) -> String {
    if let Some(name @ ("jsonpath" | "tsquery" | "tsvector")) = super::casts::marker(field) {
        return name.to_owned();
    }
    match tidemill_storage::schema::DataType::of_field(field) {
        Some(data_type) => match data_type {
            tidemill_storage::schema::DataType::Numeric { .. } => "numeric".to_owned(),
            other => other.to_string(),
        },
        None => match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => super::casts::marker(field).unwrap_or("text").to_owned(),
            DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
            DataType::Timestamp(_, None) => "timestamp without time zone".to_owned(),
            DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
            DataType::Time64(_) | DataType::Time32(_) => "time without time zone".to_owned(),
            DataType::Binary | DataType::LargeBinary => "bytea".to_owned(),
            DataType::Decimal256(..) => "numeric".to_owned(),
            DataType::UInt64 | DataType::UInt32 => "bigint".to_owned(),
            DataType::UInt16 => "integer".to_owned(),
            DataType::UInt8 | DataType::Int8 => "smallint".to_owned(),
            DataType::Null => "unknown".to_owned(),
            DataType::List(item) => format!("{}[]", name(item)),
            other => other.to_string(),
        },
    }
}
