//! The key map: fingerprints of keys, and where the row is that won.
//!
//! Open addressing in 256 shards by the highest bits of the fingerprint, each grown by itself by a quarter: no insert waits for more than its shard, and
//! memory follows the number of keys closely (16 bytes an entry, shards between 68 % and 85 % full). Keys leave it when their tombstones do.

/// Where a row is: the number of its segment, and the row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) row: u32,
}

/// An entry of the map, as long as nothing is inserted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    shard: usize,
    at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    fingerprint: u64,
    location: Location,
}

/// The segment of an entry that holds nothing.
const NOTHING: u32 = u32::MAX;
const EMPTY: Entry = Entry { fingerprint: 0, location: Location { segment: NOTHING, row: 0 } };

const SHARD_BITS: u32 = 8;
/// Of a hundred entries of a shard, at most so many are taken.
const FULL_PERCENT: usize = 85;
const ENTRIES_MIN: usize = 16;

#[derive(Clone, Debug, Default)]
struct Shard {
    entries: Vec<Entry>,
    taken: usize,
}

#[derive(Clone, Debug)]
pub(super) struct KeyMap {
    shards: Box<[Shard]>,
}

impl KeyMap {
    pub(super) fn new() -> Self {
        Self { shards: vec![Shard::default(); 1 << SHARD_BITS].into() }
    }

    pub(super) fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.taken as u64).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| (shard.entries.capacity() * size_of::<Entry>()) as u64).sum()
    }

    /// The entries of a fingerprint: of its key, and perhaps of others that have the same.
    pub(super) fn entries(&self, fingerprint: u64) -> impl Iterator<Item = (Place, Location)> + '_ {
        let shard = (fingerprint >> (64 - SHARD_BITS)) as usize;
        self.shards[shard]
            .chain(fingerprint)
            .filter(move |(_, entry)| entry.fingerprint == fingerprint)
            .map(move |(at, entry)| (Place { shard, at }, entry.location))
    }

    /// The row of an entry is another one from now on.
    pub(super) fn set(&mut self, place: Place, location: Location) {
        self.shards[place.shard].entries[place.at].location = location;
    }

    /// Takes the entry of a row out, if it is there.
    pub(super) fn remove(&mut self, fingerprint: u64, location: Location) {
        let found = self.entries(fingerprint).find(|(_, known)| *known == location).map(|(place, _)| place);
        if let Some(place) = found {
            self.shards[place.shard].remove(place.at);
        }
    }

    /// Adds an entry, whatever else has its fingerprint.
    pub(super) fn insert(&mut self, fingerprint: u64, location: Location) {
        let shard = &mut self.shards[(fingerprint >> (64 - SHARD_BITS)) as usize];
        if (shard.taken + 1) * 100 > shard.entries.len() * FULL_PERCENT {
            shard.grow();
        }
        shard.put(Entry { fingerprint, location });
    }
}

impl Shard {
    /// Where the search for a fingerprint begins.
    fn first(&self, fingerprint: u64) -> usize {
        let spread = fingerprint >> (32 - SHARD_BITS) & u64::from(u32::MAX);
        ((spread * self.entries.len() as u64) >> 32) as usize
    }

    /// The taken entries from there on, up to the first that is empty.
    fn chain(&self, fingerprint: u64) -> impl Iterator<Item = (usize, Entry)> + '_ {
        let first = self.first(fingerprint);
        let places = (first..self.entries.len()).chain(0..first);
        places.map(|at| (at, self.entries[at])).take_while(|(_, entry)| entry.location.segment != NOTHING)
    }

    fn put(&mut self, entry: Entry) {
        let mut at = self.first(entry.fingerprint);
        while self.entries[at].location.segment != NOTHING {
            at = if at + 1 == self.entries.len() { 0 } else { at + 1 };
        }
        self.entries[at] = entry;
        self.taken += 1;
    }

    /// Empties an entry, and moves those that were put behind it where they are found without it.
    fn remove(&mut self, at: usize) {
        let length = self.entries.len();
        let distance = |from: usize, to: usize| (to + length - from) % length;
        let (mut hole, mut next) = (at, (at + 1) % length);
        while self.entries[next].location.segment != NOTHING {
            let first = self.first(self.entries[next].fingerprint);
            if distance(first, next) >= distance(hole, next) {
                self.entries[hole] = self.entries[next];
                hole = next;
            }
            next = (next + 1) % length;
        }
        self.entries[hole] = EMPTY;
        self.taken -= 1;
    }

    fn grow(&mut self) {
        let length = (self.entries.len() + self.entries.len() / 4).max(ENTRIES_MIN);
        let before = std::mem::replace(&mut self.entries, vec![EMPTY; length]);
        self.taken = 0;
        for entry in before {
            if entry.location.segment != NOTHING {
                self.put(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::Random;

    /// Fingerprints of few values, so that shards fill, and some are the same for several entries.
    #[test]
    fn finds_what_a_plain_map_has() {
        let random = &mut Random::new(7);
        for bits in [3, 12, 64] {
            let (mut map, mut plain) = (KeyMap::new(), HashMap::<u64, Vec<Location>>::new());
            for number in 0..20_000u32 {
                let fingerprint = random.next() >> (64 - bits) << random.below(65 - bits);
                let location = Location { segment: number % 7, row: number };
                let known = plain.entry(fingerprint).or_default();
                if !known.is_empty() && random.one_in(4) {
                    map.remove(fingerprint, known.swap_remove(random.below(known.len())));
                } else if !known.is_empty() && (bits == 3 || random.one_in(2)) {
                    let at = random.below(known.len());
                    let (place, _) = map.entries(fingerprint).find(|(_, found)| *found == known[at]).unwrap();
                    map.set(place, location);
                    known[at] = location;
                } else {
                    map.insert(fingerprint, location);
                    known.push(location);
                }
            }
            for (fingerprint, locations) in &mut plain {
                let mut found: Vec<Location> = map.entries(*fingerprint).map(|(_, location)| location).collect();
                found.sort_unstable();
                locations.sort_unstable();
                assert_eq!(found, *locations);
            }
            assert_eq!(map.keys() as usize, plain.values().map(Vec::len).sum::<usize>());
            assert!(map.entries(random.next() | 1 << 63 | 1).count() <= 1);
        }
    }

    #[test]
    fn takes_little_more_than_sixteen_bytes_a_key() {
        let (mut map, random) = (KeyMap::new(), &mut Random::new(3));
        for row in 0..1_000_000 {
            map.insert(random.next(), Location { segment: 0, row });
        }
        let each = map.bytes() as f64 / map.keys() as f64;
        assert!(each < 24.0, "{each} bytes a key");
    }
}
