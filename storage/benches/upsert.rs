//! What a primary key costs: one partition of a table of `KEYS` orders (environment variable, default 2,000,000), by one thread.
//!
//! * `load`: rows of new keys in batches of 8192, sealed every million; `update`: as many rows of uniformly random keys that are there. Better: more rows/s.
//! * `merge`: as `update`, of a table that merges rows: no row brings the status, and cents are summed up; `merge, hot` goes to a thousand keys. Better: more
//!   rows/s, near those of `update`.
//! * `start`: the key map of what was loaded and updated, made again from the segments; `start, loaded only`: the same before the updates. Better: more rows/s.
//! * `write key map`, `start from file`: the key map written down, and taken back. Better: more keys/s.
//! * `look-ups`: rows of random keys, one by one, as `SELECT … WHERE id = $1` has them. Better: more look-ups/s.
//! * Bytes of the key map a key are printed; the aim is 16, an entry is 16 and a map is 68 to 85 % full.
//! * `count`: a count and a sum over the table beside the same over a table without a key that has the live rows alone. Better: a ratio near 1.
//!
//! A plain run over each step, not a sample of many: what is measured takes seconds and changes what it is measured on.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "for benchmarks, which print and measure"
)]

use std::{
    env,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray, new_null_array};
use tidemill_storage::{
    aggregate::{Aggregate, AggregateRequest, Function},
    ids::{ColumnId, OffsetRange, PartitionId, SchemaVersion, SegmentId, SourceId, StreamId, TableId},
    scan::ScanMetrics,
    schema::{Column, DataType, Merge, TableSchema, UTC},
    segment::{
        Segment,
        builder::{SealContext, seal},
        committed::{Expected, open},
    },
    table::{Found, KeyMapFile, KeyMapUse, PartitionKeys, PartitionWriter, Table},
    testing::Random,
    upsert::{KEY_MAP_FILE, Keep, KeySpec, Provenance},
};

const BATCH: usize = 8192;
const SEGMENT_ROWS: u32 = 1_000_000;
const ID: ColumnId = ColumnId(0);
const AT: ColumnId = ColumnId(1);
const STATUS: ColumnId = ColumnId(2);
const CENTS: ColumnId = ColumnId(3);
const STREAM: StreamId = StreamId { source: SourceId(1), partition: 0 };

fn schema() -> Arc<TableSchema> {
    let column = |id, name: &str, data_type| Column { nullable: false, ..Column::new(id, name, data_type) };
    let columns = vec![
        column(ID, "id", DataType::BigInt),
        column(AT, "at", DataType::TimestampTz),
        column(STATUS, "status", DataType::Text),
        column(CENTS, "cents", DataType::BigInt),
    ];
    Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: Some(AT) })
}

/// The table, as one that merges rows.
fn merging() -> Arc<TableSchema> {
    let mut schema = schema().as_ref().clone();
    schema.columns[2].nullable = true;
    schema.columns[3].merge = Merge::Increment;
    Arc::new(schema)
}

fn batch(ids: &[i64], at: i64) -> RecordBatch {
    const STATUSES: [&str; 4] = ["placed", "accepted", "delivered", "cancelled"];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values((0..ids.len() as i64).map(|row| at + row)).with_timezone(UTC),
        ),
        Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| STATUSES[*id as usize % 4]))),
        Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| id % 9000))),
    ];
    RecordBatch::try_new(schema().arrow(), columns).unwrap()
}

struct Bench<'a> {
    dir: &'a Path,
    writer: PartitionWriter,
    schema: Arc<TableSchema>,
    /// Whether rows bring all columns.
    whole: bool,
    offset: u64,
    sealing: Duration,
}

