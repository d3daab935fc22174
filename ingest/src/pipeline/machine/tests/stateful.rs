//! Transforms that keep a state of each key, against the same by hand: rows in the order of time, silence that wakes.

use arrow::array::{ArrayRef, StringArray};
use proptest::prelude::*;

use super::{
    rig::*,
    transforms::{copies, with_transforms},
    *,
};
use crate::pipeline::plugin::{Bound, State, Stateful, Transform};

/// `visits(TABLE source PARTITION BY id, gap)`: how many rows of a key came before it was silent for `gap` seconds, and the sum of `v`; also where that passes a ten.
struct Visits;

struct OfKey {
    gap_us: i64,
}

impl Transform for Visits {
    fn name(&self) -> &str {
        "visits"
    }

    fn bind(&self, _: &Schema, _: &[String]) -> Result<Arc<dyn Bound>, String> {
        Err("it needs PARTITION BY".into())
    }

    fn bind_keyed(&self, _: &Schema, _: &[String], arguments: &[String]) -> Result<Arc<dyn Stateful>, String> {
        let gap: Option<i64> = arguments.first().and_then(|gap| gap.parse().ok());
        Ok(Arc::new(OfKey { gap_us: gap.ok_or("it takes a gap in seconds")? * SECOND }))
    }
}

impl OfKey {
    fn made(&self, what: &str, id: ArrayRef, visits: i64, sum: i64) -> Result<Option<RecordBatch>, String> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![what])),
            id,
            Arc::new(Int64Array::from(vec![visits])),
            Arc::new(Int64Array::from(vec![sum])),
            // Is filled in.
            Arc::new(TimestampMicrosecondArray::from(vec![0])),
        ];
        RecordBatch::try_new(self.output(), columns).map(Some).map_err(|error| error.to_string())
    }
}

fn read(state: &State) -> (i64, i64) {
    let number =
        |at: usize| state.bytes.get(at..at + 8).map_or(0, |bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
    (number(0), number(8))
}

impl Stateful for OfKey {
    fn output(&self) -> SchemaRef {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let ts = event_schema().field(2).clone();
        let (what, id) = (field("what", ArrowType::Utf8), field("id", ArrowType::Utf8));
        Arc::new(Schema::new(vec![what, id, field("visits", ArrowType::Int64), field("sum", ArrowType::Int64), ts]))
    }

    fn row(&self, state: &mut State, rows: &RecordBatch, at: usize) -> Result<Option<RecordBatch>, String> {
        let (visits, sum) = read(state);
        let values: &Int64Array = rows.column(1).as_primitive();
        let time = rows.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(at);
        match values.is_valid(at).then(|| values.value(at)) {
            Some(13) => panic!("of a number that is not liked"),
            Some(14) => return Err("fourteen is too much".into()),
            Some(15) => state.wake_us = Some(time),
            Some(16) => state.bytes = vec![0; State::BYTES_MAX + 1],
            value => {
                let now = sum + value.unwrap_or(0);
                state.bytes = [visits + 1, now].iter().flat_map(|number| number.to_le_bytes()).collect();
                state.wake_us = Some(time + self.gap_us);
                if now / 10 > sum / 10 {
                    return self.made("ten", rows.column(0).slice(at, 1), visits + 1, now);
                }
            }
        }
        Ok(None)
    }

    fn wake(&self, state: &mut State, key: &RecordBatch, _: i64) -> Result<Option<RecordBatch>, String> {
        let (visits, sum) = read(state);
        *state = State::default();
        self.made("gone", Arc::clone(key.column(0)), visits, sum)
    }
}

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];
const GAP_S: i64 = 7;

fn rig() -> Rig {
    let text = format!(
        "SELECT what, id, visits, sum, extract(epoch FROM ts)::bigint FROM visits(TABLE s PARTITION BY id, {GAP_S})"
    );
    Rig::with_rules(&with_transforms(copies().with(Visits)), &SOURCE, &text)
}

