//! From the keys of a row to the number of its group.
//!
//! | keys | groups are numbered by | groups |
//! |---|---|---|
//! | none | – | one |
//! | few ids, all known ahead | the ids as digits of one number | all that could be, many of them perhaps without rows |
//! | ids of 64 bits together | a hash table of the ids packed into a number | those there are, in the order they come |
//! | others | a hash table per key: number of the group so far, id of this key | the same |

use arrow::array::ArrayRef;

use super::{block::Block, keys::Key, table::Table};
use crate::{Error, Result};

/// Groups that are kept for every combination of ids: their states fit the cache.
const DENSE_MAX: u64 = 64 * 1024;
/// The same where there are few rows: making and looking over places for groups without rows would take longer than reading them.
const DENSE_MIN: u64 = 4 * 1024;
/// The same where there are twice as many rows: finding a group by hashing costs more than the places without rows.
const DENSE_OF_ROWS_MAX: u64 = 512 * 1024;

/// Bits of the id in a chained key.
const ID_BITS: u32 = 65;

#[derive(Debug)]
pub(crate) struct Grouper {
    /// With the index of the column each is read from.
    keys: Vec<(usize, Key)>,
    way: Way,
    ids: Vec<u32>,
    wide: Vec<u128>,
    packed: Vec<u64>,
}

#[derive(Debug)]
enum Way {
    One,
    /// Numbers of ids of the keys, and their product.
    Dense {
        radixes: Vec<u32>,
        groups: usize,
    },
    /// Bits of the ids of the keys.
    Packed {
        bits: Vec<u32>,
        table: Table<u64>,
    },
    Chained(Vec<Table<u128>>),
}

impl Grouper {
    /// For about so many rows.
    pub(crate) fn new(keys: Vec<(usize, Key)>, rows: usize) -> Self {
        let rows = rows as u64;
        let dense_max = (rows / 2).clamp(DENSE_MAX, DENSE_OF_ROWS_MAX).min((rows * 4).max(DENSE_MIN));
        let counts: Option<Vec<u64>> = keys.iter().map(|(_, key)| key.ids()).collect();
        let product = counts.as_ref().and_then(|counts| counts.iter().try_fold(1u64, |all, ids| all.checked_mul(*ids)));
        let bits: Vec<u32> = keys.iter().map(|(_, key)| key.bits()).collect();
        let way = match (counts, product) {
            _ if keys.is_empty() => Way::One,
            (Some(counts), Some(product)) if product <= dense_max => {
                Way::Dense { radixes: counts.iter().map(|ids| *ids as u32).collect(), groups: product as usize }
            }
            _ if bits.iter().sum::<u32>() <= u64::BITS => Way::Packed { bits, table: Table::default() },
            _ => Way::Chained(keys.iter().map(|_| Table::default()).collect()),
        };
        Self { keys, way, ids: Vec::new(), wide: Vec::new(), packed: Vec::new() }
    }

    /// Places for all groups that there could be.
    pub(crate) fn dense(keys: Vec<(usize, Key)>) -> Result<Self> {
        let radixes = keys.iter().map(|(_, key)| u32::try_from(key.ids()?).ok()).collect::<Option<Vec<u32>>>();
        let product = radixes.as_ref().and_then(|all| all.iter().try_fold(1u32, |all, ids| all.checked_mul(*ids)));
        let (Some(radixes), Some(groups)) = (radixes, product) else {
            return Err(Error::Invalid("more groups than there are places for".into()));
        };
        let way = Way::Dense { radixes, groups: groups as usize };
        Ok(Self { keys, way, ids: Vec::new(), wide: Vec::new(), packed: Vec::new() })
    }

