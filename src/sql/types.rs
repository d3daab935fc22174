//! Column types as SQL spells them: Postgres' names, and Flink's STRING and TIMESTAMP(3).

use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use tidemill_storage::schema::DataType;

use super::tokens::Cursor;
use crate::{
    session::error::{Result, SqlError, state},
    suggest,
};

const KNOWN: &[&str] = &[
    "boolean",
    "bool",
    "smallint",
    "int",
    "int2",
    "tinyint",
    "integer",
    "int4",
    "bigint",
    "int8",
    "real",
    "float4",
    "float",
    "double precision",
    "double",
    "float8",
    "numeric",
    "decimal",
    "text",
    "varchar",
    "character varying",
    "char",
    "character",
    "bpchar",
    "string",
    "bytea",
    "bytes",
    "varbinary",
    "date",
    "timestamp",
    "timestamptz",
    "timestamp_ltz",
    "uuid",
    "jsonb",
    "json",
    "array",
];

/// NUMERIC without precision.
const NUMERIC_DEFAULT: DataType = DataType::Numeric { precision: 38, scale: 9 };

/// A type, and what has to be said about it.
pub(crate) fn data_type(cursor: &mut Cursor<'_>) -> Result<(DataType, Option<String>)> {
    let position = cursor.position();
    let (mut data_type, notice) = scalar(cursor)?;
    let mut dimensions = 0;
    loop {
        if cursor.keyword("ARRAY") {
            if cursor.symbol(&Token::LBracket) {
                cursor.number("the length of the array")?;
                cursor.expect_symbol(&Token::RBracket)?;
            }
        } else if cursor.symbol(&Token::LBracket) {
            // Postgres takes a length and ignores it, too.
            if cursor.peek() != Some(&Token::RBracket) {
                cursor.number("the length of the array or \"]\"")?;
            }
            cursor.expect_symbol(&Token::RBracket)?;
        } else {
            break;
        }
        dimensions += 1;
    }
    if dimensions > 1 || (dimensions == 1 && matches!(data_type, DataType::Array(_))) {
        return Err(SqlError::unsupported("arrays of arrays are not supported")
            .at(position)
            .with_hint("keep nested data in a JSONB column"));
    }
    if dimensions == 1 {
        data_type = DataType::Array(Box::new(data_type));
    }
    Ok((data_type, notice))
}

