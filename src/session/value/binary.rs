//! Reading single values from PostgreSQL's binary form. Every length is checked: the bytes come from a socket. 22P03 for bytes that are no
//! value of the type.

use arrow::datatypes::i256;

use super::{
    Scalar,
    calendar::{EPOCH_2000_DAYS, EPOCH_2000_US},
    parse::Decimal,
};
use crate::session::error::{Result, SqlError, state};

/// `incorrect binary data format for type int4`
pub fn invalid(type_name: &str) -> SqlError {
    SqlError::new(state::INVALID_BINARY_REPRESENTATION, format!("incorrect binary data format for type {type_name}"))
}

fn exact<const N: usize>(bytes: &[u8], type_name: &str) -> Result<[u8; N]> {
    bytes
        .try_into()
        .map_err(|_| invalid(type_name).with_detail(format!("{N} bytes are expected, {} were given", bytes.len())))
}

/// Of any of the integer types, by the length it comes in.
pub fn integer(bytes: &[u8], type_name: &str) -> Result<i64> {
    match bytes.len() {
        2 => Ok(i16::from_be_bytes(exact(bytes, type_name)?).into()),
        4 => Ok(i32::from_be_bytes(exact(bytes, type_name)?).into()),
        _ => Ok(i64::from_be_bytes(exact(bytes, type_name)?)),
    }
}

pub fn int2(bytes: &[u8]) -> Result<i16> {
    Ok(i16::from_be_bytes(exact(bytes, "int2")?))
}

pub fn int4(bytes: &[u8]) -> Result<i32> {
    Ok(i32::from_be_bytes(exact(bytes, "int4")?))
}

pub fn int8(bytes: &[u8]) -> Result<i64> {
    Ok(i64::from_be_bytes(exact(bytes, "int8")?))
}

pub fn oid(bytes: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(exact(bytes, "oid")?))
}

pub fn boolean(bytes: &[u8]) -> Result<bool> {
    let [byte] = exact(bytes, "bool")?;
    Ok(byte != 0)
}

pub fn float4(bytes: &[u8]) -> Result<f32> {
    Ok(f32::from_be_bytes(exact(bytes, "float4")?))
}

pub fn float8(bytes: &[u8]) -> Result<f64> {
    Ok(f64::from_be_bytes(exact(bytes, "float8")?))
}

/// Days since 1970.
pub fn date(bytes: &[u8]) -> Result<i32> {
    match i32::from_be_bytes(exact(bytes, "date")?) {
        infinite @ (i32::MAX | i32::MIN) => Ok(infinite),
        days => i32::try_from(i64::from(days) + EPOCH_2000_DAYS)
            .map_err(|_| SqlError::new(state::DATETIME_FIELD_OVERFLOW, "date out of range")),
    }
}

/// Microseconds since midnight.
pub fn time(bytes: &[u8]) -> Result<i64> {
    let us = i64::from_be_bytes(exact(bytes, "time")?);
    if (0..=super::calendar::DAY_US).contains(&us) {
        Ok(us)
    } else {
        Err(SqlError::new(state::DATETIME_FIELD_OVERFLOW, "time out of range"))
    }
}

/// Microseconds since 1970.
pub fn timestamp(bytes: &[u8]) -> Result<i64> {
    match i64::from_be_bytes(exact(bytes, "timestamp")?) {
        infinite @ (i64::MAX | i64::MIN) => Ok(infinite),
        us => us
            .checked_add(EPOCH_2000_US)
            .ok_or_else(|| SqlError::new(state::DATETIME_FIELD_OVERFLOW, "timestamp out of range")),
    }
}

/// Months, days, microseconds.
pub fn interval(bytes: &[u8]) -> Result<(i32, i32, i64)> {
    let bytes: [u8; 16] = exact(bytes, "interval")?;
    Ok((int4(&bytes[12..])?, int4(&bytes[8..12])?, int8(&bytes[..8])?))
}

pub fn uuid(bytes: &[u8]) -> Result<String> {
    Ok(uuid::Uuid::from_bytes(exact(bytes, "uuid")?).to_string())
}

pub fn text<'a>(bytes: &'a [u8], type_name: &str) -> Result<&'a str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        Ok(_) => Err(SqlError::new(
            state::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": 0x00 in a value of type {type_name}"),
        )),
        Err(error) => {
            let at = error.valid_up_to();
            let end = (at + error.error_len().unwrap_or(1)).min(bytes.len());
            let shown: Vec<String> = bytes[at..end].iter().map(|byte| format!("0x{byte:02x}")).collect();
            Err(SqlError::new(
                state::CHARACTER_NOT_IN_REPERTOIRE,
                format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
            ))
        }
    }
}

