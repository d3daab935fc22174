//! The machine against the definition of its windows: any batches, any streams, any order within the watermark's allowance, restored from any picture.

mod dedup;
mod joins;
mod look_ups;
mod nested;
mod ranks;
mod rig;
mod sessions;
pub(super) mod spilling;
mod state;
mod stateful;
mod transforms;
mod unnest;
mod updating;
mod versions;
mod window_tables;

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, Int64Array, TimestampMicrosecondArray},
    datatypes::{DataType as ArrowType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType},
};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;

use self::spilling::MemoryStore;
use super::*;
use crate::pipeline::plan::{PlanSource, PlanTable, windows::Window};

const SOURCE: SourceId = SourceId(7);
const SECOND: i64 = 1_000_000;
/// `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'`
const DELAY_S: i64 = 5;

/// key, value, second
type Row = (i64, Option<i64>, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", ArrowType::Int64, true),
        Field::new("v", ArrowType::Int64, true),
        Field::new("ts", ArrowType::Timestamp(TimeUnit::Microsecond, None), true),
    ]))
}

fn call(window: Window) -> (&'static str, String) {
    let seconds = |us: i64| format!("INTERVAL '{} seconds'", us / SECOND);
    match window {
        Window::Tumble { size } => ("tumble", seconds(size)),
        Window::Hop { slide, size } => ("hop", format!("{}, {}", seconds(slide), seconds(size))),
        Window::Cumulate { step, size } => ("cumulate", format!("{}, {}", seconds(step), seconds(size))),
        Window::Session { gap } => ("session", seconds(gap)),
    }
}

struct Bench {
    plan: Arc<Plan>,
    sources: Arc<[MachineSource]>,
    settings: Settings,
}

impl Bench {
    fn new(window: Window) -> Self {
        Self::with(window, Late::default())
    }

    fn with(window: Window, late: Late) -> Self {
        let rules = SessionContext::new().state();
        let (name, lengths) = call(window);
        let source = PlanSource { name: "s".into(), schema: schema(), time_column: Some("ts".into()) };
        let text = format!(
            "SELECT k, {name}_start(ts, {lengths}), {name}_end(ts, {lengths}), count(*), sum(v), count(DISTINCT v % 3), count(*) FILTER (WHERE v > 5)
             FROM s WHERE k >= 0 GROUP BY k, {name}(ts, {lengths})"
        );
        let plan = Plan::compile(&rules, &[source], &text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let watermark = Watermark::compile(&rules, &schema(), "ts - INTERVAL '5 seconds'").unwrap();
        let sources = vec![MachineSource { id: SOURCE, watermark: Some(Arc::new(watermark)) }];
        let settings = Settings { jump_max_us: i64::MAX, late, store: Arc::new(MemoryStore::default()), lanes: 1 };
        Self { plan: Arc::new(plan), sources: sources.into(), settings }
    }

    fn machine(&self, streams: u32) -> Machine {
        let mut machine =
            Machine::new(Arc::clone(&self.plan), Arc::clone(&self.sources), Arc::new([]), self.settings.clone())
                .unwrap();
        for partition in 0..streams {
            let stream = StreamId { source: SOURCE, partition };
            machine.apply(&Arrival::Begin { stream, offset: 0 }).unwrap();
            machine.apply(&Arrival::Flow { stream, flow: Flow::Behind }).unwrap();
        }
        machine.apply(&Arrival::Known { source: SOURCE }).unwrap();
        machine
    }

    /// The machine as a crash would leave it: out of a file.
    fn restored(&self, machine: &mut Machine) -> Machine {
        let directory = tempfile::tempdir().unwrap();
        let file = state_file::write(directory.path(), "s", &machine.picture().unwrap()).unwrap();
        self.restored_from(state_file::read(directory.path(), &file).unwrap())
    }

    fn restored_from(&self, picture: Picture) -> Machine {
        Machine::restore(
            Arc::clone(&self.plan),
            Arc::clone(&self.sources),
            Arc::new([]),
            self.settings.clone(),
            picture.progress,
            picture.parts.into_iter().map(Ok),
        )
        .unwrap()
    }
}

fn batch(partition: u32, from: u64, rows: &[Row]) -> Arrival {
    let keys: Int64Array = rows.iter().map(|row| row.0).collect::<Vec<_>>().into();
    let values: Int64Array = rows.iter().map(|row| row.1).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.2 * SECOND).collect::<Vec<_>>().into();
    let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(keys), Arc::new(values), Arc::new(times)];
    let to = from + rows.len() as u64;
    let batch = SourceBatch {
        stream: StreamId { source: SOURCE, partition },
        rows: RecordBatch::try_new(schema(), columns).unwrap(),
        row_offsets: (from..to).collect(),
        from,
        to,
        newest_timestamp_ms: -1,
        rejects: Vec::new(),
        origin: None,
    };
    Arrival::Rows { source: 0, batch: Box::new(batch), landmark: None }
}

