//! Tables with a primary key, as users have them: which row of a key is seen, in every order of arrival, consuming and sealed, after kill -9, and
//! by readers beside the writer.

mod ages;
mod arrivals;
mod changes;
mod damage;
mod definitions;
mod key_map;
mod letters;
mod partial;
mod readers;
mod restaurant;
mod retention;
mod star_trees;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// A small generator of random numbers: the same seed gives the same numbers for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}