fn expected(rows: &[Event]) -> Vec<String> {
    let mut by_key: BTreeMap<&Option<String>, Vec<(i64, Option<i64>)>> = BTreeMap::new();
    rows.iter().for_each(|(id, value, second)| by_key.entry(id).or_default().push((*second, *value)));
    let mut found = Vec::new();
    for (id, mut rows) in by_key {
        rows.sort();
        let id = id.as_deref().unwrap_or("null");
        let (mut visits, mut sum, mut last) = (0, 0, None);
        let gone = |visits: i64, sum: i64, last: i64| format!("gone | {id} | {visits} | {sum} | {}", last + GAP_S);
        for (second, value) in rows {
            if let Some(last) = last
                && second - last >= GAP_S
            {
                found.push(gone(visits, sum, last));
                (visits, sum) = (0, 0);
            }
            let before = sum;
            (visits, sum, last) = (visits + 1, sum + value.unwrap_or(0), Some(second));
            if sum / 10 > before / 10 {
                found.push(format!("ten | {id} | {visits} | {sum} | {second}"));
            }
        }
        found.extend(last.map(|last| gone(visits, sum, last)));
    }
    sorted(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// In any order within the watermark's allowance, from any streams, in any batches, spilled, and after any crashes.
    #[test]
    fn keys_are_gone_through_in_the_order_of_time(rows in events(4, 4, 5), streams in 1u32..4, cuts in cuts(), spills: bool) {
        let (found, counts) = rig().spilling_if(spills).run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(sorted(found), expected(&rows));
        prop_assert_eq!(counts.late_rows, 0);
    }

    /// Also of rows that are late, and to the order of what is given.
    #[test]
    fn batches_make_no_difference_to_states(rows in events(3, 4, 40), cuts in cuts(), spills: bool) {
        let one_by_one = rig().run(std::slice::from_ref(&rows), 1, &[(1, false, 1)]);
        prop_assert_eq!(rig().spilling_if(spills).run(std::slice::from_ref(&rows), 1, &cuts), one_by_one);
    }
}

/// What is given goes on as rows with an event time: no window loses one.
#[test]
fn what_states_give_is_on_time_for_windows() {
    let text = format!(
        "SELECT extract(epoch FROM TUMBLE_START(ts, INTERVAL '10 seconds'))::bigint, sum(visits) FROM visits(TABLE s PARTITION BY (id, v), {GAP_S}) WHERE what = 'gone'
         GROUP BY TUMBLE(ts, INTERVAL '10 seconds')"
    );
    let rig = Rig::with_rules(&with_transforms(copies().with(Visits)), &SOURCE, &text);
    let rows: Vec<Event> = (0..200).map(|row| (Some(format!("k{}", row % 5)), Some(row % 2), 1000 + row * 3)).collect();
    let (found, counts) = rig.run(std::slice::from_ref(&rows), 2, &[(7, true, 1), (3, false, 0)]);
    let visits: i64 = found.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!((visits, counts.late_rows), (200, 0), "{found:?}");
}

/// Keys that are gone are forgotten: their number does not say how much is kept.
#[test]
fn empty_states_take_no_room() {
    let rig = rig();
    let mut machine = rig.machine(1);
    for round in 0..40u64 {
        let rows: Vec<Event> =
            (0..500).map(|row| (Some(format!("k{round}-{row}")), Some(1), 1000 + round as i64 * 100)).collect();
        machine.apply(&rig.arrival(0, 0, round * 500, &rows)).unwrap();
    }
    let (_, entries) = machine.size();
    assert!(entries < 6_000, "{entries} of 20,000");
}

#[test]
fn what_a_transform_may_not_do_fails_the_pipeline_with_its_name() {
    for (value, words) in [
        (13, "visits(): it panicked"),
        (14, "visits(): fourteen is too much"),
        (15, "visits() asks to be woken at a time that is over"),
        (16, "visits() keeps 1048577 bytes of a key; 1048576 are the most"),
    ] {
        let rig = rig();
        let mut machine = rig.machine(1);
        let event = |v: i64, second| (Some("a".to_owned()), Some(v), second);
        machine.apply(&rig.arrival(0, 0, 0, &[event(1, 1000), event(value, 1001)])).unwrap();
        let failed = machine.apply(&rig.arrival(0, 0, 2, &[event(0, 2000)])).unwrap_err().to_string();
        assert!(failed.contains(words), "{failed}");
    }
}

#[test]
fn what_has_no_keys_or_no_time_is_refused() {
    let rules = with_transforms(copies().with(Visits));
    for (text, time, words) in [
        ("SELECT * FROM visits(TABLE s, 1)", true, "it needs PARTITION BY"),
        ("SELECT * FROM visits(TABLE s PARTITION BY id)", true, "it takes a gap in seconds"),
        (
            "SELECT * FROM visits(TABLE s PARTITION BY nobody, 1)",
            true,
            "column \"nobody\" does not exist in source \"s\"",
        ),
        ("SELECT * FROM visits(TABLE s PARTITION BY id, 1)", false, "goes by event time, and the source has none"),
        ("SELECT * FROM copies(TABLE s PARTITION BY (id, v), 'x')", true, "leave PARTITION BY away"),
        ("SELECT * FROM visits(TABLE s PARTITION BY (), 1)", true, ""),
    ] {
        let time_column = time.then(|| "ts".to_owned());
        let source = PlanSource { name: "s".into(), schema: event_schema(), time_column };
        let error = Plan::compile(&rules, std::slice::from_ref(&source), text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
