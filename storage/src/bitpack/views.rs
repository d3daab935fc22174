//! String views without checking every string again for every batch.
#![expect(unsafe_code, reason = "checking each string again for every batch would cost more than decoding it")]

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryViewArray, StringViewArray, make_view},
    buffer::{Buffer, NullBuffer, ScalarBuffer},
    datatypes::DataType,
};

/// The values of `array`, a view array without nulls, at the indexes `ids`, in the same buffers. `None` when an id has no
/// value, the type has no views or the null buffer another length than `ids`.
pub(crate) fn take_views(array: &dyn Array, ids: &[u32], nulls: Option<NullBuffer>) -> Option<ArrayRef> {
    let largest = ids.iter().fold(0, |max, id| max.max(*id)) as usize;
    if (largest >= array.len() && !ids.is_empty()) || nulls.as_ref().is_some_and(|nulls| nulls.len() != ids.len()) {
        return None;
    }
    let take = |table: &[u128]| -> Option<ScalarBuffer<u128>> {
        if largest >= table.len() && !ids.is_empty() {
            return None;
        }
        // SAFETY: no id is above `largest`, which is below the length of the table.
        Some(ids.iter().map(|id| unsafe { *table.get_unchecked(*id as usize) }).collect::<Vec<_>>().into())
    };
    match array.data_type() {
        DataType::Utf8View => {
            let table = array.as_string_view();
            let buffers = table.data_buffers().to_vec();
            // SAFETY: each view is one of a sound array over the same buffers; the null buffer has their number.
            Some(Arc::new(unsafe { StringViewArray::new_unchecked(take(table.views())?, buffers, nulls) }))
        }
        DataType::BinaryView => {
            let table = array.as_binary_view();
            let buffers = table.data_buffers().to_vec();
            // SAFETY: as above.
            Some(Arc::new(unsafe { BinaryViewArray::new_unchecked(take(table.views())?, buffers, nulls) }))
        }
        _ => None,
    }
}

/// Makes a view array from whole buffers of texts or bytes, each checked once.
///
/// What always holds: each view is inline or lies within its buffer; when `utf8` is set, each buffer is valid UTF-8 and each view
/// begins and ends at a character.
#[derive(Debug)]
pub(crate) struct ViewsBuilder {
    views: Vec<u128>,
    buffers: Vec<Buffer>,
    utf8: bool,
}

impl ViewsBuilder {
    pub(crate) fn new(utf8: bool, rows: usize) -> Self {
        Self { views: Vec::with_capacity(rows), buffers: Vec::new(), utf8 }
    }

    /// The next views lie in `buffer`. False when it is too long, or not UTF-8 where it must be.
    #[must_use]
    pub(crate) fn buffer(&mut self, buffer: Buffer) -> bool {
        let sound = buffer.len() <= i32::MAX as usize && (!self.utf8 || std::str::from_utf8(&buffer).is_ok());
        if sound {
            self.buffers.push(buffer);
        }
        sound
    }

    /// The value from `from` to `to` of the latest buffer. False when there is no such value.
    #[must_use]
    pub(crate) fn push(&mut self, from: usize, to: usize) -> bool {
        let Some(buffer) = self.buffers.last() else { return false };
        let Some(value) = buffer.get(from..to) else { return false };
        // The bytes are UTF-8 as a whole; a byte that continues a character begins with the bits 10.
        let inside = |at: usize| buffer.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        if self.utf8 && (inside(from) || inside(to)) {
            return false;
        }
        self.views.push(make_view(value, (self.buffers.len() - 1) as u32, from as u32));
        true
    }

