//! Keys and values as bytes, for many small ones.
//!
//! ```text
//! slots    hash → place: open addressing, 24 bits of the hash beside each place
//! chunks   lengths, key, value │ lengths, key, value │ …
//! ```
//!
//! A value that is no longer than the room of the one before takes its place; another one goes to the end, and the room is lost until the map is made anew.
//! What comes in a batch is looked for in steps, each over all of it, so that the processor waits for many places of memory at once instead of one after the other.

use std::{hash::BuildHasher, hint::black_box, mem};

/// Bits of a place that are within a chunk.
const AT_BITS: u32 = 20;
const CHUNK_BYTES_MIN: usize = 4 << 10;
const CHUNK_BYTES_MAX: usize = 1 << AT_BITS;
/// Bits of a slot that are a place, counted from one; the others are of the hash.
const PLACE_BITS: u32 = 40;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
const EMPTY: u64 = 0;
const SLOTS_MIN: usize = 16;
/// Length of the key, room of the value, length of the value, 4 bytes each.
const HEAD_BYTES: usize = 12;
/// In the length of a key: the entry is elsewhere by now.
const MOVED: u32 = 1 << 31;
/// Keys that are looked for together.
const TOGETHER: usize = 256;

/// Where an entry is, until the map changes: all changes but [`PackedMap::set`] of values that fit may move entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

pub(crate) struct PackedMap {
    slots: Vec<u64>,
    entries: usize,
    chunks: Vec<Vec<u8>>,
    /// Of chunks.
    bytes: usize,
    /// Bytes of entries that are elsewhere by now.
    lost: usize,
    hasher: foldhash::fast::RandomState,
}

struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
    is_moved: bool,
    /// Of all of it.
    bytes: usize,
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn entry(bytes: &[u8]) -> Entry<'_> {
    let (key, room, length) = (number(bytes), number(&bytes[4..]) as usize, number(&bytes[8..]) as usize);
    let key_end = HEAD_BYTES + (key & !MOVED) as usize;
    Entry {
        key: &bytes[HEAD_BYTES..key_end],
        value: &bytes[key_end..key_end + length],
        is_moved: key & MOVED != 0,
        bytes: key_end + room,
    }
}

fn tag(hash: u64) -> u64 {
    hash & !PLACE_MASK
}

impl Place {
    fn of(slot: u64) -> Self {
        Self((slot & PLACE_MASK) - 1)
    }

    fn slot(self, hash: u64) -> u64 {
        tag(hash) | (self.0 + 1)
    }

    fn chunk(self) -> usize {
        (self.0 >> AT_BITS) as usize
    }

    fn at(self) -> usize {
        self.0 as usize & (CHUNK_BYTES_MAX - 1)
    }
}

