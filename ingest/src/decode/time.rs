//! Dates and timestamps.

/// What a number in a time column counts since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EpochUnit {
    /// Seconds below 10^11, milliseconds below 10^14, microseconds below 10^17, nanoseconds above.
    #[default]
    ByMagnitude,
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl EpochUnit {
    /// `auto`, `s`, `ms`, `us`, `ns`, or a unit's name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "auto" => Self::ByMagnitude,
            "s" | "sec" | "seconds" => Self::Seconds,
            "ms" | "millis" | "milliseconds" => Self::Milliseconds,
            "us" | "micros" | "microseconds" => Self::Microseconds,
            "ns" | "nanos" | "nanoseconds" => Self::Nanoseconds,
            _ => return None,
        })
    }
}
