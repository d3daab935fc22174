//! WITH options of generator sources.
//!
//! | option | meaning |
//! |---|---|
//! | `rate` | rows a second over all partitions; 0 is as fast as they are taken; 1000 by default |
//! | `rows` | rows in all, over all partitions; without it the stream never ends |
//! | `seed` | another seed gives other rows; 42 by default |
//! | `partitions` | 1 by default |
//! | `epoch` | event time of the first rows: ISO 8601 or milliseconds; without it, when the source is first read |

use super::super::{
    options::{OptionReader, wrong},
    start::parse_time_ms,
};
use crate::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// Rows a second over all partitions; 0: no limit.
    pub rate: u64,
    /// Rows in all.
    pub rows: Option<u64>,
    pub seed: u64,
    pub partitions: u32,
    /// Event time of offset 0, microseconds since 1970.
    pub epoch_us: Option<i64>,
}

impl GeneratorOptions {
    pub(in crate::source) fn take(options: &mut OptionReader) -> Result<Self> {
        let rate =
            options.value("rate", "rows a second, 0 to 100000000 (0: no limit)", |rate| *rate <= 100_000_000u64)?;
        let rows = options.value("rows", "a number of rows, at least 1", |rows| (1..=1u64 << 60).contains(rows))?;
        let seed = options.value("seed", "a whole number", |_: &u64| true)?;
        let partitions = options.value("partitions", "1 to 1024", |partitions| (1..=1024u32).contains(partitions))?;
        let epoch_us = match options.text("epoch") {
            None => None,
            Some(text) => Some(
                parse_time_ms(text.trim()).and_then(|ms| ms.checked_mul(1000)).filter(|us| *us < 1 << 55).ok_or_else(
                    || wrong("epoch", &text, "milliseconds since 1970, or a time like 2026-01-31T12:00:00Z"),
                )?,
            ),
        };
        Ok(Self {
            rate: rate.unwrap_or(1000),
            rows,
            seed: seed.unwrap_or(42),
            partitions: partitions.unwrap_or(1),
            epoch_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn take(pairs: &[(&str, &str)]) -> Result<GeneratorOptions> {
        let mut reader = OptionReader::of(pairs);
        let options = GeneratorOptions::take(&mut reader)?;
        reader.finish()?;
        Ok(options)
    }

    #[test]
    fn has_defaults() {
        let defaults = GeneratorOptions { rate: 1000, rows: None, seed: 42, partitions: 1, epoch_us: None };
        assert_eq!(take(&[]).unwrap(), defaults);
        let all = [("rate", "0"), ("rows", "5"), ("seed", "7"), ("partitions", "4"), ("epoch", "1970-01-01T00:00:01Z")];
        let wanted = GeneratorOptions { rate: 0, rows: Some(5), seed: 7, partitions: 4, epoch_us: Some(1_000_000) };
        assert_eq!(take(&all).unwrap(), wanted);
    }

    #[test]
    fn refuses() {
        for bad in
            [("rate", "-1"), ("rate", "fast"), ("rows", "0"), ("seed", "x"), ("partitions", "0"), ("epoch", "soon")]
        {
            let Err(Error::Definition { message, .. }) = take(&[bad]) else { panic!("{bad:?}") };
            assert!(message.contains(bad.0), "{message}");
        }
    }
}
