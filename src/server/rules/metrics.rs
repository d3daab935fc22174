//! The numbers of a pipeline that rules watch.

use tidemill_ingest::pipeline::run::PipelineStatus;

use crate::{catalog::definition::PipelineOptions, sql::options};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Count,
    PerSecond,
    Bytes,
    Seconds,
    /// From 0 to 1.
    Share,
}

/// A number of a pipeline; `None` while it is not known.
pub struct Metric {
    pub name: &'static str,
    pub unit: Unit,
    pub of: fn(&Reading<'_>) -> Option<f64>,
}

/// What is known of a pipeline at one moment.
pub struct Reading<'a> {
    pub status: &'a PipelineStatus,
    /// The moment before that, and how many seconds are between.
    pub before: Option<(&'a PipelineStatus, f64)>,
    pub options: &'a PipelineOptions,
    /// Microseconds since 1970.
    pub now_us: i64,
    /// Seconds that it has been in its state.
    pub state_s: f64,
}

impl Reading<'_> {
    fn rate(&self, count: fn(&PipelineStatus) -> u64) -> Option<f64> {
        let (before, seconds) = self.before?;
        Some(count(self.status).saturating_sub(count(before)) as f64 / seconds.max(1e-3))
    }

    /// Seconds in a state; 0 in others.
    fn in_state(&self, state: &str) -> f64 {
        if self.status.state == state { self.state_s } else { 0.0 }
    }
}

/// All of them.
pub const METRICS: &[Metric] = &[
    Metric { name: "lag", unit: Unit::Count, of: |now| now.status.lag.map(|lag| lag as f64) },
    Metric {
        name: "backpressure",
        unit: Unit::Share,
        of: |now| Some(f64::from(now.status.backpressure_permille) / 1000.0),
    },
    Metric {
        name: "watermark_delay",
        unit: Unit::Seconds,
        of: |now| now.status.watermark_us.map(|us| (now.now_us - us) as f64 / 1e6),
    },
    Metric { name: "failing", unit: Unit::Seconds, of: |now| Some(now.in_state("failing")) },
    Metric { name: "held", unit: Unit::Seconds, of: |now| Some(now.in_state("held")) },
    Metric {
        name: "memory",
        unit: Unit::Share,
        of: |now| Some(now.status.state_bytes as f64 / now.options.memory_limit.max(1) as f64),
    },
    Metric { name: "state_bytes", unit: Unit::Bytes, of: |now| Some(now.status.state_bytes as f64) },
    Metric { name: "spilled_bytes", unit: Unit::Bytes, of: |now| Some(now.status.spilled_bytes as f64) },
    Metric { name: "open_groups", unit: Unit::Count, of: |now| Some(now.status.open_groups as f64) },
    Metric { name: "rows_in", unit: Unit::PerSecond, of: |now| now.rate(|status| status.counts.rows_in) },
    Metric { name: "rows_out", unit: Unit::PerSecond, of: |now| now.rate(|status| status.counts.rows_out) },
    Metric { name: "late_rows", unit: Unit::PerSecond, of: |now| now.rate(|status| status.counts.late_rows) },
    Metric { name: "dead_letters", unit: Unit::PerSecond, of: |now| now.rate(|status| status.counts.rejected) },
    Metric { name: "unmatched", unit: Unit::PerSecond, of: |now| now.rate(|status| status.counts.unmatched) },
    Metric { name: "restarts", unit: Unit::PerSecond, of: |now| now.rate(|status| status.restarts) },
];

impl Metric {
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name)
    }
}

impl Unit {
    /// Reads a bound: a number in the unit, or `'80%'`, `'2 GB'`, `'5 minutes'`.
    pub fn parse(self, text: &str) -> Result<f64, String> {
        let text = text.trim();
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        match (self, number) {
            (_, Some(number)) => Ok(number),
            (Self::Bytes, None) => options::bytes(text).map(|bytes| bytes as f64),
            (Self::Seconds, None) => options::duration_us(text).map(|us| us as f64 / 1e6),
            (Self::Share, None) => {
                let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
                let wrong = || format!("\"{text}\" is no share; give one as in 0.8 or '80%'");
                percent.filter(|number| number.is_finite()).map(|number| number / 100.0).ok_or_else(wrong)
            }
            (Self::Count | Self::PerSecond, None) => Err(format!("\"{text}\" is no number")),
        }
    }

    /// A value as it is told.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Count | Self::Bytes => format!("{value:.0}"),
            Self::PerSecond => format!("{value:.1} a second"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Share => format!("{:.1} %", value * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_in_the_unit_of_their_metric() {
        for (unit, text, expected) in [
            (Unit::Count, "100000", 100_000.0),
            (Unit::PerSecond, "0.5", 0.5),
            (Unit::Bytes, "2 GB", 2.0 * (1_u64 << 30) as f64),
            (Unit::Bytes, "1000", 1000.0),
            (Unit::Seconds, "5 minutes", 300.0),
            (Unit::Seconds, "2.5", 2.5),
            (Unit::Share, "80%", 0.8),
            (Unit::Share, "0.25", 0.25),
        ] {
            assert_eq!(unit.parse(text), Ok(expected), "{unit:?} {text}");
        }
        for (unit, text) in [
            (Unit::Count, "many"),
            (Unit::PerSecond, "1 minute"),
            (Unit::Bytes, "2 hours"),
            (Unit::Seconds, "3 GB"),
            (Unit::Share, "half"),
            (Unit::Share, "nan%"),
            (Unit::Count, "inf"),
        ] {
            unit.parse(text).unwrap_err();
        }
    }
}
