//! How much to poll and how soon again: small and often when there is little, big when there is a backlog.

use std::time::Duration;

use super::Latency;

/// Messages and bytes of one poll, at most.
pub(crate) const MESSAGES_MAX: usize = 16 * 1024;
pub(crate) const BYTES_MAX: usize = 4 << 20;
/// How long a poll waits for the first message: also how soon a thread sees that it should stop.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_millis(50);

/// A poll that brought this much means that more is waiting.
const BACKLOG_MESSAGES: usize = 2048;
/// From the start of one small poll to the next: half of it is what pacing adds to freshness.
const BEAT_US: i64 = 5_000;

/// How long to rest before the next poll, when the last one brought `messages` and began `elapsed_us` ago.
pub(crate) fn rest_us(latency: Latency, messages: usize, elapsed_us: i64) -> i64 {
    match latency {
        Latency::Prompt => 0,
        // An empty poll has waited already.
        Latency::Paced if messages == 0 || messages >= BACKLOG_MESSAGES => 0,
        Latency::Paced => (BEAT_US - elapsed_us.max(0)).max(0),
    }
}

/// How long to wait after the `failures`-th failure in a row: 100 ms, doubled each time, 10 s at most.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100u64 << failures.saturating_sub(1).min(7)).min(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_only_after_small_polls() {
        for (latency, messages, elapsed_us, rest) in [
            (Latency::Paced, 0, 0, 0),
            (Latency::Paced, 1, 0, 5_000),
            (Latency::Paced, 200, 1_000, 4_000),
            (Latency::Paced, 200, 9_000, 0),
            (Latency::Paced, 2048, 0, 0),
            (Latency::Prompt, 1, 0, 0),
        ] {
            assert_eq!(rest_us(latency, messages, elapsed_us), rest);
        }
    }

    #[test]
    fn backs_off_to_a_bound() {
        assert_eq!([0, 1, 2, 8, 99].map(|n| backoff(n).as_millis()), [100, 100, 200, 10_000, 10_000]);
    }
}
