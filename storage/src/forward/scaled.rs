//! Floats that were decimals: a price of 12.34 is the integer 1234 divided by 100. Division gives the float nearest to the decimal, which is
//! what reading "12.34" gave, to the bit. Rows where it does not come back to the bit (NaN, -0, thirds) are exceptions.
//!
//! ```text
//! head:       power of ten u8 · exceptions u32
//! integers:   one per row │ exceptions: rows u32 …, then their bits u64 …
//! ```

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, Float64Array},
    buffer::{Buffer, NullBuffer},
    datatypes::{Float32Type, Float64Type},
};

use super::{
    Picked,
    format::{Reader, Writer, corrupt},
    integers::{self, Integers},
};
use crate::{
    Error, Result,
    bitpack::{Bitmask, lanes},
    schema::DataType,
};

/// 10²² is the largest power of ten that is a float itself.
const POWER_MAX: u8 = 15;
/// Integers up to here are floats themselves.
const INTEGER_MAX: f64 = (1u64 << 53) as f64;
const EXCEPTION_BYTES: usize = 12;
/// Rows looked at to find the power.
const SAMPLE: usize = 2048;

fn divisor(power: u8) -> f64 {
    10f64.powi(i32::from(power))
}

/// Which of the two float types, and so what "to the bit" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Real,
    Double,
}

impl Width {
    fn of(data_type: &DataType) -> Result<Self> {
        match data_type {
            DataType::Real => Ok(Self::Real),
            DataType::Double => Ok(Self::Double),
            other => Err(Error::Invalid(format!("values of {other} are no floats"))),
        }
    }

    fn value_bytes(self) -> usize {
        if self == Self::Real { 4 } else { 8 }
    }

    fn same(self, a: f64, b: f64) -> bool {
        match self {
            Self::Real => (a as f32).to_bits() == (b as f32).to_bits(),
            Self::Double => a.to_bits() == b.to_bits(),
        }
    }

    /// The integer that stands for `value`.
    fn scale(self, value: f64, divisor: f64) -> Option<i64> {
        let integer = (value * divisor).round();
        if integer.is_nan() || integer.abs() > INTEGER_MAX {
            return None;
        }
        // Back from the integer, as a reader will: -0 is no integer, though -0.0 / 100.0 is -0.0.
        let integer = integer as i64;
        self.same(integer as f64 / divisor, value).then_some(integer)
    }
}

/// The values and, for exceptions, their bits.
fn for_each(width: Width, chunks: &[ArrayRef], mut each: impl FnMut(Option<(f64, u64)>)) {
    for chunk in chunks {
        match width {
            Width::Real => {
                let values = chunk.as_primitive::<Float32Type>().iter();
                values.for_each(|value| each(value.map(|value| (f64::from(value), u64::from(value.to_bits())))));
            }
            Width::Double => {
                let values = chunk.as_primitive::<Float64Type>().iter();
                values.for_each(|value| each(value.map(|value| (value, value.to_bits()))));
            }
        }
    }
}

/// `None` when the floats are no decimals for the most part.
pub(super) fn encode(data_type: &DataType, chunks: &[ArrayRef]) -> Result<Option<Writer>> {
    let width = Width::of(data_type)?;
    let rows = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    let (every, mut sample, mut row) = ((rows / SAMPLE).max(1), Vec::new(), 0);
    for_each(width, chunks, |value| {
        if row % every == 0 {
            sample.extend(value.map(|(value, _)| value));
        }
        row += 1;
    });
    let misses = |power: u8| sample.iter().filter(|value| width.scale(**value, divisor(power)).is_none()).count();
    // The smallest power among those with the fewest misses has the narrowest integers.
    let Some((missed, power)) = (0..=POWER_MAX).map(|power| (misses(power), power)).min() else { return Ok(None) };
    if missed * 4 > sample.len() {
        return Ok(None);
    }
    let divisor = divisor(power);
    let (mut values, mut places, mut bits, mut last) = (Vec::with_capacity(rows), Vec::new(), Vec::new(), 0);
    for_each(width, chunks, |value| {
        if let Some((value, its_bits)) = value {
            match width.scale(value, divisor) {
                Some(integer) => last = integer,
                None => {
                    places.extend_from_slice(&(values.len() as u32).to_le_bytes());
                    bits.extend_from_slice(&its_bits.to_le_bytes());
                }
            }
        }
        values.push(last);
    });
    let mut writer = Writer::default();
    writer.u8(power);
    writer.u32((places.len() / 4) as u32);
    writer.section(integers::encode(&values));
    places.extend_from_slice(&bits);
    writer.section(places);
    Ok((writer.bytes() < rows * width.value_bytes()).then_some(writer))
}

#[derive(Debug)]
pub(super) struct Scaled {
    width: Width,
    divisor: f64,
    integers: Integers,
    count: usize,
    exceptions: Buffer,
}

