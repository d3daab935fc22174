//! Arrays that hold on to no more memory than their own values need.
//!
//! A slice shares the buffers of the array it was cut from, and views share the buffers of every array they came through: kept for
//! minutes, one row can pin a whole message batch, and memory counted twice is memory counted wrongly.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericByteViewArray, ListArray, MutableArrayData, make_array},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{ByteViewType, DataType as ArrowType},
};

use crate::Result;

/// What an array may take beyond its values before it is copied: a quarter, and what alignment costs.
fn wasteful(taken: usize, needed: usize) -> bool {
    taken > needed + needed / 4 + 512
}

/// The same values; copied where the buffers hold much more than them.
pub(super) fn compact(array: &ArrayRef) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        ArrowType::Utf8View => views(array.as_string_view()),
        ArrowType::BinaryView => views(array.as_binary_view()),
        ArrowType::List(field) => {
            let list = array.as_list::<i32>();
            let offsets = list.offsets();
            let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
            let items = compact(&list.values().slice(first, last - first))?;
            let offsets: Vec<i32> = offsets.iter().map(|offset| offset - offsets[0]).collect();
            let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
            Arc::new(ListArray::new(Arc::clone(field), offsets, items, list.nulls().map(tight)))
        }
        _ => {
            let needed = array.to_data().get_slice_memory_size().unwrap_or(usize::MAX / 2);
            if wasteful(array.get_buffer_memory_size(), needed) { copy(array)? } else { Arc::clone(array) }
        }
    })
}

fn copy(array: &ArrayRef) -> Result<ArrayRef> {
    let data = array.to_data();
    let mut out = MutableArrayData::new(vec![&data], false, data.len());
    out.try_extend(0, 0, data.len())?;
    Ok(make_array(out.freeze()))
}

fn views<T: ByteViewType>(array: &GenericByteViewArray<T>) -> ArrayRef {
    let used = array.total_buffer_bytes_used();
    let taken: usize = array.data_buffers().iter().map(|buffer| buffer.capacity()).sum();
    // Merging piles up buffers. (Where texts share bytes, `used` is above `taken`, and copying would blow them up.)
    let scattered = array.data_buffers().len() > 4 && used <= taken;
    let array = if wasteful(taken, used) || scattered { array.gc() } else { array.clone() };
    let own = array.len() * size_of::<u128>();
    let nulls_taken = array.nulls().map_or(0, |nulls| nulls.buffer().capacity());
    if !wasteful(array.views().inner().capacity(), own) && !wasteful(nulls_taken, array.len().div_ceil(8)) {
        return Arc::new(array);
    }
    let copied = ScalarBuffer::from(array.views().to_vec());
    let nulls = array.nulls().map(tight);
    let (_, buffers, _) = array.into_parts();
    Arc::new(
        GenericByteViewArray::<T>::try_new(copied, buffers, nulls)
            .expect("invariant: copied views are as valid as they were"),
    )
}

fn tight(nulls: &arrow::buffer::NullBuffer) -> arrow::buffer::NullBuffer {
    arrow::buffer::NullBuffer::new(nulls.inner().iter().collect())
}
