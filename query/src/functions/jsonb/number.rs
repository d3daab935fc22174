//! Numbers of JSON by their digits, never through a float: as numeric prints them, and as keys that are ordered as they are.

use tidemill_storage::digits::Digits;

use crate::SqlError;

/// The number as PostgreSQL prints a numeric.
pub(super) fn plain(token: &str) -> Result<String, SqlError> {
    let mut out = String::with_capacity(token.len());
    Digits::of(token).write(&mut out).map_err(|_| SqlError::new("22003", "value overflows numeric format"))?;
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
    let mut out = vec![if number.is_negative() { NEGATIVE } else { POSITIVE }];
    let start = out.len();
    let magnitude = i32::try_from(number.point() - zeros).unwrap_or(i32::MAX);
    out.extend(((magnitude as u32) ^ (1 << 31)).to_be_bytes());
    out.extend(number.digits().skip(zeros as usize).map(|digit| digit - b'0' + 1));
    while out.last() == Some(&1) && out.len() > start + 4 {
        out.pop();
    }
    out.push(END);
    if number.is_negative() {
        // The larger the magnitude, the smaller the number.
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        fn printed_numbers_have_the_same_key(text in r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,2})?") {
            prop_assert_eq!(key_of(&text), key_of(&plain(&text).unwrap()));
        }
    }
}
