//! The key map: fingerprints of keys, and where the row is that won.
//!
//! Open addressing in 256 shards by the highest bits of the fingerprint, each grown by itself by a quarter: no insert waits for more than its shard, and
//! memory follows the number of keys closely (16 bytes an entry, shards between 68 % and 85 % full). Of entries that follow each other those stand first
//! whose search begins first (Robin Hood hashing), so that a search ends where its own entries would be, however full the shard is. Keys leave the
//! map when their tombstones do.

/// Where a row is: the number of its segment, and the row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
/// So many where a shard is made for a known number of keys, and the fewest where many keys came at once.
const SIZED_PERCENT: usize = 77;
const SPARSE_PERCENT: usize = 68;
const ENTRIES_MIN: usize = 16;

/// Parts of every map; a key is in the one that the highest bits of its fingerprint say.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;

fn shard_of(fingerprint: u64) -> usize {
    (fingerprint >> (64 - SHARD_BITS)) as usize
}

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
        Self { shards: vec![Shard::default(); SHARDS].into() }
    }

    pub(super) fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.taken as u64).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| (shard.entries.capacity() * size_of::<Entry>()) as u64).sum()
    }

    /// The entries of a fingerprint: of its key, and perhaps of others that have the same.
    pub(super) fn entries(&self, fingerprint: u64) -> impl Iterator<Item = (Place, Location)> + '_ {
        let shard = shard_of(fingerprint);
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
        let shard = &mut self.shards[shard_of(fingerprint)];
        if shard.is_full() {
            shard.grow();
        }
        shard.put(Entry { fingerprint, location });
    }

    /// Adds entries of fingerprints that nothing else has, as long as many come at once: shards grow by half. Of the others nothing is added, and `met`
    /// hears of them. [`Self::fit`] is to follow.
    pub(super) fn insert_new(&mut self, new: impl Iterator<Item = (u64, Location)>, mut met: impl FnMut(Location)) {
        let mut window = [(0, EMPTY.location); WINDOW];
        let mut new = new.peekable();
        while new.peek().is_some() {
            let mut length = 0;
            for (place, entry) in window.iter_mut().zip(new.by_ref()) {
                *place = entry;
                length += 1;
            }
            let window = &window[..length];
            self.touch(window.iter().map(|(fingerprint, _)| *fingerprint));
            for (fingerprint, location) in window {
                let shard = &mut self.shards[shard_of(*fingerprint)];
                if shard.is_full() {
                    shard.resize((shard.entries.len() + shard.entries.len() / 2).max(ENTRIES_MIN));
                }
                if !shard.put_new(Entry { fingerprint: *fingerprint, location: *location }) {
                    met(*location);
                }
            }
        }
    }

    /// Brings the entries of some fingerprints, about [`WINDOW`] of them, near: memory is waited for once and not for each.
    pub(super) fn touch(&self, fingerprints: impl Iterator<Item = u64>) {
        std::hint::black_box(fingerprints.fold(0, |seen, fingerprint| {
            let shard = &self.shards[shard_of(fingerprint)];
            seen ^ shard.entries.get(shard.first(fingerprint)).map_or(0, |entry| entry.fingerprint)
        }));
    }

    /// Gives memory back that shards took while many keys came at once.
    pub(super) fn fit(&mut self) {
        for shard in self.shards.iter_mut().filter(|shard| shard.taken * 100 < shard.entries.len() * SPARSE_PERCENT) {
            shard.resize(Shard::sized(shard.taken));
        }
    }

    /// The entries of a shard, in the order in which [`Self::load`] takes them best.
    pub(super) fn of_shard(&self, shard: usize) -> impl Iterator<Item = (u64, Location)> + '_ {
        let taken = self.shards[shard].entries.iter().filter(|entry| entry.location.segment != NOTHING);
        taken.map(|entry| (entry.fingerprint, entry.location))
    }

    /// Fills a shard that is empty. False when an entry is of another one.
    pub(super) fn load(&mut self, shard: usize, entries: &[(u64, Location)]) -> bool {
        let mut loaded = Shard { entries: vec![EMPTY; Shard::sized(entries.len())], taken: 0 };
        for (fingerprint, location) in entries {
            if shard_of(*fingerprint) != shard {
                return false;
            }
            loaded.put(Entry { fingerprint: *fingerprint, location: *location });
        }
        self.shards[shard] = loaded;
        true
    }
}

/// Entries that memory is asked for at the same time.
pub(super) const WINDOW: usize = 32;

impl Shard {
    /// Where the search for a fingerprint begins.
    fn first(&self, fingerprint: u64) -> usize {
        let spread = fingerprint >> (32 - SHARD_BITS) & u64::from(u32::MAX);
        ((spread * self.entries.len() as u64) >> 32) as usize
    }

