//! Which rows come too late to win, beside a plain twin: a map from keys to the highest version so far.

use std::{collections::HashMap, sync::Arc};

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch};
use proptest::prelude::*;
use tidemill_storage::{
    ids::{ColumnId, OffsetRange, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    schema::{Column, DataType, TableSchema},
    table::{PartitionWriter, Table},
    upsert::{Keep, KeySpec, Provenance},
};

const KEY: ColumnId = ColumnId(0);
const VERSION: ColumnId = ColumnId(1);
const LATE: ColumnId = ColumnId(2);

fn schema() -> Arc<TableSchema> {
    let required = |id, name: &str, data_type| Column { nullable: false, ..Column::new(id, name, data_type) };
    let columns = vec![
        required(KEY, "key", DataType::BigInt),
        required(VERSION, "version", DataType::BigInt),
        required(LATE, "late", DataType::Boolean),
    ];
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Rows of one stream, cut into batches and segments at random: flagged are those below the highest version of their key so far, whatever they bring.
    #[test]
    fn late_rows_are_those_below_the_highest_so_far(
        rows in prop::collection::vec((0i64..6, 0i64..8, any::<bool>()), 1..120),
        cuts in prop::collection::vec(1usize..9, 1..60),
        merges in any::<bool>(),
    ) {
        let spec = KeySpec {
            ages: None,
            columns: vec![KEY],
            version: Some(VERSION),
            delete: None,
            keep: Keep::Last,
            keeps_losers: true,
            late: Some(LATE),
            merges,
        };
        let (schema, stream) = (schema(), StreamId { source: SourceId(1), partition: 0 });
        let arriving = spec.arriving(&schema);
        let table = Table::with_key(TableId(1), Arc::clone(&schema), 1, Some(spec));
        let partition = Arc::clone(&table.partitions()[0]);
        let mut writer = PartitionWriter::open(partition, Arc::clone(&schema), SegmentId(1), &[], &[]).unwrap();
        let mut highest: HashMap<i64, i64> = HashMap::new();
        let mut wanted = Vec::new();
        for (key, version, _) in &rows {
            let known = highest.entry(*key).or_insert(*version);
            // Of equal versions the later row wins.
            wanted.push((*key, *version, version < known));
            *known = (*known).max(*version);
        }
        let mut at = 0;
        for (step, cut) in cuts.iter().cycle().enumerate() {
            if at >= rows.len() {
                break;
            }
            let part = &rows[at..(at + cut).min(rows.len())];
            let batch = RecordBatch::try_new(
                arriving.arrow(),
                vec![
                    Arc::new(part.iter().map(|row| Some(row.0)).collect::<Int64Array>()),
                    Arc::new(part.iter().map(|row| Some(row.1)).collect::<Int64Array>()),
                    Arc::new(part.iter().map(|row| row.2.then_some(true)).collect::<BooleanArray>()),
                ],
            )
            .unwrap();
            let offsets: Vec<u64> = (at as u64..(at + part.len()) as u64).collect();
            let progress = OffsetRange { stream, from: at as u64, to: (at + part.len()) as u64 };
            writer.append_from(&batch, || Provenance::of(stream, &offsets), &[progress]).unwrap();
            if step % 5 == 4 {
                writer.rotate(Arc::clone(&schema));
            }
            at += part.len();
        }
        let view = table.partitions()[0].view();
        let mut stored = Vec::new();
        for segment in view.segments() {
            let all: Vec<u32> = (0..segment.rows()).collect();
            let taken = segment.take(&[KEY, VERSION, LATE], &all).unwrap();
            let number = |at: usize, row: usize| taken[at].as_primitive::<arrow::datatypes::Int64Type>().value(row);
            for row in 0..all.len() {
                prop_assert!(taken[2].is_valid(row));
                let is_late = taken[2].as_boolean().value(row);
                stored.push((number(0, row), number(1, row), is_late));
                let is_seen = view.validities().of(segment.id()).is_none_or(|validity| validity.is_valid(row as u32));
                prop_assert!(!(is_late && is_seen), "a late row is never seen");
            }
        }
        prop_assert_eq!(writer.late_rows(), wanted.iter().filter(|row| row.2).count() as u64);
        if merges {
            // Of the rows of a key in one batch that win, one is stored.
            wanted.retain(|row| row.2);
            stored.retain(|row| row.2);
        }
        prop_assert_eq!(stored, wanted);
    }
}
