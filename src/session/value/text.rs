//! The text form of single values, as PostgreSQL prints them with DateStyle ISO, IntervalStyle postgres and bytea_output hex.

use std::fmt::Write;

use arrow::datatypes::i256;
use bytes::{BufMut, BytesMut};

use super::calendar::{DAY_US, Zone, civil};

pub fn boolean(value: bool, out: &mut BytesMut) {
    out.put_u8(if value { b't' } else { b'f' });
}

pub fn integer(value: i64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.put_slice(&digits[at..]);
}

/// The shortest digits that read back as the same value; scientific from 1e15 up and below 1e-4, as PostgreSQL's.
pub fn float8(value: f64, out: &mut BytesMut) {
    float(value.is_nan(), value.is_infinite(), value.is_sign_negative(), &format!("{value:e}"), 15, out);
}

pub fn float4(value: f32, out: &mut BytesMut) {
    float(value.is_nan(), value.is_infinite(), value.is_sign_negative(), &format!("{value:e}"), 6, out);
}

fn float(nan: bool, infinite: bool, negative: bool, scientific: &str, fixed_below: i32, out: &mut BytesMut) {
    if nan {
        return out.put_slice(b"NaN");
    }
    if infinite {
        return out.put_slice(if negative { b"-Infinity" } else { b"Infinity" });
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    if negative {
        out.put_u8(b'-');
    }
    if !(-4..fixed_below).contains(&exponent) {
        out.put_slice(mantissa.as_bytes());
        out.put_slice(if exponent < 0 { b"e-" } else { b"e+" });
        padded(u64::from(exponent.unsigned_abs()), 2, out);
        return;
    }
    let digits = mantissa.bytes().filter(|byte| *byte != b'.');
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        digits.for_each(|digit| out.put_u8(digit));
        return;
    }
    let mut before_point = exponent + 1;
    for digit in digits {
        if before_point == 0 {
            out.put_u8(b'.');
        }
        before_point -= 1;
        out.put_u8(digit);
    }
    if before_point > 0 {
        out.put_bytes(b'0', before_point as usize);
    }
}

pub fn decimal128(value: i128, scale: i8, out: &mut BytesMut) {
    decimal(value < 0, value.unsigned_abs().to_string().as_bytes(), scale, out);
}

pub fn decimal256(value: i256, scale: i8, out: &mut BytesMut) {
    let text = value.to_string();
    let digits = text.strip_prefix('-');
    decimal(digits.is_some(), digits.unwrap_or(&text).as_bytes(), scale, out);
}

fn decimal(negative: bool, digits: &[u8], scale: i8, out: &mut BytesMut) {
    if negative {
        out.put_u8(b'-');
    }
    if scale <= 0 {
        out.put_slice(digits);
        if digits != b"0" {
            out.put_bytes(b'0', scale.unsigned_abs() as usize);
        }
        return;
    }
    let scale = scale as usize;
    if digits.len() > scale {
        out.put_slice(&digits[..digits.len() - scale]);
        out.put_u8(b'.');
        out.put_slice(&digits[digits.len() - scale..]);
    } else {
        out.put_slice(b"0.");
        out.put_bytes(b'0', scale - digits.len());
        out.put_slice(digits);
    }
}

