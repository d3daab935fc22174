//! Fixed-width values as they are in memory: little-endian, or one bit each. Reading them copies nothing.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray},
    buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer},
    compute::concat,
    datatypes::{
        ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
        TimestampMicrosecondType,
    },
};

use super::format::{Reader, Writer, aligned};
use crate::{Error, Result, schema::DataType};

pub(super) fn encode(data_type: &DataType, chunks: &[ArrayRef]) -> Result<Writer> {
    let width = width(data_type)?;
    let rows = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(rows * width);
    for chunk in chunks {
        let data = chunk.to_data();
        let buffer = data.buffers().first().ok_or_else(|| Error::Invalid("an array without values".into()))?;
        bytes.extend_from_slice(&buffer[data.offset() * width..(data.offset() + data.len()) * width]);
    }
    let mut writer = Writer::default();
    writer.section(bytes);
    Ok(writer)
}

pub(super) fn encode_bits(chunks: &[ArrayRef]) -> Result<Writer> {
    let all = concat(&chunks.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
    let bits = all.as_boolean().values();
    let mut bytes = bits.sliced().to_vec();
    bytes.truncate(bits.len().div_ceil(8));
    let mut writer = Writer::default();
    writer.section(bytes);
    Ok(writer)
}

fn width(data_type: &DataType) -> Result<usize> {
    data_type
        .arrow()
        .primitive_width()
        .ok_or_else(|| Error::Invalid(format!("values of {data_type} have no fixed width")))
}

/// Values of a type with a fixed width.
#[derive(Debug)]
pub(super) struct Fixed {
    data_type: DataType,
    values: Buffer,
}

impl Fixed {
    pub(super) fn open(data_type: &DataType, rows: u32, reader: &mut Reader) -> Result<Self> {
        let width = width(data_type)?;
        let values = reader.section_of("plain values", u64::from(rows) * width as u64)?;
        Ok(Self { data_type: data_type.clone(), values: aligned::<i128>(values) })
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        fn array<T: ArrowPrimitiveType>(
            values: &Buffer,
            rows: Range<usize>,
            nulls: Option<NullBuffer>,
        ) -> Result<PrimitiveArray<T>> {
            Ok(PrimitiveArray::try_new(ScalarBuffer::new(values.clone(), rows.start, rows.len()), nulls)?)
        }
        let values = &self.values;
        Ok(match &self.data_type {
            DataType::SmallInt => Arc::new(array::<Int16Type>(values, rows, nulls)?),
            DataType::Int => Arc::new(array::<Int32Type>(values, rows, nulls)?),
            DataType::BigInt => Arc::new(array::<Int64Type>(values, rows, nulls)?),
            DataType::Date => Arc::new(array::<Date32Type>(values, rows, nulls)?),
            DataType::Real => Arc::new(array::<Float32Type>(values, rows, nulls)?),
            DataType::Double => Arc::new(array::<Float64Type>(values, rows, nulls)?),
            DataType::Timestamp => Arc::new(array::<TimestampMicrosecondType>(values, rows, nulls)?),
            DataType::TimestampTz => {
                Arc::new(array::<TimestampMicrosecondType>(values, rows, nulls)?.with_timezone(crate::schema::UTC))
            }
            DataType::Numeric { precision, scale } => {
                Arc::new(array::<Decimal128Type>(values, rows, nulls)?.with_precision_and_scale(*precision, *scale)?)
            }
            other => return Err(Error::Invalid(format!("values of {other} have no fixed width"))),
        })
    }
}

/// Booleans, one bit each.
#[derive(Debug)]
pub(super) struct Bits {
    values: Buffer,
}

impl Bits {
    pub(super) fn open(rows: u32, reader: &mut Reader) -> Result<Self> {
        Ok(Self { values: reader.section_of("bits", u64::from(rows).div_ceil(8))? })
    }

    pub(super) fn decode(&self, rows: Range<usize>, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(BooleanArray::new(BooleanBuffer::new(self.values.clone(), rows.start, rows.len()), nulls))
    }
}
