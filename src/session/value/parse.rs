//! Reading single values from text as PostgreSQL's input functions do: 22P02 for text that is no value of the type, 22003 and 22008 for
//! values the type cannot hold. Nothing is rounded but fractions of a NUMERIC beyond its scale and of a second beyond microseconds.

use arrow::datatypes::i256;

use super::calendar::{DAY_US, Zone, days, parse_offset};
use crate::session::error::{Result, SqlError, state};

/// `invalid input syntax for type integer: "abc"`
pub fn invalid(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        state::INVALID_TEXT_REPRESENTATION,
        format!("invalid input syntax for type {type_name}: \"{}\"", shortened(text)),
    )
}

fn out_of_range(type_name: &str, text: &str) -> SqlError {
    SqlError::new(
        state::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("value \"{}\" is out of range for type {type_name}", shortened(text)),
    )
}

/// Long values would make error messages and logs unreadable.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub fn boolean(text: &str) -> Result<bool> {
    let word = text.trim().to_ascii_lowercase();
    let begins = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    if word == "1" || begins("true", 1) || begins("yes", 1) || word == "on" {
        Ok(true)
    } else if word == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Ok(false)
    } else {
        Err(invalid("boolean", text))
    }
}

pub fn integer<T: TryFrom<i128>>(text: &str, type_name: &str) -> Result<T> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(type_name, text));
    }
    let value: i128 = trimmed.parse().map_err(|_| out_of_range(type_name, trimmed))?;
    T::try_from(value).map_err(|_| out_of_range(type_name, trimmed))
}

pub fn float8(text: &str) -> Result<f64> {
    let trimmed = text.trim();
    let value: f64 = float(trimmed).ok_or_else(|| invalid("double precision", text))?;
    if (value.is_infinite() && !names_infinity(trimmed)) || (value == 0.0 && has_digit_but_zero(trimmed)) {
        return Err(SqlError::new(
            state::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{}\" is out of range for type double precision", shortened(trimmed)),
        ));
    }
    Ok(value)
}

pub fn float4(text: &str) -> Result<f32> {
    let trimmed = text.trim();
    let value: f32 = float(trimmed).ok_or_else(|| invalid("real", text))?;
    if (value.is_infinite() && !names_infinity(trimmed)) || (value == 0.0 && has_digit_but_zero(trimmed)) {
        return Err(SqlError::new(
            state::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{}\" is out of range for type real", shortened(trimmed)),
        ));
    }
    Ok(value)
}

fn float<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn names_infinity(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'i' | b'I'))
}

fn has_digit_but_zero(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
}

/// An exact decimal: `value` × 10^-`scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub value: i256,
    pub scale: u8,
}

/// Digits that a Decimal256 holds.
const DIGITS_MAX: usize = 76;

impl Decimal {
    pub fn parse(text: &str) -> Result<Self> {
        let trimmed = text.trim();
        let wrong = || invalid("numeric", text);
        let too_large = || {
            SqlError::new(
                state::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("value \"{}\" has more digits than a numeric can hold here ({DIGITS_MAX})", shortened(trimmed)),
            )
        };
        let (negative, rest) = match trimmed.as_bytes().first() {
            Some(b'-') => (true, &trimmed[1..]),
            Some(b'+') => (false, &trimmed[1..]),
            _ => (false, trimmed),
        };
        if ["nan", "inf", "infinity"].iter().any(|name| rest.eq_ignore_ascii_case(name)) {
            return Err(SqlError::new(
                state::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("numeric cannot hold \"{trimmed}\" here"),
            )
            .with_hint("use DOUBLE PRECISION for values that may be NaN or infinite"));
        }
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().map_err(|_| wrong())?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        {
            return Err(wrong());
        }
        let mut digits = format!("{whole}{fraction}");
        let mut scale = i64::try_from(fraction.len()).map_err(|_| too_large())? - i64::from(exponent);
        if scale < 0 {
            if scale < -(DIGITS_MAX as i64) {
                return Err(too_large());
            }
            digits.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
            scale = 0;
        }
        let digits = digits.trim_start_matches('0');
        let scale = u8::try_from(scale).ok().filter(|scale| usize::from(*scale) <= DIGITS_MAX).ok_or_else(too_large)?;
        if digits.len() > DIGITS_MAX {
            return Err(too_large());
        }
        let value = if digits.is_empty() { i256::ZERO } else { i256::from_string(digits).ok_or_else(wrong)? };
        Ok(Self { value: if negative { value.wrapping_neg() } else { value }, scale })
    }

