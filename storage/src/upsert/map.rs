//! The key map: fingerprints of keys, and where the row is that won.
//!
//! Open addressing in 256 shards by the highest bits of the fingerprint, each grown by itself by a quarter: no insert waits for more than its shard, and
//! memory follows the number of keys closely (16 bytes an entry, shards between 68 % and 85 % full). Of entries that follow each other those stand first
//! whose search begins first (Robin Hood hashing), so that a search ends where its own entries would be, however full the shard is. Keys leave the
//! map when their tombstones do. What shards are kept in says [`KeyMemory`].

use std::sync::Arc;

use super::memory::{Entries, KeyMemory, Words};
use crate::Result;

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

impl Entry {
    fn of([fingerprint, location]: Words) -> Self {
        let (segment, row) = (((location >> 32) as u32).wrapping_sub(1), location as u32);
        Self { fingerprint, location: Location { segment, row } }
    }

    /// [`EMPTY`] is zeros.
    fn words(self) -> Words {
        let Location { segment, row } = self.location;
        [self.fingerprint, u64::from(segment.wrapping_add(1)) << 32 | u64::from(row)]
    }
}

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

#[derive(Debug)]
struct Shard {
    entries: Entries,
    taken: usize,
}

#[derive(Debug)]
pub(super) struct KeyMap {
    shards: Box<[Shard]>,
}

