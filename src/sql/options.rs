//! Values of options: durations ("10 minutes", "2s"), sizes ("256MB"), and the table's own options.

use super::ast::OptionPair;
use crate::{
    catalog::definition::{SEAL_ROWS_AUTO, TableOptions},
    session::error::{Result, SqlError, state},
    suggest,
};

const MAX_PARTITIONS: u32 = 1_024;
/// Row ids are 32 bits; a segment of more rows gains nothing.
const MAX_SEAL_ROWS: u64 = 100_000_000;
const MIN_SEAL_BYTES: u64 = 64 << 10;
const MAX_SEAL_BYTES: u64 = 16 << 30;

/// Options that a table knows.
pub const TABLE_OPTIONS: &[&str] = &[
    "mode",
    "version_column",
    "delete_column",
    "out_of_order",
    "out_of_order_column",
    "key_ttl",
    "tombstone_ttl",
    "partitions",
    "time_column",
    "retention",
    "seal_rows",
    "seal_bytes",
    "seal_after",
    "replicas",
];
/// Options of what a later version does: refused by name, so that nobody takes their silence for consent.
const LATER_OPTIONS: &[&str] = &["is_deleted", "primary_key", "sorted_by", "sort_by"];
/// Options that a table has for ever.
const SETTLED_OPTIONS: &[&str] = &[
    "mode",
    "version_column",
    "delete_column",
    "out_of_order",
    "out_of_order_column",
    "key_ttl",
    "tombstone_ttl",
    "replicas",
];

/// A value and where it stands.
pub type Placed<T> = Option<(T, u32)>;

/// What options say of the columns of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnOptions {
    pub time_column: Placed<String>,
    pub version_column: Placed<String>,
    pub delete_column: Placed<String>,
    pub mode: Placed<Mode>,
    pub out_of_order: Placed<OutOfOrder>,
    pub out_of_order_column: Placed<String>,
    /// Microseconds.
    pub key_ttl: Placed<i64>,
    /// The same.
    pub tombstone_ttl: Placed<i64>,
}

/// What becomes of rows that come too late to win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfOrder {
    /// They are stored.
    Keep,
    Drop,
    /// They are stored, and a column tells them from others.
    Flag,
}

/// What a table does with rows of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Append,
    Upsert,
    PartialUpsert,
    Dedup,
}

/// Changes `options` as the pairs say. Returns what they say of columns. `create` is false for ALTER TABLE, where some options are settled.
pub fn apply(options: &mut TableOptions, pairs: &[OptionPair], create: bool) -> Result<ColumnOptions> {
    let mut columns = ColumnOptions::default();
    for pair in pairs {
        let key = pair.key.value.to_lowercase();
        let value = pair.value.trim();
        let wrong = |message: String| {
            SqlError::new(state::INVALID_PARAMETER_VALUE, format!("invalid value for option \"{key}\": {message}"))
                .at(pair.value_position)
        };
        if !create && SETTLED_OPTIONS.contains(&key.as_str()) {
            return Err(SqlError::unsupported(format!("option \"{key}\" cannot be changed")).at(pair.key.position));
        }
        match key.as_str() {
            "mode" => {
                let mode = match value {
                    "append" => Mode::Append,
                    "upsert" => Mode::Upsert,
                    "dedup" => Mode::Dedup,
                    "partial_upsert" => Mode::PartialUpsert,
                    _ => {
                        return Err(
                            wrong(format!("'{value}'")).with_hint("it is append, upsert, partial_upsert or dedup")
                        );
                    }
                };
                columns.mode = Some((mode, pair.value_position));
            }
            "version_column" => columns.version_column = Some((value.to_owned(), pair.value_position)),
            "delete_column" => columns.delete_column = Some((value.to_owned(), pair.value_position)),
            "out_of_order" => {
                let becomes = match value {
                    "keep" => OutOfOrder::Keep,
                    "drop" => OutOfOrder::Drop,
                    "flag" => OutOfOrder::Flag,
                    _ => return Err(wrong(format!("'{value}'")).with_hint("it is keep, drop or flag")),
                };
                columns.out_of_order = Some((becomes, pair.value_position));
            }
            "out_of_order_column" => columns.out_of_order_column = Some((value.to_owned(), pair.value_position)),
            "key_ttl" | "tombstone_ttl" => {
                let ttl = match value {
                    "forever" | "none" => None,
                    _ => Some((duration_us(value).map_err(wrong)?, pair.value_position)),
                };
                match key.as_str() {
                    "key_ttl" => columns.key_ttl = ttl,
                    _ => columns.tombstone_ttl = ttl,
                }
            }
            "kind" => {
                return Err(
                    SqlError::unsupported(format!("kind '{value}' is not supported yet")).at(pair.value_position)
                );
            }
            "partitions" => options.partitions = number(value, 1, u64::from(MAX_PARTITIONS)).map_err(wrong)? as u32,
            "replicas" if value == "1" => {}
            "replicas" => {
                return Err(SqlError::unsupported("replicas need a cluster, which is not supported yet")
                    .at(pair.value_position));
            }
            "time_column" => columns.time_column = Some((value.to_owned(), pair.value_position)),
            "retention" => {
                options.retention_us = match value {
                    "forever" | "none" => None,
                    _ => Some(duration_us(value).map_err(wrong)?),
                }
            }
            "seal_rows" if value.eq_ignore_ascii_case("auto") => options.seal_rows = SEAL_ROWS_AUTO,
            "seal_rows" => options.seal_rows = number(value, 1, MAX_SEAL_ROWS).map_err(wrong)?,
            "seal_bytes" => {
                let bytes = bytes(value).map_err(wrong)?;
                if !(MIN_SEAL_BYTES..=MAX_SEAL_BYTES).contains(&bytes) {
                    return Err(wrong(format!("'{value}' is out of range")).with_hint("it may be 64kB to 16GB"));
                }
                options.seal_bytes = bytes;
            }
            "seal_after" => options.seal_after_us = duration_us(value).map_err(wrong)?,
            _ if LATER_OPTIONS.contains(&key.as_str()) => {
                return Err(
                    SqlError::unsupported(format!("option \"{key}\" is not supported yet")).at(pair.key.position)
                );
            }
            _ => return Err(unknown("table", &key, TABLE_OPTIONS.iter().copied()).at(pair.key.position)),
        }
    }
    Ok(columns)
}

