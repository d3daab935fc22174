//! What happened that a person should know: gaps, stops, quarantines, failed seals. `rt.events` shows them.

use std::{collections::VecDeque, fmt};

use parking_lot::Mutex;
use tidemill_storage::ids::{PartitionId, StreamId, TableId};

/// How loud an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something is retried or was left out on purpose.
    Warning,
    /// Something stands still or is lost; a person is needed.
    Page,
}

impl Severity {
    /// As `rt.events.severity` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Page => "page",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Microseconds since 1970.
    pub at_us: i64,
    pub severity: Severity,
    /// A word that programs may go by: "gap", "partition_stopped", "seal_failed" and so on.
    pub kind: &'static str,
    pub table: Option<TableId>,
    pub partition: Option<PartitionId>,
    pub stream: Option<StreamId>,
    /// One line for a person; names the objects and the offsets.
    pub message: String,
}

/// Where events go. Called from consuming threads: must be quick and must not fail.
pub trait EventSink: Send + Sync + fmt::Debug {
    fn record(&self, event: Event);
}

/// Keeps the newest events in memory and writes each to the server's log.
#[derive(Debug)]
pub struct EventRing {
    events_max: usize,
    events: Mutex<VecDeque<Event>>,
}

impl EventRing {
    pub fn new(events_max: usize) -> Self {
        Self { events_max: events_max.max(1), events: Mutex::default() }
    }

    /// The events that are kept, oldest first.
    pub fn recent(&self) -> Vec<Event> {
        self.events.lock().iter().cloned().collect()
    }
}

impl EventSink for EventRing {
    fn record(&self, event: Event) {
        match event.severity {
            Severity::Info => tracing::info!(kind = event.kind, "{}", event.message),
            Severity::Warning => tracing::warn!(kind = event.kind, "{}", event.message),
            Severity::Page => tracing::error!(kind = event.kind, "{}", event.message),
        }
        let mut events = self.events.lock();
        if events.len() == self.events_max {
            events.pop_front();
        }
        events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest() {
        let ring = EventRing::new(2);
        for at_us in 0..5 {
            ring.record(Event {
                at_us,
                severity: Severity::Info,
                kind: "test",
                table: None,
                partition: None,
                stream: None,
                message: String::new(),
            });
        }
        assert_eq!(ring.recent().iter().map(|event| event.at_us).collect::<Vec<_>>(), [3, 4]);
    }
}