impl KeyMap {
    pub(super) fn new(memory: &Arc<KeyMemory>) -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::new(memory, 0)).collect() }
    }

    pub(super) fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.taken as u64).sum()
    }

    /// Bytes, and how many of them are in files.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let sizes = self.shards.iter().map(|shard| shard.entries.bytes());
        sizes.fold((0, 0), |(all, in_files), (bytes, in_file)| (all + bytes, in_files + in_file))
    }

    pub(super) fn memory(&self) -> &Arc<KeyMemory> {
        self.shards[0].entries.memory()
    }

    /// `Ok` when all that was found so far, and found missing, is so. An error stays: the map is of no use any more.
    pub(super) fn check(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.entries.check())
    }

    /// The same of those of a fingerprint.
    pub(super) fn check_of(&self, fingerprint: u64) -> Result<()> {
        self.shards[shard_of(fingerprint)].entries.check()
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
        let shard = &mut self.shards[place.shard];
        shard.set(place.at, Entry { location, ..shard.at(place.at) });
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
                    shard.resize((shard.len() + shard.len() / 2).max(ENTRIES_MIN));
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
            seen ^ shard.first(fingerprint)
        }));
    }

    /// Gives memory back that shards took while many keys came at once.
    pub(super) fn fit(&mut self) {
        for shard in self.shards.iter_mut().filter(|shard| shard.taken * 100 < shard.len() * SPARSE_PERCENT) {
            shard.resize(Shard::sized(shard.taken));
        }
    }

    /// The entries of a shard, in the order in which [`Self::load`] takes them best.
    pub(super) fn of_shard(&self, shard: usize) -> impl Iterator<Item = (u64, Location)> + '_ {
        let entries = self.shards[shard].entries.words().iter().map(|words| Entry::of(*words));
        let taken = entries.filter(|entry| entry.location.segment != NOTHING);
        taken.map(|entry| (entry.fingerprint, entry.location))
    }

    /// Fills a shard that is empty. False when an entry is of another one.
    pub(super) fn load(&mut self, shard: usize, entries: &[(u64, Location)]) -> bool {
        let mut loaded = Shard::new(self.memory(), Shard::sized(entries.len()));
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
    fn new(memory: &Arc<KeyMemory>, length: usize) -> Self {
        Self { entries: Entries::new(memory, length), taken: 0 }
    }

    /// Its places, taken or not.
    fn len(&self) -> usize {
        self.entries.words().len()
    }

    fn at(&self, at: usize) -> Entry {
        Entry::of(self.entries.words()[at])
    }

    fn set(&mut self, at: usize, entry: Entry) {
        self.entries.words_mut()[at] = entry.words();
    }

    /// The fingerprint where the search for this one begins.
    fn first(&self, fingerprint: u64) -> u64 {
        let words = self.entries.words();
        words.get(first(fingerprint, words.len())).map_or(0, |[fingerprint, _]| *fingerprint)
    }

    /// The taken entries from there on, up to the first that would stand behind those of the fingerprint.
    fn chain(&self, fingerprint: u64) -> impl Iterator<Item = (usize, Entry)> + '_ {
        let words = self.entries.words();
        let mut at = first(fingerprint, words.len());
        let mut distance = 0;
        std::iter::from_fn(move || {
            let entry = Entry::of(*words.get(at)?);
            if distance == words.len() || stands_behind(entry, at, distance, words.len()) {
                return None;
            }
            let found = (at, entry);
            at = next(at, words.len());
            distance += 1;
            Some(found)
        })
    }

    /// Whether one more does not fit in.
    fn is_full(&self) -> bool {
        (self.taken + 1) * 100 > self.len() * FULL_PERCENT
    }

    /// Places for so many keys, with room for some more.
    fn sized(keys: usize) -> usize {
        if keys == 0 { 0 } else { (keys * 100 / SIZED_PERCENT + 1).max(ENTRIES_MIN) }
    }

    /// Puts an entry in unless one of its fingerprint is there.
    fn put_new(&mut self, entry: Entry) -> bool {
        self.put_unless(entry, |known| known.fingerprint == entry.fingerprint)
    }

    fn put(&mut self, entry: Entry) {
        self.put_unless(entry, |_| false);
    }

    /// Puts an entry in unless one is met that forbids it.
    fn put_unless(&mut self, mut entry: Entry, forbids: impl Fn(&Entry) -> bool) -> bool {
        let words = self.entries.words_mut();
        let (mut at, mut distance) = (first(entry.fingerprint, words.len()), 0);
        loop {
            let known = Entry::of(words[at]);
            if stands_behind(known, at, distance, words.len()) {
                break;
            }
            if forbids(&known) {
                return false;
            }
            at = next(at, words.len());
            distance += 1;
        }
        // In the place of another one, which goes to the next place, and so on.
        while entry.location.segment != NOTHING {
            let known = std::mem::replace(&mut words[at], entry.words());
            entry = Entry::of(known);
            at = next(at, words.len());
        }
        self.taken += 1;
        true
    }

    /// Empties an entry, and moves those behind it that are not where their search begins.
    fn remove(&mut self, at: usize) {
        let words = self.entries.words_mut();
        let (mut hole, mut behind) = (at, next(at, words.len()));
        loop {
            let entry = Entry::of(words[behind]);
            if entry.location.segment == NOTHING || first(entry.fingerprint, words.len()) == behind {
                break;
            }
            words[hole] = words[behind];
            (hole, behind) = (behind, next(behind, words.len()));
        }
        words[hole] = EMPTY.words();
        self.taken -= 1;
    }

    fn grow(&mut self) {
        self.resize((self.len() + self.len() / 4).max(ENTRIES_MIN));
    }

    /// In memory or in a file, as is left then.
    fn resize(&mut self, length: usize) {
        let mut resized = Self::new(self.entries.memory(), length);
        for words in self.entries.words() {
            let entry = Entry::of(*words);
            if entry.location.segment != NOTHING {
                resized.put(entry);
            }
        }
        *self = resized;
    }
}

/// Where the search for a fingerprint begins among so many places.
fn first(fingerprint: u64, length: usize) -> usize {
    let spread = fingerprint >> (32 - SHARD_BITS) & u64::from(u32::MAX);
    ((spread * length as u64) >> 32) as usize
}

fn next(at: usize, length: usize) -> usize {
    if at + 1 == length { 0 } else { at + 1 }
}

