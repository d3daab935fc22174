//! For tests, benches and fuzz targets: random tables, rows, predicates and schema changes, and the oracle that answers a scan one row
//! and one value at a time.
//!
//! Everything is drawn from one seed ([`Random`]), so that a failure is replayed by its numbers.
#![allow(clippy::unwrap_used, reason = "for tests")]

pub mod aggregate;
pub mod codecs;
pub mod forge;
pub mod fuzz;
pub mod generate;
pub mod oracle;

/// A small generator of random numbers (splitmix64): the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    #[expect(clippy::should_implement_trait, reason = "an endless source of numbers, not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n` - 1; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
