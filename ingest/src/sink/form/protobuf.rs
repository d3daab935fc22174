//! Rows as Protobuf messages (proto3).
//!
//! | type | Protobuf |
//! |---|---|
//! | BOOLEAN, SMALLINT and INT, BIGINT, REAL, DOUBLE | bool, int32, int64, float, double |
//! | NUMERIC(p, s) | confluent.type.Decimal |
//! | TEXT, JSONB, UUID, DATE (`2024-03-01`) | string |
//! | BYTEA | bytes |
//! | TIMESTAMPTZ, TIMESTAMP | google.protobuf.Timestamp |
//! | arrays | repeated |
//!
//! Nothing tells that a string is a document: a source reads it as TEXT, or as a JSON string.
//!
//! Fields are `optional`, so that NULL is not zero. A repeated field has neither NULL itself nor NULL within: an array that is NULL comes back as an empty one, and a row with a NULL in an array is refused.
//!
//! A field's number is what readers know it by, so it stays with the name of its column: numbers are those of the subject's newest version, new columns have new ones, and numbers
//! that are not used any more are reserved.

use arrow::{
    array::{Array, AsArray},
    datatypes::{Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use prost_reflect::FileDescriptor;
use tidemill_storage::schema::{Column as SchemaColumn, DataType};

use super::{super::json, Registration, Wire, check_name, shortest, varint};
use crate::{
    Error, Result,
    decode::{protobuf::compile, registry::Kind},
    sink::json::Column,
};

/// The last number that a field can have.
const NUMBER_MAX: u32 = 536_870_911;
/// These are Protobuf's own.
const NUMBERS_HELD: std::ops::RangeInclusive<u32> = 19_000..=19_999;

#[derive(Clone, Debug)]
pub(in crate::sink) struct ProtobufForm {
    registration: Registration,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    column: usize,
    of: DataType,
}

/// Numbers of the columns, and those that nobody may have again.
#[derive(Debug, Default, PartialEq)]
struct Numbers {
    of_fields: Vec<u32>,
    reserved: Vec<u32>,
}

impl ProtobufForm {
    pub(super) fn new(registration: &Registration, columns: &[(usize, &SchemaColumn)]) -> Result<Self> {
        let mut fields = Vec::new();
        for (at, column) in columns {
            check_name("Protobuf", &column.name)?;
            fields.push(Field { name: column.name.clone(), column: *at, of: column.data_type.clone() });
        }
        let form = Self { registration: registration.clone(), fields };
        // What only a compiler knows: words that cannot be names, names that are the same in JSON.
        let text = form.text(&form.numbers(None)?);
        compile(&text, &[]).map_err(|reason| Error::Definition {
            message: format!("the columns cannot be fields of a Protobuf message: {reason}"),
            hint: Some("give them other names with AS".into()),
        })?;
        Ok(form)
    }

    pub(super) fn wire(&self) -> Result<Wire> {
        let latest = self.registration.latest()?.filter(|latest| latest.kind == Kind::Protobuf);
        // What cannot be read is compared by the registry all the same.
        let file = latest.and_then(|latest| compile(&latest.text, &latest.references).ok());
        let numbers = self.numbers(file.as_ref())?;
        let id = self.registration.register(&Kind::Protobuf, &self.text(&numbers))?;
        // The path to the first message of the file.
        Ok(Wire::new(id, &[0], numbers.of_fields))
    }

    /// The schema that follows another one.
    pub(super) fn schema_after(&self, earlier: Option<(&str, &[(String, String)])>) -> Result<String> {
        let file = earlier.and_then(|(text, references)| compile(text, references).ok());
        Ok(self.text(&self.numbers(file.as_ref())?))
    }

    fn numbers(&self, earlier: Option<&FileDescriptor>) -> Result<Numbers> {
        let message =
            earlier.and_then(|file| file.messages().find(|message| message.full_name() == self.registration.name));
        let mut taken: Vec<u32> = Vec::new();
        if let Some(message) = &message {
            taken.extend(message.fields().map(|field| field.number()));
            // Ranges may be as long as there are numbers.
            taken.extend(message.reserved_ranges().flat_map(|range| range.take(1000)));
        }
        let known = |name: &str| message.as_ref()?.get_field_by_name(name).map(|field| field.number());
        let mut next = taken.iter().copied().max().unwrap_or(0);
        let mut numbers = Numbers::default();
        for field in &self.fields {
            let number = match known(&field.name) {
                Some(number) => number,
                None => {
                    next += 1;
                    if NUMBERS_HELD.contains(&next) {
                        next = NUMBERS_HELD.end() + 1;
                    }
                    if next > NUMBER_MAX {
                        return Err(Error::Definition {
                            message: format!("subject '{}' has used all numbers of fields", self.registration.subject),
                            hint: Some("use another 'subject'".into()),
                        });
                    }
                    next
                }
            };
            numbers.of_fields.push(number);
        }
        numbers.reserved = taken.into_iter().filter(|number| !numbers.of_fields.contains(number)).collect();
        numbers.reserved.sort_unstable();
        numbers.reserved.dedup();
        Ok(numbers)
    }

    fn text(&self, numbers: &Numbers) -> String {
        let (package, name) = self.registration.split();
        let mut text = "syntax = \"proto3\";\n".to_owned();
        if let Some(package) = package {
            text += &format!("package {package};\n");
        }
        let uses = |wanted: &str| self.fields.iter().any(|field| type_name(&field.of).1 == wanted);
        if uses(DECIMAL) {
            text += "import \"confluent/type/decimal.proto\";\n";
        }
        if uses(TIMESTAMP) {
            text += "import \"google/protobuf/timestamp.proto\";\n";
        }
        text += &format!("message {name} {{\n");
        if !numbers.reserved.is_empty() {
            let reserved: Vec<String> = numbers.reserved.iter().map(u32::to_string).collect();
            text += &format!("  reserved {};\n", reserved.join(", "));
        }
        for (field, number) in self.fields.iter().zip(&numbers.of_fields) {
            let (label, of) = type_name(&field.of);
            // A full name begins with a dot: the package may have parts of its own that are called so.
            let dot = if of.contains('.') { "." } else { "" };
            text += &format!("  {label} {dot}{of} {} = {number};\n", field.name);
        }
        text += "}\n";
        text
    }

    #[cfg(test)]
    pub(super) fn text_after(&self, earlier: Option<&str>) -> String {
        let file = earlier.map(|text| compile(text, &[]).expect("a schema"));
        self.text(&self.numbers(file.as_ref()).expect("numbers"))
    }

    pub(super) fn write(
        &self,
        numbers: &[u32],
        columns: &[Column<'_>],
        row: usize,
        scratch: &mut String,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        for (field, number) in self.fields.iter().zip(numbers) {
            let column = &columns[field.column];
            let array = column.array();
            if array.is_null(row) {
                continue;
            }
            let DataType::Array(item) = &field.of else {
                varint(u64::from(*number) << 3 | wire_type(&field.of), out);
                write_value(array, &field.of, row, scratch, out)?;
                continue;
            };
            let items = array.as_list::<i32>().value(row);
            if items.null_count() > 0 {
                return Err(format!(
                    "an array of column \"{}\" has a NULL, which Protobuf has no form for",
                    column.name()
                ));
            }
            if wire_type(item) == LENGTH {
                for at in 0..items.len() {
                    varint(u64::from(*number) << 3 | LENGTH, out);
                    write_value(&items, item, at, scratch, out)?;
                }
            } else if !items.is_empty() {
                let mut packed = Vec::new();
                for at in 0..items.len() {
                    write_value(&items, item, at, scratch, &mut packed)?;
                }
                varint(u64::from(*number) << 3 | LENGTH, out);
                write_bytes(&packed, out);
            }
        }
        Ok(())
    }
}

const DECIMAL: &str = "confluent.type.Decimal";
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// Label and type.
fn type_name(of: &DataType) -> (&'static str, &'static str) {
    let name = match of {
        DataType::Boolean => "bool",
        DataType::SmallInt | DataType::Int => "int32",
        DataType::BigInt => "int64",
        DataType::Real => "float",
        DataType::Double => "double",
        DataType::Numeric { .. } => DECIMAL,
        DataType::Text | DataType::Uuid | DataType::Jsonb | DataType::Date => "string",
        DataType::Bytea => "bytes",
        DataType::Timestamp | DataType::TimestampTz => TIMESTAMP,
        DataType::Array(item) => return ("repeated", type_name(item).1),
    };
    ("optional", name)
}

const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const LENGTH: u64 = 2;
const FOUR_BYTES: u64 = 5;

fn wire_type(of: &DataType) -> u64 {
    match of {
        DataType::Boolean | DataType::SmallInt | DataType::Int | DataType::BigInt => VARINT,
        DataType::Real => FOUR_BYTES,
        DataType::Double => EIGHT_BYTES,
        _ => LENGTH,
    }
}

/// A value that is not NULL, without its number.
fn write_value(
    array: &dyn Array,
    of: &DataType,
    row: usize,
    scratch: &mut String,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match of {
        DataType::Boolean => out.push(array.as_boolean().value(row).into()),
        DataType::SmallInt => varint(i64::from(array.as_primitive::<Int16Type>().value(row)) as u64, out),
        DataType::Int => varint(i64::from(array.as_primitive::<Int32Type>().value(row)) as u64, out),
        DataType::BigInt => varint(array.as_primitive::<Int64Type>().value(row) as u64, out),
        DataType::Real => out.extend(array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
        DataType::Double => out.extend(array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
        DataType::Numeric { precision, scale } => {
            let (bytes, first) = shortest(array.as_primitive::<Decimal128Type>().value(row));
            let mut message = vec![1 << 3 | LENGTH as u8];
            write_bytes(&bytes[first..], &mut message);
            message.push(2 << 3);
            varint((*precision).into(), &mut message);
            message.push(3 << 3);
            varint(i64::from(*scale) as u64, &mut message);
            write_bytes(&message, out);
        }
        DataType::Text | DataType::Uuid | DataType::Jsonb => {
            write_bytes(array.as_string_view().value(row).as_bytes(), out);
        }
        DataType::Bytea => write_bytes(array.as_binary_view().value(row), out),
        DataType::Date => {
            scratch.clear();
            json::write_date(array, row, scratch)?;
            write_bytes(scratch.as_bytes(), out);
        }
        DataType::Timestamp | DataType::TimestampTz => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            // Protobuf's times are of these years, too.
            json::time_of(micros)?;
            let mut message = vec![1 << 3];
            varint(micros.div_euclid(1_000_000) as u64, &mut message);
            message.push(2 << 3);
            varint(micros.rem_euclid(1_000_000) as u64 * 1000, &mut message);
            write_bytes(&message, out);
        }
        DataType::Array(_) => return Err("an array in an array".into()),
    }
    Ok(())
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
