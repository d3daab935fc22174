//! Plain loops over slices, compiled once more for processors with wide registers and chosen at run time.
//!
//! What is portable has registers of 128 bits and no conversion from integers of 64 bits to floats. The loops are the same text in each version,
//! so they cannot disagree; the versions differ in what the compiler may use.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls of functions that only some processors may run; every loop is safe code")
)]

use super::scalar::get;
use crate::hash;

/// Defines `$name` with its versions. The body sees only slices and numbers.
macro_rules! lanes {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,popcnt,bmi1")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    plain($($arg),*)
                }

                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,popcnt,bmi1")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    plain($($arg),*)
                }

                // The standard library asks the processor once and keeps the answer.
                let counts = is_x86_feature_detected!("popcnt") && is_x86_feature_detected!("bmi1");
                if counts
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                {
                    // SAFETY: the processor has all that the function may use, as was just asked; it has no other condition.
                    return unsafe { avx512($($arg),*) };
                }
                if counts && is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}

lanes! {
    /// Bits that are set.
    ones(words: &[u64]) -> usize {
        words.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// What [`positions`] may write behind the last position.
pub(crate) const SLACK: usize = 8;

lanes! {
    /// Puts the numbers of the bits that are set into `out`, bit 0 of the first word being `first`; says how many there are. `out` has room for
    /// [`SLACK`] more. Where bits are few, more are written than there are, so that the processor need not guess how many come.
    positions(words: &[u64], first: u32, out: &mut [u32]) -> usize {
        let mut at = 0;
        let mut base = first;
        for word in words {
            let (mut left, count) = (*word, word.count_ones() as usize);
            let room = &mut out[at..at + count.max(SLACK)];
            let mut next = || {
                let bit = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                base.wrapping_add(bit)
            };
            let (few, many) = room.split_at_mut(SLACK);
            let (two, eight) = few.split_at_mut(2);
            two.iter_mut().for_each(|place| *place = next());
            if count > 2 {
                eight.iter_mut().for_each(|place| *place = next());
                many.iter_mut().for_each(|place| *place = next());
            }
            at += count;
            base = base.wrapping_add(64);
        }
        at
    }
}

lanes! {
    /// Puts the packed values at `start` and each of the positions into `out`, which is as long. The width is at most 32.
    picked(packed: &[u8], width: u8, start: usize, positions: &[u32], out: &mut [u32]) {
        for (out, position) in out.iter_mut().zip(positions) {
            *out = get(packed, width, start + *position as usize) as u32;
        }
    }
}

lanes! {
    /// Puts the hashes of the integers into `out`, which is as long.
    hashes(integers: &[i64], out: &mut [u64]) {
        for (out, integer) in out.iter_mut().zip(integers) {
            *out = hash::of_int(*integer);
        }
    }
}

lanes! {
    /// Puts each integer divided by `divisor` into `out`, which is as long.
    quotients(integers: &[i64], divisor: f64, out: &mut [f64]) {
        for (out, integer) in out.iter_mut().zip(integers) {
            *out = *integer as f64 / divisor;
        }
    }
}

lanes! {
    /// Puts the bins of the integers into `out`, which is as long: the distance from `base`, divided by a width whose reciprocal is `inverse`. They are
    /// exact where distances are below 2^50 and bins below 2^32. Gives the bits that are set in any of the distances.
    bins(integers: &[i64], base: i64, inverse: f64, out: &mut [u32]) -> u64 {
        // A float whose mantissa is an integer below 2^52, without converting it; and a sum whose mantissa is the nearest integer.
        const EXPONENT: u64 = 0x4330_0000_0000_0000;
        const SHIFT: f64 = 4_503_599_627_370_496.0;
        const NEAREST: f64 = 6_755_399_441_055_744.0;
        let mut all = 0;
        for (out, integer) in out.iter_mut().zip(integers) {
            let distance = integer.wrapping_sub(base) as u64;
            all |= distance;
            let distance = f64::from_bits((distance & ((1 << 52) - 1)) | EXPONENT) - SHIFT;
            // The middle between two integers is half a width's reciprocal away from the next bin, which is more than both roundings make.
            *out = ((distance + 0.5) * inverse - 0.5 + NEAREST).to_bits() as u32;
        }
        all
    }
}

lanes! {
    /// Puts `base` and each residual together, wrapping, into `out`, which is as long.
    raised(residuals: &[u32], base: i64, out: &mut [i64]) {
        for (out, residual) in out.iter_mut().zip(residuals) {
            *out = base.wrapping_add(i64::from(*residual));
        }
    }
}

lanes! {
    /// Makes each value `offset + factor · value`, wrapping.
    restore(values: &mut [i64], offset: i64, factor: i64) {
        for value in values {
            *value = offset.wrapping_add(factor.wrapping_mul(*value));
        }
    }
}

lanes! {
    /// Adds `step · i >> bits`, wrapping, to each value `i`.
    add_slope(values: &mut [i64], step: i64, bits: u32) {
        let mut row = 0i64;
        for value in values {
            *value = value.wrapping_add(step.wrapping_mul(row) >> (bits & 63));
            row = row.wrapping_add(1);
        }
    }
}

lanes! {
    /// The largest; 0 of none.
    largest(values: &[u32]) -> u32 {
        values.iter().fold(0, |largest, value| if *value > largest { *value } else { largest })
    }
}

lanes! {
    /// The bits that any value has, or any negative value has not: no value is farther from 0 than one above them.
    reach(values: &[i64]) -> u64 {
        values.iter().fold(0, |bits, value| bits | (value ^ (value >> 63)) as u64)
    }
}

lanes! {
    /// The wrapping sum.
    sum(values: &[i64]) -> i64 {
        values.iter().fold(0i64, |sum, value| sum.wrapping_add(*value))
    }
}

lanes! {
    /// The wrapping sum of the values whose bit is set; `words` has a bit for each value.
    sum_among(values: &[i64], words: &[u64]) -> i64 {
        let mut sums = [0i64; 8];
        let (whole, rest) = values.as_chunks::<64>();
        for (values, word) in whole.iter().zip(words) {
            let mut left = *word;
            for eight in values.as_chunks::<8>().0 {
                // In two loops, of which the compiler makes registers; of one it makes a gather.
                let mut kept = [0i64; 8];
                for lane in 0..8 {
                    kept[lane] = eight[lane] & ((left >> lane & 1) as i64).wrapping_neg();
                }
                for lane in 0..8 {
                    sums[lane] = sums[lane].wrapping_add(kept[lane]);
                }
                left >>= 8;
            }
        }
        let last = words.get(whole.len()).copied().unwrap_or(0);
        for (bit, value) in rest.iter().enumerate() {
            sums[bit % 8] = sums[bit % 8].wrapping_add(if last >> bit & 1 == 1 { *value } else { 0 });
        }
        sums.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
    }
}

lanes! {
    /// The least and the greatest; (`i64::MAX`, `i64::MIN`) of none.
    extremes(values: &[i64]) -> (i64, i64) {
        values.iter().fold((i64::MAX, i64::MIN), |(least, greatest), value| {
            (if *value < least { *value } else { least }, if *value > greatest { *value } else { greatest })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn wide_registers_change_nothing(values in prop::collection::vec(any::<i64>(), 0..200), shift in 0u32..64, base: i64) {
            let values: Vec<i64> = values.iter().map(|value| value >> shift).collect();
            let mut floats = vec![0.0; values.len()];
            quotients(&values, 100.0, &mut floats);
            prop_assert!(values.iter().zip(&floats).all(|(value, float)| *float == *value as f64 / 100.0));
            let residuals: Vec<u32> = values.iter().map(|value| *value as u32).collect();
            let mut out = vec![0; values.len()];
            raised(&residuals, base, &mut out);
            prop_assert!(residuals.iter().zip(&out).all(|(residual, value)| *value == base.wrapping_add(i64::from(*residual))));
            let mut changed = values.clone();
            restore(&mut changed, base, 1000);
            prop_assert!(values.iter().zip(&changed).all(|(a, b)| *b == base.wrapping_add(a.wrapping_mul(1000))));
            let mut changed = values.clone();
            add_slope(&mut changed, base >> 20, 16);
            let sloped = |row: usize| values[row].wrapping_add((base >> 20).wrapping_mul(row as i64) >> 16);
            prop_assert!(changed.iter().enumerate().all(|(row, value)| *value == sloped(row)));
            prop_assert_eq!(largest(&residuals), residuals.iter().copied().max().unwrap_or(0));
            let farthest = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
            prop_assert!(u128::from(reach(&values)) + 1 >= u128::from(farthest));
            prop_assert!(u128::from(reach(&values)) <= 2 * u128::from(farthest));
            prop_assert_eq!(sum(&values), values.iter().fold(0, |sum: i64, value| sum.wrapping_add(*value)));
            let words: Vec<u64> = (0..values.len().div_ceil(64)).map(|word| (base as u64).rotate_left(word as u32)).collect();
            let among = |row: &usize| words[row / 64] >> (row % 64) & 1 == 1;
            let expected = (0..values.len()).filter(among).fold(0, |sum: i64, row| sum.wrapping_add(values[row]));
            prop_assert_eq!(sum_among(&values, &words), expected);
            let (least, greatest) = extremes(&values);
            prop_assert_eq!(Some(least), values.iter().copied().min().or(Some(i64::MAX)));
            prop_assert_eq!(Some(greatest), values.iter().copied().max().or(Some(i64::MIN)));
        }
    }
}
