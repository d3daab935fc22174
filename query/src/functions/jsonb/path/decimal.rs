//! Arithmetic of numbers by all their digits, with the scales that numeric's results have.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};
use tidemill_storage::digits::Digits;

use crate::{SqlError, functions::jsonb::number};

/// Digits before and behind the point that a numeric has at most.
const WHOLE_DIGITS_MAX: usize = 131_072;
const FRACTION_DIGITS_MAX: usize = 16_383;
/// Significant digits of a quotient, and its digits behind the point, at most.
const QUOTIENT_DIGITS: i64 = 16;
const QUOTIENT_SCALE_MAX: i64 = 1000;

/// `digits` / 10^`scale`.
#[derive(Clone, Debug)]
pub(super) struct Decimal {
    digits: BigInt,
    scale: usize,
}

fn power(exponent: usize) -> BigInt {
    BigInt::from(10).pow(u32::try_from(exponent).unwrap_or(u32::MAX))
}

/// Halves away from zero.
fn rounded_quotient(left: &BigInt, right: &BigInt) -> BigInt {
    let whole = left / right;
    let rest = left % right;
    let is_half = (rest.magnitude() << 1u32) >= *right.magnitude();
    match is_half {
        true if (left.sign() == Sign::Minus) != (right.sign() == Sign::Minus) => whole - 1,
        true => whole + 1,
        false => whole,
    }
}

impl Decimal {
    /// Of a number as numeric prints it.
    pub(super) fn of(plain: &str) -> Self {
        let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
        let digits = format!("{whole}{fraction}");
        Self { digits: digits.parse().unwrap_or_default(), scale: fraction.len() }
    }

