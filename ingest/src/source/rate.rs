//! How fast a source is read at most: so many messages, or bytes of them, a second, for each table and each pipeline that reads it.
//!
//! What was taken is a debt that goes down by the limit's rate, and nobody reads before it is gone: so the limit is kept over any stretch of time that is longer than one batch,
//! and a silent source saves nothing up for later. Limits may change at any moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::{Fetched, wrong};
use crate::Result;

pub const MAX_ROWS: &str = "max_rows_per_s";
pub const MAX_MB: &str = "max_mb_per_s";
const MB: f64 = 1e6;
/// Batches a second that a limit is made of, about.
const BATCHES: u64 = 20;

/// What options say; 0 for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages a second; of sources without messages rows.
    pub rows: u64,
    /// Bytes of them a second.
    pub bytes: u64,
}

impl Rates {
    /// Takes `max_rows_per_s` and `max_mb_per_s` out of options.
    pub fn take(options: &mut BTreeMap<String, String>) -> Result<Self> {
        let mut rates = Self::default();
        if let Some(text) = options.remove(MAX_ROWS) {
            let rows = text.trim().replace('_', "").parse();
            rates.rows =
                rows.map_err(|_| wrong(MAX_ROWS, &text, "a whole number of messages a second, 0 for no limit"))?;
        }
        if let Some(text) = options.remove(MAX_MB) {
            let mb = text.trim().parse().ok().filter(|mb: &f64| (0.0..1e9).contains(mb));
            let mb = mb.ok_or_else(|| wrong(MAX_MB, &text, "megabytes a second, as in 2.5, 0 for no limit"))?;
            // The least limit is a byte: nothing at all would be PAUSE.
            rates.bytes = if mb == 0.0 { 0 } else { ((mb * MB) as u64).max(1) };
        }
        Ok(rates)
    }
}

/// The limits of a source, for all who read it.
#[derive(Debug, Default)]
pub struct Limits {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Limits {
    pub fn set(&self, rates: Rates) {
        self.rows.store(rates.rows, Ordering::Relaxed);
        self.bytes.store(rates.bytes, Ordering::Relaxed);
    }

