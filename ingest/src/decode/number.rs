//! Exact decimal numbers, from their digits and never through a float.

use std::fmt;

use tidemill_storage::digits::Digits;

/// Exponents beyond this are all the same to every type.
const EXPONENT_MAX: i64 = i32::MAX as i64;

/// Why a value does not fit a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Another kind of value than the type takes.
    Kind,
    /// Text that does not read as the type.
    Syntax,
    /// Beyond the type's smallest or largest value.
    Range,
    /// Digits after the point that the type cannot hold.
    Fraction,
    /// A number between two that the type holds.
    Inexact,
    /// Bytes that should be text.
    Utf8,
    /// A NUL character, which TEXT cannot hold (as in Postgres).
    Nul,
    /// Half of a surrogate pair, which is no character.
    Surrogate,
    /// Larger than a value may be.
    Size,
    /// An array inside an array.
    Nested,
    /// A decimal that is a string, and nothing tells whether of digits or of bytes.
    Unspecified,
    /// What a change stream has in the place of a value that the database did not send.
    Unavailable,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "is of another type",
            Self::Syntax => "does not read as a value of this type",
            Self::Range => "is out of range",
            Self::Fraction => "has digits after the decimal point that would be lost",
            Self::Inexact => "would be rounded",
            Self::Utf8 => "is not valid UTF-8",
            Self::Nul => "holds a NUL character (\\u0000), which text cannot hold",
            Self::Surrogate => "holds half of a surrogate pair, which is no character",
            Self::Size => "is too large",
            Self::Nested => "holds an array inside an array",
            Self::Unspecified => "is a decimal in a string, which needs a schema or the option 'decimal.handling.mode'",
            Self::Unavailable => {
                "stands for a value that the database did not send (REPLICA IDENTITY FULL has it sent)"
            }
        })
    }
}

/// A number as its digits: `integer.fraction × 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    /// Reads what Postgres' numeric input reads: a sign, digits with or without a point, an exponent. No blanks, no NaN.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, rest) = match bytes.first()? {
            b'-' => (true, &bytes[1..]),
            b'+' => (false, &bytes[1..]),
            _ => (false, bytes),
        };
        let (integer, rest) = digits(rest);
        let (fraction, rest) = match rest.first() {
            Some(b'.') => digits(&rest[1..]),
            _ => (&[][..], rest),
        };
        if integer.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest.first() {
            None => 0,
            Some(b'e' | b'E') => {
                let (down, rest) = match rest.get(1)? {
                    b'-' => (true, &rest[2..]),
                    b'+' => (false, &rest[2..]),
                    _ => (false, &rest[1..]),
                };
                let (digits, rest) = digits(rest);
                if digits.is_empty() || !rest.is_empty() {
                    return None;
                }
                let size =
                    digits.iter().fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX));
                if down { -size } else { size }
            }
            Some(_) => return None,
        };
        Some(Self { negative, integer, fraction, exponent })
    }

    fn is_zero(&self) -> bool {
        self.integer.iter().chain(self.fraction).all(|digit| *digit == b'0')
    }

    /// The number × 10^`scale`, when that is an integer.
    pub(super) fn scaled(&self, scale: u32) -> Result<i128, Misfit> {
        let (whole, rest) = self.split(scale)?;
        if rest.is_some_and(|cut| cut.integer.iter().chain(cut.fraction).any(|digit| *digit != b'0')) {
            Err(Misfit::Fraction)
        } else {
            Ok(whole)
        }
    }

    /// The number × 10^`scale` to the nearest integer, halves to the even one.
    pub(super) fn rounded(&self, scale: u32) -> Result<i128, Misfit> {
        let (whole, rest) = self.split(scale)?;
        let Some(rest) = rest else { return Ok(whole) };
        let mut digits = rest.bytes();
        let up = match digits.next() {
            None | Some(b'0'..=b'4') => false,
            Some(b'5') => digits.any(|digit| digit != b'0') || whole % 2 != 0,
            Some(_) => true,
        };
        Ok(if !up {
            whole
        } else if self.negative {
            whole - 1
        } else {
            whole + 1
        })
    }

    /// The number × 10^`scale` towards zero, and the digits that were cut off.
    fn split(&self, scale: u32) -> Result<(i128, Option<Cut<'a>>), Misfit> {
        if self.is_zero() {
            return Ok((0, None));
        }
        // Digits of `integer` and `fraction` together that stand before the point of the scaled number.
        let kept = self.integer.len() as i64 + self.exponent + i64::from(scale);
        let count = (self.integer.len() + self.fraction.len()) as i64;
        let mut whole: i128 = 0;
        let push = |whole: i128, digit: u8| {
            whole.checked_mul(10).and_then(|w| w.checked_add(i128::from(digit - b'0'))).ok_or(Misfit::Range)
        };
        for digit in self.integer.iter().chain(self.fraction).take(kept.clamp(0, count) as usize) {
            whole = push(whole, *digit)?;
        }
        if kept > count && whole != 0 {
            for _ in count..kept {
                whole = push(whole, b'0')?;
            }
        }
        let cut = (kept < count).then(|| Cut {
            zeros: usize::try_from(-kept).unwrap_or(0),
            integer: self.integer.get(kept.max(0) as usize..).unwrap_or_default(),
            fraction: self.fraction.get((kept - self.integer.len() as i64).max(0) as usize..).unwrap_or_default(),
        });
        Ok((if self.negative { -whole } else { whole }, cut))
    }

    /// The number / 1000 to the nearest integer, halves to the even one.
    pub(super) fn thousandth_rounded(&self) -> Result<i128, Misfit> {
        Self { exponent: self.exponent - 3, ..*self }.rounded(0)
    }

    /// Whole part towards zero, for telling magnitudes.
    pub(super) fn truncated(&self) -> Result<i128, Misfit> {
        Ok(self.split(0)?.0)
    }

    /// Writes the number as Postgres prints a numeric; `Range` where it has more digits than a numeric.
    pub(super) fn write_plain(&self, out: &mut String) -> Result<(), Misfit> {
        let Self { negative, integer, fraction, exponent } = *self;
        Digits::new(negative, integer, fraction, exponent).write(out).map_err(|_| Misfit::Range)
    }
}

