//! How values are spread: which value a share of them lies below.
//!
//! Up to 128 values are kept as they are. More are counted in buckets as a float's bits cut them: 128 equal ones between two powers of two, so that a
//! bucket is at most 1/128 as wide as its values are large (Masson, Rim, Lee 2019, https://arxiv.org/abs/1908.10693, with HdrHistogram's
//! buckets). Inside of a bucket values are taken to lie evenly; where all values are whole, so are those found.

use super::Sketch;
use crate::{Result, forward::format::corrupt, scalar::compare_floats};

/// Values that are kept.
const FEW_MAX: usize = 128;
/// Bits of the fraction that tell buckets apart.
const FRACTION: u32 = 7;
const SHIFT: u32 = f64::MANTISSA_DIGITS - 1 - FRACTION;
const PAGE: usize = 1 << FRACTION;
const SIGN: u64 = 1 << 63;

const FEW: u8 = 0;
const MANY: u8 = 1;

/// Values, about.
#[derive(Clone, Debug)]
pub struct Quantiles {
    count: u64,
    /// As PostgreSQL orders floats: NaN is the largest.
    min: f64,
    max: f64,
    /// Every value is a whole number.
    is_whole: bool,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Few(Vec<f64>),
    Many(Pages),
}

/// Counts of buckets that lie between the same powers of two, in their order.
#[derive(Clone, Debug, Default)]
struct Pages {
    pages: Vec<(i32, Box<[u64; PAGE]>)>,
    /// The page of the last value: the next one is often of it.
    last: usize,
}

impl Pages {
    #[inline]
    fn add(&mut self, value: f64, many: u64) {
        let (page, slot) = place(bucket(value));
        if self.pages.get(self.last).is_none_or(|(known, _)| *known != page) {
            self.last = self.find(page);
        }
        self.pages[self.last].1[slot] += many;
    }

    fn find(&mut self, page: i32) -> usize {
        match self.pages.binary_search_by_key(&page, |(page, _)| *page) {
            Ok(at) => at,
            Err(at) => {
                self.pages.insert(at, (page, Box::new([0; PAGE])));
                at
            }
        }
    }
}

/// The buckets' numbers ascend with the values.
#[inline]
fn bucket(value: f64) -> i32 {
    let bits = value.to_bits();
    let magnitude = ((bits & !SIGN) >> SHIFT) as i32;
    if bits & SIGN == 0 { magnitude } else { -1 - magnitude }
}

#[inline]
fn place(bucket: i32) -> (i32, usize) {
    (bucket >> FRACTION, bucket as usize & (PAGE - 1))
}

/// The values between which a bucket's lie.
fn bounds(bucket: i32) -> (f64, f64) {
    let from = |magnitude: i32| f64::from_bits((magnitude as u64) << SHIFT);
    match bucket {
        0.. => (from(bucket), from(bucket + 1)),
        // The bound away from zero is not of the bucket.
        _ => (-from(-bucket), -from(-1 - bucket)),
    }
}

/// One zero, one NaN.
#[inline]
fn plain(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { count: 0, min: f64::NAN, max: f64::NEG_INFINITY, is_whole: true, form: Form::Few(Vec::new()) }
    }
}

impl Quantiles {
    #[inline]
    pub fn insert(&mut self, value: f64) {
        let value = plain(value);
        self.spread(value, value);
        self.is_whole &= value.trunc() == value;
        self.count += 1;
        match &mut self.form {
            Form::Many(pages) => pages.add(value, 1),
            Form::Few(values) if values.len() < FEW_MAX => values.push(value),
            Form::Few(_) => self.pages().add(value, 1),
        }
    }

    #[inline]
    fn spread(&mut self, min: f64, max: f64) {
        if compare_floats(min, self.min).is_lt() {
            self.min = min;
        }
        if compare_floats(max, self.max).is_gt() {
            self.max = max;
        }
    }

    /// From now on in buckets.
    fn pages(&mut self) -> &mut Pages {
        if let Form::Few(values) = &self.form {
            let mut pages = Pages::default();
            values.iter().for_each(|value| pages.add(*value, 1));
            self.form = Form::Many(pages);
        }
        match &mut self.form {
            Form::Many(pages) => pages,
            Form::Few(_) => unreachable!("it was made just now"),
        }
    }

