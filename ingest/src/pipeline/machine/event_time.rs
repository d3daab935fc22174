//! Event time: how far the streams of a pipeline are, by their rows alone.
//!
//! ```text
//! stream 0   watermark 12:00:31 ─┐
//! stream 1   watermark 12:00:40 ─┼─ least ─► 12:00:31: windows that end by then are complete
//! stream 2   idle, or empty     ─┘ (left out)
//! ```
//!
//! A watermark goes forward with each row. A row that is further ahead than the bound on jumps is *doubtful*: it moves nothing until the next row of its
//! stream is as far ahead, so that one event ten years ahead closes no window. What always holds: the combined watermark never goes back; it depends on the
//! rows and their order alone, but for streams that fall silent, which are left out after a while of the clock.
//!
//! A join waits for both of its sides: there a source that is silent as a whole is not left out (`waits_for_all`), since what it sends later would be late.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, TimestampMicrosecondArray};
use serde::{Deserialize, Serialize};
use tidemill_storage::ids::{SourceId, StreamId};

/// Nothing is known.
pub(crate) const NEVER: i64 = i64::MIN;

/// Whether a stream holds the others back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Flow {
    /// There are messages that were not read yet.
    #[default]
    Behind,
    /// Everything was read; with rows it counts, without it does not.
    CaughtUp,
    /// Nothing came for a while.
    Idle,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct StreamTime {
    watermark: Option<i64>,
    doubtful: Option<i64>,
    flow: Flow,
}

/// The streams of a pipeline in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventTime {
    streams: BTreeMap<StreamTimeKey, StreamTime>,
    /// Sources whose streams are not known yet.
    unknown: Vec<SourceId>,
    combined: i64,
    jump_max: i64,
    /// Whether sources are waited for that are silent as a whole.
    #[serde(default)]
    waits_for_all: bool,
}

/// Maps of JSON have texts for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StreamTimeKey(StreamId);

impl Serialize for StreamTimeKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}/{}", self.0.source, self.0.partition))
    }
}

impl<'de> Deserialize<'de> for StreamTimeKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = || {
            let (source, partition) = text.split_once('/')?;
            Some(StreamId { source: SourceId(source.parse().ok()?), partition: partition.parse().ok()? })
        };
        read().map(Self).ok_or_else(|| serde::de::Error::custom(format!("{text} is no stream")))
    }
}

impl StreamTime {
    /// Takes the value of one row.
    fn take(&mut self, value: i64, reference: i64, jump_max: i64) {
        // What others say tells whether the first row of a stream is far ahead.
        let known = self.watermark.or(Some(reference).filter(|reference| *reference != NEVER));
        if known.is_some_and(|known| value <= known.saturating_add(jump_max)) {
            self.doubtful = None;
            self.watermark = Some(self.watermark.map_or(value, |own| own.max(value)));
            return;
        }
        match self.doubtful {
            Some(doubtful) if value.abs_diff(doubtful) <= jump_max.unsigned_abs() => {
                self.watermark = Some(value.max(doubtful));
                self.doubtful = None;
            }
            _ => self.doubtful = Some(value),
        }
    }
}

impl EventTime {
    pub(crate) fn new(sources: Vec<SourceId>, jump_max: i64) -> Self {
        Self { streams: BTreeMap::new(), unknown: sources, combined: NEVER, jump_max, waits_for_all: false }
    }

    /// Waits for each source, as joins do.
    pub(crate) fn wait_for_all(&mut self) {
        self.waits_for_all = true;
    }

    /// Is where another one of the same sources is, whatever it has seen of them.
    pub(crate) fn follow(&mut self, other: &Self) {
        self.streams = other.streams.clone();
        self.unknown = other.unknown.clone();
        self.combined = self.combined.max(other.combined);
    }

    /// Sources that hold back others that are further, when they are what is waited for.
    pub(crate) fn behind(&self) -> Vec<SourceId> {
        // Nothing is complete before they are known.
        if !self.unknown.is_empty() {
            return self.unknown.clone();
        }
        let sources: BTreeSet<SourceId> = self.streams.keys().map(|id| id.0.source).collect();
        let times: Vec<(SourceId, i64)> =
            sources.into_iter().filter_map(|source| Some((source, self.of_source(source)?))).collect();
        let (least, most) = (times.iter().map(|(_, time)| *time).min(), times.iter().map(|(_, time)| *time).max());
        if least == most {
            return Vec::new();
        }
        times.into_iter().filter(|(_, time)| Some(*time) == least).map(|(source, _)| source).collect()
    }