impl PackedMap {
    pub(crate) fn new() -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self { slots: Vec::new(), entries: 0, chunks: Vec::new(), bytes: 0, lost: 0, hasher }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.slots.len() * mem::size_of::<u64>()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.chunks.iter().flat_map(|chunk| Entries(chunk)).filter(|entry| !entry.is_moved).map(|of| (of.key, of.value))
    }

    pub(crate) fn key(&self, place: Place) -> &[u8] {
        self.entry(place).key
    }

    pub(crate) fn value(&self, place: Place) -> &[u8] {
        self.entry(place).value
    }

    /// Where the keys of a batch are, of those that are there.
    pub(crate) fn find_all<'k>(&self, count: usize, key: impl Fn(usize) -> &'k [u8]) -> Vec<Option<Place>> {
        let mut found = Vec::with_capacity(count);
        if self.slots.is_empty() {
            found.resize(count, None);
            return found;
        }
        let mut hashes = [0; TOGETHER];
        for from in (0..count).step_by(TOGETHER) {
            let some = TOGETHER.min(count - from);
            for (at, hash) in hashes[..some].iter_mut().enumerate() {
                *hash = self.hasher.hash_one(key(from + at));
            }
            self.touch(&hashes[..some]);
            found.extend((0..some).map(|at| self.find(hashes[at], key(from + at)).map(|(_, place)| place)));
        }
        found
    }

    /// Brings near what may be of keys of these hashes, of which there are no more than [`TOGETHER`].
    fn touch(&self, hashes: &[u64]) {
        let mask = self.slots.len() - 1;
        black_box(hashes.iter().fold(0, |seen, hash| seen ^ self.slots[*hash as usize & mask]));
        for hash in hashes {
            let mut at = *hash as usize & mask;
            while self.slots[at] != EMPTY && tag(self.slots[at]) != tag(*hash) {
                at = (at + 1) & mask;
            }
            if self.slots[at] != EMPTY {
                let place = Place::of(self.slots[at]);
                black_box(self.chunks[place.chunk()][place.at()]);
            }
        }
    }

    /// Writes the value of an entry that is there. Whether other places are still good: a longer value goes elsewhere.
    pub(crate) fn set(&mut self, place: Place, value: &[u8]) -> bool {
        let chunk = &self.chunks[place.chunk()][place.at()..];
        let (key, room) = (number(chunk) as usize, number(&chunk[4..]) as usize);
        if value.len() > room {
            let key = self.key(place).to_vec();
            self.put(&key, value);
            return false;
        }
        let chunk = &mut self.chunks[place.chunk()][place.at()..];
        chunk[8..HEAD_BYTES].copy_from_slice(&(value.len() as u32).to_le_bytes());
        chunk[HEAD_BYTES + key..HEAD_BYTES + key + value.len()].copy_from_slice(value);
        true
    }

    /// Makes the value that of the key.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.reserve(1);
        self.put_hashed(self.hasher.hash_one(key), key, value);
    }

    /// Makes the values those of the keys of a batch, in their order.
    pub(crate) fn put_all<'k>(
        &mut self,
        count: usize,
        key: impl Fn(usize) -> &'k [u8],
        value: impl Fn(usize) -> &'k [u8],
    ) {
        self.reserve(count);
        let mut hashes = [0; TOGETHER];
        for from in (0..count).step_by(TOGETHER) {
            let some = TOGETHER.min(count - from);
            for (at, hash) in hashes[..some].iter_mut().enumerate() {
                *hash = self.hasher.hash_one(key(from + at));
            }
            self.touch(&hashes[..some]);
            for (at, hash) in hashes[..some].iter().enumerate() {
                self.put_hashed(*hash, key(from + at), value(from + at));
            }
        }
    }

    /// There is room for one more.
    fn put_hashed(&mut self, hash: u64, key: &[u8], value: &[u8]) {
        let Some((slot, place)) = self.find(hash, key) else {
            let place = self.push(key, value);
            self.insert(hash, place);
            self.entries += 1;
            return;
        };
        let chunk = &self.chunks[place.chunk()][place.at()..];
        if value.len() <= number(&chunk[4..]) as usize {
            self.set(place, value);
            return;
        }
        let old = &mut self.chunks[place.chunk()][place.at()..];
        let bytes = entry(old).bytes;
        let moved = number(old) | MOVED;
        old[..4].copy_from_slice(&moved.to_le_bytes());
        self.lost += bytes;
        self.slots[slot] = self.push(key, value).slot(hash);
        if self.lost > self.bytes / 2 {
            self.renew();
        }
    }

    /// Makes room for so many more keys.
    pub(crate) fn reserve(&mut self, more: usize) {
        // Three quarters of the slots are taken at most.
        let wanted = (self.entries + more).saturating_mul(4).div_ceil(3).max(SLOTS_MIN).next_power_of_two();
        if wanted > self.slots.len() {
            self.slots = vec![EMPTY; wanted];
            self.index();
        }
    }

    /// The slot and the place of a key.
    fn find(&self, hash: u64, key: &[u8]) -> Option<(usize, Place)> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at] {
                EMPTY => return None,
                slot if slot & !PLACE_MASK == tag(hash) && self.key(Place::of(slot)) == key => {
                    return Some((at, Place::of(slot)));
                }
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn insert(&mut self, hash: u64, place: Place) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = place.slot(hash);
    }

    fn entry(&self, place: Place) -> Entry<'_> {
        entry(&self.chunks[place.chunk()][place.at()..])
    }

    /// Adds an entry at the end.
    fn push(&mut self, key: &[u8], value: &[u8]) -> Place {
        let wanted = HEAD_BYTES + key.len() + value.len();
        // What is larger than a chunk has one of its own.
        let has_room = |chunk: &Vec<u8>| chunk.len() < CHUNK_BYTES_MAX && chunk.len() + wanted <= chunk.capacity();
        if !self.chunks.last().is_some_and(has_room) {
            // A quarter more, so that small maps are small.
            let capacity = (self.bytes / 4).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(wanted);
            self.chunks.push(Vec::with_capacity(capacity));
            self.bytes += capacity;
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let place = Place((number as u64) << AT_BITS | chunk.len() as u64);
        for length in [key.len(), value.len(), value.len()] {
            chunk.extend_from_slice(&(length as u32).to_le_bytes());
        }
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
        place
    }

    /// Fills slots that are empty.
    fn index(&mut self) {
        let chunks = mem::take(&mut self.chunks);
        for (number, chunk) in chunks.iter().enumerate() {
            let mut at = 0;
            for entry in Entries(chunk) {
                if !entry.is_moved {
                    self.insert(self.hasher.hash_one(entry.key), Place((number as u64) << AT_BITS | at as u64));
                }
                at += entry.bytes;
            }
        }
        self.chunks = chunks;
    }

    /// Leaves out what is lost, chunk by chunk.
    fn renew(&mut self) {
        let chunks = mem::take(&mut self.chunks);
        (self.bytes, self.lost) = (0, 0);
        self.slots.fill(EMPTY);
        for chunk in chunks {
            for entry in Entries(&chunk).filter(|entry| !entry.is_moved) {
                let place = self.push(entry.key, entry.value);
                self.insert(self.hasher.hash_one(entry.key), place);
            }
        }
    }
}

