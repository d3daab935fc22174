//! Every kernel agrees with its scalar twin, whatever the width, the place and the end of the buffer.

use proptest::prelude::*;

use super::*;

fn packed(values: &[u64], width: u8, padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(values.iter().copied(), width, &mut bytes);
    assert_eq!(bytes.len(), packed_bytes(values.len(), width));
    bytes.resize(bytes.len() + padding, 0xa5);
    bytes
}

fn cut(values: &[u64], width: u8) -> Vec<u64> {
    values.iter().map(|value| if width == 0 { 0 } else { value & (u64::MAX >> (64 - width)) }).collect()
}

prop_compose! {
    /// Values, their width, a run of them, and the padding behind them.
    fn case(width_max: u8)(
        width in 0..=width_max,
        values in prop::collection::vec(any::<u64>(), 0..700),
        padding in prop_oneof![Just(0usize), Just(PADDING), 0..80usize],
        ends in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) -> (u8, Vec<u64>, usize, usize, usize) {
        let (a, b) = (ends.0.index(values.len() + 1), ends.1.index(values.len() + 1));
        (width, cut(&values, width), padding, a.min(b), a.max(b))
    }
}

/// Runs of one level with each of the levels that this processor has.
#[cfg(target_arch = "x86_64")]
fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Scalar];
    if is_x86_feature_detected!("avx2") {
        levels.push(Level::Avx2);
    }
    if level() == Level::Avx512 {
        levels.push(Level::Avx512);
    }
    levels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_value_comes_back((width, values, padding, from, to) in case(64)) {
        let bytes = packed(&values, width, padding);
        let packed = Packed::new(&bytes, width, values.len()).expect("long enough");
        for (index, value) in values.iter().enumerate() {
            prop_assert_eq!(packed.get(index), *value);
        }
        let mut out = vec![1u64; to - from];
        packed.unpack_u64(from, &mut out);
        prop_assert_eq!(&out, &values[from..to]);
        if width <= 32 {
            let mut out = vec![1u32; to - from];
            packed.unpack_u32(from, &mut out);
            prop_assert!(out.iter().map(|value| u64::from(*value)).eq(values[from..to].iter().copied()));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn vector_kernels_agree_with_the_scalar_twin((width, values, padding, from, to) in case(64)) {
        let bytes = packed(&values, width, padding);
        let mut expected = vec![0; to - from];
        scalar::unpack_u64(&bytes, width, from, &mut expected);
        for level in levels() {
            let mut out = vec![1; to - from];
            match level {
                Level::Scalar => scalar::unpack_u64(&bytes, width, from, &mut out),
                Level::Avx2 => avx2::unpack_u64(&bytes, width, from, &mut out),
                Level::Avx512 => avx512::unpack_u64(&bytes, width, from, &mut out),
            }
            prop_assert_eq!(&out, &expected);
            if width > 32 {
                continue;
            }
            let mut out = vec![1; to - from];
            match level {
                Level::Scalar => scalar::unpack_u32(&bytes, width, from, &mut out),
                Level::Avx2 => avx2::unpack_u32(&bytes, width, from, &mut out),
                Level::Avx512 => avx512::unpack_u32(&bytes, width, from, &mut out),
            }
            prop_assert!(out.iter().map(|value| u64::from(*value)).eq(expected.iter().copied()));
        }
    }

    #[test]
    fn packed_ids_are_selected_as_unpacked_ones(
        (width, values, padding, from, to) in case(32),
        low in any::<prop::sample::Index>(),
        high in any::<prop::sample::Index>(),
        known in 0usize..500,
        picks in prop::collection::vec(any::<u32>(), 0..40),
    ) {
        // Low ids are frequent, so that ranges and sets hit some.
        let values: Vec<u64> = values.iter().map(|value| if value % 3 == 0 { *value } else { value % 50 }).collect();
        let values = cut(&values, width);
        let bytes = packed(&values, width, padding);
        let packed = Packed::new(&bytes, width, values.len()).expect("long enough");
        let pick = |index: &prop::sample::Index| values.get(index.index(values.len() + 1)).map_or(7, |value| *value as u32);
        let (low, high) = (pick(&low), pick(&high));
        let mut out = vec![u64::MAX; (to - from).div_ceil(64)];
        packed.select_range(from, to - from, low, high, &mut out);
        let run: Vec<u32> = values[from..to].iter().map(|value| *value as u32).collect();
        let mut expected = vec![u64::MAX; out.len()];
        scalar::range_mask_u32(&run, low, high, &mut expected);
        prop_assert_eq!(&out, &expected);

        let set = IdSet::of(known, picks.iter().map(|id| id % 500));
        packed.select_set(from, to - from, &set, &mut out);
        for (index, value) in run.iter().enumerate() {
            prop_assert_eq!(out[index / 64] >> (index % 64) & 1 == 1, set.contains(*value));
        }
        if let Some(last) = out.last() && !run.len().is_multiple_of(64) {
            prop_assert_eq!(last >> (run.len() % 64), 0);
        }

        let mut mask = Bitmask::none(run.len());
        (0..run.len()).filter(|index| run[*index].is_multiple_of(2)).for_each(|index| mask.set(index));
        let mut gathered = vec![9];
        packed.gather_u32(from, &mask, &mut gathered);
        prop_assert_eq!(&gathered[1..], run.iter().copied().filter(|value| value % 2 == 0).collect::<Vec<_>>());
    }

    #[test]
    fn range_masks_agree(
        values in prop::collection::vec(prop_oneof![-40i64..40, Just(i64::MIN), Just(i64::MAX), any::<i64>()], 0..300),
        low in prop_oneof![-50i64..50, Just(i64::MIN), any::<i64>()],
        high in prop_oneof![-50i64..50, Just(i64::MAX), any::<i64>()],
    ) {
        let words = values.len().div_ceil(64);
        let (mut expected, mut out) = (vec![0; words], vec![u64::MAX; words]);
        scalar::range_mask_i64(&values, low, high, &mut expected);
        range_mask_i64(&values, low, high, &mut out);
        prop_assert_eq!(&out, &expected);
        #[cfg(target_arch = "x86_64")]
        if levels().contains(&Level::Avx2) {
            avx2::range_mask_i64(&values, low, high, &mut out);
            prop_assert_eq!(&out, &expected);
        }
        let (values, low, high) = (values.iter().map(|v| *v as u32).collect::<Vec<_>>(), low as u32, high as u32);
        scalar::range_mask_u32(&values, low, high, &mut expected);
        range_mask_u32(&values, low, high, &mut out);
        prop_assert_eq!(&out, &expected);
        #[cfg(target_arch = "x86_64")]
        if levels().contains(&Level::Avx2) {
            avx2::range_mask_u32(&values, low, high, &mut out);
            prop_assert_eq!(&out, &expected);
        }
    }
}

#[test]
fn short_buffers_are_refused() {
    assert!(Packed::new(&[0; 4], 5, 7).is_none());
    assert!(Packed::new(&[0; 5], 5, 8).is_some());
    assert!(Packed::new(&[], 65, 0).is_none());
    assert!(Packed::new(&[], 64, usize::MAX).is_none());
    assert!(Packed::new(&[], 0, usize::MAX).is_some());
}
