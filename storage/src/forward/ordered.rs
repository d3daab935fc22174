//! Floats that are no decimals: their bits as integers, in the order of the floats, so that neighbours are near each other. Readings within a
//! narrow range share sign, exponent and the first digits; REALs that became DOUBLE end in 29 zeros, which is a common factor.
//!
//! ```text
//! integers:  one per row: the bits, where the sign is clear; else the bits with all but the sign turned round
//! ```

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array, Float64Array},
    buffer::NullBuffer,
    datatypes::{Float32Type, Float64Type},
};

use super::{
    Picked,
    format::{Reader, Writer},
    integers::{self, Integers},
};
use crate::{Error, Result, schema::DataType};

/// The bits of a DOUBLE in order, or back: it is its own inverse.
#[inline]
fn turned(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// As [`turned`], of a REAL.
#[inline]
fn turned_real(bits: i32) -> i32 {
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// `None` when it saves less than a twentieth of the plain bytes: reading those copies nothing.
pub(super) fn encode(data_type: &DataType, chunks: &[ArrayRef]) -> Result<Option<Writer>> {
    let rows = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    let (mut values, mut last) = (Vec::with_capacity(rows), 0);
    for chunk in chunks {
        let mut push = |value: Option<i64>| {
            last = value.unwrap_or(last);
            values.push(last);
        };
        match data_type {
            DataType::Real => {
                let bits = |value: f32| i64::from(turned_real(value.to_bits() as i32));
                chunk.as_primitive::<Float32Type>().iter().for_each(|value| push(value.map(bits)));
            }
            DataType::Double => {
                let bits = |value: f64| turned(value.to_bits() as i64);
                chunk.as_primitive::<Float64Type>().iter().for_each(|value| push(value.map(bits)));
            }
            other => return Err(Error::Invalid(format!("values of {other} are no floats"))),
        }
    }
    let mut writer = Writer::default();
    writer.section(integers::encode(&values));
    let plain = rows * if *data_type == DataType::Real { 4 } else { 8 };
    Ok((writer.bytes() < plain - plain / 20).then_some(writer))
}

#[derive(Debug)]
pub(super) struct Ordered {
    real: bool,
    integers: Integers,
}

impl Ordered {
    pub(super) fn open(data_type: &DataType, rows: u32, reader: &mut Reader) -> Result<Self> {
        let integers = Integers::open(reader.section("bits of floats")?, rows as usize)?;
        Ok(Self { real: *data_type == DataType::Real, integers })
    }

    pub(super) fn integers(&self) -> &Integers {
        &self.integers
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        Ok(if self.real {
            Arc::new(Float32Array::try_new(self.integers.decode(rows, real)?.into(), nulls)?)
        } else {
            Arc::new(Float64Array::try_new(self.integers.decode(rows, double)?.into(), nulls)?)
        })
    }

    pub(super) fn gather(&self, Picked { rows, selection, nulls }: Picked<'_>) -> Result<ArrayRef> {
        Ok(if self.real {
            Arc::new(Float32Array::try_new(self.integers.gather(rows, selection, real)?.into(), nulls)?)
        } else {
            Arc::new(Float64Array::try_new(self.integers.gather(rows, selection, double)?.into(), nulls)?)
        })
    }
}

/// Integers beyond 32 bits are cut: only damaged bytes hold such.
#[inline]
fn real(integer: i64) -> f32 {
    f32::from_bits(turned_real(integer as i32) as u32)
}

#[inline]
fn double(integer: i64) -> f64 {
    f64::from_bits(turned(integer) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_integers_is_that_of_the_floats() {
        let floats = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -f64::MIN_POSITIVE,
            -5e-324,
            -0.0,
            0.0,
            5e-324,
            1.0,
            f64::MAX,
            f64::INFINITY,
        ];
        let integers = floats.map(|float| turned(float.to_bits() as i64));
        assert!(integers.is_sorted());
        assert_eq!(integers.map(|integer| double(integer).to_bits()), floats.map(f64::to_bits));
        let floats = [f32::NEG_INFINITY, -1.5, -1e-45, -0.0, 0.0, 1e-45, 1.0, f32::INFINITY, f32::NAN];
        let integers = floats.map(|float| turned_real(float.to_bits() as i32));
        assert!(integers.is_sorted());
        assert_eq!(integers.map(|integer| real(i64::from(integer)).to_bits()), floats.map(f32::to_bits));
    }
}