    /// The value that a share (0 to 1) of the values lies below: between two values in proportion, as PostgreSQL's `percentile_cont` has it.
    /// `None` of no values.
    pub fn at(&self, share: f64) -> Option<f64> {
        let last = self.count.checked_sub(1)?;
        let position = share.clamp(0.0, 1.0) * last as f64;
        let below = (position.floor() as u64).min(last);
        let part = position - below as f64;
        let sorted = match &self.form {
            Form::Few(values) => {
                let mut values = values.clone();
                values.sort_unstable_by(|a, b| compare_floats(*a, *b));
                values
            }
            Form::Many(_) => Vec::new(),
        };
        let value = |rank: u64| match (&self.form, rank) {
            (_, 0) => self.min,
            (_, rank) if rank == last => self.max,
            (Form::Few(_), rank) => sorted[rank as usize],
            (Form::Many(pages), rank) => self.of_rank(pages, rank),
        };
        let low = value(below);
        if part == 0.0 {
            return Some(low);
        }
        let high = value(below + 1);
        Some(if low == high { low } else { low + (high - low) * part })
    }

    /// The value of a place in the order.
    fn of_rank(&self, pages: &Pages, rank: u64) -> f64 {
        let mut before = 0;
        for (page, counts) in &pages.pages {
            for (slot, count) in counts.iter().enumerate() {
                if rank < before + count {
                    let (low, high) = bounds(page << FRACTION | slot as i32);
                    let value = match () {
                        () if high == f64::NEG_INFINITY => high,
                        () if low.is_nan() || low == f64::INFINITY => low,
                        () if high.is_infinite() || low.is_infinite() => low.clamp(f64::MIN, f64::MAX),
                        () => low + (high - low) * ((rank - before) as f64 + 0.5) / *count as f64,
                    };
                    let value = if self.is_whole { whole(value, low, high) } else { value };
                    return if compare_floats(value, self.min).is_lt() {
                        self.min
                    } else if compare_floats(value, self.max).is_gt() {
                        self.max
                    } else {
                        value
                    };
                }
                before += count;
            }
        }
        self.max
    }
}

/// The whole number of the bucket next to the value.
fn whole(value: f64, low: f64, high: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    // Of a bucket below zero `low` is outside, of one above `high` is.
    let (first, last) = if low < 0.0 { ((low + 1.0).floor(), high.floor()) } else { (low.ceil(), (high - 1.0).ceil()) };
    if first > last { value.round() } else { value.floor().clamp(first, last) }
}

