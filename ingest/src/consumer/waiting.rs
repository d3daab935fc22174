//! Streams that wait for a transaction of their producer: what stands behind it is not given before it is committed or aborted. Its partition
//! alone waits, but as long as nobody ends it, for ever: that is said.

use super::{feed::FeedState, feed::StreamState};
use crate::source::OpenTransaction;

/// A transaction that is open for so long is an event. Kafka's brokers abort one after a minute, unless its producer asked for longer.
const LONG_US: i64 = 60_000_000;
/// From then on `rt.partitions` says so: most transactions are shorter.
const VISIBLE_US: i64 = 5_000_000;

/// The transaction that one stream waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Offset of its first message.
    from: u64,
    since_us: i64,
    is_told: bool,
}

/// What there is to tell of a stream that waits, or waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It waits for long.
    Long(String),
    /// It was said to wait, and goes on.
    Over(String),
}

impl Waiting {
    /// Notes what a look at `now_us` found of a stream. `waiting` is kept from look to look. Also returns what is wrong with the stream meanwhile.
    pub(super) fn look(
        waiting: &mut Option<Self>,
        open: Option<OpenTransaction>,
        now_us: i64,
    ) -> (Option<String>, Option<Said>) {
        let is_same = matches!((&*waiting, &open), (Some(known), Some(open)) if known.from == open.from);
        let over = match waiting.take_if(|_| !is_same) {
            Some(known) if known.is_told => Some(Said::Over(format!(
                "the transaction at offset {} ended after {} s, reading goes on",
                known.from,
                (now_us - known.since_us) / 1_000_000
            ))),
            _ => None,
        };
        let Some(open) = open else { return (None, over) };
        let known = waiting.get_or_insert(Self { from: open.from, since_us: now_us, is_told: false });
        let waits_us = now_us - known.since_us;
        if waits_us < VISIBLE_US {
            return (None, over);
        }
        let text = format!(
            "a transaction that began at offset {} has been open for {} s or more: {} offsets from there on are not given before its producer commits \
             or aborts it (kafka-transactions.sh find-hanging, abort)",
            open.from,
            waits_us / 1_000_000,
            open.to.saturating_sub(open.from)
        );
        if waits_us < LONG_US || known.is_told {
            return (Some(text), over);
        }
        known.is_told = true;
        (Some(text.clone()), Some(Said::Long(text)))
    }
}

/// The open transaction that `stream` stands before, if it does.
pub(super) fn open(feed: &FeedState, stream: &StreamState) -> Option<OpenTransaction> {
    let open = feed.feed.connector.open_transaction(stream.id.partition)?;
    (stream.position() >= open.from && stream.position() < open.to).then_some(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_long_is_told_once() {
        let open = |from| Some(OpenTransaction { from, to: 20 });
        let mut waiting = None;
        let mut at = |open, seconds: i64| Waiting::look(&mut waiting, open, seconds * 1_000_000);
        assert_eq!(at(open(10), 0), (None, None));
        assert_eq!(at(open(10), 4), (None, None));
        assert!(matches!(at(open(10), 6), (Some(_), None)));
        // The next one: time begins anew.
        assert_eq!(at(open(15), 55), (None, None));
        assert!(matches!(at(open(15), 114), (Some(_), None)));
        let (Some(text), Some(Said::Long(said))) = at(open(15), 115) else { panic!("not told") };
        assert!(text == said && text.contains("offset 15") && text.contains("60 s") && text.contains("5 offsets"));
        assert!(matches!(at(open(15), 200), (Some(_), None)));
        let (None, Some(Said::Over(text))) = at(None, 205) else { panic!("not over") };
        assert!(text.contains("offset 15") && text.contains("150 s"));
        assert_eq!(at(None, 300), (None, None));
    }
}
