//! A way through the bytes of a binary message, and what can be wrong with them.
//!
//! Lengths are checked against the bytes that are there before anything is made of them, so that no message costs more memory than a
//! small multiple of its own size.

use std::fmt;

use super::{number::Misfit, rows::Fault};

/// Deepest nesting of a message. Below what JSON takes, so that a nested value has a JSON text.
pub(super) const DEPTH_MAX: u32 = 100;
/// Longest JSON text of a nested value: names of fields can make it much longer than the message.
pub(super) const JSON_BYTES_MAX: usize = 64 << 20;

/// Why bytes are no message of their schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    what: String,
    /// Bytes from the message's beginning; none for what is not at one place.
    at: Option<usize>,
}

impl Broken {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: None }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "the message does not fit its schema: {} at byte {at}", self.what),
            None => write!(f, "the message does not fit its schema: {}", self.what),
        }
    }
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::message(broken.to_string())
    }
}

/// Why a value of a message is not what its column wants.
#[derive(Debug)]
pub(super) enum Unfit {
    Broken(Broken),
    Misfit(Misfit),
    Fault(Fault),
}

impl From<Broken> for Unfit {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Misfit> for Unfit {
    fn from(misfit: Misfit) -> Self {
        Self::Misfit(misfit)
    }
}

impl From<Box<super::column::Refusal>> for Unfit {
    fn from(refusal: Box<super::column::Refusal>) -> Self {
        Self::Fault(refusal.into())
    }
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    /// Where the whole ends, counted from the message's beginning.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// `start` is where `bytes` begin in the message.
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Self {
        Self { rest: bytes, end: start + bytes.len() }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes from the message's beginning.
    pub(super) fn position(&self) -> usize {
        self.end - self.rest.len()
    }

    #[cold]
    pub(super) fn broken(&self, what: impl Into<String>) -> Broken {
        Broken { what: what.into(), at: Some(self.position()) }
    }

    #[cold]
    fn early_end(&self, wanted: u64) -> Broken {
        self.broken(format!("{wanted} bytes are wanted and {} are left", self.rest.len()))
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.early_end(length as u64))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.early_end(N as u64))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// As many bytes as a number says that was read before.
    #[inline]
    pub(super) fn take_as_said(&mut self, length: u64) -> Result<&'a [u8], Broken> {
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => Err(self.early_end(length)),
        }
    }

    /// Seven bits a byte, the lowest first.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Broken> {
        if let Some((first, rest)) = self.rest.split_first()
            && *first < 0x80
        {
            self.rest = rest;
            return Ok((*first).into());
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            // Of the tenth byte there is room for one bit.
            if index == 9 && *byte > 1 {
                return Err(self.broken("a number has more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        match self.rest.len() {
            0..10 => Err(self.broken("the bytes end within a number")),
            _ => Err(self.broken("a number has more than 64 bits")),
        }
    }

    /// A number with its sign in the lowest bit.
    #[inline]
    pub(super) fn zigzag(&mut self) -> Result<i64, Broken> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }
}

/// Fails when `out` has grown beyond what a value may be.
pub(super) fn check_size(out: &str) -> Result<(), Misfit> {
    if out.len() > JSON_BYTES_MAX { Err(Misfit::Size) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_are_none() {
        for bad in [&[][..], &[0x80], &[0xff; 9], &[0xff; 10], &[0xff; 40]] {
            assert!(Cursor::new(bad, 0).varint().is_err(), "{bad:?}");
        }
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Cursor::new(&most, 0).varint(), Ok(u64::MAX));
        let error = Cursor::new(&[1, 2], 7).take_as_said(u64::MAX).unwrap_err().to_string();
        assert!(error.ends_with("18446744073709551615 bytes are wanted and 2 are left at byte 7"), "{error}");
    }

    proptest! {
        #[test]
        fn zigzag_comes_back(value: i64) {
            let mut raw = ((value << 1) ^ (value >> 63)) as u64;
            let mut bytes = Vec::new();
            while raw >= 0x80 {
                bytes.push(raw as u8 | 0x80);
                raw >>= 7;
            }
            bytes.push(raw as u8);
            let mut cursor = Cursor::new(&bytes, 0);
            prop_assert_eq!(cursor.zigzag(), Ok(value));
            prop_assert!(cursor.is_at_end());
            for end in 0..bytes.len() {
                prop_assert!(Cursor::new(&bytes[..end], 0).varint().is_err());
            }
        }
    }
}