/// The entries of a chunk, one after the other.
#[derive(Clone)]
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let next = entry(self.0);
        self.0 = &self.0[next.bytes..];
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Values that grow and shrink, and keys that come again, beside a map of the library.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u16..300, 0usize..70, any::<u8>()), 0..600), large in 0usize..3, many in 0usize..1200) {
            let (mut map, mut model) = (PackedMap::new(), BTreeMap::new());
            let key = |number: u16| number.to_le_bytes()[..usize::from(number > 0) + usize::from(number > 255)].to_vec();
            for (at, (number, length, byte)) in steps.into_iter().enumerate() {
                let length = if at % 97 == 5 { length << (large * 8) } else { length };
                let (key, value) = (key(number), vec![byte; length]);
                match model.contains_key(&key).then(|| map.find_all(1, |_| &key)[0].unwrap()) {
                    Some(place) if at % 2 == 0 => {
                        let is_short = length <= map.value(place).len();
                        prop_assert_eq!(map.key(place), &key);
                        prop_assert!(map.set(place, &value) || !is_short);
                    }
                    _ => map.put(&key, &value),
                }
                model.insert(key, value);
            }
            // Many at once, of which some are there, and some come twice.
            let many: Vec<(Vec<u8>, Vec<u8>)> = (0..many).map(|at| (key((at * 7 % 450) as u16), vec![at as u8; at % 90])).collect();
            map.put_all(many.len(), |at| &many[at].0, |at| &many[at].1);
            model.extend(many);
            let keys: Vec<Vec<u8>> = (0..450).map(key).collect();
            let found = map.find_all(keys.len(), |at| &keys[at]);
            for (key, place) in keys.iter().zip(found) {
                prop_assert_eq!(place.map(|place| map.value(place)), model.get(key).map(Vec::as_slice));
            }
            let all: BTreeMap<Vec<u8>, Vec<u8>> = map.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            prop_assert_eq!((map.len(), map.iter().count()), (model.len(), model.len()));
            prop_assert_eq!(all, model);
            prop_assert_eq!(map.bytes, map.chunks.iter().map(Vec::capacity).sum::<usize>());
            prop_assert!(map.lost <= map.bytes / 2);
        }
    }

    /// Values that always grow leave no more behind than there is.
    #[test]
    fn what_is_lost_is_made_free() {
        let mut map = PackedMap::new();
        for round in 1..200 {
            for key in 0..100u32 {
                map.put(&key.to_le_bytes(), &vec![7; round * 3]);
            }
        }
        assert!(map.bytes() < 4 * 100 * 600, "{}", map.bytes());
    }
}