    fn get(&self) -> Rates {
        Rates { rows: self.rows.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// The pace of one reader of a source, of all of its threads. By default it has no limits.
#[derive(Debug, Default)]
pub struct Pace {
    limits: Arc<Limits>,
    taken: Mutex<Taken>,
}

/// What was taken and is not paid for.
#[derive(Debug, Default)]
struct Taken {
    rows: f64,
    bytes: f64,
    at_us: i64,
}

impl Pace {
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { limits, taken: Mutex::default() }
    }

    /// Microseconds until one may read again.
    pub(crate) fn wait_us(&self, now_us: i64) -> i64 {
        let rates = self.limits.get();
        if rates == Rates::default() {
            return 0;
        }
        let mut taken = self.taken.lock();
        let elapsed = (now_us - taken.at_us).max(0) as f64 / 1e6;
        taken.at_us = now_us;
        // Without a limit nothing is owed.
        let paid = |debt: f64, rate: u64| if rate == 0 { 0.0 } else { (debt - rate as f64 * elapsed).max(0.0) };
        (taken.rows, taken.bytes) = (paid(taken.rows, rates.rows), paid(taken.bytes, rates.bytes));
        let wait = |debt: f64, rate: u64| if rate == 0 { 0.0 } else { debt / rate as f64 };
        (wait(taken.rows, rates.rows).max(wait(taken.bytes, rates.bytes)) * 1e6).ceil() as i64
    }

    /// What one poll may bring of `messages` and `bytes`, which are the most without limits.
    pub(crate) fn batch(&self, messages: usize, bytes: usize) -> (usize, usize) {
        let of = |rate: u64, most: usize| match rate {
            0 => most,
            rate => ((rate / BATCHES).max(1) as usize).min(most),
        };
        let rates = self.limits.get();
        (of(rates.rows, messages), of(rates.bytes, bytes))
    }

    /// Says what was read.
    pub(crate) fn took(&self, fetched: &[Fetched]) {
        if fetched.is_empty() || self.limits.get() == Rates::default() {
            return;
        }
        let mut taken = self.taken.lock();
        for fetched in fetched {
            match fetched {
                Fetched::Messages(batch) => {
                    taken.rows += batch.messages.len() as f64;
                    let bytes: u64 = batch
                        .messages
                        .iter()
                        .map(|message| u64::from(message.payload.end - message.payload.start))
                        .sum();
                    taken.bytes += bytes as f64;
                }
                Fetched::Rows(batch) => {
                    taken.rows += batch.rows.num_rows() as f64;
                    taken.bytes += batch.rows.get_array_memory_size() as f64;
                }
                Fetched::Gap { .. } | Fetched::End { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Message, MessageBatch};

    fn messages(count: u32, bytes: u32) -> Fetched {
        let message = |at: u32| Message {
            payload: at * bytes..(at + 1) * bytes,
            is_null: false,
            offset: u64::from(at),
            timestamp_ms: -1,
        };
        let payloads = Bytes::from(vec![b' '; (count * bytes) as usize]);
        let messages = (0..count).map(message).collect();
        Fetched::Messages(MessageBatch { partition: 0, payloads, messages, from: 0, to: u64::from(count) })
    }

    /// However much a poll brings, over time it is no more than the limit and a batch.
    #[test]
    fn what_is_read_keeps_to_the_limit() {
        for (rates, of_message, limit) in [
            (Rates { rows: 1000, bytes: 0 }, 10, 1000.0),
            (Rates { rows: 0, bytes: 5000 }, 10, 500.0),
            (Rates { rows: 700, bytes: 1_000_000 }, 10, 700.0),
        ] {
            let limits = Arc::new(Limits::default());
            limits.set(rates);
            let pace = Pace::new(limits);
            let (mut now_us, mut read, mut turn) = (5_000_000, 0u32, 0u32);
            while now_us < 15_000_000 {
                match pace.wait_us(now_us) {
                    0 => {
                        turn += 1;
                        let count = pace.batch(16_384, 4 << 20).0.min((turn * 37 % 400 + 1) as usize) as u32;
                        pace.took(&[messages(count, of_message)]);
                        read += count;
                        // Others take their time.
                        now_us += i64::from(turn % 3) * 500;
                    }
                    wait_us => now_us += wait_us,
                }
                let most = (now_us - 5_000_000) as f64 / 1e6 * limit + 400.0;
                assert!(f64::from(read) <= most, "{read} of {most}, {rates:?}");
            }
            assert!(f64::from(read) > limit * 10.0 * 0.95, "{read}, {rates:?}");
        }
    }

    #[test]
    fn limits_change_and_end() {
        let limits = Arc::new(Limits::default());
        let pace = Pace::new(Arc::clone(&limits));
        pace.took(&[messages(10_000, 1)]);
        assert_eq!((pace.wait_us(1), pace.batch(10, 20)), (0, (10, 20)), "nothing is owed that came without a limit");
        limits.set(Rates { rows: 100, bytes: 0 });
        assert_eq!((pace.wait_us(10), pace.batch(10_000, 20)), (0, (5, 20)));
        pace.took(&[messages(100, 1)]);
        assert_eq!((pace.wait_us(10), pace.wait_us(500_010)), (1_000_000, 500_000));
        limits.set(Rates { rows: 1000, bytes: 0 });
        assert_eq!(pace.wait_us(500_010), 50_000);
        limits.set(Rates::default());
        assert_eq!(pace.wait_us(500_010), 0);
    }

    #[test]
    fn options_say_what_the_limits_are() {
        let take = |key: &str, value: &str| Rates::take(&mut BTreeMap::from([(key.into(), value.into())]));
        assert_eq!(take(MAX_ROWS, "20_000").unwrap(), Rates { rows: 20_000, bytes: 0 });
        assert_eq!(take(MAX_MB, "2.5").unwrap(), Rates { rows: 0, bytes: 2_500_000 });
        assert_eq!(take(MAX_MB, "0").unwrap(), Rates::default());
        for (key, value) in [(MAX_ROWS, "-1"), (MAX_ROWS, "many"), (MAX_MB, "-1"), (MAX_MB, "NaN"), (MAX_MB, "1e300")] {
            assert!(take(key, value).unwrap_err().to_string().contains(key), "{value}");
        }
    }
}
