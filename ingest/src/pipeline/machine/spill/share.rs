//! Which keys of a file count: those whose hashes are in a range. Lanes have ranges of their own, and may come to share a file that was made when there were others.

use serde::{Deserialize, Serialize};

/// Hashes from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    first: u32,
    last: u32,
    /// Whether the file has others as well.
    is_mixed: bool,
}

impl Share {
    pub(crate) const ALL: Self = Self { first: 0, last: u32::MAX, is_mixed: false };

    /// What one of so many lanes has.
    pub(crate) fn of_lane(lane: usize, lanes: usize) -> Self {
        let begin = |lane: usize| ((lane as u64) << 32).div_ceil(lanes as u64);
        Self { first: begin(lane) as u32, last: (begin(lane + 1) - 1) as u32, is_mixed: false }
    }

    /// The lane that has a hash.
    pub(crate) fn lane_of(hash: u32, lanes: usize) -> usize {
        ((u64::from(hash) * lanes as u64) >> 32) as usize
    }

    /// What of it a lane has; `None` for nothing.
    pub(crate) fn within(self, lane: Self) -> Option<Self> {
        let (first, last) = (self.first.max(lane.first), self.last.min(lane.last));
        let is_mixed = self.is_mixed || (first, last) != (self.first, self.last);
        (first <= last).then_some(Self { first, last, is_mixed })
    }

    /// The same, told by the lane whose file it is.
    pub(crate) fn told_by(self, lane: Self) -> Self {
        self.within(lane).map_or(self, |share| Self { is_mixed: self.is_mixed, ..share })
    }

    /// Whether hashes are to be looked at.
    pub(crate) fn is_mixed(self) -> bool {
        self.is_mixed
    }

    pub(crate) fn has(self, hash: u32) -> bool {
        (self.first..=self.last).contains(&hash)
    }

    /// Whether a part of 2^bits has hashes that count.
    pub(crate) fn meets(self, part: usize, bits: u8) -> bool {
        let of = |hash: u32| super::parts::part_of(hash, bits);
        (of(self.first)..=of(self.last)).contains(&part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_is_in_one_lane() {
        for lanes in 1..=9 {
            let shares: Vec<Share> = (0..lanes).map(|lane| Share::of_lane(lane, lanes)).collect();
            assert_eq!((shares[0].first, shares[lanes - 1].last), (0, u32::MAX));
            assert!(shares.windows(2).all(|two| two[0].last + 1 == two[1].first));
            for share in &shares {
                for hash in [share.first, share.last, share.first / 2 + share.last / 2] {
                    let lane = Share::lane_of(hash, lanes);
                    assert!(shares[lane].has(hash), "{hash} of {lanes}");
                }
            }
        }
    }

    #[test]
    fn lanes_that_come_and_go_keep_what_was_theirs() {
        let [low, high] = [0, 1].map(|lane| Share::of_lane(lane, 2));
        let own = Share::ALL.told_by(high);
        assert!(!own.is_mixed() && own.within(low).is_none());
        // The same lanes again, or one for all: nothing else is in the file.
        assert_eq!((own.within(high), own.within(Share::ALL)), (Some(own), Some(own)));
        let third = own.within(Share::of_lane(1, 3)).unwrap();
        assert!(third.is_mixed() && third.has(1 << 31) && !third.has((1 << 31) - 1) && !third.has(u32::MAX));
        assert!(third.within(Share::ALL).unwrap().is_mixed());
        assert!(Share::ALL.meets(3, 2) && !third.meets(1, 2) && third.meets(2, 2));
    }
}
