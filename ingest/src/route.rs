//! Which thread reads a source partition, and which table partition its rows go to.
//!
//! Append tables: source partition `p` goes to table partition `p mod P`, for ever, so that the offsets of one stream stand in one
//! place of the metadata log.

use tidemill_storage::ids::PartitionId;

/// The table partition that holds the rows of a source partition. `partitions` is at least 1.
pub fn table_partition(source_partition: u32, partitions: u32) -> PartitionId {
    PartitionId(source_partition % partitions.max(1))
}

/// Consuming threads for a source of `partitions` partitions on `cores` cores.
pub(crate) fn groups_wanted(partitions: usize, cores: usize) -> usize {
    partitions.min(cores).max(1)
}

/// The group that a new source partition joins: a new one while there are fewer than wanted, else the one that reads the fewest (the first of
/// equals). `load` is how many partitions each group reads.
pub(crate) fn group_for(load: &[usize], wanted: usize) -> usize {
    if load.len() < wanted {
        return load.len();
    }
    load.iter().enumerate().min_by_key(|(_, partitions)| **partitions).map_or(0, |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_gets_its_share() {
        let mut load: Vec<usize> = Vec::new();
        for _ in 0..7 {
            let group = group_for(&load, groups_wanted(7, 3));
            if group == load.len() {
                load.push(0);
            }
            load[group] += 1;
        }
        assert_eq!(load, [3, 2, 2]);
        assert_eq!((groups_wanted(0, 4), groups_wanted(1, 4), groups_wanted(9, 4)), (1, 1, 4));
    }

    #[test]
    fn a_stream_stays_with_its_partition() {
        assert_eq!((0..5).map(|p| table_partition(p, 2).0).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
        assert_eq!(table_partition(9, 0), PartitionId(0));
    }
}