    /// As numeric prints it; 22003 for more digits than a numeric has.
    pub(super) fn plain(&self) -> Result<String, SqlError> {
        let text = self.digits.magnitude().to_string();
        let text = format!("{text:0>width$}", width = self.scale + 1);
        let (whole, fraction) = text.split_at(text.len() - self.scale);
        if whole.len() > WHOLE_DIGITS_MAX {
            return Err(overflow());
        }
        let minus = if self.digits.sign() == Sign::Minus { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        Ok(format!("{minus}{whole}{point}{fraction}"))
    }

    fn scaled(&self, scale: usize) -> BigInt {
        &self.digits * power(scale - self.scale)
    }

    pub(super) fn add(&self, other: &Self) -> Self {
        let scale = self.scale.max(other.scale);
        Self { digits: self.scaled(scale) + other.scaled(scale), scale }
    }

    pub(super) fn subtract(&self, other: &Self) -> Self {
        self.add(&other.negated())
    }

    pub(super) fn multiply(&self, other: &Self) -> Self {
        let product = Self { digits: &self.digits * &other.digits, scale: self.scale + other.scale };
        if product.scale > FRACTION_DIGITS_MAX { product.rounded(FRACTION_DIGITS_MAX) } else { product }
    }

    /// 22012 for a zero.
    pub(super) fn divide(&self, other: &Self) -> Result<Self, SqlError> {
        if other.is_zero() {
            return Err(SqlError::division_by_zero());
        }
        let ((left_weight, left_first), (right_weight, right_first)) = (self.leading(), other.leading());
        let weight = left_weight - right_weight - i64::from(left_first <= right_first);
        let scale = (QUOTIENT_DIGITS - weight * 4).max(self.scale as i64).max(other.scale as i64);
        let scale = scale.clamp(0, QUOTIENT_SCALE_MAX) as usize;
        // As whole numbers: left × 10^(right's scale + scale) over right × 10^(left's scale).
        let left = &self.digits * power(other.scale + scale);
        let right = &other.digits * power(self.scale);
        Ok(Self { digits: rounded_quotient(&left, &right), scale })
    }

    /// With the sign of what is divided.
    pub(super) fn remainder(&self, other: &Self) -> Result<Self, SqlError> {
        if other.is_zero() {
            return Err(SqlError::division_by_zero());
        }
        let scale = self.scale.max(other.scale);
        Ok(Self { digits: self.scaled(scale) % other.scaled(scale), scale })
    }

    pub(super) fn negated(&self) -> Self {
        Self { digits: -&self.digits, scale: self.scale }
    }

    pub(super) fn absolute(&self) -> Self {
        Self { digits: self.digits.magnitude().clone().into(), scale: self.scale }
    }

    pub(super) fn floor(&self) -> Self {
        let whole = self.truncated();
        let is_above = self.digits.sign() == Sign::Minus && self.scaled_back(&whole) != self.digits;
        Self { digits: if is_above { whole - 1 } else { whole }, scale: 0 }
    }

    pub(super) fn ceiling(&self) -> Self {
        self.negated().floor().negated()
    }

    fn scaled_back(&self, whole: &BigInt) -> BigInt {
        whole * power(self.scale)
    }

    /// Without what stands behind the point.
    pub(super) fn truncated(&self) -> BigInt {
        &self.digits / power(self.scale)
    }

    /// The nearest whole number.
    pub(super) fn whole(&self) -> BigInt {
        rounded_quotient(&self.digits, &power(self.scale))
    }

    fn rounded(&self, scale: usize) -> Self {
        if scale >= self.scale {
            return Self { digits: self.scaled(scale), scale };
        }
        Self { digits: rounded_quotient(&self.digits, &power(self.scale - scale)), scale }
    }

    /// As numeric(precision, scale) holds it, if it does; a scale below zero rounds before the point.
    pub(super) fn fitted(&self, precision: usize, scale: i64) -> Option<Self> {
        let shift = usize::try_from(-scale).unwrap_or(0);
        let rounded = match usize::try_from(scale) {
            Ok(scale) => self.rounded(scale),
            Err(_) => {
                let units = rounded_quotient(&self.digits, &power(self.scale + shift));
                Self { digits: units * power(shift), scale: 0 }
            }
        };
        let digits_max = i64::try_from(precision).unwrap_or(i64::MAX) - scale;
        let whole = rounded.truncated();
        // With a scale above the precision, the first digits behind the point are zeros.
        let fits = match usize::try_from(digits_max) {
            Ok(count) => *whole.magnitude() < *power(count).magnitude(),
            Err(_) => *rounded.digits.magnitude() < *power(precision).magnitude(),
        };
        fits.then_some(rounded)
    }

    pub(super) fn is_zero(&self) -> bool {
        self.digits.sign() == Sign::NoSign
    }

    /// The first digit to the base of 10000 that is not zero, and the power of the base that it counts.
    fn leading(&self) -> (i64, u32) {
        if self.is_zero() {
            return (0, 0);
        }
        let text = self.digits.magnitude().to_string();
        // Decimal digits before the point, none or less where zeros stand behind it.
        let before = text.len() as i64 - self.scale as i64;
        let weight = (before - 1).div_euclid(4);
        let taken = (before - weight * 4) as usize;
        let first = format!("{text:0<taken$}");
        (weight, first[..taken].parse().unwrap_or(0))
    }
}

fn overflow() -> SqlError {
    SqlError::new("22003", "value overflows numeric format")
}

/// A text as a number, if numeric reads it so.
pub(super) fn read(text: &str) -> Option<String> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let size = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !size.is_empty() && is_digits(size)
    });
    if !exponent_fits || !is_digits(whole) || !is_digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    let exponent = exponent.map_or_else(String::new, |exponent| format!("e{exponent}"));
    number::plain(&format!("{sign}{whole}{point}{fraction}{exponent}")).ok()
}

/// A float with the digits that a numeric made of it has.
pub(super) fn of_float(value: f64) -> Result<String, SqlError> {
    let text = format!("{value:.14e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    number::plain(&format!("{mantissa}e{exponent}"))
}

/// The order of two numbers as numeric prints them.
pub(super) fn order(left: &str, right: &str) -> Ordering {
    let (left, right) = (Digits::of(left), Digits::of(right));
    let sign = |number: &Digits<'_>| match number.leading_zeros() == number.count() {
        true => 0,
        false if number.is_negative() => -1,
        false => 1,
    };
    let (left_sign, right_sign) = (sign(&left), sign(&right));
    if left_sign != right_sign || left_sign == 0 {
        return left_sign.cmp(&right_sign);
    }
    // How far before the point the first digit that counts stands, then the digits.
    let start = |number: &Digits<'_>| number.point() - number.leading_zeros();
    let digits = |number: &Digits<'_>, length: i64| {
        let zeros = number.leading_zeros() as usize;
        let missing = (length - (number.count() - number.leading_zeros())).max(0) as usize;
        number.digits().skip(zeros).chain(std::iter::repeat_n(b'0', missing)).collect::<Vec<u8>>()
    };
    let length = (left.count() - left.leading_zeros()).max(right.count() - right.leading_zeros());
    let size = start(&left).cmp(&start(&right)).then_with(|| digits(&left, length).cmp(&digits(&right, length)));
    if left_sign < 0 { size.reverse() } else { size }
}