    /// Texts of one width (more than 12 bytes), one behind the other, which are a buffer of their own. False when they are not, or not ASCII:
    /// so each of them begins and ends at a character.
    #[must_use]
    pub(crate) fn ascii(&mut self, buffer: Buffer, width: usize) -> bool {
        const INLINE_BYTES_MAX: usize = 12;
        let sound = width > INLINE_BYTES_MAX
            && buffer.len() <= i32::MAX as usize
            && buffer.len().is_multiple_of(width)
            && buffer.is_ascii();
        if sound {
            let constant = width as u128 | (self.buffers.len() as u128) << 64;
            self.views.extend(buffer.chunks_exact(width).enumerate().map(|(row, text)| {
                let prefix = text.first_chunk().map_or(0, |prefix| u32::from_le_bytes(*prefix));
                constant | u128::from(prefix) << 32 | ((row * width) as u128) << 96
            }));
            self.buffers.push(buffer);
        }
        sound
    }

    /// `None` when the null buffer has another length than there are values.
    pub(crate) fn finish(self, nulls: Option<NullBuffer>) -> Option<ArrayRef> {
        if nulls.as_ref().is_some_and(|nulls| nulls.len() != self.views.len()) {
            return None;
        }
        let views = ScalarBuffer::from(self.views);
        // SAFETY: what always holds of this builder is what the constructors ask for.
        Some(unsafe {
            if self.utf8 {
                Arc::new(StringViewArray::new_unchecked(views, self.buffers, nulls))
            } else {
                Arc::new(BinaryViewArray::new_unchecked(views, self.buffers, nulls))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is pushed is refused or sound: the unchecked array passes the check that it skipped.
        #[test]
        fn built_views_are_sound(
            buffers in prop::collection::vec("[aé€😀]{0,20}", 1..4), width in 0usize..20, letters in "[ab]{0,40}",
            pushes in prop::collection::vec((0usize..60, 0usize..60), 0..20),
            utf8 in any::<bool>(), broken in any::<bool>(),
        ) {
            let mut builder = ViewsBuilder::new(utf8, 0);
            let mut expected: Vec<Vec<u8>> = Vec::new();
            prop_assert!(!builder.push(0, 0));
            for text in &buffers {
                let mut bytes = text.clone().into_bytes();
                if broken {
                    bytes.push(0xff);
                }
                prop_assert_eq!(builder.buffer(Buffer::from_vec(bytes.clone())), !(broken && utf8));
                if broken && utf8 {
                    continue;
                }
                for &(from, to) in &pushes {
                    let fits = match std::str::from_utf8(&bytes) {
                        Ok(text) if utf8 => text.get(from..to).is_some(),
                        _ => bytes.get(from..to).is_some(),
                    };
                    prop_assert_eq!(builder.push(from, to), fits);
                    if fits {
                        expected.push(bytes[from..to].to_vec());
                    }
                }
            }
            for (text, ascii) in [(letters.clone(), true), (format!("{letters}é"), false)] {
                let fits = width > 12 && ascii && text.len().is_multiple_of(width);
                prop_assert_eq!(builder.ascii(Buffer::from_vec(text.clone().into_bytes()), width), fits);
                if fits {
                    expected.extend(text.as_bytes().chunks(width).map(<[u8]>::to_vec));
                }
            }
            let ids: Vec<u32> = (0..expected.len() as u32).rev().collect();
            let array = builder.finish(None).expect("no nulls");
            array.to_data().validate_full().expect("sound");
            let reversed = take_views(&array, &ids, None).expect("ids in range");
            reversed.to_data().validate_full().expect("sound");
            expected.reverse();
            let found: Vec<Vec<u8>> = if utf8 {
                reversed.as_string_view().iter().flatten().map(|v| v.as_bytes().to_vec()).collect()
            } else {
                reversed.as_binary_view().iter().flatten().map(<[u8]>::to_vec).collect()
            };
            prop_assert_eq!(&found, &expected);
            prop_assert!(take_views(&array, &[expected.len() as u32], None).is_none());
            prop_assert!(take_views(&array, &ids, Some(NullBuffer::new_null(ids.len() + 1))).is_none());
        }
    }
}