    /// All that is before it is complete; [`NEVER`] at first.
    pub(crate) fn combined(&self) -> i64 {
        self.combined
    }

    /// Whether no stream without rows holds the others back.
    pub(crate) fn is_settled(&self) -> bool {
        self.unknown.is_empty() && self.streams.values().all(|time| time.has_rows() || time.flow != Flow::Behind)
    }

    /// Whether rows of a stream came, ever.
    pub(crate) fn has_rows(&self, stream: StreamId) -> bool {
        self.streams.get(&StreamTimeKey(stream)).is_some_and(StreamTime::has_rows)
    }

    /// The streams of a source are known.
    pub(crate) fn know(&mut self, source: SourceId) {
        self.unknown.retain(|unknown| *unknown != source);
        self.combine();
    }

    /// Says of a stream whether it holds the others back.
    pub(crate) fn set_flow(&mut self, stream: StreamId, flow: Flow) {
        self.streams.entry(StreamTimeKey(stream)).or_default().flow = flow;
        self.combine();
    }

    /// Takes the values of the rows of a batch, in their order; what was complete before each of them.
    pub(crate) fn advance(&mut self, stream: StreamId, values: &TimestampMicrosecondArray) -> Vec<i64> {
        let others = self.others(stream);
        let reference = self.reference(stream);
        let jump_max = self.jump_max;
        let mut combined = self.combined;
        let time = self.streams.entry(StreamTimeKey(stream)).or_default();
        if time.flow == Flow::Idle {
            time.flow = Flow::CaughtUp;
        }
        let mut before = Vec::with_capacity(values.len());
        for row in 0..values.len() {
            before.push(combined);
            if values.is_valid(row) {
                time.take(values.value(row), reference, jump_max);
                combined = combined.max(others.min(time.watermark.unwrap_or(NEVER)));
            }
        }
        self.combine();
        before
    }

    /// The least watermark of the other streams that count; above all others where there are none.
    fn others(&self, stream: StreamId) -> i64 {
        if !self.unknown.is_empty() {
            return NEVER;
        }
        let own = self.counting(stream.source, Some(stream));
        let sources: BTreeSet<SourceId> = self.streams.keys().map(|id| id.0.source).collect();
        let others = sources.into_iter().filter(|source| *source != stream.source);
        others.filter_map(|source| self.of_source(source)).chain(own).min().unwrap_or(i64::MAX)
    }

    /// The least watermark of the streams of a source that count.
    fn counting(&self, source: SourceId, without: Option<StreamId>) -> Option<i64> {
        let of_source = self.streams.iter().filter(|(id, _)| id.0.source == source && Some(id.0) != without);
        of_source.filter_map(|(_, time)| time.counts()).min()
    }

    /// How far a source is; `None` for one that is not waited for. Of a silent one it is how far it came.
    fn of_source(&self, source: SourceId) -> Option<i64> {
        let silent = || {
            let of_source = self.streams.iter().filter(|(id, _)| id.0.source == source);
            of_source.map(|(_, time)| time.watermark.unwrap_or(NEVER)).max()
        };
        self.counting(source, None).or_else(|| silent().filter(|_| self.waits_for_all))
    }

    /// What the first row of a stream is measured by: how far the others are.
    fn reference(&self, stream: StreamId) -> i64 {
        let others = self.streams.iter().filter(|(id, _)| id.0 != stream);
        others.filter_map(|(_, time)| time.watermark).max().unwrap_or(NEVER)
    }

    fn combine(&mut self) {
        if !self.unknown.is_empty() {
            return;
        }
        let sources: BTreeSet<SourceId> = self.streams.keys().map(|id| id.0.source).collect();
        if let Some(least) = sources.into_iter().filter_map(|source| self.of_source(source)).min() {
            self.combined = self.combined.max(least);
        }
    }
}

impl StreamTime {
    fn has_rows(&self) -> bool {
        self.watermark.is_some() || self.doubtful.is_some()
    }