    /// Groups so far: every number that was given is below it.
    pub(crate) fn groups(&self) -> usize {
        match &self.way {
            Way::One => 1,
            Way::Dense { groups, .. } => *groups,
            Way::Packed { table, .. } => table.keys().len(),
            Way::Chained(tables) => tables.last().map_or(1, |table| table.keys().len()),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(|(_, key)| key.memory_bytes()).sum();
        keys + match &self.way {
            Way::One | Way::Dense { .. } => 0,
            Way::Packed { table, .. } => table.memory_bytes(),
            Way::Chained(tables) => tables.iter().map(Table::memory_bytes).sum(),
        }
    }

    /// The group of each row of a window. Without keys `out` stays empty.
    pub(crate) fn number(&mut self, blocks: &mut [Block], out: &mut Vec<u32>) -> Result<()> {
        let Self { keys, way, ids, wide, packed } = self;
        out.clear();
        match way {
            Way::One => {}
            Way::Dense { radixes, .. } => {
                for (index, ((column, key), radix)) in keys.iter_mut().zip(radixes).enumerate() {
                    if index == 0 {
                        key.narrow(&mut blocks[*column], out)?;
                        continue;
                    }
                    key.narrow(&mut blocks[*column], ids)?;
                    // Below the product, which is small.
                    out.iter_mut().zip(&*ids).for_each(|(all, id)| *all = all.wrapping_mul(*radix).wrapping_add(*id));
                }
            }
            Way::Packed { bits, table } => {
                for (index, ((column, key), bits)) in keys.iter_mut().zip(bits).enumerate() {
                    let block = &mut blocks[*column];
                    if index == 0 {
                        packed.clear();
                    }
                    let shift = |all: u64| all.checked_shl(*bits).unwrap_or(0);
                    if *bits <= 32 {
                        key.narrow(block, ids)?;
                        packed.resize(ids.len(), 0);
                        packed.iter_mut().zip(&*ids).for_each(|(all, id)| *all = shift(*all) | u64::from(*id));
                    } else {
                        key.wide(block, wide)?;
                        packed.resize(wide.len(), 0);
                        packed.iter_mut().zip(&*wide).for_each(|(all, id)| *all = shift(*all) | *id as u64);
                    }
                }
                out.extend(packed.iter().map(|key| table.number(*key)));
            }
            Way::Chained(tables) => {
                for (index, ((column, key), table)) in keys.iter_mut().zip(tables).enumerate() {
                    key.wide(&mut blocks[*column], wide)?;
                    if index == 0 {
                        out.extend(wide.iter().map(|id| table.number(*id)));
                    } else {
                        let chained = |(number, id): (&mut u32, &u128)| {
                            *number = table.number(u128::from(*number) << ID_BITS | id);
                        };
                        out.iter_mut().zip(&*wide).for_each(chained);
                    }
                }
            }
        }
        Ok(())
    }

    /// The keys of these groups, a column each.
    pub(crate) fn values(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let Self { keys, way, .. } = self;
        let mut ids: Vec<Vec<u128>> = vec![Vec::with_capacity(groups.len()); keys.len()];
        match way {
            Way::One => {}
            Way::Dense { radixes, .. } => {
                for group in groups {
                    let mut rest = *group;
                    for (ids, radix) in ids.iter_mut().zip(&*radixes).rev() {
                        ids.push(u128::from(rest % radix));
                        rest /= radix;
                    }
                }
            }
            Way::Packed { bits, table } => {
                for group in groups {
                    let mut rest = u128::from(table.keys()[*group as usize]);
                    for (ids, bits) in ids.iter_mut().zip(&*bits).rev() {
                        ids.push(rest & ((1 << bits) - 1));
                        rest >>= *bits;
                    }
                }
            }
            Way::Chained(tables) => {
                for group in groups {
                    let mut number = *group as usize;
                    for (ids, table) in ids.iter_mut().zip(&*tables).rev() {
                        let key = table.keys()[number];
                        ids.push(key & ((1 << ID_BITS) - 1));
                        number = (key >> ID_BITS) as usize;
                    }
                }
            }
        }
        keys.iter_mut().zip(&ids).map(|((_, key), ids)| key.values(ids)).collect()
    }

    /// How groups are numbered, for those who look at plans.
    pub(crate) fn name(&self) -> &'static str {
        match self.way {
            Way::One => "one group",
            Way::Dense { .. } => "dense",
            Way::Packed { .. } => "hashed ids",
            Way::Chained(_) => "hashed keys",
        }
    }
}