    /// The value at another scale, halves away from zero.
    pub fn rescaled(self, scale: u8) -> Option<i256> {
        let ten = i256::from_i128(10);
        if scale >= self.scale {
            return self.value.checked_mul(ten.checked_pow(u32::from(scale - self.scale))?);
        }
        let divisor = ten.checked_pow(u32::from(self.scale - scale))?;
        let half = divisor.checked_div(i256::from_i128(2))?;
        let half = if self.value < i256::ZERO { half.wrapping_neg() } else { half };
        self.value.checked_add(half)?.checked_div(divisor)
    }

    /// For a column NUMERIC(precision, scale).
    pub fn to_decimal128(self, precision: u8, scale: i8) -> Result<i128> {
        let overflow = || {
            SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
                i16::from(precision) - i16::from(scale)
            ))
        };
        let scale = u8::try_from(scale).map_err(|_| overflow())?;
        let value = self.rescaled(scale).and_then(i256::to_i128).ok_or_else(overflow)?;
        if value.unsigned_abs() >= 10u128.pow(u32::from(precision)) {
            return Err(overflow());
        }
        Ok(value)
    }
}

/// `\x` with hexadecimal digits, or bytes with backslash escapes.
pub fn bytea(text: &str) -> Result<Vec<u8>> {
    let wrong = || invalid("bytea", text);
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if digits.len() % 2 == 1 {
            return Err(wrong());
        }
        return digits
            .chunks(2)
            .map(|pair| {
                let digit = |byte: u8| (byte as char).to_digit(16).ok_or_else(wrong);
                Ok((digit(pair[0])? * 16 + digit(pair[1])?) as u8)
            })
            .collect();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match bytes {
            [b'\\', rest @ ..] => {
                out.push(b'\\');
                bytes = rest;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..] => {
                out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                bytes = rest;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(out)
}

/// Canonical lower case.
pub fn uuid(text: &str) -> Result<String> {
    uuid::Uuid::parse_str(text.trim()).map(|uuid| uuid.to_string()).map_err(|_| invalid("uuid", text))
}

/// What a moment's text said.
struct Moment {
    /// Microseconds since 1970 on the clocks of `zone`.
    local_us: i64,
    zone: Option<Zone>,
    infinite: bool,
}

/// Days since 1970; i32::MAX and MIN are infinities.
pub fn date(text: &str, now_us: i64) -> Result<i32> {
    let moment = moment(text, "date", now_us)?;
    if moment.infinite {
        return Ok(if moment.local_us > 0 { i32::MAX } else { i32::MIN });
    }
    i32::try_from(moment.local_us.div_euclid(DAY_US)).map_err(|_| date_out_of_range("date", text))
}

/// Microseconds since 1970. A zone in the text is read over, as PostgreSQL does.
pub fn timestamp(text: &str, now_us: i64) -> Result<i64> {
    Ok(moment(text, "timestamp", now_us)?.local_us)
}

/// Microseconds since 1970 UTC; without a zone in the text the session's.
pub fn timestamptz(text: &str, zone: Zone, now_us: i64) -> Result<i64> {
    let type_name = "timestamp with time zone";
    let moment = moment(text, type_name, now_us)?;
    if moment.infinite {
        return Ok(moment.local_us);
    }
    moment.zone.unwrap_or(zone).to_utc(moment.local_us).ok_or_else(|| date_out_of_range(type_name, text))
}

/// Microseconds since midnight.
pub fn time(text: &str) -> Result<i64> {
    let wrong = || SqlError { state: state::INVALID_DATETIME_FORMAT, ..invalid("time", text) };
    let mut rest = text.trim();
    let us = clock(&mut rest).ok_or_else(wrong)?;
    if !rest.trim().is_empty() {
        return Err(wrong());
    }
    Ok(us)
}

fn date_out_of_range(type_name: &str, text: &str) -> SqlError {
    SqlError::new(state::DATETIME_FIELD_OVERFLOW, format!("{type_name} out of range: \"{}\"", shortened(text)))
}

fn moment(text: &str, type_name: &str, now_us: i64) -> Result<Moment> {
    let wrong = || SqlError { state: state::INVALID_DATETIME_FORMAT, ..invalid(type_name, text) };
    let overflow = || {
        SqlError::new(
            state::DATETIME_FIELD_OVERFLOW,
            format!("date/time field value out of range: \"{}\"", shortened(text)),
        )
    };
    let mut rest = text.trim();
    let plain = |local_us: i64| Ok(Moment { local_us, zone: Some(Zone::UTC), infinite: false });
    let midnight = now_us - now_us.rem_euclid(DAY_US);
    match rest.to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" => return Ok(Moment { local_us: i64::MAX, zone: None, infinite: true }),
        "-infinity" => return Ok(Moment { local_us: i64::MIN, zone: None, infinite: true }),
        "epoch" => return plain(0),
        "now" => return plain(now_us),
        "today" => return plain(midnight),
        "yesterday" => return plain(midnight - DAY_US),
        "tomorrow" => return plain(midnight + DAY_US),
        _ => {}
    }
    let mut before_christ = false;
    if let Some(before) = rest.len().checked_sub(3).and_then(|at| rest.get(at..).map(|tail| (at, tail)))
        && before.1.eq_ignore_ascii_case(" bc")
    {
        before_christ = true;
        rest = rest[..before.0].trim_end();
    }
    let (mut year, month, day) = calendar_day(&mut rest).ok_or_else(wrong)?;
    if before_christ {
        year = 1 - year;
    }
    let day = days(year, month, day).ok_or_else(overflow)?;
    let mut us_of_day = 0;
    let after = rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start();
    if after.starts_with(|c: char| c.is_ascii_digit()) {
        rest = after;
        us_of_day = clock(&mut rest).ok_or_else(wrong)?;
    }
    let zone = match rest.trim() {
        "" => None,
        // Here an offset always counts east, as ISO 8601 has it.
        offset if offset.starts_with(['+', '-']) => Some(Zone::Fixed(parse_offset(offset).ok_or_else(wrong)?)),
        name => Some(Zone::parse(name).ok_or_else(wrong)?),
    };
    let local_us = day.checked_mul(DAY_US).and_then(|us| us.checked_add(us_of_day)).ok_or_else(overflow)?;
    Ok(Moment { local_us, zone, infinite: false })
}

fn digits<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    digits
}

