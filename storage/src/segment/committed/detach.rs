//! Making arrays that do not point into a mapped file.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, GenericByteViewArray, ListArray, MutableArrayData, make_array},
    buffer::{BooleanBuffer, Buffer, NullBuffer},
    datatypes::{ByteViewType, DataType as ArrowType},
};

use crate::{Result, mmap::MappedFile};

/// The same values, without buffers of the map. Arrays that have none come back as they are.
pub(super) fn detach(file: &MappedFile, array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        ArrowType::Utf8View => views(file, array, array.as_string_view()),
        ArrowType::BinaryView => views(file, array, array.as_binary_view()),
        ArrowType::List(field) => {
            let list = array.as_list::<i32>();
            let (first, last) = (list.offsets()[0] as usize, list.offsets()[list.len()] as usize);
            // Only the items in use, unless they are all.
            let whole = first == 0 && last == list.values().len();
            let items = if whole { Arc::clone(list.values()) } else { list.values().slice(first, last - first) };
            let items = detach(file, &items)?;
            let offsets: Vec<i32> = list.offsets().iter().map(|offset| offset - list.offsets()[0]).collect();
            let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
            let nulls = list.nulls().map(|nulls| own_nulls(file, nulls));
            Arc::new(ListArray::new(Arc::clone(field), offsets, items, nulls))
        }
        ArrowType::Boolean => {
            let booleans = array.as_boolean();
            let nulls = booleans.nulls().map(|nulls| own_nulls(file, nulls));
            Arc::new(BooleanArray::new(own_bits(file, booleans.values()), nulls))
        }
        _ => {
            let data = array.to_data();
            let mapped =
                data.buffers().iter().chain(data.nulls().map(NullBuffer::buffer)).any(|buffer| is_in(file, buffer));
            if !mapped {
                return Ok(Arc::clone(array));
            }
            let mut out = MutableArrayData::new(vec![&data], false, data.len());
            out.try_extend(0, 0, data.len())?;
            make_array(out.freeze())
        }
    })
}

fn is_in(file: &MappedFile, buffer: &Buffer) -> bool {
    let map = file.bytes().as_ptr_range();
    map.contains(&buffer.as_ptr())
}

fn own_bits(file: &MappedFile, bits: &BooleanBuffer) -> BooleanBuffer {
    if is_in(file, bits.inner()) { BooleanBuffer::new(bits.sliced(), 0, bits.len()) } else { bits.clone() }
}

fn own_nulls(file: &MappedFile, nulls: &NullBuffer) -> NullBuffer {
    if is_in(file, nulls.buffer()) { NullBuffer::new(own_bits(file, nulls.inner())) } else { nulls.clone() }
}

fn views<T: ByteViewType>(file: &MappedFile, array: &ArrayRef, views: &GenericByteViewArray<T>) -> ArrayRef {
    // Views themselves are made while decoding; texts longer than 12 bytes stay where they are stored.
    if views.data_buffers().iter().any(|buffer| is_in(file, buffer)) { Arc::new(views.gc()) } else { Arc::clone(array) }
}
