//! Numbers as people write them: by their digits, never through a float, and as PostgreSQL's numeric prints them.
//!
//! Whoever takes JSON takes numbers of this size and prints them so, wherever they come from.

use std::iter::repeat_n;

/// Digits before and behind the point that a numeric has at most.
const WHOLE_DIGITS_MAX: i64 = 131_072;
const FRACTION_DIGITS_MAX: i64 = 16_383;
/// Exponents from here on are beyond all sizes, also of a zero.
const EXPONENT_END: i64 = (i32::MAX / 2) as i64;

/// Most bytes of a JSON document's text, where numbers stand without their exponents: nine bytes become 131,072.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// A number of more digits than a numeric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond;

/// `whole.fraction × 10^exponent`; `whole` and `fraction` are ASCII digits.
#[derive(Clone, Copy, Debug)]
pub struct Digits<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Digits<'a> {
    pub fn new(negative: bool, whole: &'a [u8], fraction: &'a [u8], exponent: i64) -> Self {
        Self { negative, whole, fraction, exponent }
    }

    /// Reads a number of JSON's grammar; of other texts it makes some number.
    pub fn of(token: &'a str) -> Self {
        let (negative, rest) = match token.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, token),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (down, size) = match exponent.strip_prefix('-') {
            Some(size) => (true, size),
            None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
        };
        let size = size.bytes().fold(0, |sum, digit| (sum * 10 + i64::from(digit & 15)).min(EXPONENT_END));
        Self::new(negative, whole.as_bytes(), fraction.as_bytes(), if down { -size } else { size })
    }

    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// All digits; the point stands after [`Self::point`] of them.
    pub fn digits(&self) -> impl Iterator<Item = u8> + Clone + use<'a> {
        self.whole.iter().chain(self.fraction).copied()
    }

    /// Below zero or beyond [`Self::count`] where zeros are left out.
    pub fn point(&self) -> i64 {
        self.whole.len() as i64 + self.exponent
    }

    pub fn count(&self) -> i64 {
        (self.whole.len() + self.fraction.len()) as i64
    }

    pub fn leading_zeros(&self) -> i64 {
        self.digits().take_while(|digit| *digit == b'0').count() as i64
    }

    /// Appends the number as PostgreSQL prints a numeric: no exponent, no zero with a sign, digits behind the point as they were given.
    pub fn write(&self, out: &mut String) -> Result<(), Beyond> {
        let (point, count, zeros) = (self.point(), self.count(), self.leading_zeros());
        let is_zero = zeros == count;
        let is_beyond = point - zeros > WHOLE_DIGITS_MAX && !is_zero || count - point > FRACTION_DIGITS_MAX;
        if is_beyond || self.exponent.abs() >= EXPONENT_END {
            return Err(Beyond);
        }
        if self.negative && !is_zero {
            out.push('-');
        }
        let mut digits = self.digits().map(char::from);
        let before = out.len();
        out.extend(digits.by_ref().take(point.clamp(0, count) as usize).skip_while(|digit| *digit == '0'));
        if out.len() == before {
            out.push('0');
        } else {
            out.extend(repeat_n('0', (point - count).max(0) as usize));
        }
        if point < count {
            out.push('.');
            out.extend(repeat_n('0', (-point).max(0) as usize));
            out.extend(digits);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(token: &str) -> Result<String, Beyond> {
        let mut out = String::new();
        Digits::of(token).write(&mut out).map(|()| out)
    }

    /// Each pair was taken from PostgreSQL 15 (`SELECT '…'::jsonb`).
    #[test]
    fn printed_as_numeric_is() {
        for (text, printed) in [
            ("1.10", "1.10"),
            ("1e2", "100"),
            ("1.50e1", "15.0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("0e5", "0"),
            ("0.000e1", "0.00"),
            ("12e-1", "1.2"),
            ("1e-3", "0.001"),
            ("-1.25E+2", "-125"),
            ("123456789012345678901234567890.5", "123456789012345678901234567890.5"),
            ("0.5e1", "5"),
            ("10.00e-1", "1.000"),
            ("0e200000", "0"),
        ] {
            assert_eq!(plain(text).as_deref(), Ok(printed), "{text}");
        }
        assert_eq!(plain("1e131071").unwrap().len(), 131_072);
        assert_eq!(plain("1e-16383").unwrap().len(), 16_385);
        for beyond in ["1e131072", "1e-16384", "0e-16384", "1e999999999999999999999", "0e1073741823"] {
            assert_eq!(plain(beyond), Err(Beyond), "{beyond}");
        }
    }

    proptest! {
        #[test]
        fn plain_text_is_the_same_number(text in r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            let printed = plain(&text).unwrap();
            prop_assert!(!printed.contains(['e', 'E']));
            prop_assert_eq!(text.parse::<f64>().unwrap(), printed.parse::<f64>().unwrap());
            prop_assert_eq!(plain(&printed).unwrap(), printed);
        }
    }
}
