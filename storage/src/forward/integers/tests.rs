use proptest::prelude::*;

use super::{encode::fit, *};
use crate::bitpack::{Bitmask, width_of};

fn open(values: &[i64]) -> Integers {
    Integers::open(Buffer::from_vec(encode(values)), values.len()).expect("own bytes are sound")
}

fn bits(values: &[i64]) -> f64 {
    encode(values).len() as f64 * 8.0 / values.len() as f64
}

prop_compose! {
    /// Shapes that lead to each mode, and extremes.
    fn integers()(
        n in 0usize..3000, seed in any::<u64>(), shape in 0..7, step in -5000i64..5000, jitter in 1u64..3000,
        factor in prop_oneof![Just(1i64), Just(1000)],
    ) -> Vec<i64> {
        let mut state = seed | 1;
        let mut random = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
        let mut last = 1_700_000_000_000_000i64;
        (0..n as i64).map(|i| match shape {
            0 => random() as i64,
            1 => (random() % jitter) as i64 * factor,
            2 => (1_700_000_000 + i * step + (random() % jitter) as i64) * factor,
            3 => { last += (random() % jitter) as i64 * factor; last }
            4 => if random() % 100 == 0 { random() as i64 } else { i * step },
            5 => [i64::MIN, i64::MAX, 0, -1][(random() % 4) as usize],
            _ => 7,
        }).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn integers_come_back(values in integers(), ends in any::<(prop::sample::Index, prop::sample::Index)>()) {
        let column = open(&values);
        let (a, b) = (ends.0.index(values.len() + 1), ends.1.index(values.len() + 1));
        let rows = a.min(b)..a.max(b);
        prop_assert_eq!(&column.decode(rows.clone(), |v| v).expect("decodes"), &values[rows.clone()]);
        let mut filled = vec![9; values.len() / 2];
        column.fill_as_they_are(rows.clone(), &mut filled).expect("decodes");
        prop_assert_eq!(&filled, &values[rows.clone()]);
        for row in rows.clone().step_by(97) {
            prop_assert_eq!(column.get(row).expect("decodes"), values[row]);
        }
        for every in [1, 3, 200] {
            let mut mask = Bitmask::none(rows.len());
            (0..rows.len()).step_by(every).for_each(|row| mask.set(row));
            let expected: Vec<i64> = values[rows.clone()].iter().copied().step_by(every).collect();
            prop_assert_eq!(column.gather(rows.clone(), &mask, |v| v).expect("decodes"), expected);
        }
    }

    /// The plain twin: everything sorted, every run of enough terms tried.
    #[test]
    fn a_block_is_fitted_as_by_sorting_it(values in integers()) {
        for terms in values.chunks(BLOCK) {
            let found = fit(terms, &mut Vec::new());
            let mut sorted = terms.to_vec();
            sorted.sort_unstable();
            let n = terms.len();
            let cost = |left_out: usize| {
                let kept = n - left_out;
                let span = |from: usize| sorted[from + kept - 1].wrapping_sub(sorted[from]) as u64;
                let width = (0..=left_out).map(|from| width_of(span(from))).min().expect("a run");
                n * usize::from(width) + left_out * EXCEPTION_BYTES * 8
            };
            let plain = cost(0);
            let allowed = plain > 2 * n && n >= 32;
            let best = [1, n / 256, n / 64, n / 32, n / 16].into_iter().filter(|_| allowed).map(cost).min();
            prop_assert_eq!(found.cost_bits, best.map_or(plain, |best| best.min(plain)));
        }
    }

    #[test]
    fn ranges_are_selected_as_on_decoded_values(
        values in integers(),
        ends in any::<(prop::sample::Index, prop::sample::Index)>(),
        bounds in any::<(prop::sample::Index, prop::sample::Index)>(),
        shift in -1i64..2, inside in any::<bool>(),
    ) {
        let column = open(&values);
        let (a, b) = (ends.0.index(values.len() + 1), ends.1.index(values.len() + 1));
        let rows = a.min(b)..a.max(b);
        let bound = |index: prop::sample::Index| {
            values.get(index.index(values.len() + 1)).map_or(i64::MAX, |value| value.saturating_add(shift))
        };
        let (low, high) = (bound(bounds.0), bound(bounds.1));
        let mut mask = Bitmask::all(rows.len());
        column.select_range(rows.clone(), low, high, inside, &mut mask).expect("selects");
        let passes = |value: &i64| (low..=high).contains(value) == inside;
        let expected: Vec<usize> = (0..rows.len()).filter(|row| passes(&values[rows.start + row])).collect();
        prop_assert_eq!(mask.iter().collect::<Vec<_>>(), expected.clone());
        let mut mask = Bitmask::all(rows.len());
        column.select(rows, |value| passes(&value), &mut mask).expect("selects");
        prop_assert_eq!(mask.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn hostile_bytes_are_an_error_or_some_integers(
        values in integers(), flips in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..8), cut in 0usize..200,
    ) {
        let mut bytes = encode(&values);
        for (at, byte) in flips {
            let at = at.index(bytes.len().min(600));
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(column) = Integers::open(Buffer::from_vec(bytes), values.len()) {
            let rows = 0..values.len();
            let mut mask = Bitmask::all(values.len());
            let _ = column.select_range(rows.clone(), -5, 1_700_000_000_000_000, true, &mut mask);
            let _ = column.gather(rows.clone(), &mask, |v| v);
            if let Ok(decoded) = column.decode(rows.clone(), |v| v) {
                prop_assert_eq!(decoded.len(), values.len());
                rows.step_by(300).for_each(|row| { let _ = column.get(row); });
            }
        }
    }
}

#[test]
fn shapes_take_the_bits_they_deserve() {
    let rows = 0..20_000i64;
    let jitter = |i: i64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) as u64 >> 44; // 20 bits
    assert!(bits(&rows.clone().map(|i| 1_700_000_000 + i * 12_345).collect::<Vec<_>>()) < 0.3);
    // Milliseconds in microseconds: the factor takes the three zeros away.
    assert!(bits(&rows.clone().map(|i| (i * 20 + (jitter(i) % 64) as i64) * 1000).collect::<Vec<_>>()) < 7.5);
    // One late event in a hundred does not widen the others.
    let late = |i: i64| if i % 100 == 3 { 3_600_000_000 } else { 0 };
    assert!(bits(&rows.map(|i| i * 20 + (jitter(i) % 64) as i64 - late(i)).collect::<Vec<_>>()) < 9.0);
}
