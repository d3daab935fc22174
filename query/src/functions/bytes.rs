//! Bytes: as text and back (`convert_to`, `convert_from`, `encode`, `decode`), one of them (`get_byte`), and two values as one (`||`).

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BinaryViewArray, Int32Array, StringViewArray},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility::Immutable},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    pieces::{bytes, check},
    simple::{Call, Returns, Simple, any},
};
use crate::SqlError;

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![
        Simple::udf("convert_to", any(2, Immutable), Returns::Type(DataType::BinaryView), |call| {
            check_encodings(call)?;
            let texts = call.text(0)?;
            Ok(Arc::new(texts.iter().map(|text| text.map(str::as_bytes)).collect::<BinaryViewArray>()))
        }),
        Simple::udf("convert_from", any(2, Immutable), Returns::Type(DataType::Utf8View), |call| {
            check_encodings(call)?;
            let bytes = call.cast(0, &DataType::BinaryView)?;
            let texts = bytes.as_binary_view().iter().map(|bytes| bytes.map(read).transpose());
            let texts: ArrayRef = Arc::new(texts.collect::<Result<StringViewArray, SqlError>>()?);
            Ok(texts)
        }),
        Simple::udf("encode", any(2, Immutable), Returns::Type(DataType::Utf8View), |call| {
            check(call, 0, "encode")?;
            let (values, formats) = (bytes(call, 0)?, call.text(1)?);
            let texts = values.iter().zip(&formats).map(|pair| match pair {
                (Some(value), Some(format)) => encoded(value, format).map(Some),
                _ => Ok(None),
            });
            Ok(Arc::new(texts.collect::<Result<StringViewArray, SqlError>>()?))
        }),
        Simple::udf("decode", any(2, Immutable), Returns::Type(DataType::BinaryView), |call| {
            let (texts, formats) = (call.text(0)?, call.text(1)?);
            let values = texts.iter().zip(&formats).map(|pair| match pair {
                (Some(text), Some(format)) => decoded(text, format).map(Some),
                _ => Ok(None),
            });
            Ok(Arc::new(values.collect::<Result<Vec<_>, SqlError>>()?.into_iter().collect::<BinaryViewArray>()))
        }),
        Simple::udf("get_byte", any(2, Immutable), Returns::Type(DataType::Int32), |call| {
            check(call, 0, "get_byte")?;
            let (values, places) = (bytes(call, 0)?, call.cast(1, &DataType::Int64)?);
            let places = places.as_primitive::<Int64Type>();
            let found = values.iter().zip(places).map(|pair| match pair {
                (Some(value), Some(at)) => match usize::try_from(at).ok().and_then(|at| value.get(at)) {
                    Some(byte) => Ok(Some(i32::from(*byte))),
                    None => {
                        let last = value.len() as i64 - 1;
                        Err(SqlError::new("2202E", format!("index {at} out of valid range, 0..{last}")))
                    }
                },
                _ => Ok(None),
            });
            Ok(Arc::new(found.collect::<Result<Int32Array, SqlError>>()?))
        }),
        concat_udf(),
    ]
}

fn read(bytes: &[u8]) -> Result<String, SqlError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
        let first = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        SqlError::new("22021", format!("invalid byte sequence for encoding \"UTF8\": 0x{first:02x}"))
    })
}

fn check_encodings(call: &Call<'_>) -> Result<(), DataFusionError> {
    for name in call.text(1)?.iter().flatten() {
        if !["utf8", "utf-8", "unicode"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(SqlError::not_supported(format!("encoding \"{name}\"")).with_hint("Use UTF8.").into());
        }
    }
    Ok(())
}

/// `a || b` of bytea.
pub(crate) fn concat_udf() -> Arc<ScalarUDF> {
    Simple::udf("byteacat", any(2, Immutable), Returns::Type(DataType::BinaryView), |call| {
        let (left, right) = (bytes(call, 0)?, bytes(call, 1)?);
        let both = left.iter().zip(&right).map(|(left, right)| Some([left?, right?].concat()));
        Ok(Arc::new(both.collect::<BinaryViewArray>()))
    })
}

/// Characters of a line of base64, as in MIME.
const BASE64_LINE: usize = 76;

fn unknown(format: &str) -> SqlError {
    SqlError::new("22023", format!("unrecognized encoding: \"{format}\"")).with_hint("It is hex, base64 or escape.")
}

fn encoded(value: &[u8], format: &str) -> Result<String, SqlError> {
    match format.to_ascii_lowercase().as_str() {
        "hex" => Ok(value.iter().map(|byte| format!("{byte:02x}")).collect()),
        "base64" => {
            let mut lines = STANDARD.encode(value);
            let breaks = lines.len().saturating_sub(1) / BASE64_LINE;
            for line in (1..=breaks).rev() {
                lines.insert(line * BASE64_LINE, '\n');
            }
            Ok(lines)
        }
        "escape" => Ok(value
            .iter()
            .map(|byte| match byte {
                b'\\' => "\\\\".to_owned(),
                0 | 0x80.. => format!("\\{byte:03o}"),
                byte => char::from(*byte).to_string(),
            })
            .collect()),
        _ => Err(unknown(format)),
    }
}

fn decoded(text: &str, format: &str) -> Result<Vec<u8>, SqlError> {
    let wrong = |message: &str| SqlError::new("22023", message.to_owned());
    match format.to_ascii_lowercase().as_str() {
        "hex" => {
            let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
            if let Some(bad) = digits.iter().find(|digit| !digit.is_ascii_hexdigit()) {
                return Err(wrong(&format!("invalid hexadecimal digit: \"{}\"", char::from(*bad))));
            }
            if digits.len() % 2 == 1 {
                return Err(wrong("invalid hexadecimal data: odd number of digits"));
            }
            let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
            Ok(digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect())
        }
        "base64" => {
            let letters: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
            STANDARD.decode(letters).map_err(|error| wrong(&format!("invalid base64 data: {error}")))
        }
        "escape" => {
            let mut value = Vec::with_capacity(text.len());
            let mut rest = text.as_bytes();
            while let [first, others @ ..] = rest {
                let (byte, taken) = match (*first, others) {
                    (b'\\', [b'\\', ..]) => (b'\\', 2),
                    (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                        ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), 4)
                    }
                    (b'\\', _) => return Err(SqlError::new("22P02", "invalid input syntax for type bytea")),
                    (byte, _) => (byte, 1),
                };
                value.push(byte);
                rest = &rest[taken..];
            }
            Ok(value)
        }
        _ => Err(unknown(format)),
    }
}