/// 22023 with the nearest known option.
pub fn unknown<'a>(of: &str, key: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> SqlError {
    let names = known.clone().into_iter().collect::<Vec<_>>().join(", ");
    let hint = suggest::hint(key, known).unwrap_or_else(|| format!("known options are {names}"));
    SqlError::new(state::INVALID_PARAMETER_VALUE, format!("unknown {of} option \"{key}\"")).with_hint(hint)
}

fn number(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let digits = value.replace('_', "");
    match digits.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("'{value}' is not a number from {min} to {max}")),
    }
}

/// "30 days", "1 hour 30 minutes", "500ms": microseconds, at least one.
pub fn duration_us(text: &str) -> Result<i64, String> {
    let wrong = || format!("'{text}' is not a duration such as '30 days', '10 minutes' or '500ms'");
    let mut rest = text.trim();
    let mut total = 0_i64;
    while !rest.is_empty() {
        let (amount, unit, after) = amount_and_unit(rest).ok_or_else(wrong)?;
        let unit_us = match unit.as_str() {
            "us" | "microsecond" | "microseconds" => 1,
            "ms" | "millisecond" | "milliseconds" => 1_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "mins" | "minute" | "minutes" => 60_000_000,
            "h" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return Err(wrong()),
        };
        let part = amount.checked_mul(unit_us).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if total > 0 { Ok(total) } else { Err(wrong()) }
}

/// "256MB", "64 kB", "1GiB" or plain bytes; a kilobyte is 1024 bytes, as in Postgres.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size such as '256MB'");
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let (amount, unit, rest) = amount_and_unit(text).ok_or_else(wrong)?;
    let shift = match unit.as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let bytes = amount.checked_mul(1 << shift).filter(|_| rest.is_empty()).ok_or_else(wrong)?;
    u64::try_from(bytes).map_err(|_| wrong())
}

/// Digits, blanks, letters: the first pair and what follows it.
fn amount_and_unit(text: &str) -> Option<(i64, String, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let amount = text[..digits].parse().ok()?;
    let rest = text[digits..].trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    Some((amount, rest[..end].to_lowercase(), rest[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_need_units_and_fit() {
        assert_eq!(duration_us("30 days"), Ok(30 * 86_400_000_000));
        assert_eq!(duration_us("1 hour 30 minutes"), Ok(5_400_000_000));
        assert_eq!(duration_us("500ms"), Ok(500_000));
        for wrong in ["", "5", "x", "5 parsecs", "99999999999999 days", "0s", "-1 s", "1 s 2"] {
            assert!(duration_us(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes("256MB"), Ok(256 << 20));
        assert_eq!(bytes("64 kB"), Ok(65_536));
        assert_eq!(bytes("123"), Ok(123));
        for wrong in ["", "MB", "1XB", "1MB2", "9999999999TB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
