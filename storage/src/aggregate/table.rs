//! A hash table that gives each distinct key the next number, from 0 on.

/// What is hashed: 64 or 128 bits.
pub(crate) trait Key: Copy + Eq {
    fn hash(self) -> u64;
}

/// Odd, and its bits look random: the fraction of the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key for u64 {
    #[inline]
    fn hash(self) -> u64 {
        let product = u128::from(self ^ FACTOR) * u128::from(FACTOR);
        (product >> 64) as u64 ^ product as u64
    }
}

impl Key for u128 {
    #[inline]
    fn hash(self) -> u64 {
        (self as u64).hash().rotate_left(32).wrapping_add((self >> 64) as u64).hash()
    }
}

const EMPTY: u32 = u32::MAX;
const SLOTS_MIN: usize = 1024;

/// Open addressing, linear probing, at most half full.
#[derive(Debug)]
pub(crate) struct Table<K> {
    /// The number of the key that lies here.
    slots: Vec<u32>,
    shift: u32,
    /// By number.
    keys: Vec<K>,
}

impl<K: Key> Default for Table<K> {
    fn default() -> Self {
        Self { slots: vec![EMPTY; SLOTS_MIN], shift: 64 - SLOTS_MIN.ilog2(), keys: Vec::new() }
    }
}

impl<K: Key> Table<K> {
    pub(crate) fn keys(&self) -> &[K] {
        &self.keys
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.keys.capacity() * size_of::<K>()
    }

    /// The key's number.
    #[inline]
    pub(crate) fn number(&mut self, key: K) -> u32 {
        let mask = self.slots.len() - 1;
        let mut at = (key.hash() >> self.shift) as usize;
        loop {
            let number = self.slots[at & mask];
            if number == EMPTY {
                return self.insert(at & mask, key);
            }
            if self.keys[number as usize] == key {
                return number;
            }
            at = (at & mask) + 1;
        }
    }

    #[cold]
    fn insert(&mut self, at: usize, key: K) -> u32 {
        let number = self.keys.len() as u32;
        self.slots[at] = number;
        self.keys.push(key);
        if self.keys.len() * 2 > self.slots.len() {
            self.grow();
        }
        number
    }

    fn grow(&mut self) {
        let count = self.slots.len() * 4;
        self.slots.clear();
        self.slots.resize(count, EMPTY);
        self.shift = 64 - count.ilog2();
        for (number, key) in self.keys.iter().enumerate() {
            let mut at = (key.hash() >> self.shift) as usize;
            while self.slots[at] != EMPTY {
                at = (at + 1) & (count - 1);
            }
            self.slots[at] = number as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn each_key_keeps_its_number() {
        let mut random = Random::new(7);
        let (mut narrow, mut wide, mut known) = (Table::<u64>::default(), Table::<u128>::default(), HashMap::new());
        for _ in 0..60_000 {
            let key = match random.below(4) {
                0 => random.next(),
                1 => random.below(5000) as u64 * 4096,
                2 => u64::MAX - random.below(10) as u64,
                _ => random.below(5000) as u64,
            };
            let next = known.len() as u32;
            let number = *known.entry(key).or_insert(next);
            assert_eq!(narrow.number(key), number);
            assert_eq!(wide.number(u128::from(key) << 40), number);
        }
        assert_eq!(narrow.keys().len(), known.len());
        assert!(narrow.keys().iter().enumerate().all(|(number, key)| known[key] == number as u32));
    }
}
