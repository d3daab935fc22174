//! A scan gives the same rows whether they are consuming or committed, and they are those of the oracle: for random schemas, rows,
//! predicates, projections, limits and schema changes.

use std::{ops::Range, path::Path, sync::Arc};

use proptest::prelude::*;
use tidemill_storage::{
    ids::{ColumnId, OffsetRange, PartitionId, SegmentId, SourceId, StreamId, TableId},
    predicate::Predicate,
    scan::{ScanHints, ScanMetrics, ScanRequest},
    schema::{DataType, TableSchema},
    segment::{
        Segment,
        builder::{SealContext, seal},
        committed::{Expected, open},
        consuming::ConsumingSegment,
    },
    testing::{
        Random, generate,
        oracle::{self, Row, Written},
    },
};

pub(crate) const CONTEXT: SealContext = SealContext { table: TableId(7), partition: PartitionId(3), created_at_us: 99 };

/// Random rows in random batches.
pub(crate) fn consuming(random: &mut Random, rows: usize) -> (ConsumingSegment, Written) {
    let (schema, shapes) = generate::schema(random);
    let types: Vec<DataType> = schema.columns.iter().map(|column| column.data_type.clone()).collect();
    let mut segment = ConsumingSegment::new(SegmentId(5), Arc::new(schema.clone()));
    let mut written = Written { schema: schema.clone(), rows: Vec::new() };
    while written.rows.len() < rows {
        let from = written.rows.len();
        let count = (1 + random.below(*random.clone().pick(&[3, 100, 5000]))).min(rows - from);
        let batch = generate::batch(random, &schema, &shapes, from, count);
        written.rows.extend(oracle::rows_of(&types, &batch));
        let progress = OffsetRange {
            stream: StreamId { source: SourceId(1), partition: 2 },
            from: from as u64,
            to: (from + count) as u64,
        };
        segment = segment.with(&batch, &[progress]).unwrap();
    }
    (segment, written)
}

pub(crate) fn committed(segment: &ConsumingSegment, dir: &Path) -> Arc<dyn Segment> {
    let file = seal(segment, dir, "segment", &CONTEXT).unwrap();
    open(&file.path, &Expected { id: segment.id(), bytes: file.bytes, checksum: file.checksum }).unwrap()
}

pub(crate) fn request(
    current: &TableSchema,
    projection: Vec<ColumnId>,
    predicate: Option<Predicate>,
    limit: Option<usize>,
    batch_rows: usize,
) -> Arc<ScanRequest> {
    Arc::new(ScanRequest {
        schema: Arc::new(current.clone()),
        projection,
        predicate,
        limit,
        batch_rows,
        hints: ScanHints::default(),
    })
}

/// The rows of a scan, and that its batches are as promised.
pub(crate) fn scanned(segment: &Arc<dyn Segment>, rows: Range<u32>, request: &Arc<ScanRequest>) -> Vec<Row> {
    let metrics = Arc::new(ScanMetrics::default());
    let schema = request.output_schema().unwrap();
    let types: Vec<DataType> =
        request.projection.iter().map(|id| request.schema.column(*id).unwrap().data_type.clone()).collect();
    let mut found = Vec::new();
    for batch in Arc::clone(segment).scan(rows, Arc::clone(request), Arc::clone(&metrics)).unwrap() {
        let batch = batch.unwrap();
        assert_eq!(batch.schema(), schema);
        assert!(batch.num_rows() > 0 && batch.num_rows() <= request.batch_rows.max(1));
        found.extend(oracle::rows_of(&types, &batch));
    }
    assert_eq!(metrics.rows_selected.load(std::sync::atomic::Ordering::Relaxed), found.len() as u64);
    found
}

fn check(seed: u64, rows: usize) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (consuming, written) = consuming(random, rows);
    let dir = tempfile::tempdir().unwrap();
    let committed = committed(&consuming, dir.path());
    let consuming: Arc<dyn Segment> = Arc::new(consuming);
    assert_eq!(committed.rows() as usize, rows);
    assert_eq!(committed.offsets(), consuming.offsets());
    for round in 0..6 {
        let current = if round < 2 { written.schema.clone() } else { generate::altered(random, &written.schema) };
        let mut projection: Vec<ColumnId> = current.columns.iter().map(|column| column.id).collect();
        projection.retain(|_| !random.one_in(3));
        let predicate = if random.one_in(6) { None } else { Some(generate::predicate(random, &current, 2)) };
        let range = if random.one_in(2) {
            0..rows as u32
        } else {
            let start = random.below(rows + 1);
            start as u32..(start + random.below(rows + 1 - start)) as u32
        };
        let part = Written {
            schema: written.schema.clone(),
            rows: written.rows[range.start as usize..range.end as usize].to_vec(),
        };
        let mut expected = oracle::scan(&part, &current, &projection, predicate.as_ref());
        let limit = if random.one_in(3) { Some(random.below(rows + 2)) } else { None };
        expected.truncate(limit.unwrap_or(usize::MAX));
        let batch_rows = *random.pick(&[1, 7, 1000, 8192, 100_000]);
        let request = request(&current, projection, predicate, limit, batch_rows);
        for segment in [&consuming, &committed] {
            let found = scanned(segment, range.clone(), &request);
            assert_eq!(found, expected, "{:?} segment, {range:?} of {request:#?}", segment.state());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn consuming_committed_and_oracle_agree(seed: u64, rows in prop_oneof![0usize..20, 0usize..400, 1000usize..3000]) {
        check(seed, rows);
    }
}

/// More rows than a window, a block and a full chunk have.
#[test]
fn they_agree_on_many_rows() {
    for seed in 0..4 {
        check(seed, 30_000);
    }
}