/// The text of a jsonb value, which comes after a version byte.
pub fn jsonb(bytes: &[u8]) -> Result<&str> {
    match bytes.split_first() {
        Some((1, json)) => text(json, "jsonb"),
        _ => Err(invalid("jsonb").with_detail("only version 1 is understood")),
    }
}

/// Digits to the base of 10000.
pub fn numeric(bytes: &[u8]) -> Result<Decimal> {
    let wrong = || invalid("numeric");
    if bytes.len() < 8 {
        return Err(wrong());
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let count = usize::from(word(0));
    let weight = i32::from(word(2) as i16);
    let sign = word(4);
    let scale = word(6);
    if bytes.len() != 8 + 2 * count {
        return Err(wrong());
    }
    let negative = match sign {
        0 => false,
        0x4000 => true,
        0xC000 | 0xD000 | 0xF000 => {
            return Err(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "numeric cannot hold NaN or infinity here")
                .with_hint("use DOUBLE PRECISION for values that may be NaN or infinite"));
        }
        _ => return Err(wrong()),
    };
    let too_large =
        || SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "a numeric has more digits than can be held here (76)");
    let ten = i256::from_i128(10);
    let mut value = i256::ZERO;
    for index in 0..count {
        let digit = word(8 + 2 * index);
        if digit > 9999 {
            return Err(wrong());
        }
        value = value
            .checked_mul(i256::from_i128(10_000))
            .and_then(|value| value.checked_add(i256::from_i128(digit.into())))
            .ok_or_else(too_large)?;
    }
    // The last digit stands for 10000 to the power of this.
    let exponent = (i64::from(weight) - count as i64 + 1) * 4 + i64::from(scale);
    if value != i256::ZERO {
        let power = |exponent: i64| u32::try_from(exponent).ok().and_then(|exponent| ten.checked_pow(exponent));
        value = if exponent >= 0 {
            power(exponent).and_then(|factor| value.checked_mul(factor)).ok_or_else(too_large)?
        } else {
            power(-exponent).and_then(|factor| value.checked_div(factor)).ok_or_else(wrong)?
        };
    }
    let scale = u8::try_from(scale).ok().filter(|scale| *scale <= 76).ok_or_else(too_large)?;
    Ok(Decimal { value: if negative { value.wrapping_neg() } else { value }, scale })
}

/// The elements of an array of one dimension (or none): each in binary, or NULL. The element type is returned as the bytes say it.
pub fn array(bytes: &[u8]) -> Result<(u32, Vec<Option<&[u8]>>)> {
    let wrong = || invalid("array");
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| -> Result<i32> {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
        *rest = tail;
        Ok(i32::from_be_bytes(*head))
    };
    let dimensions = word(&mut rest)?;
    let _has_nulls = word(&mut rest)?;
    let element = word(&mut rest)? as u32;
    if dimensions == 0 {
        return if rest.is_empty() { Ok((element, Vec::new())) } else { Err(wrong()) };
    }
    if dimensions != 1 {
        return Err(if (2..=6).contains(&dimensions) {
            SqlError::unsupported("arrays of more than one dimension are not supported here")
        } else {
            wrong()
        });
    }
    let count = usize::try_from(word(&mut rest)?).map_err(|_| wrong())?;
    let _lower_bound = word(&mut rest)?;
    // Each element takes four bytes at least, so a count beyond that is a lie and allocates nothing.
    if count > rest.len() / 4 {
        return Err(wrong());
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        match word(&mut rest)? {
            -1 => elements.push(None),
            length => {
                let length = usize::try_from(length).map_err(|_| wrong())?;
                let (element, tail) = rest.split_at_checked(length).ok_or_else(wrong)?;
                rest = tail;
                elements.push(Some(element));
            }
        }
    }
    if rest.is_empty() { Ok((element, elements)) } else { Err(wrong()) }
}

/// Whether a binary element of type `given` can be read as `wanted`: the same type, or text in place of text.
pub fn element_fits(given: u32, wanted: Scalar) -> bool {
    let textual = |oid: u32| {
        [Scalar::Text, Scalar::Varchar, Scalar::Bpchar, Scalar::Name, Scalar::Unknown].iter().any(|s| s.oid() == oid)
    };
    given == wanted.oid() || (textual(given) && textual(wanted.oid())) || given == 0
}
