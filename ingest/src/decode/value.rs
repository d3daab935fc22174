//! One value as a format brings it, and its text.
//!
//! Formats without types bring digits and texts; Avro and Protobuf bring numbers, bytes and moments. Whatever a value becomes, it keeps its
//! meaning exactly or is refused.

use std::fmt::Write as _;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, NaiveTime, SecondsFormat};

use super::{
    json::jsonb,
    number::{Decimal, Misfit},
    time::{MICROS_MAX, MICROS_MIN},
};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// Zeros that a decimal's scale may write out: a message of few bytes must not become a text of many.
const SCALE_MAX: u32 = 400;
const NANOS_PER_DAY: i128 = 86_400 * NANOS_PER_SECOND;

/// One value as a format brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    /// The digits of a JSON number.
    Number(&'a str),
    /// A JSON string, decoded; free of NUL.
    String(&'a str),
    /// The JSON text of an object or array, known to be valid.
    Json(&'a str),
    /// Text of a format without types; may hold NUL.
    Text(&'a str),
    Integer(i64),
    Unsigned(u64),
    Float(f32),
    Double(f64),
    Decimal(Unscaled<'a>),
    Bytes(&'a [u8]),
    Uuid([u8; 16]),
    Moment(Moment),
    /// A word of an enumeration and the number behind it.
    Symbol {
        name: &'a str,
        number: i32,
    },
}

/// A decimal number: an integer in two's complement, the first byte the highest, over ten to the power of `scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unscaled<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) scale: u32,
}

/// A date, a time of day or an instant, in the unit that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Days since 1970-01-01.
    Date(i32),
    /// Since midnight.
    Time { count: i64, unit: Unit },
    /// Since 1970-01-01T00:00:00, of UTC or of no zone.
    Timestamp { count: i64, unit: Unit, is_utc: bool },
    /// Seconds since 1970-01-01T00:00:00Z and nanoseconds of the second.
    Instant { seconds: i64, nanos: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    fn nanos(self) -> i128 {
        match self {
            Self::Millis => 1_000_000,
            Self::Micros => 1000,
            Self::Nanos => 1,
        }
    }
}

impl Unscaled<'_> {
    /// The integer; `Range` beyond 128 bits.
    pub(super) fn integer(self) -> Result<i128, Misfit> {
        let first = *self.bytes.first().ok_or(Misfit::Syntax)?;
        let sign = if first & 0x80 != 0 { 0xff } else { 0 };
        let excess = self.bytes.len().saturating_sub(16);
        let (extension, digits) = self.bytes.split_at(excess);
        let is_extended = digits.first().is_some_and(|digit| (digit ^ sign) & 0x80 == 0);
        if extension.iter().any(|byte| *byte != sign) || !is_extended {
            return Err(Misfit::Range);
        }
        let mut wide = [sign; 16];
        wide[16 - digits.len()..].copy_from_slice(digits);
        Ok(i128::from_be_bytes(wide))
    }

    /// The number × 10^`scale`, when that is an integer.
    pub(super) fn scaled(self, scale: u32) -> Result<i128, Misfit> {
        let integer = self.integer()?;
        if integer == 0 {
            return Ok(0);
        }
        if scale >= self.scale {
            let factor = 10i128.checked_pow(scale - self.scale).ok_or(Misfit::Range)?;
            return integer.checked_mul(factor).ok_or(Misfit::Range);
        }
        // A divisor beyond 128 bits is larger than any integer here.
        let divisor = 10i128.checked_pow(self.scale - scale).ok_or(Misfit::Fraction)?;
        if integer % divisor == 0 { Ok(integer / divisor) } else { Err(Misfit::Fraction) }
    }

    fn write(self, out: &mut String) -> Result<(), Misfit> {
        let integer = self.integer()?;
        if self.scale > SCALE_MAX {
            return Err(Misfit::Range);
        }
        let text = format!("{integer}e-{}", self.scale);
        Decimal::parse(&text).ok_or(Misfit::Syntax)?.write_plain(out)
    }
}

impl Moment {
    /// Days since 1970-01-01. An instant is no date: its time would be lost.
    pub(super) fn days(self) -> Result<i32, Misfit> {
        let Self::Date(days) = self else { return Err(Misfit::Kind) };
        self.nanos().map(|_| days)
    }

    /// Microseconds since 1970-01-01T00:00:00, halves to the even one; a date is its midnight.
    pub(super) fn micros(self) -> Result<i64, Misfit> {
        if let Self::Time { .. } = self {
            return Err(Misfit::Kind);
        }
        let nanos = self.nanos()?;
        let (whole, rest) = (nanos.div_euclid(1000), nanos.rem_euclid(1000));
        let up = rest > 500 || (rest == 500 && whole % 2 != 0);
        i64::try_from(whole + i128::from(up))
            .ok()
            .filter(|micros| (MICROS_MIN..=MICROS_MAX).contains(micros))
            .ok_or(Misfit::Range)
    }

    /// The number as it came; an instant of seconds and nanoseconds is none.
    pub(super) fn count(self) -> Result<i64, Misfit> {
        match self {
            Self::Date(days) => Ok(days.into()),
            Self::Time { count, .. } | Self::Timestamp { count, .. } => Ok(count),
            Self::Instant { .. } => Err(Misfit::Kind),
        }
    }

    /// Nanoseconds since 1970 or since midnight, when the moment is one: years 1 to 9999, times within a day.
    fn nanos(self) -> Result<i128, Misfit> {
        let nanos = match self {
            Self::Date(days) => i128::from(days) * NANOS_PER_DAY,
            Self::Time { count, unit } => {
                let nanos = i128::from(count) * unit.nanos();
                return if (0..NANOS_PER_DAY).contains(&nanos) { Ok(nanos) } else { Err(Misfit::Range) };
            }
            Self::Timestamp { count, unit, .. } => i128::from(count) * unit.nanos(),
            Self::Instant { seconds, nanos } if (0..1_000_000_000).contains(&nanos) => {
                i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos)
            }
            Self::Instant { .. } => return Err(Misfit::Range),
        };
        let (least, most) = (i128::from(MICROS_MIN) * 1000, i128::from(MICROS_MAX) * 1000 + 999);
        if (least..=most).contains(&nanos) { Ok(nanos) } else { Err(Misfit::Range) }
    }

    /// ISO 8601, with the digits of the second that there are.
    fn write(self, out: &mut String) -> Result<(), Misfit> {
        let nanos = self.nanos()?;
        let (seconds, fraction) =
            (nanos.div_euclid(NANOS_PER_SECOND) as i64, nanos.rem_euclid(NANOS_PER_SECOND) as u32);
        let _ = match self {
            Self::Time { .. } => {
                let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds as u32, fraction);
                write!(out, "{}", time.ok_or(Misfit::Range)?.format("%H:%M:%S%.f"))
            }
            _ => {
                let instant = DateTime::from_timestamp(seconds, fraction).ok_or(Misfit::Range)?;
                match self {
                    Self::Date(_) => write!(out, "{}", instant.format("%Y-%m-%d")),
                    Self::Timestamp { is_utc: false, .. } => write!(out, "{}", instant.format("%Y-%m-%dT%H:%M:%S%.f")),
                    _ => write!(out, "{}", instant.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
                }
            }
        };
        Ok(())
    }
}

impl<'a> Value<'a> {
    /// Bytes that say they are a string.
    pub(super) fn utf8(bytes: &'a [u8]) -> Result<Self, Misfit> {
        std::str::from_utf8(bytes).map_err(|_| Misfit::Utf8).and_then(without_nul).map(Value::String)
    }

    /// The value as a JSON text, numbers without an exponent.
    pub(super) fn write_json(self, out: &mut String) -> Result<(), Misfit> {
        match self {
            Value::Null => out.push_str("null"),
            Value::Boolean(value) => out.push_str(if value { "true" } else { "false" }),
            Value::Number(text) => Decimal::parse(text).ok_or(Misfit::Syntax)?.write_plain(out)?,
            Value::Json(text) => out.push_str(text),
            Value::String(text) => jsonb::write_string(text, out),
            Value::Text(text) => jsonb::write_string(without_nul(text)?, out),
            Value::Integer(_) | Value::Unsigned(_) | Value::Decimal(_) => self.write_text(out)?,
            Value::Float(value) if value.is_finite() => float_digits(&value.to_string(), value == 0.0, out)?,
            Value::Double(value) if value.is_finite() => float_digits(&format!("{value:e}"), value == 0.0, out)?,
            Value::Bytes(bytes) => {
                out.push('"');
                STANDARD.encode_string(bytes, out);
                out.push('"');
            }
            Value::Symbol { name, .. } => jsonb::write_string(name, out),
            // Words of JSON have no infinities; nothing here needs an escape.
            Value::Float(_) | Value::Double(_) | Value::Uuid(_) | Value::Moment(_) => {
                out.push('"');
                self.write_text(out)?;
                out.push('"');
            }
        }
        Ok(())
    }

    /// The value as plain text. `Kind` for bytes, which are none.
    pub(super) fn write_text(self, out: &mut String) -> Result<(), Misfit> {
        let written = match self {
            Value::Null => Ok(()),
            Value::Boolean(value) => write!(out, "{value}"),
            Value::Number(text) | Value::String(text) | Value::Json(text) => out.write_str(text),
            Value::Text(text) => out.write_str(without_nul(text)?),
            Value::Integer(value) => write!(out, "{value}"),
            Value::Unsigned(value) => write!(out, "{value}"),
            Value::Float(value) => write_float(value.into(), &value, &value, out),
            Value::Double(value) => write_float(value, &value, &value, out),
            Value::Decimal(decimal) => return decimal.write(out),
            Value::Bytes(_) => return Err(Misfit::Kind),
            Value::Uuid(bytes) => write!(out, "{}", uuid::Uuid::from_bytes(bytes).hyphenated()),
            Value::Moment(moment) => return moment.write(out),
            Value::Symbol { name, .. } => out.write_str(name),
        };
        written.map_err(|_| Misfit::Size)
    }
}

/// The fewest digits that read back as the same number, with an exponent where the number is very large or small.
fn write_float(
    value: f64,
    plain: &dyn std::fmt::Display,
    exponential: &dyn std::fmt::LowerExp,
    out: &mut String,
) -> std::fmt::Result {
    match value {
        _ if value.is_nan() => out.write_str("NaN"),
        f64::INFINITY => out.write_str("Infinity"),
        f64::NEG_INFINITY => out.write_str("-Infinity"),
        _ if value == 0.0 || (1e-5..1e15).contains(&value.abs()) => write!(out, "{plain}"),
        _ => write!(out, "{exponential:e}"),
    }
}

fn float_digits(text: &str, is_zero: bool, out: &mut String) -> Result<(), Misfit> {
    if is_zero {
        out.push('0');
        return Ok(());
    }
    Decimal::parse(text).ok_or(Misfit::Syntax)?.write_plain(out)
}

pub(super) fn without_nul(text: &str) -> Result<&str, Misfit> {
    if text.as_bytes().contains(&0) { Err(Misfit::Nul) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: Value<'_>) -> Result<String, Misfit> {
        let mut out = String::new();
        value.write_text(&mut out).map(|()| out)
    }

    fn json(value: Value<'_>) -> Result<String, Misfit> {
        let mut out = String::new();
        value.write_json(&mut out).map(|()| out)
    }

    #[test]
    fn moments_are_iso_texts() {
        let stamp = |count, unit, is_utc| text(Value::Moment(Moment::Timestamp { count, unit, is_utc }));
        assert_eq!(stamp(1_709_208_000_001, Unit::Millis, true).as_deref(), Ok("2024-02-29T12:00:00.001Z"));
        assert_eq!(stamp(1_709_208_000_000_000, Unit::Micros, false).as_deref(), Ok("2024-02-29T12:00:00"));
        assert_eq!(stamp(-1, Unit::Nanos, true).as_deref(), Ok("1969-12-31T23:59:59.999999999Z"));
        assert_eq!(stamp(i64::MAX, Unit::Millis, true), Err(Misfit::Range));
        assert_eq!(text(Value::Moment(Moment::Date(19782))).as_deref(), Ok("2024-02-29"));
        assert_eq!(text(Value::Moment(Moment::Date(i32::MAX))), Err(Misfit::Range));
        let time = |count, unit| json(Value::Moment(Moment::Time { count, unit }));
        assert_eq!(time(45_296_500, Unit::Millis).as_deref(), Ok("\"12:34:56.500\""));
        assert_eq!(time(0, Unit::Micros).as_deref(), Ok("\"00:00:00\""));
        assert_eq!(time(86_400_000, Unit::Millis), Err(Misfit::Range));
        assert_eq!(time(-1, Unit::Millis), Err(Misfit::Range));
    }

    #[test]
    fn moments_round_to_the_even_microsecond() {
        let micros = |count| Moment::Timestamp { count, unit: Unit::Nanos, is_utc: true }.micros();
        assert_eq!([500, 501, 1500, 2500, -500, -501, -1500].map(micros), [0, 1, 2, 2, 0, -1, -2].map(Ok));
        assert_eq!(Moment::Instant { seconds: -1, nanos: 1_000_000_000 }.micros(), Err(Misfit::Range));
        assert_eq!(Moment::Instant { seconds: 253_402_300_799, nanos: 999_999_999 }.micros(), Err(Misfit::Range));
        assert_eq!(Moment::Instant { seconds: 253_402_300_799, nanos: 999_999_000 }.micros(), Ok(MICROS_MAX));
        assert_eq!(Moment::Instant { seconds: i64::MAX, nanos: 0 }.micros(), Err(Misfit::Range));
        assert_eq!(Moment::Date(i32::MIN).micros(), Err(Misfit::Range));
    }

    #[test]
    fn floats_are_their_shortest_digits() {
        assert_eq!(text(Value::Double(0.1)).as_deref(), Ok("0.1"));
        assert_eq!(text(Value::Float(0.1)).as_deref(), Ok("0.1"));
        assert_eq!(text(Value::Double(1e300)).as_deref(), Ok("1e300"));
        assert_eq!(text(Value::Double(f64::NAN)).as_deref(), Ok("NaN"));
        assert_eq!(json(Value::Float(f32::NEG_INFINITY)).as_deref(), Ok("\"-Infinity\""));
        assert_eq!(json(Value::Double(1.5e-7)).as_deref(), Ok("0.00000015"));
        assert_eq!(json(Value::Double(1e21)).as_deref(), Ok("1000000000000000000000"));
        assert_eq!(json(Value::Double(-0.0)).as_deref(), Ok("0"));
        assert!(json(Value::Double(f64::MIN_POSITIVE)).is_ok() && json(Value::Double(f64::MAX)).is_ok());
    }

    #[test]
    fn decimals_are_exact() {
        let decimal = |bytes, scale| text(Value::Decimal(Unscaled { bytes, scale }));
        assert_eq!(decimal(&[0x04, 0xd2], 2).as_deref(), Ok("12.34"));
        assert_eq!(decimal(&[0xff], 3).as_deref(), Ok("-0.001"));
        assert_eq!(decimal(&[0xff; 40], 0).as_deref(), Ok("-1"));
        assert_eq!(decimal(&[0; 40], 5).as_deref(), Ok("0.00000"));
        assert_eq!(decimal(&[], 0), Err(Misfit::Syntax));
        assert_eq!(decimal(&[1; 17], 0), Err(Misfit::Range));
        let wide = [&[0u8][..], &[0xff; 16]].concat();
        assert_eq!(decimal(&wide, 0), Err(Misfit::Range), "its sign is in the byte that would be cut off");
        let number = Unscaled { bytes: &[0x04, 0xd2], scale: 2 };
        assert_eq!([2, 3, 1].map(|scale| number.scaled(scale)), [Ok(1234), Ok(12340), Err(Misfit::Fraction)]);
        assert_eq!(Unscaled { bytes: &[5], scale: 1_000_000 }.scaled(2), Err(Misfit::Fraction));
        assert_eq!(Unscaled { bytes: &[0], scale: 1_000_000 }.scaled(2), Ok(0));
    }

    proptest! {
        #[test]
        fn every_integer_comes_back_from_its_bytes(value: i128, extension in 0usize..9) {
            let sign = if value < 0 { 0xff } else { 0 };
            let bytes = [vec![sign; extension], value.to_be_bytes().to_vec()].concat();
            prop_assert_eq!(Unscaled { bytes: &bytes, scale: 0 }.integer(), Ok(value));
        }

        #[test]
        fn floats_read_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(text(Value::Double(value)).unwrap().parse::<f64>().unwrap().to_bits(), bits);
            let narrow = value as f32;
            prop_assert_eq!(text(Value::Float(narrow)).unwrap().parse::<f32>().unwrap().to_bits(), narrow.to_bits());
            if let Ok(json) = json(Value::Double(value)) {
                prop_assert_eq!(json.parse::<f64>().unwrap(), value);
            }
        }
    }
}