/// Digits after the scaled point.
struct Cut<'a> {
    zeros: usize,
    integer: &'a [u8],
    fraction: &'a [u8],
}

impl Cut<'_> {
    fn bytes(&self) -> impl Iterator<Item = u8> {
        std::iter::repeat_n(b'0', self.zeros).chain(self.integer.iter().copied()).chain(self.fraction.iter().copied())
    }
}

fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len()))
}

/// An integer between `min` and `max`; `1.0` and `1e3` are integers, `1.5` is not.
pub(super) fn integer(text: &str, min: i64, max: i64) -> Result<i64, Misfit> {
    let value = match short_integer(text) {
        Some(value) => value,
        None => {
            let value = Decimal::parse(text).ok_or(Misfit::Syntax)?.scaled(0)?;
            i64::try_from(value).map_err(|_| Misfit::Range)?
        }
    };
    if (min..=max).contains(&value) { Ok(value) } else { Err(Misfit::Range) }
}

/// The common case: up to 18 digits and perhaps a minus.
fn short_integer(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes.first()? {
        b'-' => (true, &bytes[1..]),
        _ => (false, bytes),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
    }
    Some(if negative { -value } else { value })
}

/// An unscaled NUMERIC(precision, scale).
pub(super) fn numeric(text: &str, precision: u8, scale: i8) -> Result<i128, Misfit> {
    let scale = u32::try_from(scale).map_err(|_| Misfit::Range)?;
    let value = Decimal::parse(text).ok_or(Misfit::Syntax)?.scaled(scale)?;
    let bound = 10i128.checked_pow(u32::from(precision)).ok_or(Misfit::Range)?;
    if value.abs() < bound { Ok(value) } else { Err(Misfit::Range) }
}