/// (key, start, end) → rows, sum, distinct, more than five
type Answer = BTreeMap<(i64, i64, i64), (i64, Option<i64>, i64, i64)>;

/// Each window comes once.
fn read(outcome: &Outcome, into: &mut Answer) {
    each(outcome, &mut |key, value| assert_eq!(into.insert(key, value), None, "a window was given twice: {key:?}"));
}

/// What comes last counts, as in an upsert table.
fn read_last(outcome: &Outcome, into: &mut Answer) {
    each(outcome, &mut |key, value| _ = into.insert(key, value));
}

type Value = (i64, Option<i64>, i64, i64);

fn each(outcome: &Outcome, take: &mut dyn FnMut((i64, i64, i64), Value)) {
    for rows in &outcome.rows {
        let number = |column: usize, row: usize| {
            let array = rows.column(column).as_primitive::<Int64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let time =
            |column: usize, row: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>().value(row);
        for row in 0..rows.num_rows() {
            let key = (number(0, row).unwrap(), time(1, row) / SECOND, time(2, row) / SECOND);
            let value = (number(3, row).unwrap(), number(4, row), number(5, row).unwrap(), number(6, row).unwrap());
            take(key, value);
        }
    }
}

/// What SQL says of the same rows as a table.
fn expected(window: Window, rows: &[Row]) -> Answer {
    let mut groups: BTreeMap<(i64, i64, i64), Vec<Option<i64>>> = BTreeMap::new();
    for (key, value, second) in rows.iter().filter(|row| row.0 >= 0) {
        for span in window.spans(second * SECOND) {
            groups.entry((*key, span.start / SECOND, span.end / SECOND)).or_default().push(*value);
        }
    }
    groups.into_iter().map(|(key, values)| (key, answer(values))).collect()
}

fn answer(values: Vec<Option<i64>>) -> (i64, Option<i64>, i64, i64) {
    let some: Vec<i64> = values.iter().flatten().copied().collect();
    let mut distinct: Vec<i64> = some.iter().map(|value| value % 3).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let sum = (!some.is_empty()).then(|| some.iter().sum());
    (values.len() as i64, sum, distinct.len() as i64, some.iter().filter(|value| **value > 5).count() as i64)
}

fn windows() -> impl Strategy<Value = Window> {
    let seconds = |n: i64| n * SECOND;
    prop_oneof![
        (1i64..20).prop_map(move |size| Window::Tumble { size: seconds(size) }),
        (1i64..8, 0i64..15)
            .prop_map(move |(slide, more)| Window::Hop { slide: seconds(slide), size: seconds(slide + more) }),
        (1i64..5, 1i64..5)
            .prop_map(move |(step, steps)| Window::Cumulate { step: seconds(step), size: seconds(step * steps) }),
    ]
}

fn rows(disorder: i64) -> impl Strategy<Value = Vec<Row>> {
    let row = (-1i64..4, prop::option::weighted(0.9, 0i64..10), 0..=disorder, prop::bool::weighted(0.05));
    prop::collection::vec(row, 1..120).prop_map(|rows| {
        let mut now = 100;
        rows.into_iter()
            .map(|(key, value, behind, jumps)| {
                now += if jumps { 30 } else { key.max(0) };
                (key, value, now - behind)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Within the allowance nothing is late, and the answer is that of the table.
    #[test]
    fn windows_are_what_sql_says_of_the_rows(
        window in windows(),
        rows in rows(DELAY_S),
        streams in 1u32..4,
        cuts in prop::collection::vec((0usize..12, any::<bool>(), any::<u32>()), 1..60),
    ) {
        let bench = Bench::new(window);
        let mut machine = bench.machine(streams);
        let mut queues: Vec<Vec<Row>> = vec![Vec::new(); streams as usize];
        for (at, row) in rows.iter().enumerate() {
            queues[(at * 7 + row.0.unsigned_abs() as usize) % streams as usize].push(*row);
        }
        // What ends all windows; its own is never given.
        queues.iter_mut().for_each(|queue| queue.extend([(0, None, 100_000), (0, None, 100_000)]));
        let mut offsets = vec![0usize; streams as usize];
        let mut found = Answer::new();
        let mut cut = cuts.iter().cycle();
        while (0..queues.len()).any(|at| offsets[at] < queues[at].len()) {
            let (count, crashes, which) = *cut.next().unwrap();
            // Whoever has something left, from a place that changes.
            let open: Vec<usize> = (0..queues.len()).filter(|at| offsets[*at] < queues[*at].len()).collect();
            let at = open[which as usize % open.len()];
            let end = (offsets[at] + count.max(1)).min(queues[at].len());
            let outcome = machine.apply(&batch(at as u32, offsets[at] as u64, &queues[at][offsets[at]..end])).unwrap();
            prop_assert!(outcome.rejects.is_empty());
            read(&outcome, &mut found);
            offsets[at] = end;
            if crashes {
                machine = bench.restored(&mut machine);
            }
        }
        prop_assert_eq!(machine.counts().late_rows, 0);
        prop_assert_eq!(found, expected(window, &rows));
    }

    /// Beyond the allowance rows are late; which ones does not depend on how they come in batches, nor on crashes.
    #[test]
    fn batches_make_no_difference(
        window in windows(),
        rows in rows(40),
        cuts in prop::collection::vec((1usize..30, any::<bool>()), 1..40),
    ) {
        let bench = Bench::new(window);
        let mut one_by_one = bench.machine(1);
        let mut expected = Answer::new();
        for (at, row) in rows.iter().enumerate() {
            read(&one_by_one.apply(&batch(0, at as u64, &[*row])).unwrap(), &mut expected);
        }
        let mut machine = bench.machine(1);
        let mut found = Answer::new();
        let (mut at, mut cut) = (0, cuts.iter().cycle());
        while at < rows.len() {
            let (count, crashes) = *cut.next().unwrap();
            let end = (at + count).min(rows.len());
            read(&machine.apply(&batch(0, at as u64, &rows[at..end])).unwrap(), &mut found);
            at = end;
            if crashes {
                machine = bench.restored(&mut machine);
            }
        }
        prop_assert_eq!(machine.counts(), one_by_one.counts());
        prop_assert_eq!(found, expected);
    }
}

/// What late = 'update' says, row by row: a window takes rows until the watermark is past its end and what is allowed. The answer, rows that no window took, and
/// those that changed one that had ended.
fn expected_with_updates(window: Window, rows: &[Row], allowed_s: i64) -> (Answer, u64, u64) {
    let mut taken: BTreeMap<(i64, i64, i64), Vec<Option<i64>>> = BTreeMap::new();
    let (mut late, mut updates) = (0, 0);
    let mut watermark = NEVER;
    for (at, (key, value, second)) in rows.iter().enumerate() {
        if *key >= 0 {
            let spans = window.spans(second * SECOND);
            let open: Vec<_> = spans.iter().filter(|span| span.end + allowed_s * SECOND > watermark).collect();
            late += u64::from(open.is_empty());
            updates += u64::from(open.iter().any(|span| span.end <= watermark));
            for span in open {
                taken.entry((*key, span.start / SECOND, span.end / SECOND)).or_default().push(*value);
            }
        }
        // The first row waits for the second one.
        let first = if at == 1 { rows[0].2 } else { *second };
        if at > 0 {
            watermark = watermark.max((first.max(*second) - DELAY_S) * SECOND);
        }
    }
    taken.retain(|(_, _, end), _| end * SECOND <= watermark);
    let answers = taken.into_iter().map(|(key, values)| (key, answer(values)));
    (answers.collect(), late, updates)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Windows are given again as the definition says, however rows come in batches and whatever is restored between them.
    #[test]
    fn late_rows_update_windows(
        window in windows(),
        rows in rows(40),
        allowed_s in 1i64..40,
        cuts in prop::collection::vec((1usize..30, any::<bool>()), 1..40),
    ) {
        let late = Late { policy: LatePolicy::Update, allowed_us: allowed_s * SECOND };
        let bench = Bench::with(window, late);
        let mut machine = bench.machine(1);
        let mut found = Answer::new();
        let (mut at, mut cut) = (0, cuts.iter().cycle());
        while at < rows.len() {
            let (count, crashes) = *cut.next().unwrap();
            let end = (at + count).min(rows.len());
            read_last(&machine.apply(&batch(0, at as u64, &rows[at..end])).unwrap(), &mut found);
            at = end;
            if crashes {
                machine = bench.restored(&mut machine);
            }
        }
        let (expected, late, updates) = expected_with_updates(window, &rows, allowed_s);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(machine.counts().late_rows, late);
        prop_assert_eq!(machine.counts().late_updates, updates);
    }
}

/// Only groups that changed are given again, once for all rows that came together.
#[test]
fn a_correction_gives_its_group_alone() {
    let late = Late { policy: LatePolicy::Update, allowed_us: 60 * SECOND };
    let bench = Bench::with(Window::Tumble { size: 10 * SECOND }, late);
    let mut machine = bench.machine(1);
    let given = |outcome: Outcome| outcome.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    let rows = [(1, Some(1), 100), (2, Some(1), 101), (3, Some(1), 102), (1, None, 115), (1, None, 115)];
    assert_eq!(given(machine.apply(&batch(0, 0, &rows)).unwrap()), 3);
    assert_eq!(given(machine.apply(&batch(0, 5, &[(2, Some(5), 103), (2, Some(6), 104)])).unwrap()), 1);
    assert_eq!(given(machine.apply(&batch(0, 7, &[(9, Some(5), 105)])).unwrap()), 1);
    // 170 is past the end at 110 and a minute.
    assert_eq!(given(machine.apply(&batch(0, 8, &[(1, None, 175)])).unwrap()), 1);
    assert_eq!(machine.size().1, 2, "of 110 and 170; that of 100 is gone");
    assert_eq!(given(machine.apply(&batch(0, 9, &[(2, Some(5), 103)])).unwrap()), 0);
    let counts = machine.counts();
    assert_eq!((counts.late_rows, counts.late_updates, counts.rows_out), (1, 3, 6));
}

/// Late rows are dead letters, with their offsets and what they were.
#[test]
fn late_rows_are_dead_letters() {
    let late = Late { policy: LatePolicy::Dlq, allowed_us: 0 };
    let bench = Bench::with(Window::Tumble { size: 10 * SECOND }, late);
    let mut machine = bench.machine(1);
    let rows = [(1, Some(1), 100), (1, Some(1), 130), (-1, Some(3), 101), (7, Some(3), 102), (1, Some(1), 126)];
    let outcome = machine.apply(&batch(0, 40, &rows)).unwrap();
    assert!(outcome.rejects.is_empty());
    let [(stream, letter)] = outcome.late.as_slice() else { panic!("{:?}", outcome.late) };
    assert_eq!((stream.source, letter.offset), (SOURCE, 43));
    assert!(letter.reason.contains("late"), "{}", letter.reason);
    assert!(String::from_utf8_lossy(&letter.raw).contains("\"k\": 7"), "{:?}", letter.raw);
    assert_eq!(machine.counts().late_rows, 1);
}