    /// The taken entries from there on, up to the first that would stand behind those of the fingerprint.
    fn chain(&self, fingerprint: u64) -> impl Iterator<Item = (usize, Entry)> + '_ {
        let mut at = self.first(fingerprint);
        let mut distance = 0;
        std::iter::from_fn(move || {
            let entry = *self.entries.get(at)?;
            if distance == self.entries.len() || self.stands_behind(entry, at, distance) {
                return None;
            }
            let found = (at, entry);
            at = self.next(at);
            distance += 1;
            Some(found)
        })
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.entries.len() { 0 } else { at + 1 }
    }

    /// Whether there is nothing, or an entry whose search begins later than one that is so far from its beginning.
    fn stands_behind(&self, entry: Entry, at: usize, distance: usize) -> bool {
        if entry.location.segment == NOTHING {
            return true;
        }
        let first = self.first(entry.fingerprint);
        let of_entry = if at >= first { at - first } else { at + self.entries.len() - first };
        of_entry < distance
    }

    /// Whether one more does not fit in.
    fn is_full(&self) -> bool {
        (self.taken + 1) * 100 > self.entries.len() * FULL_PERCENT
    }

    /// Places for so many keys, with room for some more.
    fn sized(keys: usize) -> usize {
        if keys == 0 { 0 } else { (keys * 100 / SIZED_PERCENT + 1).max(ENTRIES_MIN) }
    }

    /// Puts an entry in unless one of its fingerprint is there.
    fn put_new(&mut self, entry: Entry) -> bool {
        let (mut at, mut distance) = (self.first(entry.fingerprint), 0);
        while !self.stands_behind(self.entries[at], at, distance) {
            if self.entries[at].fingerprint == entry.fingerprint {
                return false;
            }
            at = self.next(at);
            distance += 1;
        }
        self.put_at(at, entry);
        true
    }

    fn put(&mut self, entry: Entry) {
        let (mut at, mut distance) = (self.first(entry.fingerprint), 0);
        while !self.stands_behind(self.entries[at], at, distance) {
            at = self.next(at);
            distance += 1;
        }
        self.put_at(at, entry);
    }

    /// Puts an entry in the place of another one, which goes to the next place, and so on.
    fn put_at(&mut self, mut at: usize, mut entry: Entry) {
        while entry.location.segment != NOTHING {
            std::mem::swap(&mut self.entries[at], &mut entry);
            at = self.next(at);
        }
        self.taken += 1;
    }

    /// Empties an entry, and moves those behind it that are not where their search begins.
    fn remove(&mut self, at: usize) {
        let (mut hole, mut next) = (at, self.next(at));
        while self.entries[next].location.segment != NOTHING && self.first(self.entries[next].fingerprint) != next {
            self.entries[hole] = self.entries[next];
            (hole, next) = (next, self.next(next));
        }
        self.entries[hole] = EMPTY;
        self.taken -= 1;
    }

    fn grow(&mut self) {
        self.resize((self.entries.len() + self.entries.len() / 4).max(ENTRIES_MIN));
    }

    fn resize(&mut self, length: usize) {
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
    fn many_at_once_are_as_one_by_one() {
        let random = &mut Random::new(9);
        for (count, bits) in [(0u32, 64), (100, 5), (30_000, 16), (200_000, 64)] {
            let new: Vec<(u64, Location)> = (0..count)
                .map(|row| (random.next() >> (64 - bits) << (64 - bits), Location { segment: 1, row }))
                .collect();
            let (mut map, mut met) = (KeyMap::new(), Vec::new());
            map.insert_new(new.iter().copied(), |location| met.push(location));
            let mut known = HashMap::new();
            let mut wanted = Vec::new();
            for (fingerprint, location) in &new {
                if known.insert(*fingerprint, *location).is_some() {
                    wanted.push(*location);
                }
            }
            assert_eq!(met, wanted);
            assert_eq!(map.keys() as usize, known.len());
            map.fit();
            let mut loaded = KeyMap::new();
            for shard in 0..SHARDS {
                let entries: Vec<_> = map.of_shard(shard).collect();
                assert!(loaded.load(shard, &entries));
                assert!(entries.is_empty() || !loaded.load((shard + 1) % SHARDS, &entries));
            }
            for map in [&map, &loaded] {
                for (fingerprint, _) in &new {
                    assert_eq!(map.entries(*fingerprint).count(), 1);
                }
                let each = map.bytes() as f64 / map.keys() as f64;
                assert!(count < 100_000 || each < 24.0, "{each} bytes a key");
            }
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
