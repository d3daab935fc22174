//! Which rollups are worth their bytes: facts in, decision out.
//!
//! Every set of dimensions is a question that may be asked; it reads the smallest rollup that has all of them. A further rollup saves the difference
//! for each set that it has in it. Greedily the one that saves most per document is taken, until what is left saves less than it takes, or
//! the documents are a quarter of the rows.

use super::format::ROLLUPS_MAX;

/// The documents over all dimensions are kept up to this share of the rows: with more one may as well read the rows.
const ALL_SHARE: (u64, u64) = (3, 4);
/// All other documents together.
const ROLLUPS_SHARE: (u64, u64) = (1, 4);

/// The rollups to keep, as sets of dimensions (bit `i`: has dimension `i`), larger sets first. `sizes`: documents of each set, by its bits.
pub(crate) fn choose(sizes: &[u64], rows: u64, leaf: u64) -> Vec<u32> {
    let all = sizes.len() - 1;
    let mut cost = vec![rows; sizes.len()];
    let mut chosen = Vec::new();
    if sizes[all].saturating_mul(ALL_SHARE.1) <= rows.saturating_mul(ALL_SHARE.0) {
        chosen.push(all as u32);
        cost.fill(sizes[all]);
    }
    let mut left = rows * ROLLUPS_SHARE.0 / ROLLUPS_SHARE.1;
    while chosen.len() < ROLLUPS_MAX {
        let saved = |set: usize| -> u64 {
            subsets(set).map(|asked| cost[asked].max(leaf).saturating_sub(sizes[set].max(leaf))).sum()
        };
        let candidates = (0..all).filter(|set| sizes[*set] <= left && !chosen.contains(&(*set as u32)));
        let worth = candidates.map(|set| (set, saved(set), sizes[set].max(1))).filter(|(_, saved, size)| saved > size);
        // Per document.
        let best = worth.max_by(|(_, a, of_a), (_, b, of_b)| {
            (u128::from(*a) * u128::from(*of_b)).cmp(&(u128::from(*b) * u128::from(*of_a)))
        });
        let Some((set, _, size)) = best else { break };
        chosen.push(set as u32);
        left = left.saturating_sub(size);
        subsets(set).for_each(|asked| cost[asked] = cost[asked].min(sizes[set]));
    }
    chosen.sort_by_key(|set| std::cmp::Reverse((set.count_ones(), *set)));
    chosen
}

/// All sets of dimensions of `set`, itself and the empty one among them.
fn subsets(set: usize) -> impl Iterator<Item = usize> {
    let mut next = Some(set);
    std::iter::from_fn(move || {
        let subset = next?;
        next = if subset == 0 { None } else { Some((subset - 1) & set) };
        Some(subset)
    })
}

/// Registers of a sketch: 3 % off.
const REGISTERS: usize = 1024;

/// Documents of every set of dimensions, about. `distinct`: values of each dimension; `documents` of all of them; `ids` gives the ids of one
/// document's values.
///
/// HyperLogLog (Flajolet and others 2007) for each set, where the hash of a document is the exclusive or of a random word for each value: it takes one
/// step to the next set.
pub(crate) fn sizes(distinct: &[u64], documents: usize, mut ids: impl FnMut(usize, &mut [u32])) -> Vec<u64> {
    let sets = 1usize << distinct.len();
    let bound = |set: usize| {
        let of_set = distinct.iter().enumerate().filter(|(at, _)| set >> at & 1 == 1);
        of_set.fold(1u64, |all, (_, values)| all.saturating_mul(*values)).min(documents as u64)
    };
    let mut registers = vec![0u8; sets * REGISTERS];
    let (mut found, mut words) = (vec![0u32; distinct.len()], vec![0u64; sets]);
    for document in 0..documents {
        ids(document, &mut found);
        for (at, id) in found.iter().enumerate() {
            let word = random_word((at as u64) << 32 | u64::from(*id));
            for set in 0..1 << at {
                words[set | 1 << at] = words[set] ^ word;
            }
        }
        for (set, word) in words.iter().enumerate() {
            let register = &mut registers[set * REGISTERS + (word >> 54) as usize];
            let zeros = (word << 10 | 1 << 9).leading_zeros() as u8 + 1;
            *register = (*register).max(zeros);
        }
    }
    let estimate = |set: usize| {
        if set == sets - 1 || set.count_ones() < 2 {
            return bound(set);
        }
        (cardinality(&registers[set * REGISTERS..(set + 1) * REGISTERS]).round() as u64).clamp(1, bound(set).max(1))
    };
    (0..sets).map(estimate).collect()
}

fn cardinality(registers: &[u8]) -> f64 {
    let count = registers.len() as f64;
    let harmonic: f64 = registers.iter().map(|zeros| 2f64.powi(-i32::from(*zeros))).sum();
    let estimate = 0.7213 / (1.0 + 1.079 / count) * count * count / harmonic;
    let empty = registers.iter().filter(|zeros| **zeros == 0).count();
    // Few values are counted by the registers that they leave empty.
    if estimate <= 2.5 * count && empty > 0 { count * (count / empty as f64).ln() } else { estimate }
}

/// splitmix64.
fn random_word(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_are_chosen_by_what_they_save() {
        // Dimensions: 0 a restaurant, 1 a status, 2 an hour.
        let sizes = [1, 8_000, 5, 40_000, 24, 300_000, 120, 400_000];
        // Restaurants and hours take more than they may.
        assert_eq!(choose(&sizes, 1_000_000, 1000), [0b111, 0b110, 0b011, 0b100, 0b010, 0b001, 0b000]);
        // Whatever is small enough to read is not rolled up.
        assert_eq!(choose(&sizes, 1_000_000, 500_000), [0b111]);
        // Too many documents over all dimensions: those over fewer are worth more than ever.
        let sizes = [1, 8_000, 5, 40_000, 24, 150_000, 120, 900_000];
        assert!(!choose(&sizes, 1_000_000, 1000).contains(&0b111));
        assert!(choose(&sizes, 1_000_000, 1000).contains(&0b110));
        // Of a small segment nothing but what it is.
        assert_eq!(choose(&[1, 10, 10, 60], 100, 10_000), [0b11]);
        assert_eq!(choose(&[0, 0], 0, 10_000), [0b1]);
    }

    #[test]
    fn rollups_stay_within_a_quarter_of_the_rows() {
        let mut sizes = vec![90_000u64; 256];
        sizes[0] = 1;
        let chosen = choose(&sizes, 1_000_000, 10);
        let documents: u64 = chosen.iter().filter(|set| **set != 255).map(|set| sizes[*set as usize]).sum();
        assert!(documents <= 250_000, "{chosen:?}");
    }

    #[test]
    fn sizes_are_about_right() {
        let (values, documents) = ([5_000u64, 7, 24], 200_000usize);
        let row = |at: usize| [(at * 7919 % 5000) as u32, (at % 7) as u32, (at / 5000 % 24) as u32];
        let mut keys: Vec<[u32; 3]> = (0..documents).map(row).collect();
        keys.sort_unstable();
        keys.dedup();
        let found = sizes(&values, keys.len(), |at, out| out.copy_from_slice(&keys[at]));
        for (set, found) in found.iter().enumerate() {
            let mut exact: Vec<Vec<u32>> =
                keys.iter().map(|key| (0..3).filter(|at| set >> at & 1 == 1).map(|at| key[at]).collect()).collect();
            exact.sort_unstable();
            exact.dedup();
            let off = found.abs_diff(exact.len() as u64) as f64 / exact.len() as f64;
            assert!(off < 0.12, "set {set}: {found} of {}", exact.len());
        }
    }
}