/// `2026-01-31`, `20260131`, `1/31/2026`.
fn calendar_day(rest: &mut &str) -> Option<(i64, u32, u32)> {
    let first = digits(rest);
    if first.len() == 8 && !rest.starts_with(['-', '/']) {
        return Some((first[..4].parse().ok()?, first[4..6].parse().ok()?, first[6..].parse().ok()?));
    }
    if let Some(after) = rest.strip_prefix('/') {
        *rest = after;
        let second = digits(rest);
        *rest = rest.strip_prefix('/')?;
        let third = digits(rest);
        return (third.len() == 4).then_some((third.parse().ok()?, first.parse().ok()?, second.parse().ok()?));
    }
    if first.len() < 4 || first.len() > 6 {
        return None;
    }
    *rest = rest.strip_prefix('-')?;
    let month = digits(rest);
    *rest = rest.strip_prefix('-')?;
    let day = digits(rest);
    if month.len() > 2 || day.len() > 2 {
        return None;
    }
    Some((first.parse().ok()?, month.parse().ok()?, day.parse().ok()?))
}

/// `12:34`, `12:34:56.789`: microseconds.
fn clock(rest: &mut &str) -> Option<i64> {
    let hours = two(rest)?;
    *rest = rest.strip_prefix(':')?;
    let minutes = two(rest)?;
    let mut us = 0;
    if let Some(after) = rest.strip_prefix(':') {
        *rest = after;
        us = two(rest)? * 1_000_000;
        if us > 60_000_000 {
            return None;
        }
        if let Some(after) = rest.strip_prefix('.') {
            *rest = after;
            us += fraction_us(digits(rest));
        }
    }
    let total = hours * 3_600_000_000 + minutes * 60_000_000 + us;
    (minutes < 60 && total <= DAY_US).then_some(total)
}