/// Whether there is nothing, or an entry whose search begins later than one that is so far from its beginning.
fn stands_behind(entry: Entry, at: usize, distance: usize, length: usize) -> bool {
    if entry.location.segment == NOTHING {
        return true;
    }
    let first = first(entry.fingerprint, length);
    let of_entry = if at >= first { at - first } else { at + length - first };
    of_entry < distance
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::Random;

    /// Where maps are kept: in memory, and in files but for a few shards.
    fn memories() -> (tempfile::TempDir, [Arc<KeyMemory>; 2]) {
        let directory = tempfile::tempdir().unwrap();
        let memories = [KeyMemory::unbounded(), KeyMemory::bounded(40_000, directory.path())];
        (directory, memories)
    }

    /// Fingerprints of few values, so that shards fill, and some are the same for several entries.
    #[test]
    fn finds_what_a_plain_map_has() {
        let random = &mut Random::new(7);
        let (_directory, memories) = memories();
        for (bits, memory) in [3, 12, 64].into_iter().flat_map(|bits| memories.iter().map(move |memory| (bits, memory)))
        {
            let (mut map, mut plain) = (KeyMap::new(memory), HashMap::<u64, Vec<Location>>::new());
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
            assert!(map.check().is_ok());
        }
    }

    #[test]
    fn many_at_once_are_as_one_by_one() {
        let random = &mut Random::new(9);
        for (count, bits) in [(0u32, 64), (100, 5), (30_000, 16), (200_000, 64)] {
            let new: Vec<(u64, Location)> = (0..count)
                .map(|row| (random.next() >> (64 - bits) << (64 - bits), Location { segment: 1, row }))
                .collect();
            let (mut map, mut met) = (KeyMap::new(&KeyMemory::unbounded()), Vec::new());
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
            let mut loaded = KeyMap::new(&KeyMemory::unbounded());
            for shard in 0..SHARDS {
                let entries: Vec<_> = map.of_shard(shard).collect();
                assert!(loaded.load(shard, &entries));
                assert!(entries.is_empty() || !loaded.load((shard + 1) % SHARDS, &entries));
            }
            for map in [&map, &loaded] {
                for (fingerprint, _) in &new {
                    assert_eq!(map.entries(*fingerprint).count(), 1);
                }
                let each = map.bytes().0 as f64 / map.keys() as f64;
                assert!(count < 100_000 || each < 24.0, "{each} bytes a key");
            }
        }
    }

    #[test]
    fn what_does_not_fit_into_memory_is_in_files() {
        let (directory, [_, memory]) = memories();
        let (mut map, random) = (KeyMap::new(&memory), &mut Random::new(5));
        for row in 0..300_000 {
            map.insert(random.next(), Location { segment: 0, row });
        }
        let (bytes, in_files) = map.bytes();
        assert_eq!((memory.in_memory(), memory.in_files()), (bytes - in_files, in_files));
        assert!(bytes > 300_000 * 16 && bytes - in_files <= 40_000, "{bytes} bytes, {in_files} in files");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        drop(map);
        assert_eq!((memory.in_memory(), memory.in_files()), (0, 0));
        // Where no file can be made it is memory all the same.
        let memory = KeyMemory::bounded(1000, &directory.path().join("none"));
        let mut map = KeyMap::new(&memory);
        (0..300_000).for_each(|row| map.insert(random.next(), Location { segment: 0, row }));
        assert_eq!((map.keys(), map.bytes().1, memory.in_files()), (300_000, 0, 0));
    }

    #[test]
    fn takes_little_more_than_sixteen_bytes_a_key() {
        let (mut map, random) = (KeyMap::new(&KeyMemory::unbounded()), &mut Random::new(3));
        for row in 0..1_000_000 {
            map.insert(random.next(), Location { segment: 0, row });
        }
        let each = map.bytes().0 as f64 / map.keys() as f64;
        assert!(each < 24.0, "{each} bytes a key");
    }
}