    /// The watermark that the combined one waits for; `None` for a stream that it does not wait for.
    fn counts(&self) -> Option<i64> {
        match (self.flow, self.watermark, self.doubtful) {
            (Flow::Idle, ..) | (Flow::CaughtUp, None, None) => None,
            (_, watermark, _) => Some(watermark.unwrap_or(NEVER)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(partition: u32) -> StreamId {
        StreamId { source: SourceId(1), partition }
    }

    fn time(streams: u32) -> EventTime {
        let mut time = EventTime::new(vec![SourceId(1)], 1000);
        (0..streams).for_each(|partition| time.set_flow(stream(partition), Flow::CaughtUp));
        time.know(SourceId(1));
        time
    }

    fn advance(time: &mut EventTime, partition: u32, values: &[i64]) -> Vec<i64> {
        time.advance(stream(partition), &values.to_vec().into())
    }

    #[test]
    fn goes_by_the_stream_that_is_furthest_behind() {
        let mut time = time(3);
        // The first row waits for the second: nothing tells how far it may be ahead.
        assert_eq!(advance(&mut time, 0, &[10, 20, 15, 30]), [NEVER, NEVER, 20, 20]);
        assert_eq!(time.combined(), 30);
        // Another stream appears behind: what is complete stays so.
        advance(&mut time, 1, &[12]);
        assert_eq!(time.combined(), 30);
        advance(&mut time, 0, &[100]);
        assert_eq!(time.combined(), 30);
        advance(&mut time, 1, &[40]);
        assert_eq!(time.combined(), 40);
        time.set_flow(stream(1), Flow::Idle);
        assert_eq!(time.combined(), 100);
        // It counts again with its next row, and holds back what comes.
        advance(&mut time, 1, &[50]);
        advance(&mut time, 0, &[200]);
        assert_eq!(time.combined(), 100);
    }

    #[test]
    fn a_stream_with_a_backlog_holds_all_back() {
        let mut time = EventTime::new(vec![SourceId(1)], 1000);
        time.set_flow(stream(0), Flow::Behind);
        time.set_flow(stream(1), Flow::Behind);
        advance(&mut time, 0, &[10, 20]);
        assert_eq!(time.combined(), NEVER, "the source's streams are not all known");
        time.know(SourceId(1));
        assert_eq!(time.combined(), NEVER, "stream 1 was not read");
        time.set_flow(stream(1), Flow::CaughtUp);
        assert_eq!(time.combined(), 20, "stream 1 is empty");
    }

    /// A join's other side may be silent for long: nothing that it sends then is late.
    #[test]
    fn a_join_waits_for_a_silent_source() {
        for waits in [false, true] {
            let mut time = EventTime::new(vec![SourceId(1), SourceId(2)], 1000);
            if waits {
                time.wait_for_all();
            }
            let other = |partition| StreamId { source: SourceId(2), partition };
            for id in [stream(0), other(0), other(1)] {
                time.set_flow(id, Flow::CaughtUp);
            }
            time.know(SourceId(1));
            time.know(SourceId(2));
            advance(&mut time, 0, &[10, 20]);
            assert_eq!(time.combined(), if waits { NEVER } else { 20 }, "nothing came of the other source yet");
            assert_eq!(time.behind(), if waits { vec![SourceId(2)] } else { vec![] });
            time.advance(other(0), &vec![25, 25].into());
            time.advance(other(1), &vec![30, 30].into());
            time.set_flow(other(0), Flow::Idle);
            advance(&mut time, 0, &[100]);
            assert_eq!(time.combined(), 30, "of two partitions one is silent: it is left out");
            time.set_flow(other(1), Flow::Idle);
            assert_eq!(advance(&mut time, 0, &[110, 120]), if waits { [30, 30] } else { [100, 110] });
            assert_eq!(time.combined(), if waits { 30 } else { 120 });
        }
    }

    #[test]
    fn one_event_far_ahead_moves_nothing() {
        let mut time = time(1);
        advance(&mut time, 0, &[10, 20, 9_000_000, 30]);
        assert_eq!(time.combined(), 30);
        advance(&mut time, 0, &[9_000_000, 40, 9_000_000]);
        assert_eq!(time.combined(), 40);
        // Time went on: the next one says so, too.
        advance(&mut time, 0, &[9_000_100]);
        assert_eq!(time.combined(), 9_000_100);
        // Also as the very first.
        let mut first = self::time(1);
        advance(&mut first, 0, &[9_000_000, 10, 20]);
        assert_eq!(first.combined(), 20);
        let text = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<EventTime>(&text).unwrap(), first);
    }
}