/// A DOUBLE: the nearest one of what has a point or an exponent, an integer exactly (`Inexact` where there is none); `Range` where it would
/// become infinite or a number other than zero would become zero.
pub(super) fn double(text: &str) -> Result<f64, Misfit> {
    let value = text.parse::<f64>().map_err(|_| Misfit::Syntax)?;
    float_range(text, value.is_finite(), value == 0.0)?;
    // Fifteen digits always fit.
    if text.len() > 15 && !is_same_integer(text, || format!("{value:.0}")) {
        return Err(Misfit::Inexact);
    }
    Ok(value)
}

/// A REAL, by the same rules.
pub(super) fn real(text: &str) -> Result<f32, Misfit> {
    let value = text.parse::<f32>().map_err(|_| Misfit::Syntax)?;
    float_range(text, value.is_finite(), value == 0.0)?;
    if text.len() > 6 && !is_same_integer(text, || format!("{value:.0}")) {
        return Err(Misfit::Inexact);
    }
    Ok(value)
}

/// False when `text` is an integer without point and exponent and `all_digits` (those of the number that it became) are not its own.
fn is_same_integer(text: &str, all_digits: impl Fn() -> String) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    !digits.bytes().all(|byte| byte.is_ascii_digit())
        || digits.trim_start_matches('0') == all_digits().trim_start_matches('-').trim_start_matches('0')
}