impl Scaled {
    pub(super) fn open(data_type: &DataType, rows: u32, reader: &mut Reader) -> Result<Self> {
        let width = Width::of(data_type)?;
        let power = reader.u8("power of ten")?;
        if power > POWER_MAX {
            return Err(corrupt("power of ten", format!("at most {POWER_MAX}"), power));
        }
        let count = reader.u32("exceptions")? as usize;
        let integers = Integers::open(reader.section("scaled floats")?, rows as usize)?;
        let exceptions = reader.section_of("exceptions of floats", count as u64 * EXCEPTION_BYTES as u64)?;
        Ok(Self { width, divisor: divisor(power), integers, count, exceptions })
    }

    pub(super) fn integers(&self) -> &Integers {
        &self.integers
    }

    fn row_of(&self, exception: usize) -> usize {
        let bytes = self.exceptions.get(exception * 4..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }

    fn bits_of(&self, exception: usize) -> u64 {
        let bytes = self.exceptions.get(self.count * 4 + exception * 8..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// The exceptions in `rows`: the row, counted from the first of `rows`, and the bits.
    fn exceptions_in(&self, rows: Range<usize>) -> impl Iterator<Item = (usize, u64)> + '_ {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = (low + high) / 2;
            if self.row_of(middle) < rows.start { low = middle + 1 } else { high = middle }
        }
        (low..self.count)
            .map(|exception| (self.row_of(exception), exception))
            .take_while(move |(row, _)| *row < rows.end)
            // Rows that do not ascend are damage that a checksum has let through: they must only not lead out of the range.
            .filter(move |(row, _)| *row >= rows.start)
            .map(move |(row, exception)| (row - rows.start, self.bits_of(exception)))
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        Ok(match self.width {
            Width::Real => {
                let mut values = self.integers.decode(rows.clone(), |integer| self.real(integer))?;
                self.exceptions_in(rows).for_each(|(row, bits)| values[row] = f32::from_bits(bits as u32));
                Arc::new(Float32Array::try_new(values.into(), nulls)?)
            }
            Width::Double => {
                let mut values = self.integers.decode(rows.clone(), |integer| self.double(integer))?;
                self.exceptions_in(rows).for_each(|(row, bits)| values[row] = f64::from_bits(bits));
                Arc::new(Float64Array::try_new(values.into(), nulls)?)
            }
        })
    }

    /// Exceptions among the selected rows: place among these, and bits.
    fn selected_exceptions(&self, rows: Range<usize>, selection: &Bitmask) -> Vec<(usize, u64)> {
        let (mut exceptions, mut place, mut counted) = (Vec::new(), 0, 0);
        for (row, bits) in self.exceptions_in(rows) {
            if row >= counted && selection.get(row) {
                place += selection.count_in(counted..row);
                counted = row;
                exceptions.push((place, bits));
            }
        }
        exceptions
    }

    /// The values of `rows`, of either width, or of those that `selection` holds, in double precision.
    pub(super) fn fill(&self, rows: Range<usize>, selection: Option<&Bitmask>, out: &mut Vec<f64>) -> Result<()> {
        let value = |bits: u64| match self.width {
            Width::Real => f64::from(f32::from_bits(bits as u32)),
            Width::Double => f64::from_bits(bits),
        };
        match selection {
            None => {
                match self.width {
                    Width::Real => self.integers.fill(rows.clone(), out, |integer| f64::from(self.real(integer)))?,
                    Width::Double => {
                        let mut integers = Vec::new();
                        self.integers.fill_as_they_are(rows.clone(), &mut integers)?;
                        out.resize(integers.len(), 0.0);
                        lanes::quotients(&integers, self.divisor, out);
                    }
                }
                self.exceptions_in(rows).for_each(|(row, bits)| out[row] = value(bits));
            }
            Some(selection) => {
                let mut integers = Vec::new();
                self.integers.gather_into(rows.clone(), selection, &mut integers)?;
                match self.width {
                    Width::Real => {
                        out.clear();
                        out.extend(integers.iter().map(|integer| f64::from(self.real(*integer))));
                    }
                    Width::Double => {
                        out.resize(integers.len(), 0.0);
                        lanes::quotients(&integers, self.divisor, out);
                    }
                }
                let exceptions = self.selected_exceptions(rows, selection);
                exceptions.iter().for_each(|(at, bits)| out[*at] = value(*bits));
            }
        }
        Ok(())
    }

    pub(super) fn gather(&self, Picked { rows, selection, nulls }: Picked<'_>) -> Result<ArrayRef> {
        let exceptions = self.selected_exceptions(rows.clone(), selection);
        Ok(match self.width {
            Width::Real => {
                let mut values = self.integers.gather(rows, selection, |integer| self.real(integer))?;
                exceptions.iter().for_each(|(at, bits)| values[*at] = f32::from_bits(*bits as u32));
                Arc::new(Float32Array::try_new(values.into(), nulls)?)
            }
            Width::Double => {
                let mut values = self.integers.gather(rows, selection, |integer| self.double(integer))?;
                exceptions.iter().for_each(|(at, bits)| values[*at] = f64::from_bits(*bits));
                Arc::new(Float64Array::try_new(values.into(), nulls)?)
            }
        })
    }

    #[inline]
    fn real(&self, integer: i64) -> f32 {
        (integer as f64 / self.divisor) as f32
    }

    #[inline]
    fn double(&self, integer: i64) -> f64 {
        integer as f64 / self.divisor
    }
}
