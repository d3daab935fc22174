//! Entries of a table, one after the other: length of the key and of the value, 4 bytes each (little endian), the key, the value.

/// Bytes of an entry beside its key and its value.
const LENGTHS: usize = 8;

pub(super) fn push(block: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    block.extend_from_slice(&(key.len() as u32).to_le_bytes());
    block.extend_from_slice(&(value.len() as u32).to_le_bytes());
    block.extend_from_slice(key);
    block.extend_from_slice(value);
}

/// The entries of a block; `None` where it is none, and then no more.
pub(super) struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    pub(super) fn of(block: &'a [u8]) -> Self {
        Self(block)
    }

    fn cut(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (lengths, rest) = self.0.split_at_checked(LENGTHS)?;
        let (key, value) = lengths.split_at(LENGTHS / 2);
        let length = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize);
        let (key, rest) = rest.split_at_checked(length(key)?)?;
        let (value, rest) = rest.split_at_checked(length(value)?)?;
        self.0 = rest;
        Some((key, value))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.cut();
        if entry.is_none() {
            self.0 = &[];
        }
        Some(entry)
    }
}
