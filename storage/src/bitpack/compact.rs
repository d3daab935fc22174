//! The values whose bit is set, one behind the other.

/// What values are kept as.
pub(crate) trait Lane: Copy + Default {
    /// [`compact`] with wide registers, where there is a version for values of this width.
    #[cfg(target_arch = "x86_64")]
    fn compress(values: &[Self], words: &[u64], out: &mut Vec<Self>) -> bool;
}

macro_rules! lane {
    ($($type:ty => $kernel:ident),*) => {
        $(impl Lane for $type {
            #[cfg(target_arch = "x86_64")]
            fn compress(values: &[Self], words: &[u64], out: &mut Vec<Self>) -> bool {
                super::level() == super::Level::Avx512 && {
                    super::avx512::$kernel(values, words, out);
                    true
                }
            }
        })*
    };
}

lane!(u32 => compress32, i64 => compress64, u64 => compress64, f64 => compress64);

impl Lane for i128 {
    #[cfg(target_arch = "x86_64")]
    fn compress(_: &[Self], _: &[u64], _: &mut Vec<Self>) -> bool {
        false
    }
}

/// Appends those values whose bit is set. There is a bit for each value; bits beyond the last one mean nothing.
pub(crate) fn compact<T: Lane>(values: &[T], words: &[u64], out: &mut Vec<T>) {
    assert!(words.len() * 64 >= values.len(), "invariant: {} words for {} values", words.len(), values.len());
    #[cfg(target_arch = "x86_64")]
    if T::compress(values, words, out) {
        return;
    }
    plain(values, words, out);
}

/// The same on every processor.
fn plain<T: Lane>(values: &[T], words: &[u64], out: &mut Vec<T>) {
    let mut place = out.len();
    out.resize(place + values.len() + 1, T::default());
    for (chunk, word) in values.chunks(64).zip(words) {
        if *word == u64::MAX && chunk.len() == 64 {
            out[place..place + 64].copy_from_slice(chunk);
            place += 64;
            continue;
        }
        // Every value is written, and overwritten by the next one unless its bit is set: no branch to guess wrongly.
        for (bit, value) in chunk.iter().enumerate() {
            out[place] = *value;
            place += (word >> bit & 1) as usize;
        }
    }
    out.truncate(place);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<T: Lane + PartialEq + std::fmt::Debug>(rows: &[(u64, bool)], dense: bool, of: impl Fn(u64) -> T) {
        let values: Vec<T> = rows.iter().map(|(value, _)| of(*value)).collect();
        // What lies beyond the last value is set.
        let mut words = vec![u64::MAX; values.len().div_ceil(64) + 1];
        for (row, (_, kept)) in rows.iter().enumerate() {
            if !kept && (!dense || row % 64 < 3) {
                words[row / 64] &= !(1 << (row % 64));
            }
        }
        let kept = |row: &usize| words[row / 64] >> (row % 64) & 1 == 1;
        let expected: Vec<T> =
            std::iter::once(of(7)).chain((0..values.len()).filter(kept).map(|row| values[row])).collect();
        let (mut found, mut twin) = (vec![of(7)], vec![of(7)]);
        compact(&values, &words, &mut found);
        plain(&values, &words, &mut twin);
        assert_eq!(found, expected);
        assert_eq!(twin, expected);
    }

    proptest! {
        #[test]
        fn kept_values_are_those_whose_bit_is_set(rows in prop::collection::vec(any::<(u64, bool)>(), 0..400), dense: bool) {
            check(&rows, dense, |value| value as u32);
            check(&rows, dense, |value| value as i64);
            check(&rows, dense, |value| value);
            check(&rows, dense, |value| value as f64);
            check(&rows, dense, i128::from);
        }
    }
}
