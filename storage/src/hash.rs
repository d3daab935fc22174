//! The hash of a value, part of the format of index files and of sketches: xxHash64 (seed 0) of the bytes below.
//!
//! | type | bytes |
//! |---|---|
//! | SMALLINT, INT, BIGINT, DATE, TIMESTAMP, TIMESTAMPTZ | the number as i64 |
//! | REAL, DOUBLE | the bits of an f64; one zero and one NaN |
//! | NUMERIC | the unscaled value as i128 |
//! | TEXT, UUID, BYTEA | the bytes; of a UUID those of its text |
//! | BOOLEAN | 0 or 1 as i64 (of arrays: no index has them) |

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};

use crate::{Error, Result, scalar::Scalar, schema::DataType};

/// The hash of a value of a column of the type; `None` when it is none.
pub(crate) fn of_scalar(value: &Scalar, data_type: &DataType) -> Option<u64> {
    Some(match value {
        Scalar::Int(value) => of_int(*value),
        // REAL is compared at its own precision.
        Scalar::Float(value) if *data_type == DataType::Real => of_float(f64::from(*value as f32)),
        Scalar::Float(value) => of_float(*value),
        Scalar::Decimal(value) => of_decimal(*value),
        Scalar::Text(value) => of_bytes(value.as_bytes()),
        Scalar::Bytes(value) => of_bytes(value),
        Scalar::Boolean(_) => return None,
    })
}

/// An unscaled decimal.
#[inline]
pub(crate) fn of_decimal(value: i128) -> u64 {
    of_bytes(&value.to_le_bytes())
}

/// Calls `each` with the hash of every row, `None` for a null. Errors: `Invalid` for types without a hash.
pub fn of_array(array: &ArrayRef, mut each: impl FnMut(Option<u64>)) -> Result<()> {
    macro_rules! primitive {
        ($type:ty, $hash:expr) => {
            array.as_primitive::<$type>().iter().for_each(|value| each(value.map($hash)))
        };
    }
    match array.data_type() {
        ArrowType::Boolean => array.as_boolean().iter().for_each(|value| each(value.map(|value| of_int(value.into())))),
        ArrowType::Int16 => primitive!(Int16Type, |v| of_int(v.into())),
        ArrowType::Int32 => primitive!(Int32Type, |v| of_int(v.into())),
        ArrowType::Int64 => primitive!(Int64Type, of_int),
        ArrowType::Date32 => primitive!(Date32Type, |v| of_int(v.into())),
        ArrowType::Timestamp(..) => primitive!(TimestampMicrosecondType, of_int),
        ArrowType::Float32 => primitive!(Float32Type, |v| of_float(v.into())),
        ArrowType::Float64 => primitive!(Float64Type, of_float),
        ArrowType::Decimal128(..) => primitive!(Decimal128Type, of_decimal),
        ArrowType::Utf8View => {
            array.as_string_view().iter().for_each(|value| each(value.map(|text| of_bytes(text.as_bytes()))));
        }
        ArrowType::BinaryView => array.as_binary_view().iter().for_each(|value| each(value.map(of_bytes))),
        other => return Err(Error::Invalid(format!("values of {other} have no hash"))),
    }
    Ok(())
}

/// What [`of_bytes`] makes of eight bytes.
#[inline]
pub(crate) fn of_int(value: i64) -> u64 {
    let hash = PRIME_5.wrapping_add(8) ^ round(0, value as u64);
    finished(hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
}

#[inline]
pub(crate) fn of_float(value: f64) -> u64 {
    let plain = if value.is_nan() { f64::NAN } else { value + 0.0 };
    of_int(plain.to_bits() as i64)
}

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}

#[inline]
fn round(state: u64, input: u64) -> u64 {
    state.wrapping_add(input.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

/// xxHash64 with seed 0 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let mut stripes = bytes.chunks_exact(32);
    let mut hash = if bytes.len() >= 32 {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u64.wrapping_sub(PRIME_1)];
        for stripe in stripes.by_ref() {
            for (lane, input) in lanes.iter_mut().zip(stripe.chunks_exact(8)) {
                *lane = round(*lane, word(input));
            }
        }
        let [a, b, c, d] = lanes;
        let mut hash = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        hash
    } else {
        PRIME_5
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let mut words = stripes.remainder().chunks_exact(8);
    for input in words.by_ref() {
        hash = (hash ^ round(0, word(input))).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let mut rest = words.remainder();
    if let Some((four, after)) = rest.split_first_chunk::<4>() {
        let input = u64::from(u32::from_le_bytes(*four)).wrapping_mul(PRIME_1);
        hash = (hash ^ input).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = after;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIME_5)).rotate_left(11).wrapping_mul(PRIME_1);
    }
    finished(hash)
}

#[inline]
fn finished(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    let hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the reference implementation: files on disk depend on them.
    #[test]
    fn the_hash_is_xxhash64() {
        assert_eq!(of_bytes(b""), 0xef46_db37_51d8_e999);
        assert_eq!(of_bytes(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(of_bytes(b"abc"), 0x44bc_2cf5_ad77_0999);
        let text = b"Nobody inspects the spammish repetition";
        assert_eq!(of_bytes(text), 0xfbce_a83c_8a37_8bf1);
        for number in [0, 1, -1, i64::MIN, i64::MAX, 1 << 33, 0x0123_4567_89ab_cdef] {
            assert_eq!(of_int(number), of_bytes(&number.to_le_bytes()));
        }
    }

    #[test]
    fn equal_values_have_equal_hashes() {
        assert_eq!(of_float(0.0), of_float(-0.0));
        assert_eq!(of_float(f64::NAN), of_float(-f64::NAN));
        assert_eq!(of_scalar(&Scalar::Float(0.1), &DataType::Real), Some(of_float(f64::from(0.1f32))));
    }
}
