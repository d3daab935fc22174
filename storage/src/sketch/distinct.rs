//! How many different values there are.
//!
//! Few values are kept as tokens of 32 bits, each once: the first 26 bits of a value's hash, and how many zeros follow. More become registers
//! of UltraLogLog (Ertl 2023, https://arxiv.org/abs/2308.16862): a byte that says the largest number of zeros met, and of the two below it
//! whether they were met too. The estimate is the count under which the registers are likeliest, with a standard error of 0.76 / √65,536.

use super::Sketch;
use crate::{Result, forward::format::corrupt};

/// Bits of a hash that choose a register.
const PRECISION: u32 = 16;
const REGISTERS: usize = 1 << PRECISION;
/// Tokens that take as many bytes as the registers.
pub(crate) const FEW_MAX: usize = REGISTERS / size_of::<u32>();
/// Bits of the hash in a token.
const PREFIX: u32 = 26;

const FEW: u8 = 0;
const MANY: u8 = 1;

/// A set of values, about.
#[derive(Clone, Debug, Default)]
pub struct Distinct {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Few(Few),
    Many(Box<[u8]>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

/// Tokens of which as few are the same are written as they come: whoever reads them leaves those out, as he must among sketches anyway.
const SAMPLE: usize = 256;
const SAME_MAX: usize = 2;

/// The bytes of a sketch of these tokens, where a sample of them says that nearly all differ.
pub(crate) fn bytes_of_different(tokens: &[u32]) -> Option<Vec<u8>> {
    if !(SAMPLE..=FEW_MAX).contains(&tokens.len()) {
        return None;
    }
    let mut sample = Few::default();
    sample.reserve(SAMPLE);
    tokens.iter().step_by(tokens.len() / SAMPLE).take(SAMPLE).for_each(|token| {
        sample.insert(*token);
    });
    (sample.taken + SAME_MAX >= SAMPLE).then(|| {
        let mut out = Vec::with_capacity(1 + size_of_val(tokens));
        out.push(FEW);
        tokens.iter().for_each(|token| out.extend_from_slice(&token.to_le_bytes()));
        out
    })
}

/// Tokens in a table with open addressing; its size is a power of two, at most half of it taken. 0: free.
#[derive(Clone, Debug, Default)]
struct Few {
    table: Vec<u32>,
    taken: usize,
}

/// What a sketch takes of a hash; never 0.
#[inline]
pub fn token(hash: u64) -> u32 {
    let zeros = (hash << PREFIX | 1 << (PREFIX - 1)).leading_zeros();
    (((hash >> (64 - PREFIX)) as u32) << 6) | (zeros + 1)
}

impl Few {
    /// Whether it is new.
    #[inline]
    fn insert(&mut self, token: u32) -> bool {
        if self.taken * 2 >= self.table.len() {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut place = mixed(token) & mask;
        loop {
            match self.table[place] {
                0 => {
                    self.table[place] = token;
                    self.taken += 1;
                    return true;
                }
                known if known == token => return false,
                _ => place = (place + 1) & mask,
            }
        }
    }

    /// Makes room for `more` tokens, as far as a set of few may grow: those of another table come in the order of their places, which without
    /// room would heap them up on one side of this one.
    fn reserve(&mut self, more: usize) {
        let wanted = ((self.taken + more) * 2).next_power_of_two().min(FEW_MAX * 2);
        if wanted > self.table.len() {
            self.grow_to(wanted);
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.grow_to((self.table.len() * 2).max(4));
    }

    fn grow_to(&mut self, places: usize) {
        let larger = vec![0; places];
        let before = std::mem::replace(&mut self.table, larger);
        self.taken = 0;
        before.into_iter().filter(|token| *token != 0).for_each(|token| {
            self.insert(token);
        });
    }

    fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.table.iter().copied().filter(|token| *token != 0)
    }
}

/// Tokens that come in the order of another table must not come in the order of this one.
#[inline]
fn mixed(token: u32) -> usize {
    (u64::from(token).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
}

impl Distinct {
    /// Whether no value was met.
    pub fn is_empty(&self) -> bool {
        matches!(&self.form, Form::Few(few) if few.taken == 0)
    }

    /// Takes the [`token`] of a value.
    #[inline]
    pub fn insert(&mut self, token: u32) {
        match &mut self.form {
            Form::Few(few) => {
                if few.insert(token) && few.taken > FEW_MAX {
                    let mut registers = vec![0; REGISTERS].into_boxed_slice();
                    few.tokens().for_each(|token| register(&mut registers, token));
                    self.form = Form::Many(registers);
                }
            }
            Form::Many(registers) => register(registers, token),
        }
    }

    /// Takes many tokens at once: with room for them, and while this sketch's memory is near.
    pub fn extend(&mut self, tokens: &[u32]) {
        if let Form::Few(few) = &mut self.form {
            few.reserve(tokens.len());
        }
        let mut tokens = tokens.iter();
        while let Form::Few(_) = &self.form {
            let Some(token) = tokens.next() else { return };
            self.insert(*token);
        }
        if let Form::Many(registers) = &mut self.form {
            tokens.for_each(|token| register(registers, *token));
        }
    }

    /// Whether so many values were met that a token costs the same whatever the others are.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.form, Form::Many(_))
    }

    /// How many values there are, about.
    pub fn estimate(&self) -> u64 {
        match &self.form {
            Form::Few(few) => few.taken as u64,
            Form::Many(registers) => (likeliest(registers) * REGISTERS as f64).round() as u64,
        }
    }
}

impl Sketch for Distinct {
    fn merge_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((form, rest)) = bytes.split_first() else { return Err(misfit("a form", "no byte")) };
        match (*form, rest.as_chunks::<4>()) {
            (FEW, (tokens, [])) if tokens.len() <= FEW_MAX => {
                let tokens: Vec<u32> = tokens.iter().map(|token| u32::from_le_bytes(*token)).collect();
                if let Some(bad) = tokens.iter().find(|token| !(1..=(64 - PREFIX + 1)).contains(&(**token & 63))) {
                    return Err(misfit("a token", bad));
                }
                self.extend(&tokens);
            }
            (MANY, _) if rest.len() == REGISTERS => {
                if let Some(bad) = rest.iter().find(|register| u32::from(**register >> 2) > 64 - PRECISION + 1) {
                    return Err(misfit("a register", bad));
                }
                match &mut self.form {
                    Form::Many(registers) => {
                        registers
                            .iter_mut()
                            .zip(rest)
                            .for_each(|(register, other)| *register = both(*register, *other));
                    }
                    Form::Few(few) => {
                        let mut registers: Box<[u8]> = rest.into();
                        few.tokens().for_each(|token| register(&mut registers, token));
                        self.form = Form::Many(registers);
                    }
                }
            }
            _ => return Err(misfit("tokens or registers", format!("{} bytes of form {form}", rest.len()))),
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        match &self.form {
            Form::Few(few) => {
                let mut out = Vec::with_capacity(1 + few.taken * size_of::<u32>());
                out.push(FEW);
                few.tokens().for_each(|token| out.extend_from_slice(&token.to_le_bytes()));
                out
            }
            Form::Many(registers) => [&[MANY], registers.as_ref()].concat(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.form {
            Form::Few(few) => few.table.capacity() * size_of::<u32>(),
            Form::Many(_) => REGISTERS,
        }
    }
}

fn misfit(expected: &str, found: impl std::fmt::Display) -> crate::Error {
    corrupt("sketch of distinct values", expected.to_owned(), found)
}

/// Puts a token into its register.
#[inline]
fn register(registers: &mut [u8], token: u32) {
    const AFTER: u32 = PREFIX - PRECISION;
    let place = (token >> (32 - PRECISION)) as usize;
    // Zeros after the bits that chose the register: those of the prefix, and behind a prefix of zeros those counted.
    let left = token << PRECISION & !63u32 << PRECISION;
    let value = if left == 0 { AFTER + (token & 63) } else { left.leading_zeros() + 1 } as u8;
    registers[place] = AFTERWARDS[usize::from(value)][usize::from(registers[place])];
}

/// The register after a value, by value and register before: looked up, as no processor guesses which of the three cases it is.
static AFTERWARDS: [[u8; 256]; 64] = {
    let mut after = [[0; 256]; 64];
    let mut value = 0;
    while value < 64 {
        let mut known = 0;
        while known < 256 {
            after[value][known] = afterwards(known as u8, value as u8);
            known += 1;
        }
        value += 1;
    }
    after
};

const fn afterwards(known: u8, value: u8) -> u8 {
    let top = known >> 2;
    if value > top {
        value << 2 | below(known, value - top)
    } else if value + 2 >= top && value < top {
        known | if value + 1 == top { 2 } else { 1 }
    } else {
        known
    }
}

/// The two low bits of a register after its top has risen by `by`: whether the two values below the new top were met.
#[inline]
const fn below(register: u8, by: u8) -> u8 {
    if register < 4 {
        return 0;
    }
    let met = 4 | register & 3;
    if by > 2 { 0 } else { met >> by & 3 }
}

/// The register of the values of both.
#[inline]
fn both(a: u8, b: u8) -> u8 {
    let (high, low) = if a >> 2 >= b >> 2 { (a, b) } else { (b, a) };
    match (high >> 2) - (low >> 2) {
        0 => high | low,
        by => high | below(low, by),
    }
}

/// Values per register under which the registers are likeliest.
///
/// With x values per register a value k is met with probability 1 − exp(−x / 2^k), each by itself. The likelihood's logarithm is
/// −α·x + Σ βk · ln(1 − exp(−x / 2^k)), whose slope falls from ∞ to −α: its zero is found by halving.
fn likeliest(registers: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    registers.iter().for_each(|register| counts[usize::from(*register)] += 1);
    let (mut alpha, mut beta) = (0.0, [0.0; 64]);
    let part = |value: u8| (-f64::from(value)).exp2();
    for (register, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let (top, count) = (register as u8 >> 2, f64::from(count));
        // Nothing above the top was met.
        alpha += count * part(top);
        if top > 0 {
            beta[usize::from(top)] += count;
        }
        for (down, bit) in [(1, 2), (2, 1)] {
            if top > down {
                match register & bit {
                    0 => alpha += count * part(top - down),
                    _ => beta[usize::from(top - down)] += count,
                }
            }
        }
    }
    let (first, last) = match (beta.iter().position(|n| *n > 0.0), beta.iter().rposition(|n| *n > 0.0)) {
        (Some(first), Some(last)) => (first, last),
        _ => return 0.0,
    };
    let slope = |x: f64| -> f64 {
        let terms = (first..=last).map(|k| {
            let part = part(k as u8);
            beta[k] * part / (x * part).exp_m1()
        });
        terms.sum::<f64>() - alpha
    };
    let (mut low, mut high) = (1e-9f64, 2f64.powi(last as i32 + 8));
    // In steps of a factor: 2^-40 of the estimate is left.
    for _ in 0..46 {
        let middle = (low * high).sqrt();
        if slope(middle) > 0.0 { low = middle } else { high = middle }
    }
    (low * high).sqrt()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash;

    fn of(values: impl Iterator<Item = i64>) -> Distinct {
        let mut sketch = Distinct::default();
        values.for_each(|value| sketch.insert(token(hash::of_int(value))));
        sketch
    }

    /// The tokens of few values in their order, or the registers.
    fn sorted(sketch: &Distinct) -> Vec<u32> {
        match &sketch.form {
            Form::Few(few) => {
                let mut tokens: Vec<u32> = few.tokens().collect();
                tokens.sort_unstable();
                tokens
            }
            Form::Many(registers) => registers.iter().map(|register| u32::from(*register)).collect(),
        }
    }

    fn error(sketch: &Distinct, exact: u64) -> f64 {
        (sketch.estimate() as f64 - exact as f64) / exact as f64
    }

    /// The figure of the head of the file, over 40 sets of each size: a wrong formula shows as a bias, a wrong update as a wider spread.
    #[test]
    fn estimates_are_as_good_as_they_say() {
        for size in [20_000i64, 100_000, 1_000_000] {
            let runs = if size > 500_000 { 10 } else { 40 };
            let errors: Vec<f64> =
                (0..runs).map(|run| error(&of((0..size).map(|n| n + run * 10_000_000)), size as u64)).collect();
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let spread = (errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt();
            assert!(mean.abs() < 0.002, "{size}: bias {mean}");
            assert!(spread < 0.0045, "{size}: spread {spread}");
        }
    }

    #[test]
    fn few_values_are_counted() {
        for size in [0, 1, 5, 1_000, 10_000] {
            let off = of(0..size).estimate().abs_diff(size as u64);
            assert!(off <= size as u64 / 5_000, "{size}: {off} off");
        }
    }

    #[test]
    fn registers_remember_the_two_values_below_the_top() {
        let mut registers = vec![0u8; REGISTERS];
        // Prefixes whose bits after the register's begin with a one, two, five.
        for (bits, expected) in [
            (0b1000000000u32, 1 << 2),
            (0b0100000000, 2 << 2 | 2),
            (0b0000100000, 5 << 2),
            (0b0010000000, 5 << 2 | 1),
            (0b1000000000, 5 << 2 | 1),
            (0b0001000000, 5 << 2 | 3),
        ] {
            register(&mut registers, bits << 6 | 1);
            assert_eq!(registers[0], expected, "{bits:b}");
        }
        // All of the prefix is zeros: what follows counts.
        register(&mut registers, 3);
        assert_eq!(registers[0], 13 << 2);
        assert_eq!(both(5 << 2 | 3, 6 << 2), 6 << 2 | 3);
        assert_eq!(both(0, 1 << 2), 1 << 2);
        assert_eq!(both(1 << 2, 3 << 2), 3 << 2 | 1);
    }

    #[test]
    fn tokens_that_nearly_all_differ_are_written_as_they_come() {
        let tokens: Vec<u32> = (0..5_000i64).map(|value| token(hash::of_int(value % 4_999))).collect();
        let mut read = Distinct::default();
        read.merge_bytes(&bytes_of_different(&tokens).unwrap()).unwrap();
        assert_eq!(read.estimate(), of(0..4_999).estimate());
        let few: Vec<u32> = tokens.iter().map(|token| tokens[*token as usize % 100]).collect();
        assert!(bytes_of_different(&few).is_none());
        assert!(bytes_of_different(&tokens[..10]).is_none());
    }

    #[test]
    fn bytes_that_are_no_sketch_are_refused() {
        let mut sketch = of(0..10);
        for bad in [&[][..], &[2], &[0, 1], &[0, 0, 0, 0, 0], &[0, 63, 0, 0, 0], &[1, 0], &[1u8; 70_000]] {
            assert!(sketch.merge_bytes(bad).is_err(), "{bad:?}");
        }
        let mut registers = vec![1u8];
        registers.resize(REGISTERS + 1, 255);
        assert!(sketch.merge_bytes(&registers).is_err());
        assert_eq!(sketch.estimate(), 10);
    }

    proptest! {
        /// However values are split, and whatever comes first.
        #[test]
        fn parts_make_up_the_whole(parts in prop::collection::vec((0i64..40_000, 0i64..12_000), 1..6)) {
            let ranges = || parts.iter().map(|(from, many)| *from..from + many);
            let whole = of(ranges().flatten());
            let mut merged = Distinct::default();
            for range in ranges().rev() {
                merged.merge_bytes(&of(range).to_bytes()).unwrap();
            }
            prop_assert_eq!(sorted(&whole), sorted(&merged));
            prop_assert_eq!(whole.estimate(), merged.estimate());
        }
    }
}
