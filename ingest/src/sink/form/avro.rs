//! Rows as Avro data.
//!
//! | type | Avro |
//! |---|---|
//! | BOOLEAN, SMALLINT and INT, BIGINT, REAL, DOUBLE | boolean, int, long, float, double |
//! | NUMERIC(p, s) | bytes, decimal(p, s) |
//! | TEXT; UUID; JSONB | string; with logicalType uuid; with the connect.name that Debezium gives to documents |
//! | BYTEA | bytes |
//! | DATE; TIMESTAMPTZ; TIMESTAMP | int, date; long, timestamp-micros; long, local-timestamp-micros |
//! | arrays | array of a union with null |
//!
//! What may be NULL is a union with null, whose default is null: columns may come and go, and readers of older and newer versions go on.

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    },
};
use tidemill_storage::schema::{Column as SchemaColumn, DataType};

use super::{super::json::Column, Registration, Wire, check_name, shortest, varint};
use crate::{Error, Result, decode::registry::Kind};

#[derive(Clone, Debug)]
pub(in crate::sink) struct AvroForm {
    registration: Registration,
    fields: Vec<Field>,
    /// The schema.
    text: String,
}

#[derive(Clone, Debug)]
struct Field {
    column: usize,
    of: DataType,
    is_nullable: bool,
}

impl AvroForm {
    pub(super) fn new(registration: &Registration, columns: &[(usize, &SchemaColumn)]) -> Result<Self> {
        let (space, name) = registration.split();
        let mut text = format!("{{\"type\":\"record\",\"name\":\"{name}\",");
        if let Some(space) = space {
            text += &format!("\"namespace\":\"{space}\",");
        }
        text += "\"fields\":[";
        let mut fields = Vec::new();
        for (number, (at, column)) in columns.iter().enumerate() {
            check_name("Avro", &column.name)?;
            let of = type_text(&column.name, &column.data_type)?;
            if number > 0 {
                text.push(',');
            }
            text += &match column.nullable {
                true => format!("{{\"name\":\"{}\",\"type\":[\"null\",{of}],\"default\":null}}", column.name),
                false => format!("{{\"name\":\"{}\",\"type\":{of}}}", column.name),
            };
            fields.push(Field { column: *at, of: column.data_type.clone(), is_nullable: column.nullable });
        }
        text += "]}";
        Ok(Self { registration: registration.clone(), fields, text })
    }

    pub(super) fn wire(&self) -> Result<Wire> {
        Ok(Wire::new(self.registration.register(&Kind::Avro, &self.text)?, &[], Vec::new()))
    }

    /// The schema.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn write(&self, columns: &[Column<'_>], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        for field in &self.fields {
            let array = columns[field.column].array();
            let is_null = array.is_null(row);
            if field.is_nullable {
                zigzag(i64::from(!is_null), out);
                if is_null {
                    continue;
                }
            } else if is_null {
                return Err(format!("column \"{}\" is NOT NULL, and NULL came", columns[field.column].name()));
            }
            write_value(array, &field.of, row, out);
        }
        Ok(())
    }
}

fn type_text(name: &str, of: &DataType) -> Result<String> {
    Ok(match of {
        DataType::Boolean => "\"boolean\"".into(),
        DataType::SmallInt | DataType::Int => "\"int\"".into(),
        DataType::BigInt => "\"long\"".into(),
        DataType::Real => "\"float\"".into(),
        DataType::Double => "\"double\"".into(),
        DataType::Numeric { precision, scale } => match u8::try_from(*scale) {
            Ok(scale) if scale <= *precision => {
                format!(
                    "{{\"type\":\"bytes\",\"logicalType\":\"decimal\",\"precision\":{precision},\"scale\":{scale}}}"
                )
            }
            _ => {
                return Err(Error::Definition {
                    message: format!("column \"{name}\" is {of}, and Avro has no decimal of this scale"),
                    hint: Some("cast it to a NUMERIC whose scale is between 0 and its precision".into()),
                });
            }
        },
        DataType::Text => "\"string\"".into(),
        DataType::Jsonb => "{\"type\":\"string\",\"connect.name\":\"io.debezium.data.Json\"}".into(),
        DataType::Uuid => "{\"type\":\"string\",\"logicalType\":\"uuid\"}".into(),
        DataType::Bytea => "\"bytes\"".into(),
        DataType::Date => "{\"type\":\"int\",\"logicalType\":\"date\"}".into(),
        DataType::TimestampTz => "{\"type\":\"long\",\"logicalType\":\"timestamp-micros\"}".into(),
        DataType::Timestamp => "{\"type\":\"long\",\"logicalType\":\"local-timestamp-micros\"}".into(),
        DataType::Array(item) => format!("{{\"type\":\"array\",\"items\":[\"null\",{}]}}", type_text(name, item)?),
    })
}

/// A value that is not NULL.
fn write_value(array: &dyn Array, of: &DataType, row: usize, out: &mut Vec<u8>) {
    match of {
        DataType::Boolean => out.push(array.as_boolean().value(row).into()),
        DataType::SmallInt => zigzag(array.as_primitive::<Int16Type>().value(row).into(), out),
        DataType::Int => zigzag(array.as_primitive::<Int32Type>().value(row).into(), out),
        DataType::BigInt => zigzag(array.as_primitive::<Int64Type>().value(row), out),
        DataType::Real => out.extend(array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
        DataType::Double => out.extend(array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::Numeric { .. } => {
            let (bytes, first) = shortest(array.as_primitive::<Decimal128Type>().value(row));
            write_bytes(&bytes[first..], out);
        }
        DataType::Text | DataType::Uuid | DataType::Jsonb => {
            write_bytes(array.as_string_view().value(row).as_bytes(), out);
        }
        DataType::Bytea => write_bytes(array.as_binary_view().value(row), out),
        DataType::Date => zigzag(array.as_primitive::<Date32Type>().value(row).into(), out),
        DataType::Timestamp | DataType::TimestampTz => {
            zigzag(array.as_primitive::<TimestampMicrosecondType>().value(row), out);
        }
        DataType::Array(item) => {
            let items = array.as_list::<i32>().value(row);
            if !items.is_empty() {
                zigzag(items.len() as i64, out);
                for at in 0..items.len() {
                    let is_null = items.is_null(at);
                    zigzag(i64::from(!is_null), out);
                    if !is_null {
                        write_value(&items, item, at, out);
                    }
                }
            }
            // No more blocks.
            zigzag(0, out);
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    zigzag(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)) as u64, out);
}