impl Bench<'_> {
    fn append(&mut self, ids: &[i64]) {
        let (from, to) = (self.offset, self.offset + ids.len() as u64);
        let offsets: Vec<u64> = (from..to).collect();
        let progress = [OffsetRange { stream: STREAM, from, to }];
        let mut rows = batch(ids, from as i64);
        if !self.whole {
            let mut columns = rows.columns().to_vec();
            columns[2] = new_null_array(columns[2].data_type(), ids.len());
            rows = RecordBatch::try_new(self.schema.arrow(), columns).unwrap();
        }
        self.writer.append_from(&rows, || Provenance::of(STREAM, &offsets), &progress).unwrap();
        self.offset = to;
        if self.writer.consuming().rows() >= SEGMENT_ROWS {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let start = Instant::now();
        if let Some(ended) = self.writer.rotate(Arc::clone(&self.schema)) {
            let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
            let file = seal(&ended, self.dir, &format!("s{}", ended.id()), &context).unwrap();
            let expected = Expected { id: ended.id(), bytes: file.bytes, checksum: file.checksum };
            self.writer.replace(open(&file.path, &expected).unwrap(), None).unwrap();
        }
        self.sealing += start.elapsed();
    }
}

fn say(what: &str, rows: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    println!("{what:<28} {:>12.0} rows/s   ({seconds:.2} s for {rows} rows)", rows as f64 / seconds);
}

fn spec(merges: bool) -> KeySpec {
    KeySpec {
        columns: vec![ID],
        version: Some(AT),
        delete: None,
        keep: Keep::Last,
        keeps_losers: true,
        late: None,
        ages: None,
        merges,
    }
}

/// Rows of keys, one by one.
fn look_up(table: &Table, keys: usize) {
    let (schema, mut random, count) = (table.schema(), Random::new(2), 1_000_000.min(keys));
    let start = Instant::now();
    for _ in 0..count {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![random.below(keys) as i64]));
        assert!(matches!(table.look_up(&schema, &[key], &[0, 1]).unwrap(), Found::Row(_)));
    }
    say("look-ups of two columns", count, start.elapsed());
}

fn main() {
    let keys: usize = env::var("KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(2_000_000);
    let spec = spec(false);
    let dir = tempfile::tempdir().unwrap();
    let table = Table::with_key(TableId(1), schema(), 1, Some(spec.clone()));
    let writer = PartitionWriter::open(Arc::clone(&table.partitions()[0]), schema(), SegmentId(1), &[], &[]).unwrap();
    let mut bench =
        Bench { dir: dir.path(), writer, schema: schema(), whole: true, offset: 0, sealing: Duration::ZERO };
    let start = Instant::now();
    for from in (0..keys).step_by(BATCH) {
        let ids: Vec<i64> = (from..keys.min(from + BATCH)).map(|id| id as i64).collect();
        bench.append(&ids);
    }
    say("load, without sealing", keys, start.elapsed() - bench.sealing);
    let mut random = Random::new(1);
    let mut update = |bench: &mut Bench<'_>, rows: usize| {
        for _ in (0..rows).step_by(BATCH) {
            let ids: Vec<i64> = (0..BATCH).map(|_| random.below(keys) as i64).collect();
            bench.append(&ids);
        }
    };
    bench.seal();
    restart(&table, &spec, dir.path(), "start, loaded only", false);
    update(&mut bench, keys / 20);
    bench.seal();
    let with_key = ask(&table);
    bench.sealing = Duration::ZERO;
    let start = Instant::now();
    update(&mut bench, keys);
    say("update, without sealing", keys, start.elapsed() - bench.sealing);
    bench.seal();
    let PartitionKeys { keys: count, bytes, .. } = bench.writer.keys();
    println!("{:<28} {:>12.1} bytes/key", "key map", bytes as f64 / count as f64);

    look_up(&table, keys);

    merge(&dir.path().join("merging"), keys);

    let rebuilt = restart(&table, &spec, dir.path(), "start", false);
    let file = KeyMapFile { directory: dir.path(), table: TableId(1) };
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    let written = file.write(&schema(), |work| {
        let held = Instant::now();
        work(&mut bench.writer);
        longest = longest.max(held.elapsed());
        true
    });
    say("write key map", written.unwrap().unwrap().keys as usize, start.elapsed());
    println!("{:<28} {longest:>12.1?} at a time, at most", "rows wait for it");
    let restored = restart(&table, &spec, dir.path(), "start from file", true);
    let bytes = std::fs::metadata(dir.path().join(KEY_MAP_FILE)).unwrap().len();
    println!("{:<28} {:>12.1} bytes/key", "file", bytes as f64 / count as f64);
    assert_eq!((rebuilt.keys().keys, restored.keys().keys), (count, count));

    let plain = Table::new(TableId(2), schema(), 1);
    let writer = PartitionWriter::new(Arc::clone(&plain.partitions()[0]), schema(), SegmentId(1));
    let plain_dir = dir.path().join("plain");
    let mut bench =
        Bench { dir: &plain_dir, writer, schema: schema(), whole: true, offset: 0, sealing: Duration::ZERO };
    std::fs::create_dir(bench.dir).unwrap();
    for from in (0..keys).step_by(BATCH) {
        let ids: Vec<i64> = (from..keys.min(from + BATCH)).map(|id| id as i64).collect();
        bench.append(&ids);
    }
    bench.seal();
    let without = ask(&plain);
    let ratio = with_key.as_secs_f64() / without.as_secs_f64();
    println!("{:<28} {:>12.2} × without a key ({with_key:.1?}, {without:.1?}), 5 % stale", "count and sum", ratio);
}

