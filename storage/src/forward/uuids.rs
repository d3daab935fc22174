//! UUIDs as two columns of integers, the upper and the lower eight bytes: random ones take sixteen bytes less what their version and
//! variant fix, and those that begin with a time less the time.

use std::ops::Range;

use arrow::{
    array::{ArrayRef, AsArray},
    buffer::{Buffer, NullBuffer},
};

use super::{
    format::{Reader, Writer},
    integers::{self, Integers},
};
use crate::{
    Error, Result,
    bitpack::{Bitmask, views::ViewsBuilder},
};

const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The number that a canonical UUID (lower case, hyphens) writes; `None` for any other text.
pub(super) fn parse(text: &[u8]) -> Option<u128> {
    let text: &[u8; TEXT_BYTES] = text.try_into().ok()?;
    let mut number = 0u128;
    for (at, byte) in text.iter().enumerate() {
        if HYPHENS.contains(&at) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(digit);
    }
    Some(number)
}

fn format(number: u128, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (at, byte) in number.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// `None` when a text is not canonical.
pub(super) fn encode(chunks: &[ArrayRef]) -> Option<Writer> {
    let rows = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    let (mut upper, mut lower) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut last = 0u128;
    for value in chunks.iter().flat_map(|chunk| chunk.as_string_view().iter()) {
        if let Some(value) = value {
            last = parse(value.as_bytes())?;
        }
        upper.push((last >> 64) as i64);
        lower.push(last as i64);
    }
    let mut writer = Writer::default();
    writer.section(integers::encode(&upper));
    writer.section(integers::encode(&lower));
    Some(writer)
}

#[derive(Debug)]
pub(super) struct Uuids {
    upper: Integers,
    lower: Integers,
}

impl Uuids {
    pub(super) fn open(rows: u32, reader: &mut Reader) -> Result<Self> {
        let upper = Integers::open(reader.section("upper halves of uuids")?, rows as usize)?;
        let lower = Integers::open(reader.section("lower halves of uuids")?, rows as usize)?;
        Ok(Self { upper, lower })
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        array(&self.upper.decode(rows.clone(), |half| half)?, &self.lower.decode(rows, |half| half)?, nulls)
    }

    pub(super) fn gather(
        &self,
        rows: Range<usize>,
        selection: &Bitmask,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        let upper = self.upper.gather(rows.clone(), selection, |half| half)?;
        array(&upper, &self.lower.gather(rows, selection, |half| half)?, nulls)
    }

    /// Takes out of `mask` the rows that are not `number`.
    pub(super) fn select(&self, rows: Range<usize>, number: u128, mask: &mut Bitmask) -> Result<()> {
        let (upper, lower) = ((number >> 64) as i64, number as i64);
        self.upper.select_range(rows.clone(), upper, upper, true, mask)?;
        self.lower.select_range(rows, lower, lower, true, mask)
    }
}

fn array(upper: &[i64], lower: &[i64], nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let mut views = ViewsBuilder::new(true, upper.len());
    // A buffer of views holds less than 2 GiB.
    const RUN: usize = i32::MAX as usize / TEXT_BYTES;
    for (upper, lower) in upper.chunks(RUN).zip(lower.chunks(RUN)) {
        let mut text = Vec::with_capacity(upper.len() * TEXT_BYTES);
        for (upper, lower) in upper.iter().zip(lower) {
            format(u128::from(*upper as u64) << 64 | u128::from(*lower as u64), &mut text);
        }
        let pushed = views.buffer(Buffer::from_vec(text))
            && (0..upper.len()).all(|row| views.push(row * TEXT_BYTES, (row + 1) * TEXT_BYTES));
        assert!(pushed, "invariant: hexadecimal digits are UTF-8");
    }
    views.finish(nulls).ok_or_else(|| Error::Invalid("null rows do not fit the values".into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn canonical_texts_come_back(number in any::<u128>()) {
            let mut text = Vec::new();
            format(number, &mut text);
            prop_assert_eq!(parse(&text), Some(number));
        }

        #[test]
        fn only_canonical_texts_are_numbers(text in "[0-9a-fA-F-]{34,38}") {
            if let Some(number) = parse(text.as_bytes()) {
                let mut again = Vec::new();
                format(number, &mut again);
                prop_assert_eq!(again, text.into_bytes());
            }
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        assert!(parse(b"01234567-89ab-cdef-0123-456789abcdef").is_some());
        assert!(parse(b"01234567-89AB-cdef-0123-456789abcdef").is_none());
        assert!(parse(b"0123456789abcdef0123456789abcdef").is_none());
        assert!(parse(b"01234567+89ab-cdef-0123-456789abcdef").is_none());
    }
}