/// `\x` and two digits a byte.
pub fn bytea(value: &[u8], out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.put_slice(b"\\x");
    out.reserve(value.len() * 2);
    for byte in value {
        out.put_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Days since 1970; the ends of the range are infinities.
pub fn date(days: i32, out: &mut BytesMut) {
    match days {
        i32::MAX => out.put_slice(b"infinity"),
        i32::MIN => out.put_slice(b"-infinity"),
        days => {
            let (year, month, day) = civil(i64::from(days));
            calendar_day(year, month, day, out);
            era(year, out);
        }
    }
}

/// Microseconds since midnight.
pub fn time(us: i64, out: &mut BytesMut) {
    padded((us / 3_600_000_000) as u64, 2, out);
    out.put_u8(b':');
    padded((us / 60_000_000 % 60) as u64, 2, out);
    out.put_u8(b':');
    padded((us / 1_000_000 % 60) as u64, 2, out);
    fraction(us % 1_000_000, out);
}

/// Microseconds since 1970; the ends of the range are infinities.
pub fn timestamp(us: i64, out: &mut BytesMut) {
    match us {
        i64::MAX => out.put_slice(b"infinity"),
        i64::MIN => out.put_slice(b"-infinity"),
        us => {
            let year = moment(us, out);
            era(year, out);
        }
    }
}

/// As the clocks of `zone` show it, with the offset.
pub fn timestamptz(us: i64, zone: Zone, out: &mut BytesMut) {
    let offset = match us {
        i64::MAX | i64::MIN => return timestamp(us, out),
        us => zone.offset_at(us),
    };
    let year = moment(us.saturating_add(i64::from(offset) * 1_000_000), out);
    out.put_u8(if offset < 0 { b'-' } else { b'+' });
    let offset = u64::from(offset.unsigned_abs());
    padded(offset / 3600, 2, out);
    if offset % 3600 != 0 {
        out.put_u8(b':');
        padded(offset / 60 % 60, 2, out);
    }
    if offset % 60 != 0 {
        out.put_u8(b':');
        padded(offset % 60, 2, out);
    }
    era(year, out);
}

/// `1 year 2 mons -3 days +04:05:06.7`
pub fn interval(months: i32, days: i32, us: i64, out: &mut BytesMut) {
    let mut empty = true;
    let mut negative_before = false;
    let mut unit = |count: i64, name: &str, out: &mut BytesMut| {
        if count == 0 {
            return;
        }
        if !empty {
            out.put_u8(b' ');
        }
        if negative_before && count > 0 {
            out.put_u8(b'+');
        }
        integer(count, out);
        out.put_u8(b' ');
        out.put_slice(name.as_bytes());
        if count != 1 {
            out.put_u8(b's');
        }
        empty = false;
        negative_before = count < 0;
    };
    unit(i64::from(months / 12), "year", out);
    unit(i64::from(months % 12), "mon", out);
    unit(i64::from(days), "day", out);
    if us != 0 || empty {
        if !empty {
            out.put_u8(b' ');
        }
        if us < 0 {
            out.put_u8(b'-');
        } else if negative_before {
            out.put_u8(b'+');
        }
        let us = us.unsigned_abs();
        padded(us / 3_600_000_000, 2, out);
        out.put_u8(b':');
        padded(us / 60_000_000 % 60, 2, out);
        out.put_u8(b':');
        padded(us / 1_000_000 % 60, 2, out);
        fraction((us % 1_000_000) as i64, out);
    }
}

/// Whether an array element or a record field must be quoted.
pub fn needs_quotes(value: &[u8], record: bool) -> bool {
    let special = |byte: &u8| match byte {
        b'"' | b'\\' | b',' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => true,
        b'(' | b')' => record,
        b'{' | b'}' => !record,
        _ => false,
    };
    value.is_empty() || value.iter().any(special) || (!record && value.eq_ignore_ascii_case(b"null"))
}

/// Quotes an array element (backslash escapes) or a record field (doubled quotes and backslashes).
pub fn quoted(value: &[u8], record: bool, out: &mut BytesMut) {
    out.put_u8(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.put_u8(if record { *byte } else { b'\\' });
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'"');
}

fn moment(us: i64, out: &mut BytesMut) -> i64 {
    let (year, month, day) = civil(us.div_euclid(DAY_US));
    calendar_day(year, month, day, out);
    out.put_u8(b' ');
    time(us.rem_euclid(DAY_US), out);
    year
}

fn calendar_day(year: i64, month: u32, day: u32, out: &mut BytesMut) {
    let shown = if year > 0 { year } else { 1 - year };
    padded(shown.unsigned_abs(), 4, out);
    out.put_u8(b'-');
    padded(u64::from(month), 2, out);
    out.put_u8(b'-');
    padded(u64::from(day), 2, out);
}

fn era(year: i64, out: &mut BytesMut) {
    if year <= 0 {
        out.put_slice(b" BC");
    }
}

fn fraction(us: i64, out: &mut BytesMut) {
    if us == 0 {
        return;
    }
    let mut digits = 6;
    let mut us = us;
    while us % 10 == 0 {
        us /= 10;
        digits -= 1;
    }
    out.put_u8(b'.');
    padded(us as u64, digits, out);
}

fn padded(value: u64, width: usize, out: &mut BytesMut) {
    if width == 2 && value < 100 {
        return out.put_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
    }
    // Writing into a BytesMut grows it and does not fail.
    let _ = write!(out, "{value:0width$}");
}
