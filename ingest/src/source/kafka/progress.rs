//! What the consumer group outside is told: for each partition the smallest position that any of a source's tables has committed.
//!
//! The group has one position per partition, and whoever looks at it (a lag alarm, a topic's owner before deleting records) asks whether
//! everything before it is safe here. That is so when the slowest table has it.

use std::collections::BTreeMap;

use tidemill_storage::ids::TableId;

/// The committed positions of every table that reads one source.
#[derive(Debug, Default)]
pub(super) struct Progress {
    tables: BTreeMap<TableId, BTreeMap<u32, u64>>,
}

impl Progress {
    /// Notes where `table` stands. Returns what the group is to be told of the partitions that moved.
    pub(super) fn committed(&mut self, table: TableId, positions: &BTreeMap<u32, u64>) -> BTreeMap<u32, u64> {
        self.tables.entry(table).or_default().extend(positions);
        self.smallest(positions.keys())
    }

    /// The table is gone. Returns what the group is to be told of the partitions that it read; nothing when nobody else reads them.
    pub(super) fn forget(&mut self, table: TableId) -> BTreeMap<u32, u64> {
        let left = self.tables.remove(&table).unwrap_or_default();
        self.smallest(left.keys())
    }

    fn smallest<'a>(&self, partitions: impl Iterator<Item = &'a u32>) -> BTreeMap<u32, u64> {
        let of = |partition: &u32| self.tables.values().filter_map(|positions| positions.get(partition)).min().copied();
        partitions.filter_map(|partition| Some((*partition, of(partition)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tables that commit at different moments once made the group jump back and forth between their positions.
    #[test]
    fn the_slowest_table_counts() {
        let mut progress = Progress::default();
        let (a, b) = (TableId(1), TableId(2));
        let at = |positions: &[(u32, u64)]| positions.iter().copied().collect::<BTreeMap<_, _>>();
        assert_eq!(progress.committed(a, &at(&[(0, 10), (1, 20)])), at(&[(0, 10), (1, 20)]));
        assert_eq!(progress.committed(b, &at(&[(0, 5)])), at(&[(0, 5)]));
        assert_eq!(progress.committed(a, &at(&[(0, 99), (1, 30)])), at(&[(0, 5), (1, 30)]));
        assert_eq!(progress.committed(b, &at(&[(0, 100)])), at(&[(0, 99)]));
        assert_eq!(progress.forget(a), at(&[(0, 100)]));
        assert_eq!(progress.forget(a), at(&[]));
        assert_eq!(progress.forget(b), at(&[]));
    }
}
