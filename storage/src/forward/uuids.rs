//! UUIDs as two columns of integers, the upper and the lower eight bytes: random ones take sixteen bytes less what their version and
//! variant fix, and those that begin with a time less the time.

use std::ops::Range;

use arrow::{
    array::{ArrayRef, AsArray},
    buffer::{Buffer, NullBuffer},
};

use super::{
    Picked,
    codec::Codec,
    format::{Reader, Writer},
    integers::{self, Integers},
};
use crate::{
    Error, Result,
    bitpack::{Bitmask, views::ViewsBuilder},
};

const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];
/// Where in the text the two digits of each byte stand.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
/// The two digits of each byte.
const DIGITS: [[u8; 2]; 256] = {
    let (digits, mut pairs, mut byte) = (b"0123456789abcdef", [[0; 2]; 256], 0);
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};
/// What each character is worth; [`NO_DIGIT`] where it is no lower-case digit.
const VALUES: [u8; 256] = {
    let (digits, mut values, mut value) = (b"0123456789abcdef", [NO_DIGIT; 256], 0);
    while value < 16 {
        values[digits[value] as usize] = value as u8;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = 0x80;

/// The number that a canonical UUID (lower case, hyphens) writes; `None` for any other text.
pub(super) fn parse(text: &[u8]) -> Option<u128> {
    let text: &[u8; TEXT_BYTES] = text.try_into().ok()?;
    let (mut bytes, mut all) = ([0u8; 16], 0);
    for (byte, at) in bytes.iter_mut().zip(PLACES) {
        let (high, low) = (VALUES[usize::from(text[at])], VALUES[usize::from(text[at + 1])]);
        *byte = high << 4 | low;
        all |= high | low;
    }
    let hyphens = HYPHENS.iter().all(|at| text[*at] == b'-');
    (hyphens && all < NO_DIGIT).then(|| u128::from_be_bytes(bytes))
}

fn format(number: u128, out: &mut [u8; TEXT_BYTES]) {
    for (byte, at) in number.to_be_bytes().into_iter().zip(PLACES) {
        let [high, low] = DIGITS[usize::from(byte)];
        out[at] = high;
        out[at + 1] = low;
    }
    HYPHENS.iter().for_each(|at| out[*at] = b'-');
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

    /// How the halves are compressed, if one is.
    pub(super) fn codec(&self) -> Option<Codec> {
        self.upper.codec().or(self.lower.codec())
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        array(&self.upper.decode(rows.clone(), |half| half)?, &self.lower.decode(rows, |half| half)?, nulls)
    }

    pub(super) fn gather(&self, Picked { rows, selection, nulls }: Picked<'_>) -> Result<ArrayRef> {
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
        let mut text = vec![0; upper.len() * TEXT_BYTES];
        for ((upper, lower), text) in upper.iter().zip(lower).zip(text.as_chunks_mut().0) {
            format(u128::from(*upper as u64) << 64 | u128::from(*lower as u64), text);
        }
        assert!(views.ascii(Buffer::from_vec(text), TEXT_BYTES), "invariant: hexadecimal digits are ASCII");
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
            let mut text = [0; TEXT_BYTES];
            format(number, &mut text);
            prop_assert_eq!(parse(&text), Some(number));
            // The plain twin: sixteen bytes in groups.
            let plain = format!("{number:032x}");
            let groups = [&plain[..8], &plain[8..12], &plain[12..16], &plain[16..20], &plain[20..]].join("-");
            prop_assert_eq!(text.as_slice(), groups.as_bytes());
        }

        #[test]
        fn only_canonical_texts_are_numbers(text in "[0-9a-fA-F-]{34,38}") {
            if let Some(number) = parse(text.as_bytes()) {
                let mut again = [0; TEXT_BYTES];
                format(number, &mut again);
                prop_assert_eq!(again.as_slice(), text.as_bytes());
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
