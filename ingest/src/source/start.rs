//! The option `start` as text: `earliest`, `latest`, `committed`, `timestamp:<ISO 8601 or milliseconds>`, `offsets:{0:15,1:20}`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::Start;

/// What the option takes, for error messages.
pub(super) const WANTED: &str =
    "earliest, latest, committed, timestamp:<ISO 8601 or milliseconds> or offsets:{partition:offset, …}";

impl FromStr for Start {
    /// What would be right.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest.trim())));
        match (kind.to_ascii_lowercase().as_str(), rest) {
            // The second spellings are Flink's `scan.startup.mode`.
            ("earliest" | "earliest-offset", None) => Ok(Self::Earliest),
            ("latest" | "latest-offset", None) => Ok(Self::Latest),
            ("committed" | "group-offsets", None) => Ok(Self::Committed),
            ("timestamp", Some(time)) => parse_time_ms(time)
                .map(Self::TimestampMs)
                .ok_or("timestamp:<milliseconds since 1970, or a time like 2026-01-31T12:00:00Z>"),
            ("offsets", Some(list)) => {
                parse_offsets(list).map(Self::Offsets).ok_or("offsets:{partition:offset, …}, as in offsets:{0:15,1:20}")
            }
            _ => Err(WANTED),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Committed => f.write_str("committed"),
            Self::TimestampMs(ms) => write!(f, "timestamp:{ms}"),
            Self::Offsets(offsets) => {
                let list: Vec<String> =
                    offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
                write!(f, "offsets:{{{}}}", list.join(","))
            }
        }
    }
}

/// Milliseconds since 1970 of a number of milliseconds, or of an ISO 8601 time; UTC where it names no zone.
pub(super) fn parse_time_ms(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse::<i64>() {
        return (ms >= 0).then_some(ms);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    for layout in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, layout) {
            return Some(time.and_utc().timestamp_millis());
        }
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

fn parse_offsets(text: &str) -> Option<BTreeMap<u32, u64>> {
    let list = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut offsets = BTreeMap::new();
    for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (partition, offset) = pair.split_once(':')?;
        let partition = partition.trim().trim_matches('"').parse().ok()?;
        let offset: u64 = offset.trim().parse().ok()?;
        if i64::try_from(offset).is_err() || offsets.insert(partition, offset).is_some() {
            return None;
        }
    }
    Some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        assert_eq!("earliest".parse(), Ok(Start::Earliest));
        assert_eq!(" Latest ".parse(), Ok(Start::Latest));
        assert_eq!("committed".parse(), Ok(Start::Committed));
        assert_eq!("timestamp:1700000000000".parse(), Ok(Start::TimestampMs(1_700_000_000_000)));
        for iso in
            ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20", "2023-11-14T22:13:20.000"]
        {
            assert_eq!(format!("timestamp:{iso}").parse(), Ok(Start::TimestampMs(1_700_000_000_000)), "{iso}");
        }
        assert_eq!("timestamp:2023-11-14".parse(), Ok(Start::TimestampMs(1_699_920_000_000)));
        assert_eq!("offsets:{0:15, 1:20}".parse(), Ok(Start::Offsets(BTreeMap::from([(0, 15), (1, 20)]))));
        assert_eq!("offsets:{}".parse(), Ok(Start::Offsets(BTreeMap::new())));
    }

    #[test]
    fn is_written_as_it_is_read() {
        for text in ["earliest", "latest", "committed", "timestamp:17", "offsets:{0:15,3:20}"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in [
            "",
            "first",
            "timestamp",
            "timestamp:",
            "timestamp:-5",
            "timestamp:yesterday",
            "offsets",
            "offsets:0:15",
            "offsets:{0:15,0:16}",
            "offsets:{0}",
            "offsets:{-1:3}",
            "offsets:{0:-3}",
            "offsets:{0:18446744073709551615}",
            "latest:3",
        ] {
            assert!(bad.parse::<Start>().is_err(), "{bad}");
        }
    }
}
