//! Which thread reads a source partition, and which table partition its rows go to.
//!
//! Tables without a key: source partition `p` goes to table partition `p mod P`, as long as the table has `P` of them, so that the offsets of one stream
//! stand in one place of the metadata log. Tables with a key: a row goes to the partition that owns its key, whatever stream brings it, and each partition accounts
//! for all offsets of all streams, those without a row for it included. So each commits for itself; a stream goes on where the one that is
//! furthest behind ends, and the others leave out what they have.

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
};
use tidemill_storage::{Error as StorageError, ids::PartitionId, schema::TableSchema, upsert::KeySpec};

use crate::Result;

/// The table partition that holds the rows of a source partition. `partitions` is at least 1.
pub fn table_partition(source_partition: u32, partitions: u32) -> PartitionId {
    PartitionId(source_partition % partitions.max(1))
}

/// Rows, and the offsets that they came from.
pub(crate) type Part = (RecordBatch, Vec<u64>);

/// The rows that each of `partitions` partitions owns, in their order.
pub(crate) fn split(
    key: &KeySpec,
    schema: &TableSchema,
    rows: &RecordBatch,
    offsets: &[u64],
    partitions: u32,
) -> Result<Vec<Part>> {
    let mut places: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
    for (row, owner) in (0..).zip(key.owners(schema, rows, partitions)?) {
        places[owner as usize].push(row);
    }
    let part = |places: Vec<u32>| {
        let offsets = places.iter().map(|row| offsets[*row as usize]).collect();
        let rows = take_record_batch(rows, &UInt32Array::from(places)).map_err(StorageError::from)?;
        Ok((rows, offsets))
    };
    places.into_iter().map(part).collect()
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
