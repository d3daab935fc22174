//! How stale a table is: since when there may be messages in its sources that are not visible.
//!
//! ```text
//! asked: ends at 70        asked: ends at 90            asked: ends at 95           now
//! ───┬───────────────────────────┬────────────────────────────┬──────────────────────┬──
//!    │                           └─ position 92: everything that was there then is visible; stale since then
//! ```
//!
//! A partition to whose end everything is visible is as fresh as the last look at its end, however old its last message is. Looks are
//! those of discovery, every few seconds; who wants it fresher than the last of them has the source asked now.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_storage::ids::SourceId;

use super::{TableIngest, feed::FeedState, status::StreamRun};
use crate::{Result, runtime::blocking};

/// What is staler than is allowed, and why it stayed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    pub source: String,
    /// The stalest of its partitions; `None` when none is known yet.
    pub partition: Option<u32>,
    /// Since when not everything is known to be visible; `None` when it never was since the start.
    pub age: Option<Duration>,
    /// Messages that are not visible, as of the last look.
    pub lag: Option<u64>,
    pub reason: String,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partition {
            Some(partition) => write!(f, "partition {partition} of source \"{}\"", self.source)?,
            None => write!(f, "source \"{}\"", self.source)?,
        }
        match self.age {
            Some(age) => write!(f, " is {} ms stale", age.as_millis())?,
            None => f.write_str(" has not been read to its end since the start")?,
        }
        if let Some(lag) = self.lag.filter(|lag| *lag > 0) {
            write!(f, ", {lag} messages behind")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl TableIngest {
    /// Returns when everything that was in the `sources` at some moment of the last `within` is visible; waits for it as long as `wait`.
    /// Must be called inside a tokio runtime with timers.
    pub async fn fresh(&self, sources: &[SourceId], within: Duration, wait: Duration) -> Result<(), Box<Stale>> {
        let begun_us = self.shared.runtime.clock.monotonic_us();
        for source in sources {
            // A source that was dropped meanwhile brings nothing more.
            let Ok(feed) = self.feed(*source) else { continue };
            let waited = self.shared.runtime.clock.monotonic_us() - begun_us;
            let wait = wait.saturating_sub(Duration::from_micros(waited.max(0) as u64));
            self.fresh_feed(&feed, within, wait).await?;
        }
        Ok(())
    }

    async fn fresh_feed(&self, feed: &Arc<FeedState>, within: Duration, wait: Duration) -> Result<(), Box<Stale>> {
        let now_us = self.shared.runtime.clock.monotonic_us();
        let oldest_us = now_us.saturating_sub(i64::try_from(within.as_micros()).unwrap_or(i64::MAX));
        let is_fresh = {
            let streams = feed.streams.read();
            feed.connected.load(Ordering::SeqCst)
                && streams.values().all(|stream| {
                    stream.run() == StreamRun::Ended || stream.fresh_us().is_some_and(|us| us >= oldest_us)
                })
        };
        if is_fresh {
            return Ok(());
        }
        let reason = match tokio::time::timeout(wait, self.read_to_the_end(feed, now_us)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it was waited for {} ms", wait.as_millis()),
        };
        let stalest = feed.streams.read().values().min_by_key(|stream| stream.fresh_us()).cloned();
        let now_us = self.shared.runtime.clock.monotonic_us();
        Err(Box::new(Stale {
            source: feed.feed.name.clone(),
            partition: stalest.as_ref().map(|stream| stream.id.partition),
            age: stalest
                .as_ref()
                .and_then(|stream| stream.fresh_us())
                .map(|us| Duration::from_micros(now_us.saturating_sub(us).max(0) as u64)),
            lag: stalest.and_then(|stream| Some(stream.high()?.saturating_sub(stream.position()))),
            reason,
        }))
    }

    /// Returns when everything is visible that is in the source after `now_us`, when it is asked.
    pub(super) async fn read_to_the_end(&self, feed: &Arc<FeedState>, now_us: i64) -> Result<()> {
        let connector = Arc::clone(&feed.feed.connector);
        let targets = blocking(move || {
            let partitions = connector.partitions()?;
            partitions.into_iter().map(|p| Ok((p, connector.watermarks(p)?.high))).collect::<Result<Vec<_>>>()
        })
        .await?;
        if targets.iter().any(|(partition, _)| feed.stream(*partition).is_none()) {
            feed.nudge();
        }
        for (partition, high) in targets {
            self.wait_position(feed, partition, high).await?;
            if let Some(stream) = feed.stream(partition) {
                stream.set_fresh(now_us);
            }
        }
        Ok(())
    }
}