fn two(rest: &mut &str) -> Option<i64> {
    let digits = digits(rest);
    if digits.is_empty() || digits.len() > 2 { None } else { digits.parse().ok() }
}

/// Digits after the point of a second, rounded to microseconds.
fn fraction_us(digits: &str) -> i64 {
    let mut us = 0;
    for at in 0..6 {
        us = us * 10 + digits.as_bytes().get(at).map_or(0, |digit| i64::from(digit - b'0'));
    }
    us + i64::from(digits.as_bytes().get(6).is_some_and(|digit| *digit >= b'5'))
}

/// Months, days and microseconds.
pub fn interval(text: &str) -> Result<(i32, i32, i64)> {
    let wrong = || SqlError { state: state::INVALID_DATETIME_FORMAT, ..invalid("interval", text) };
    let overflow = || {
        SqlError::new(
            state::DATETIME_FIELD_OVERFLOW,
            format!("interval field value out of range: \"{}\"", shortened(text)),
        )
    };
    let mut total = Interval::default();
    let trimmed = text.trim();
    if let Some(iso) = trimmed.strip_prefix(['P', 'p']) {
        iso_interval(iso, &mut total).ok_or_else(wrong)?;
        return total.rounded().ok_or_else(overflow);
    }
    let mut rest = trimmed.strip_prefix('@').unwrap_or(trimmed).trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut ago = false;
    while !rest.is_empty() {
        if rest.eq_ignore_ascii_case("ago") {
            ago = true;
            break;
        }
        let (sign, after) = match rest.as_bytes()[0] {
            b'-' => (-1.0, &rest[1..]),
            b'+' => (1.0, &rest[1..]),
            _ => (1.0, rest),
        };
        let end = after
            .bytes()
            .position(|byte| !(byte.is_ascii_digit() || matches!(byte, b'.' | b':')))
            .unwrap_or(after.len());
        let (number, after) = after.split_at(end);
        rest = after.trim_start();
        if number.contains(':') {
            total.us += sign * interval_clock(number).ok_or_else(wrong)?;
            continue;
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let end = rest.bytes().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(end);
        rest = after.trim_start();
        let unit = if unit.is_empty() { "second" } else { unit };
        total.add(sign * number, &unit.to_ascii_lowercase()).ok_or_else(wrong)?;
    }
    if ago {
        total = Interval { months: -total.months, days: -total.days, us: -total.us };
    }
    total.rounded().ok_or_else(overflow)
}

#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    months: f64,
    days: f64,
    us: f64,
}

impl Interval {
    fn add(&mut self, count: f64, unit: &str) -> Option<()> {
        match unit.strip_suffix('s').filter(|unit| unit.len() > 1).unwrap_or(unit) {
            "microsecond" | "usec" | "us" => self.us += count,
            "millisecond" | "msec" | "ms" => self.us += count * 1e3,
            "second" | "sec" | "s" => self.us += count * 1e6,
            "minute" | "min" | "m" => self.us += count * 6e7,
            "hour" | "hr" | "h" => self.us += count * 3.6e9,
            "day" | "d" => {
                self.days += count.trunc();
                self.us += count.fract() * DAY_US as f64;
            }
            "week" | "w" => {
                self.days += (count * 7.0).trunc();
                self.us += (count * 7.0).fract() * DAY_US as f64;
            }
            "month" | "mon" => self.add_months(count),
            "year" | "yr" | "y" => self.months += (count * 12.0).round(),
            "decade" | "dec" => self.months += (count * 120.0).round(),
            "century" | "centurie" | "cent" => self.months += (count * 1200.0).round(),
            _ => return None,
        }
        Some(())
    }