impl Sketch for Quantiles {
    fn merge_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader(bytes);
        match reader.byte()? {
            FEW => {
                let (values, rest) = reader.0.as_chunks::<8>();
                if !rest.is_empty() || values.len() > FEW_MAX {
                    return Err(misfit("at most 128 values", format!("{} bytes", reader.0.len())));
                }
                values.iter().for_each(|value| self.insert(f64::from_le_bytes(*value)));
            }
            MANY => {
                let (is_whole, min, max) = (reader.byte()? == 1, reader.float()?, reader.float()?);
                let mut counted = Vec::new();
                while !reader.0.is_empty() {
                    let (page, used) = (i32::from_le_bytes(reader.take()?), u128::from_le_bytes(reader.take()?));
                    if !(-2048..2048).contains(&page) {
                        return Err(misfit("a power of two", page));
                    }
                    for slot in (0..PAGE).filter(|slot| used >> slot & 1 == 1) {
                        counted.push((page, slot, reader.number()?));
                    }
                }
                self.spread(plain(min), plain(max));
                self.is_whole &= is_whole;
                let pages = self.pages();
                let mut count = 0u64;
                for (page, slot, many) in counted {
                    let at = pages.find(page);
                    let place = &mut pages.pages[at].1[slot];
                    *place = place.saturating_add(many);
                    count = count.saturating_add(many);
                }
                self.count = self.count.saturating_add(count);
            }
            form => return Err(misfit("a form", form)),
        }
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        match &self.form {
            Form::Few(values) => {
                let mut values = values.clone();
                values.sort_unstable_by(|a, b| compare_floats(*a, *b));
                let values = values.iter().flat_map(|value| value.to_le_bytes());
                std::iter::once(FEW).chain(values).collect()
            }
            Form::Many(Pages { pages, .. }) => {
                let mut out = vec![MANY, self.is_whole.into()];
                out.extend(self.min.to_le_bytes());
                out.extend(self.max.to_le_bytes());
                for (page, counts) in pages {
                    out.extend(page.to_le_bytes());
                    let used = counts.iter().enumerate().filter(|(_, count)| **count > 0);
                    out.extend(used.fold(0u128, |used, (slot, _)| used | 1 << slot).to_le_bytes());
                    counts.iter().filter(|count| **count > 0).for_each(|count| write_number(&mut out, *count));
                }
                out
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.form {
            Form::Few(values) => values.capacity() * size_of::<f64>(),
            Form::Many(Pages { pages, .. }) => pages.capacity() * 16 + pages.len() * size_of::<[u64; PAGE]>(),
        }
    }
}

fn misfit(expected: &str, found: impl std::fmt::Display) -> crate::Error {
    corrupt("sketch of quantiles", expected.to_owned(), found)
}

/// Seven bits a byte, low ones first.
fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| misfit("more bytes", self.0.len()))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn float(&mut self) -> Result<f64> {
        self.take().map(f64::from_le_bytes)
    }

    fn number(&mut self) -> Result<u64> {
        let (mut number, mut shift) = (0u64, 0);
        loop {
            let byte = self.byte()?;
            if shift > 63 {
                return Err(misfit("a number of 64 bits", "a longer one"));
            }
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Quantiles {
        let mut sketch = Quantiles::default();
        values.iter().for_each(|value| sketch.insert(*value));
        sketch
    }

    fn exact(values: &[f64], share: f64) -> f64 {
        let mut sorted: Vec<f64> = values.iter().map(|value| plain(*value)).collect();
        sorted.sort_by(|a, b| compare_floats(*a, *b));
        let position = share * (sorted.len() - 1) as f64;
        let (low, high) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
        if low == high { low } else { low + (high - low) * position.fract() }
    }

    const SHARES: [f64; 9] = [0.0, 0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 0.999, 1.0];

    #[test]
    fn buckets_ascend_and_hold_their_values() {
        let mut values: Vec<f64> = [0.0, 1e-320, 1e-9, 0.1, 0.99, 1.0, 1.5, 127.0, 128.0, 1e300, f64::MAX].into();
        values.extend(values.clone().iter().map(|value| -value));
        values.sort_by(f64::total_cmp);
        values.iter().for_each(|value| {
            let (low, high) = bounds(bucket(*value));
            assert!(low <= *value && *value <= high, "{low} {value} {high}");
            assert!((high - low) <= value.abs() / 127.0 + 1e-300 || high.is_infinite() || low.is_infinite());
        });
        assert!(values.windows(2).all(|pair| bucket(pair[0]) <= bucket(pair[1])));
    }

    #[test]
    fn whole_numbers_up_to_256_are_exact() {
        let positive: Vec<f64> = (0..10_000).map(|n| f64::from(n % 255)).collect();
        let negative: Vec<f64> = positive.iter().map(|value| -value).collect();
        for values in [positive, negative] {
            let sketch = of(&values);
            SHARES.iter().for_each(|share| assert_eq!(sketch.at(*share), Some(exact(&values, *share)), "{share}"));
        }
    }

    #[test]
    fn of_nothing_and_of_strange_values() {
        assert_eq!(Quantiles::default().at(0.5), None);
        assert_eq!(of(&[f64::NAN]).at(0.5).map(f64::is_nan), Some(true));
        let mut values = vec![f64::INFINITY; 200];
        assert_eq!(of(&values).at(0.5), Some(f64::INFINITY));
        values.extend([f64::NEG_INFINITY; 200]);
        assert_eq!(of(&values).at(0.25), Some(f64::NEG_INFINITY));
        values.extend([f64::NAN; 800]);
        assert!(of(&values).at(0.9).unwrap().is_nan());
        assert_eq!(of(&values).at(0.2), Some(f64::INFINITY));
    }

    #[test]
    fn bytes_that_are_no_sketch_are_refused() {
        let mut sketch = of(&[1.0]);
        let whole = of(&(0..500).map(f64::from).collect::<Vec<_>>()).to_bytes();
        for bad in [&[][..], &[2], &[0, 1], &[1, 1], &whole[..whole.len() - 1], &[&[0][..], &[0; 129 * 8]].concat()] {
            assert!(sketch.merge_bytes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(sketch.at(1.0), Some(1.0));
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => 0.01f64..1e4,
            2 => -1e4f64..1e4,
            2 => (-300i32..300).prop_map(f64::from),
            1 => any::<f64>().prop_filter("", |value| value.is_finite() && value.abs() < 1e300),
        ]
    }

    proptest! {
        #[test]
        fn values_are_close_and_parts_make_up_the_whole(
            values in prop::collection::vec(value(), 1..700),
            cuts in prop::collection::vec(0usize..700, 0..4),
        ) {
            let sketch = of(&values);
            for share in SHARES {
                let (found, expected) = (sketch.at(share).unwrap(), exact(&values, share));
                // Of the larger of the two values that it may lie between.
                let position = share * (values.len() - 1) as f64;
                let at = |rank: f64| exact(&values, rank / (values.len() as f64 - 1.0).max(1.0)).abs();
                let size = at(position.floor()).max(at(position.ceil()));
                prop_assert!((found - expected).abs() <= size / 127.0 + 1e-300, "{} {} {}", share, found, expected);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
            cuts.extend([0, values.len()]);
            cuts.sort_unstable();
            let mut merged = Quantiles::default();
            for pair in cuts.windows(2).rev() {
                merged.merge_bytes(&of(&values[pair[0]..pair[1]]).to_bytes()).unwrap();
            }
            prop_assert_eq!(merged.to_bytes(), sketch.to_bytes());
            prop_assert_eq!(merged.count, sketch.count);
        }
    }
}
