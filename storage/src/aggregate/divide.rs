//! Exact division by a number that stays the same, without dividing.
//!
//! For a divisor `d` with `2^(l-1) < d <= 2^l` and `m = ceil(2^(63+l) / d)`, which fits 64 bits, `floor(x · m / 2^(63+l))` is `floor(x / d)`
//! for every `x` below 2^63 (Granlund and Montgomery, "Division by invariant integers using multiplication", theorem 4.2).

#[derive(Clone, Copy, Debug)]
pub(crate) struct Divisor {
    factor: u64,
    /// Of the upper half of the product: l - 1. So no shift of 128 bits is needed, which takes three times as long as all the rest.
    shift: u32,
}

impl Divisor {
    /// `divisor` lies between 2 and 2^63 - 1.
    pub(crate) fn new(divisor: u64) -> Self {
        assert!((2..1 << 63).contains(&divisor), "invariant: {divisor} is a width");
        let bits = u64::BITS - (divisor - 1).leading_zeros();
        let factor = (1u128 << (63 + bits)).div_ceil(u128::from(divisor));
        Self { factor: factor as u64, shift: bits - 1 }
    }

    /// `x / divisor`, for `x` below 2^63.
    #[inline]
    pub(crate) fn divide(self, x: u64) -> u64 {
        ((u128::from(x) * u128::from(self.factor)) >> 64) as u64 >> self.shift
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn it_divides(x: u64, divisor: u64, bits in 0u32..63, back in 0u64..3) {
            let (x, divisor) = (x >> 1, (divisor >> 1 >> bits).max(2));
            for divisor in [divisor, 1 << (62 - bits.min(61)), 3_600_000_000, 2, (1 << 63) - 1] {
                // Quotients change at multiples.
                let edge = (x / divisor * divisor).saturating_sub(back);
                for x in [x, edge, edge + 1, (1 << 63) - 1] {
                    prop_assert_eq!(Divisor::new(divisor).divide(x.min((1 << 63) - 1)), x.min((1 << 63) - 1) / divisor);
                }
            }
        }
    }
}
