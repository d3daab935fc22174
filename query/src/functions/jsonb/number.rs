//! Numbers of JSON by their digits, never through a float: as numeric prints them, and as keys that are ordered as they are.

use crate::SqlError;

/// Digits before and behind the point that a numeric has at most.
const WHOLE_DIGITS_MAX: i64 = 131_072;
const FRACTION_DIGITS_MAX: i64 = 16_383;
/// Exponents beyond this are all the same.
const EXPONENT_MAX: i64 = 10_000_000;

/// A number of JSON's grammar: `0.<digits> × 10^point`.
struct Digits<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    point: i64,
}

impl<'a> Digits<'a> {
    fn of(token: &'a str) -> Self {
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
        let size = size.bytes().fold(0, |sum, digit| (sum * 10 + i64::from(digit & 15)).min(EXPONENT_MAX));
        let point = whole.len() as i64 + if down { -size } else { size };
        Self { negative, whole: whole.as_bytes(), fraction: fraction.as_bytes(), point }
    }

    fn digits(&self) -> impl Iterator<Item = u8> + Clone + use<'a> {
        self.whole.iter().chain(self.fraction).copied()
    }

    fn count(&self) -> i64 {
        (self.whole.len() + self.fraction.len()) as i64
    }

    fn leading_zeros(&self) -> i64 {
        self.digits().take_while(|digit| *digit == b'0').count() as i64
    }
}

/// The number as PostgreSQL prints a numeric: no exponent, no zero with a sign, digits behind the point as they were given.
pub(super) fn plain(token: &str) -> Result<String, SqlError> {
    let number = Digits::of(token);
    let (count, zeros) = (number.count(), number.leading_zeros());
    let is_zero = zeros == count;
    if number.point - zeros > WHOLE_DIGITS_MAX && !is_zero || count - number.point > FRACTION_DIGITS_MAX {
        return Err(SqlError::new("22003", "value overflows numeric format"));
    }
    let is_plain = !token.contains(['e', 'E']);
    if is_plain && !(number.negative && is_zero) {
        return Ok(token.to_owned());
    }
    let mut out = String::with_capacity(token.len());
    if number.negative && !is_zero {
        out.push('-');
    }
    let mut digits = number.digits().map(char::from);
    let before = out.len();
    out.extend(digits.by_ref().take(number.point.clamp(0, count) as usize).skip_while(|digit| *digit == '0'));
    if out.len() == before {
        out.push('0');
    } else {
        out.extend(std::iter::repeat_n('0', (number.point - count).max(0) as usize));
    }
    if number.point < count {
        out.push('.');
        out.extend(std::iter::repeat_n('0', (-number.point).max(0) as usize));
        out.extend(digits);
    }
    Ok(out)
}

const NEGATIVE: u8 = 1;
const ZERO: u8 = 2;
const POSITIVE: u8 = 3;
/// Below every digit, so that a number comes before those with more digits behind the same ones.
const END: u8 = 0;

/// Appends characters (up to 255) that compare as the numbers do, whatever zeros stand at their ends.
pub(super) fn key(token: &str, out: &mut String) {
    out.extend(key_bytes(token).into_iter().map(char::from));
}

fn key_bytes(token: &str) -> Vec<u8> {
    let number = Digits::of(token);
    let zeros = number.leading_zeros();
    if zeros == number.count() {
        return vec![ZERO];
    }
    let mut out = vec![if number.negative { NEGATIVE } else { POSITIVE }];
    let start = out.len();
    let magnitude = i32::try_from(number.point - zeros).unwrap_or(i32::MAX);
    out.extend(((magnitude as u32) ^ (1 << 31)).to_be_bytes());
    out.extend(number.digits().skip(zeros as usize).map(|digit| digit - b'0' + 1));
    while out.last() == Some(&1) && out.len() > start + 4 {
        out.pop();
    }
    out.push(END);
    if number.negative {
        // The larger the magnitude, the smaller the number.
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            ("0.5e1", "5"),
            ("10.00e-1", "1.000"),
            ("0e200000", "0"),
        ] {
            assert_eq!(plain(text).unwrap(), printed, "{text}");
        }
        assert_eq!(plain("1e131071").unwrap().len(), 131_072);
        assert_eq!(plain("1e-16383").unwrap().len(), 16_385);
        for beyond in ["1e131072", "1e-16384", "0e-16384", "1e999999999999999999999"] {
            assert_eq!(plain(beyond).unwrap_err().sqlstate, "22003", "{beyond}");
        }
    }

    fn key_of(token: &str) -> String {
        let mut out = String::new();
        key(token, &mut out);
        out
    }

    proptest! {
        #[test]
        fn keys_compare_as_the_numbers(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, up in 0u32..4, zeros in 0usize..3) {
            // The same number in two forms: 12.3 and 123.00e-1.
            let one = format!("{a}.{}", "0".repeat(zeros + 1));
            let other = format!("{}e-{up}", i128::from(b) * 10i128.pow(up));
            prop_assert_eq!(key_of(&one).cmp(&key_of(&other)), a.cmp(&b));
            let scaled = format!("{}e-3", i128::from(b));
            let order = (a * 1000).cmp(&b);
            prop_assert_eq!(key_of(&one).cmp(&key_of(&scaled)), order);
        }

        #[test]
        fn plain_text_is_the_same_number(text in r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            let printed = plain(&text).unwrap();
            prop_assert!(!printed.contains(['e', 'E']));
            prop_assert_eq!(text.parse::<f64>().unwrap(), printed.parse::<f64>().unwrap());
            prop_assert_eq!(key_of(&text), key_of(&printed));
        }
    }
}
