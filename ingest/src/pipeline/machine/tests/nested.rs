//! Aggregates and joins of aggregates against the same SQL over tables.

use super::{rig::*, *};

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];

/// Windows of ten seconds: where they begin and end, rows and their sum; of streams, and of tables.
pub(super) fn inner(is_hop: bool) -> [String; 2] {
    let ten = "INTERVAL '10 seconds'";
    let group = if is_hop { format!("HOP(ts, INTERVAL '5 seconds', {ten})") } else { format!("TUMBLE(ts, {ten})") };
    let [start, end] = ["_START", "_END"].map(|end| group.replacen('(', &format!("{end}("), 1));
    let stream = format!("SELECT id, {start} AS b, {end} AS e, count(*) AS c, sum(v) AS t FROM s GROUP BY id, {group}");
    let rows = match is_hop {
        // Each row is in two windows.
        true => {
            "(SELECT id, v, date_bin(INTERVAL '5 seconds', ts) AS b FROM s UNION ALL SELECT id, v, date_bin(INTERVAL '5 seconds', ts) - INTERVAL '5 seconds' FROM s)"
        }
        false => "(SELECT id, v, date_bin(INTERVAL '10 seconds', ts) AS b FROM s)",
    };
    let table = format!("SELECT id, b, b + {ten} AS e, count(*) AS c, sum(v) AS t FROM {rows} w GROUP BY id, b");
    [stream, table]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn aggregates_of_aggregates_are_those_of_tables(
        rows in events(5, 4, 5),
        is_hop: bool,
        by_start: bool,
        shape in 0usize..4,
        streams in 1u32..4,
        cuts in cuts(),
    ) {
        let time = if by_start { "b" } else { "e" };
        let [stream, table] = inner(is_hop);
        let thirty = "INTERVAL '30 seconds'";
        let selected = "max(c), sum(t), count(DISTINCT id), count(*)";
        let (text, batch) = match shape {
            0 => (
                format!("SELECT TUMBLE_END({time}, {thirty}), {selected} FROM ({stream}) q GROUP BY TUMBLE({time}, {thirty})"),
                format!("SELECT date_bin({thirty}, {time}) + {thirty}, {selected} FROM ({table}) q GROUP BY 1"),
            ),
            1 => {
                let text = |of: &str| format!("SELECT {time}, {selected} FROM ({of}) q WHERE c > 1 GROUP BY {time}");
                (text(&stream), text(&table))
            }
            2 => {
                let text = |of: &str| format!("SELECT b, e, {selected} FROM ({of}) q GROUP BY b, e HAVING max(c) > 1");
                (text(&stream), text(&table))
            }
            // Three deep, in words of WITH.
            _ => (
                format!("WITH q AS ({stream}), r AS (SELECT id, {time} AS at, sum(c) AS c FROM q GROUP BY id, {time})
                         SELECT TUMBLE_START(at, {thirty}), max(c) FROM r GROUP BY TUMBLE(at, {thirty})"),
                format!("WITH q AS ({table}), r AS (SELECT id, {time} AS at, sum(c) AS c FROM q GROUP BY id, {time})
                         SELECT date_bin({thirty}, at), max(c) FROM r GROUP BY 1"),
            ),
        };
        let rig = Rig::new(&SOURCE, &text, Late::default());
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        prop_assert_eq!(sorted(found), batch_answer(&SOURCE, std::slice::from_ref(&rows), &batch));
    }

    /// Also of rows that come late it makes no difference how they come in batches.
    #[test]
    fn batches_make_no_difference_to_aggregates_of_aggregates(rows in events(4, 4, 30), is_hop: bool, by_start: bool, cuts in cuts()) {
        let time = if by_start { "b" } else { "e" };
        let text = format!(
            "SELECT TUMBLE_END({time}, INTERVAL '30 seconds'), max(c), sum(t) FROM ({}) q GROUP BY TUMBLE({time}, INTERVAL '30 seconds')",
            inner(is_hop)[0]
        );
        let rig = Rig::new(&SOURCE, &text, Late::default());
        let [(found, counts), (singly, of_single)] = rig.run_twice(std::slice::from_ref(&rows), 2, &cuts);
        prop_assert_eq!(sorted(found), sorted(singly));
        prop_assert_eq!(counts, of_single);
    }

    /// Two keys and more are kept in another way than one: a checkpoint in the middle of a window made them panic.
    #[test]
    fn groups_of_several_keys_are_those_of_tables(rows in events(4, 3, 5), streams in 1u32..4, cuts in cuts()) {
        let text = |window: &str| format!("SELECT id, v % 2, v > 1, count(*), sum(v), count(DISTINCT v) FROM s GROUP BY id, v % 2, v > 1, {window}");
        let rig = Rig::new(&SOURCE, &text("HOP(ts, INTERVAL '10 seconds', INTERVAL '10 seconds')"), Late::default());
        let (found, _) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        let batch = text("date_bin(INTERVAL '10 seconds', ts)");
        prop_assert_eq!(sorted(found), batch_answer(&SOURCE, std::slice::from_ref(&rows), &batch));
    }

    #[test]
    fn grouping_sets_are_those_of_tables(
        rows in events(4, 4, 5),
        shape in 0usize..4,
        streams in 1u32..4,
        cuts in cuts(),
    ) {
        let text = |window: &str, shown: &str| {
            let by = match shape {
                0 => format!("GROUPING SETS (({window}, id, v % 2), ({window}, id), ({window}))"),
                1 => format!("{window}, ROLLUP (id, v % 2)"),
                2 => format!("{window}, CUBE (id, v % 2)"),
                _ => format!("GROUPING SETS ((v % 2, id, {window}), ({window}), ({window}))"),
            };
            format!("SELECT {shown}, id, v % 2, grouping(id), count(*), sum(v), count(DISTINCT v) FROM s GROUP BY {by}")
        };
        let tumble = "INTERVAL '10 seconds')";
        let rig = Rig::new(&SOURCE, &text(&format!("TUMBLE(ts, {tumble}"), &format!("TUMBLE_START(ts, {tumble}")), Late::default());
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let table = "date_bin(INTERVAL '10 seconds', ts)";
        prop_assert_eq!(sorted(found), batch_answer(&SOURCE, std::slice::from_ref(&rows), &text(table, table)));
    }

    /// A late row is one, however many sets it would be in.
    #[test]
    fn batches_make_no_difference_to_grouping_sets(rows in events(3, 4, 30), cuts in cuts()) {
        let text = "SELECT TUMBLE_START(ts, INTERVAL '10 seconds'), id, count(*) FROM s GROUP BY TUMBLE(ts, INTERVAL '10 seconds'), ROLLUP (id)";
        let [(found, counts), (singly, of_single)] = Rig::new(&SOURCE, text, Late::default()).run_twice(std::slice::from_ref(&rows), 2, &cuts);
        prop_assert_eq!(sorted(found), sorted(singly));
        prop_assert_eq!(counts, of_single);
        let plain = "SELECT id, count(*) FROM s GROUP BY TUMBLE(ts, INTERVAL '10 seconds'), id";
        let [(_, plain), _] = Rig::new(&SOURCE, plain, Late::default()).run_twice(&[rows], 2, &cuts);
        prop_assert_eq!(counts.late_rows, plain.late_rows);
    }

    /// Groups of windows as a side of a join.
    #[test]
    fn joins_of_aggregates_are_those_of_tables(
        rows in events(4, 4, 5),
        others in events(4, 4, 3),
        is_outer: bool,
        streams in 1u32..3,
        cuts in cuts(),
    ) {
        let sources = [RigSource { name: "s", delay_s: 5 }, RigSource { name: "o", delay_s: 3 }];
        let text = |of: &str| format!(
            "SELECT q.id, q.e, q.c, o.v, o.ts FROM ({of}) q {} JOIN o ON o.id = q.id AND o.ts BETWEEN q.e - INTERVAL '10 seconds' AND q.e",
            if is_outer { "LEFT" } else { "" }
        );
        let [stream, table] = inner(false);
        let rig = Rig::new(&sources, &text(&stream), Late::default());
        let all = [rows, others];
        let (found, counts) = rig.run(&all, streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        prop_assert_eq!(sorted(found), batch_answer(&sources, &all, &text(&table)));
    }
}

/// What is given once is given when the window below is over, and not later.
#[test]
fn an_outer_window_is_given_with_its_last_inner_one() {
    let text = format!("SELECT e, count(*) FROM ({}) q GROUP BY e", inner(false)[0]);
    let rig = Rig::new(&SOURCE, &text, Late::default());
    let event = |id: &str, s: i64| (Some(id.to_owned()), Some(1), s);
    let mut machine = rig.machine(1);
    let mut apply = |from, event: Event| -> Vec<String> {
        machine.apply(&rig.arrival(0, 0, from, &[event])).unwrap().rows.iter().flat_map(lines).collect()
    };
    assert!(apply(0, event("a", 1001)).is_empty());
    assert!(apply(1, event("b", 1014)).is_empty());
    assert_eq!(apply(2, event("b", 1015)), ["1970-01-01T00:16:50 | 1"]);
}

#[test]
fn what_is_given_again_is_not_aggregated() {
    let rules = SessionContext::new().state();
    let source = PlanSource { name: "s".into(), schema: event_schema(), time_column: Some("ts".into()) };
    for (text, words) in [
        ("SELECT max(c) FROM (SELECT id, count(*) AS c FROM s GROUP BY id) q GROUP BY id", "given again"),
        (
            "SELECT count(*) FROM (SELECT id, SESSION_START(ts, INTERVAL '5 s') AS b FROM s GROUP BY id, SESSION(ts, INTERVAL '5 s')) q GROUP BY TUMBLE(b, INTERVAL '1 m')",
            "not the event time",
        ),
    ] {
        let error = Plan::compile(&rules, std::slice::from_ref(&source), text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