fn float_range(text: &str, is_finite: bool, is_zero: bool) -> Result<(), Misfit> {
    if !is_finite {
        // Text may say so ("Infinity", "NaN"); digits may not overflow into it.
        return if text.bytes().any(|byte| byte.is_ascii_digit()) { Err(Misfit::Range) } else { Ok(()) };
    }
    if is_zero && !Decimal::parse(text).ok_or(Misfit::Syntax)?.is_zero() {
        return Err(Misfit::Range);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(text: &str) -> Result<String, Misfit> {
        let mut out = String::new();
        Decimal::parse(text).unwrap().write_plain(&mut out).map(|()| out)
    }

    #[test]
    fn integers_are_exact_or_refused() {
        let int = |text| integer(text, i64::MIN, i64::MAX);
        assert_eq!(int("0"), Ok(0));
        assert_eq!(int("-0"), Ok(0));
        assert_eq!(int("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int("9223372036854775808"), Err(Misfit::Range));
        assert_eq!(int("1.0"), Ok(1));
        assert_eq!(int("1.5"), Err(Misfit::Fraction));
        assert_eq!(int("1e3"), Ok(1000));
        assert_eq!(int("1200e-2"), Ok(12));
        assert_eq!(int("1e-1"), Err(Misfit::Fraction));
        assert_eq!(int("1e999999999999999999999"), Err(Misfit::Range));
        assert_eq!(int("1e-999999999999999999999"), Err(Misfit::Fraction));
        assert_eq!(int("0e999999999999999999999"), Ok(0));
        assert_eq!(int("007"), Ok(7));
        for bad in ["", "-", "+", ".", "1e", "1e+", "e1", "1x", " 1", "1 ", "--1", "NaN", "0x10", "1.2.3"] {
            assert_eq!(int(bad), Err(Misfit::Syntax), "{bad:?}");
        }
        assert_eq!(integer("32768", -32768, 32767), Err(Misfit::Range));
        assert_eq!(integer("-32768", -32768, 32767), Ok(-32768));
    }

    #[test]
    fn numerics_keep_every_digit() {
        assert_eq!(numeric("1.10", 10, 2), Ok(110));
        assert_eq!(numeric("1.100", 10, 2), Ok(110));
        assert_eq!(numeric("1.101", 10, 2), Err(Misfit::Fraction));
        assert_eq!(numeric("99999999.99", 10, 2), Ok(9_999_999_999));
        assert_eq!(numeric("100000000", 10, 2), Err(Misfit::Range));
        assert_eq!(
            numeric("-12345678901234567890123456789012345678", 38, 0),
            Ok(-12345678901234567890123456789012345678)
        );
        assert_eq!(numeric("0.1", 38, 37), Ok(10i128.pow(36)));
        assert_eq!(numeric("1e-2", 4, 2), Ok(1));
        assert_eq!(numeric("NaN", 4, 2), Err(Misfit::Syntax));
    }

    #[test]
    fn halves_round_to_even() {
        let round = |text: &str| Decimal::parse(text).unwrap().rounded(0).unwrap();
        assert_eq!(["0.5", "1.5", "2.5", "2.51", "-0.5", "-1.5", "0.49", "0.05"].map(round), [0, 2, 2, 3, 0, -2, 0, 0]);
        assert_eq!(round("5e-2"), 0);
        assert_eq!(round("25e-1"), 2);
    }

    #[test]
    fn floats_do_not_overflow_in_silence() {
        assert_eq!(double("0.1"), Ok(0.1));
        assert_eq!(double("9007199254740992"), Ok(9007199254740992.0));
        assert_eq!(double("-009007199254740992"), Ok(-9007199254740992.0));
        // It became 9007199254740992 without a word.
        assert_eq!(double("9007199254740993"), Err(Misfit::Inexact));
        assert_eq!(double("9007199254740993.0"), Ok(9007199254740992.0));
        assert_eq!(double("00000000000000000000"), Ok(0.0));
        assert_eq!(double(&format!("1{}", "0".repeat(22))), Ok(1e22));
        assert_eq!(double(&format!("1{}", "0".repeat(23))), Err(Misfit::Inexact));
        assert_eq!(double("1e400"), Err(Misfit::Range));
        assert_eq!(double("1e-400"), Err(Misfit::Range));
        assert_eq!(double("0e-400"), Ok(0.0));
        assert!(double("NaN").unwrap().is_nan());
        assert_eq!(double("-Infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(real("1e39"), Err(Misfit::Range));
        assert_eq!(real("16777216"), Ok(16777216.0));
        assert_eq!(real("16777217"), Err(Misfit::Inexact));
        assert_eq!(real("16777217.0"), Ok(16777216.0));
    }

    #[test]
    fn prints_what_a_numeric_holds() {
        assert_eq!(plain("+.5e2").as_deref(), Ok("50"));
        assert_eq!(plain("-007.10").as_deref(), Ok("-7.10"));
        // A limit of its own, 400 zeros, made dead letters of what INSERT took.
        assert_eq!(plain("1e500").unwrap().len(), 501);
        assert_eq!(plain("1e131072"), Err(Misfit::Range));
        assert_eq!(plain("1e-16384"), Err(Misfit::Range));
    }

    proptest! {
        #[test]
        fn every_i64_comes_back(value: i64) {
            prop_assert_eq!(integer(&value.to_string(), i64::MIN, i64::MAX), Ok(value));
        }

        #[test]
        fn integers_become_floats_exactly_or_not_at_all(value: i64, up in 0u32..64) {
            let value = value >> up;
            let text = value.to_string();
            prop_assert_eq!(double(&text).is_ok(), value as f64 as i128 == i128::from(value));
            prop_assert_eq!(real(&text).is_ok(), value as f32 as i128 == i128::from(value));
        }

        #[test]
        fn scaled_agrees_with_shifted_digits(unscaled in -(10i128.pow(37))..10i128.pow(37), scale in 0u32..37, up in 0u32..3) {
            let magnitude = unscaled.unsigned_abs().to_string();
            let padded = format!("{magnitude:0>width$}", width = scale as usize + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale as usize);
            let sign = if unscaled < 0 { "-" } else { "" };
            let text = format!("{sign}{whole}.{fraction}0e{up}");
            let decimal = Decimal::parse(&text).unwrap();
            prop_assert_eq!(decimal.scaled(scale), unscaled.checked_mul(10i128.pow(up)).ok_or(Misfit::Range));
            prop_assert_eq!(decimal.scaled(scale), decimal.rounded(scale));
        }

        #[test]
        fn plain_text_is_the_same_number(text in r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            let printed = plain(&text).unwrap();
            let (a, b) = (Decimal::parse(&text).unwrap(), Decimal::parse(&printed).unwrap());
            prop_assert!(!printed.contains(['e', 'E']));
            prop_assert_eq!(text.parse::<f64>().unwrap(), printed.parse::<f64>().unwrap());
            prop_assert_eq!(a.rounded(3), b.rounded(3));
        }
    }
}