fn merge(dir: &Path, keys: usize) {
    std::fs::create_dir(dir).unwrap();
    let spec = spec(true);
    let table = Table::with_key(TableId(3), merging(), 1, Some(spec));
    let writer = PartitionWriter::open(Arc::clone(&table.partitions()[0]), merging(), SegmentId(1), &[], &[]).unwrap();
    let mut bench = Bench { dir, writer, schema: merging(), whole: true, offset: 0, sealing: Duration::ZERO };
    for from in (0..keys).step_by(BATCH) {
        let ids: Vec<i64> = (from..keys.min(from + BATCH)).map(|id| id as i64).collect();
        bench.append(&ids);
    }
    bench.whole = false;
    let mut random = Random::new(2);
    for (what, among) in [("merge, without sealing", keys), ("merge, hot", 1000)] {
        bench.seal();
        bench.sealing = Duration::ZERO;
        let start = Instant::now();
        for _ in (0..keys).step_by(BATCH) {
            let ids: Vec<i64> = (0..BATCH).map(|_| random.below(among) as i64).collect();
            bench.append(&ids);
        }
        say(what, keys, start.elapsed() - bench.sealing);
    }
}

/// The partition opened once more.
fn restart(table: &Table, spec: &KeySpec, dir: &Path, what: &str, from_file: bool) -> PartitionWriter {
    let again = Table::with_key(TableId(1), schema(), 1, Some(spec.clone()));
    let partition = &again.partitions()[0];
    let view = table.partitions()[0].view();
    let committed = view.segments().filter(|segment| segment.as_committed().is_some());
    let rows: usize = committed
        .map(|segment| {
            partition.put(Arc::clone(segment));
            segment.rows() as usize
        })
        .sum();
    let file = from_file.then_some(KeyMapFile { directory: dir, table: TableId(1) });
    let (partition, next, start) = (Arc::clone(partition), SegmentId(1 << 20), Instant::now());
    let (writer, used) = PartitionWriter::open_with(partition, schema(), next, &[], &[], &[], file).unwrap();
    let took = start.elapsed();
    assert_eq!(matches!(used, KeyMapUse::Taken(_)), from_file);
    say(what, if from_file { writer.keys().keys as usize } else { rows }, took);
    writer
}

/// The median of some runs, one lane.
fn ask(table: &Table) -> Duration {
    let request = Arc::new(AggregateRequest {
        schema: schema(),
        keys: Vec::new(),
        aggregates: vec![
            Aggregate { function: Function::Rows, filter: None },
            Aggregate { function: Function::Sum(CENTS), filter: None },
        ],
        computed: Vec::new(),
        predicate: None,
        indexes: Default::default(),
        results: None,
        star_tree: false,
    });
    let mut runs: Vec<Duration> = (0..9)
        .map(|_| {
            let start = Instant::now();
            let plan = table.snapshot().plan(&tidemill_storage::scan::ScanRequest {
                schema: schema(),
                projection: vec![CENTS],
                predicate: None,
                limit: None,
                batch_rows: 8192,
                hints: Default::default(),
            });
            for unit in &plan.units {
                let mut groups = unit.aggregate(&request, &Arc::new(ScanMetrics::default())).unwrap();
                while groups.step().unwrap() {}
            }
            start.elapsed()
        })
        .collect();
    runs.sort();
    runs[runs.len() / 2]
}