    fn add_months(&mut self, count: f64) {
        self.months += count.trunc();
        let days = count.fract() * 30.0;
        self.days += days.trunc();
        self.us += days.fract() * DAY_US as f64;
    }

    fn rounded(self) -> Option<(i32, i32, i64)> {
        let fits = |value: f64, limit: f64| value.is_finite() && value.abs() <= limit;
        (fits(self.months, i32::MAX.into()) && fits(self.days, i32::MAX.into()) && fits(self.us, 9.2e18)).then_some((
            self.months as i32,
            self.days as i32,
            self.us.round() as i64,
        ))
    }
}

fn interval_clock(text: &str) -> Option<f64> {
    let mut parts = text.split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Some(0.0), |seconds| seconds.parse().ok())?;
    if parts.next().is_some() || minutes >= 60.0 || seconds > 60.0 {
        return None;
    }
    Some(hours * 3.6e9 + minutes * 6e7 + seconds * 1e6)
}

/// `1Y2M3DT4H5M6.7S`
fn iso_interval(text: &str, total: &mut Interval) -> Option<()> {
    let mut rest = text;
    let mut in_time = false;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(['T', 't']) {
            in_time = true;
            rest = after;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = match (rest.as_bytes()[end].to_ascii_uppercase(), in_time) {
            (b'Y', false) => "year",
            (b'M', false) => "month",
            (b'W', false) => "week",
            (b'D', false) => "day",
            (b'H', true) => "hour",
            (b'M', true) => "minute",
            (b'S', true) => "second",
            _ => return None,
        };
        total.add(number, unit)?;
        rest = &rest[end + 1..];
    }
    Some(())
}

/// The elements of `{a,"b c",NULL}`; `None` is NULL. One dimension.
pub fn array(text: &str) -> Result<Vec<Option<String>>> {
    let wrong = |detail: &str| {
        SqlError::new(state::INVALID_TEXT_REPRESENTATION, format!("malformed array literal: \"{}\"", shortened(text)))
            .with_detail(detail)
    };
    let mut rest = text.trim();
    // Bounds, "[1:3]={…}", are read over.
    if rest.starts_with('[')
        && let Some(at) = rest.find("]={")
    {
        rest = &rest[at + 2..];
    }
    let inner = rest
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .ok_or_else(|| wrong("Array value must start with \"{\" and end with \"}\"."))?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Ok(elements);
    }
    let mut characters = inner.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut element = String::new();
        let mut is_quoted = false;
        if characters.next_if_eq(&'"').is_some() {
            is_quoted = true;
            loop {
                match characters.next().ok_or_else(|| wrong("Unexpected end of input."))? {
                    '"' => break,
                    '\\' => element.push(characters.next().ok_or_else(|| wrong("Unexpected end of input."))?),
                    other => element.push(other),
                }
            }
            while characters.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = characters.next_if(|c| *c != ',') {
                match c {
                    '{' => {
                        return Err(SqlError::unsupported("arrays of more than one dimension are not supported here"));
                    }
                    '}' | '"' => return Err(wrong("Unexpected character in an array element.")),
                    '\\' => element.push(characters.next().ok_or_else(|| wrong("Unexpected end of input."))?),
                    other => element.push(other),
                }
            }
            element.truncate(element.trim_end().len());
            if element.is_empty() {
                return Err(wrong("Unexpected \",\" character."));
            }
        }
        elements.push((is_quoted || !element.eq_ignore_ascii_case("null")).then_some(element));
        match characters.next() {
            None => return Ok(elements),
            Some(',') => {}
            Some(_) => return Err(wrong("Unexpected array element.")),
        }
    }
}
