//! DISTINCT ON … WITHIN against its definition: of the rows of a key in the order of time each that is further than the time from the last one kept.

use super::{rig::*, *};

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];
const WITHIN_S: i64 = 9;

/// Without WITHIN a key is known for ever: of all its rows the earliest is given.
#[test]
fn keys_may_be_known_for_ever() {
    let rig =
        |spills| Rig::new(&SOURCE, "SELECT DISTINCT ON (id) id, v, ts FROM s", Late::default()).spilling_if(spills);
    let event = |v: i64, s: i64| (Some("a".to_owned()), Some(v), s);
    let rows = [event(2, 12), event(1, 10), event(3, 40), event(4, 90_000), event(5, 89_998)];
    for cut in 1..6 {
        let (found, counts) = rig(cut % 2 == 0).run(&[rows.to_vec()], 1, &[(cut, true, 1)]);
        assert_eq!(found, ["a | 1 | 1970-01-01T00:00:10"]);
        assert_eq!((counts.duplicates, counts.late_rows), (5, 0));
    }
}

fn rig() -> Rig {
    let text = format!(
        "SELECT DISTINCT ON (id) id, v, extract(epoch FROM ts)::bigint FROM s WHERE v IS DISTINCT FROM 2 WITHIN INTERVAL '{WITHIN_S} seconds'"
    );
    Rig::new(&SOURCE, &text, Late::default())
}

fn expected(rows: &[Event]) -> (Vec<String>, u64) {
    let mut rows: Vec<_> = rows.iter().filter(|row| row.1 != Some(2)).collect();
    rows.sort_by_key(|row| (row.2, &row.0, row.1));
    let mut kept: BTreeMap<&Option<String>, i64> = BTreeMap::new();
    let (mut lines, mut duplicates) = (Vec::new(), 0);
    for (id, value, second) in rows {
        if kept.get(id).is_some_and(|known| second - known <= WITHIN_S) {
            duplicates += 1;
            continue;
        }
        kept.insert(id, *second);
        let value = value.map_or_else(|| "null".to_owned(), |value| value.to_string());
        lines.push(format!("{} | {value} | {second}", id.as_deref().unwrap_or("null")));
    }
    (sorted(lines), duplicates)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_earliest_of_a_key_is_kept(rows in events(4, 3, 5), streams in 1u32..4, cuts in cuts(), spills: bool) {
        let (found, counts) = rig().spilling_if(spills).run(std::slice::from_ref(&rows), streams, &cuts);
        let (expected, duplicates) = expected(&rows);
        prop_assert_eq!(sorted(found), expected);
        // The two rows that end each stream are the same.
        prop_assert_eq!((counts.late_rows, counts.duplicates - u64::from(streams)), (0, duplicates));
    }

    #[test]
    fn batches_make_no_difference_to_what_is_kept(rows in events(3, 4, 40), cuts in cuts(), spills: bool) {
        let one_by_one = rig().run(std::slice::from_ref(&rows), 1, &[(1, false, 1)]);
        prop_assert_eq!(rig().spilling_if(spills).run(std::slice::from_ref(&rows), 1, &cuts), one_by_one);
    }
}

/// With late = 'update' a row that is late for its window goes through, once, and changes it.
#[test]
fn late_rows_go_through_to_their_windows() {
    let text = "SELECT id, TUMBLE_START(ts, INTERVAL '10 seconds'), sum(v) FROM (SELECT DISTINCT ON (v) id, v, ts FROM s WITHIN INTERVAL '1 hour') d
                GROUP BY id, TUMBLE(ts, INTERVAL '10 seconds')";
    let late = Late { policy: LatePolicy::Update, allowed_us: 3_600 * SECOND };
    let rig = Rig::new(&SOURCE, text, late);
    let mut machine = rig.machine(1);
    let event = |v: i64, s: i64| (Some("a".to_owned()), Some(v), s);
    let mut apply = |from, events: &[Event]| -> Vec<String> {
        let outcome = machine.apply(&rig.arrival(0, 0, from, events)).unwrap();
        outcome.rows.iter().flat_map(lines).map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(apply(0, &[event(1, 3601), event(2, 3602), event(1, 3603), event(3, 3700)]), ["3"]);
    assert_eq!(apply(4, &[event(2, 3604), event(4, 3605), event(4, 3606)]), ["7"]);
    assert!(apply(7, &[event(1, 3699)]).is_empty());
    assert_eq!((machine.counts().duplicates, machine.counts().late_updates, machine.counts().late_rows), (3, 1, 0));
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let rules = SessionContext::new().state();
    let source = |time: Option<&str>| {
        vec![PlanSource { name: "s".into(), schema: event_schema(), time_column: time.map(str::to_owned) }]
    };
    for (text, time, words) in [
        ("SELECT DISTINCT ON (id) id, ts FROM s WITHIN INTERVAL '1 month'", Some("ts"), "WITHIN takes"),
        ("SELECT DISTINCT ON (id) id, ts FROM s WITHIN INTERVAL '1 hour'", None, "event time"),
        ("SELECT DISTINCT id FROM s", Some("ts"), "DISTINCT"),
        ("SELECT id FROM s WITHIN INTERVAL '1 hour'", Some("ts"), "nothing is told apart"),
    ] {
        let error = Plan::compile(&rules, &source(time), text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
