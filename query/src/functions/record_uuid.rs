//! `rt_uuid(value, …)`: the same UUID for the same values, for ever and everywhere: what makes a record known again that is made a second time.
//!
//! Version 5 of RFC 9562 (SHA-1) in a namespace of our own, over each value's text with its length before it, so that `('ab', 'c')` is another one than `('a', 'bc')`. Times are
//! text in UTC, whatever the session's zone is. NULL is a value like others, and not the empty text.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, StringViewArray, StringViewBuilder},
    datatypes::{DataType, Field},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ScalarUDF, Signature, Volatility},
};
use tidemill_storage::schema::TYPE_KEY;

use super::{
    simple::{Call, Returns, Simple, text},
    text_output,
    zone::Zone,
};

/// The UUID of version 5 of `tidemill.rt_uuid` in the namespace of domain names. Another one would give other UUIDs for records that are known.
const NAMESPACE: [u8; 16] =
    [0x7b, 0xed, 0xe8, 0x38, 0xf3, 0x4e, 0x5d, 0xc3, 0xbc, 0x4f, 0x07, 0x43, 0x53, 0xdb, 0x41, 0x26];

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    let returns = Returns::Field(|_| {
        let metadata = HashMap::from([(TYPE_KEY.to_owned(), "uuid".to_owned())]);
        Ok(Arc::new(Field::new("rt_uuid", DataType::Utf8View, false).with_metadata(metadata)))
    });
    vec![Simple::udf("rt_uuid", Signature::variadic_any(Volatility::Immutable), returns, uuids)]
}

fn uuids(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let texts = call.arrays.iter().map(|array| match array.data_type() {
        DataType::Null => Ok(StringViewArray::new_null(array.len())),
        _ => text(&text_output::column(array, Zone::UTC)?),
    });
    let texts = texts.collect::<Result<Vec<_>, DataFusionError>>()?;
    let mut out = StringViewBuilder::with_capacity(call.rows);
    let (mut bytes, mut written) = (Vec::new(), String::new());
    for row in 0..call.rows {
        bytes.clear();
        bytes.extend_from_slice(&NAMESPACE);
        for texts in &texts {
            match texts.is_null(row) {
                true => bytes.extend_from_slice(&u64::MAX.to_be_bytes()),
                false => {
                    let text = texts.value(row);
                    bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
        written.clear();
        write_uuid(version_5(&bytes), &mut written);
        out.append_value(&written);
    }
    Ok(Arc::new(out.finish()))
}

fn version_5(namespace_and_name: &[u8]) -> [u8; 16] {
    let digest = sha1(namespace_and_name);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x50;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

fn write_uuid(uuid: [u8; 16], out: &mut String) {
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
}

/// FIPS 180-4. Not for secrets: it is what version 5 is made of.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = message.to_vec();
    padded.push(0x80);
    // The length ends the last block.
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at / 20 {
                0 => (b & c | !b & d, 0x5a82_7999_u32),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(hex(&sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(&sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        let long = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(&sha1(long.as_bytes())), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(hex(&sha1(&vec![b'a'; 1_000_000])), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    /// The example of RFC 9562, A.4.
    #[test]
    fn uuids_are_those_of_the_standard() {
        let dns = [0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8];
        let mut out = String::new();
        write_uuid(version_5(&[&dns[..], b"www.example.com"].concat()), &mut out);
        assert_eq!(out, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
    }
}