fn scalar(cursor: &mut Cursor<'_>) -> Result<(DataType, Option<String>)> {
    let position = cursor.position();
    let Some(Token::Word(Word { value, .. })) = cursor.peek() else { return cursor.expected("a type") };
    let word = value.to_lowercase();
    cursor.step();
    if word == "pg_catalog" && cursor.symbol(&Token::Period) {
        return scalar(cursor);
    }
    Ok((
        match word.as_str() {
            "boolean" | "bool" => DataType::Boolean,
            "smallint" | "int2" | "tinyint" => DataType::SmallInt,
            "integer" | "int" | "int4" => DataType::Int,
            "bigint" | "int8" => DataType::BigInt,
            "real" | "float4" => DataType::Real,
            "float" => match arguments(cursor)?.as_slice() {
                [] => DataType::Double,
                [bits @ 1..=53] => {
                    if *bits <= 24 {
                        DataType::Real
                    } else {
                        DataType::Double
                    }
                }
                _ => {
                    return Err(SqlError::new(
                        state::INVALID_PARAMETER_VALUE,
                        "precision of float must be 1 to 53 bits",
                    )
                    .at(position));
                }
            },
            "double" => {
                cursor.keyword("PRECISION");
                DataType::Double
            }
            "float8" => DataType::Double,
            "numeric" | "decimal" | "dec" => numeric(cursor, position)?,
            "text" | "string" => DataType::Text,
            "varchar" | "char" | "character" | "bpchar" => {
                let varying = word == "varchar" || (word == "character" && cursor.keyword("VARYING"));
                return Ok((
                    DataType::Text,
                    length_notice(cursor, if varying { "character varying" } else { "character" })?,
                ));
            }
            "bytea" | "bytes" => DataType::Bytea,
            "varbinary" | "binary" => return Ok((DataType::Bytea, length_notice(cursor, &word)?)),
            "date" => DataType::Date,
            "timestamp" | "timestamptz" | "timestamp_ltz" => {
                let precision = arguments(cursor)?;
                if precision.len() > 1 || precision.iter().any(|precision| *precision > 9) {
                    return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, "precision of timestamp must be 0 to 9")
                        .at(position));
                }
                let zone =
                    cursor.keywords(&["WITH", "TIME", "ZONE"]) || cursor.keywords(&["WITH", "LOCAL", "TIME", "ZONE"]);
                if !zone {
                    cursor.keywords(&["WITHOUT", "TIME", "ZONE"]);
                }
                let notice = precision
                    .first()
                    .filter(|precision| **precision > 6)
                    .map(|precision| format!("timestamp({precision}) keeps microseconds, which is timestamp(6)"));
                let data_type = if zone || word != "timestamp" { DataType::TimestampTz } else { DataType::Timestamp };
                return Ok((data_type, notice));
            }
            "uuid" => DataType::Uuid,
            "jsonb" | "json" => DataType::Jsonb,
            // Flink: ARRAY<T>.
            "array" if cursor.symbol(&Token::Lt) => {
                let (item, notice) = scalar(cursor)?;
                cursor.expect_symbol(&Token::Gt)?;
                if matches!(item, DataType::Array(_)) {
                    return Err(SqlError::unsupported("arrays of arrays are not supported").at(position));
                }
                return Ok((DataType::Array(Box::new(item)), notice));
            }
            "time" | "timetz" | "interval" | "money" | "xml" | "inet" | "cidr" | "point" | "hstore" | "row" | "map"
            | "multiset" => {
                return Err(SqlError::unsupported(format!("columns of type {word} are not supported"))
                    .at(position)
                    .with_hint("TEXT or JSONB can hold such values"));
            }
            "serial" | "bigserial" | "smallserial" => {
                return Err(SqlError::unsupported(format!(
                    "columns of type {word} are not supported: there are no sequences"
                ))
                .at(position)
                .with_hint("use BIGINT or UUID and give the values"));
            }
            _ => {
                let error =
                    SqlError::new(state::UNDEFINED_OBJECT, format!("type \"{word}\" does not exist")).at(position);
                return Err(match suggest::hint(&word, KNOWN.iter().copied()) {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                });
            }
        },
        None,
    ))
}

fn numeric(cursor: &mut Cursor<'_>, position: u32) -> Result<DataType> {
    let (precision, scale) = match arguments(cursor)?.as_slice() {
        [] => return Ok(NUMERIC_DEFAULT),
        [precision] => (*precision, 0),
        [precision, scale] => (*precision, *scale),
        _ => {
            return Err(
                SqlError::new(state::INVALID_PARAMETER_VALUE, "NUMERIC takes a precision and a scale").at(position)
            );
        }
    };
    if !(1..=38).contains(&precision) || scale > precision {
        return Err(SqlError::new(
            state::INVALID_PARAMETER_VALUE,
            format!("NUMERIC({precision},{scale}) is out of range"),
        )
        .at(position)
        .with_hint("the precision may be 1 to 38, the scale 0 to the precision"));
    }
    Ok(DataType::Numeric { precision: precision as u8, scale: scale as i8 })
}

fn length_notice(cursor: &mut Cursor<'_>, name: &str) -> Result<Option<String>> {
    let length = arguments(cursor)?;
    Ok(length.first().map(|length| format!("the length of {name}({length}) is not enforced")))
}

/// `(1)`, `(10, 2)` or nothing.
fn arguments(cursor: &mut Cursor<'_>) -> Result<Vec<u64>> {
    let mut arguments = Vec::new();
    if cursor.symbol(&Token::LParen) {
        loop {
            arguments.push(cursor.number("a number")?);
            if arguments.len() > 2 || !cursor.symbol(&Token::Comma) {
                break;
            }
        }
        cursor.expect_symbol(&Token::RParen)?;
    }
    Ok(arguments)
}
