//! Joins of streams against the same SQL over tables.

use super::{rig::*, *};

fn sources() -> [RigSource; 2] {
    [RigSource { name: "p", delay_s: 5 }, RigSource { name: "o", delay_s: 3 }]
}

fn join(kind: &str, low: i64, high: i64, residual: &str) -> String {
    format!(
        "SELECT p.id, p.v, p.ts, o.id, o.v, o.ts FROM p {kind} JOIN o
         ON o.id = p.id AND o.ts BETWEEN p.ts + INTERVAL '{low} seconds' AND p.ts + INTERVAL '{high} seconds' {residual}"
    )
}

fn kinds() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just(""), Just("LEFT"), Just("RIGHT"), Just("FULL")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pairs_are_those_of_tables(
        left in events(5, 3, 5),
        right in events(5, 3, 3),
        kind in kinds(),
        has_residual: bool,
        low in -20i64..20,
        span in 0i64..30,
        streams in 1u32..3,
        cuts in cuts(),
        lanes in 0usize..6,
        spills: bool,
    ) {
        let text = join(kind, low, low + span, if has_residual { "AND (o.v > p.v OR o.v = 0)" } else { "" });
        let rig = Rig::new(&sources(), &text, Late::default()).in_lanes(lanes).spilling_if(spills);
        let rows = [left, right];
        let (found, counts) = rig.run(&rows, streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let expected = batch_answer(&sources(), &rows, &text);
        prop_assert_eq!(sorted(found), expected);
        // Right rows that nobody came for: those of the table, too. Near are those that miss the bounds by no more than these are wide.
        let high = low + span;
        let partner = |low: i64, high: i64, residual: &str| format!(
            "EXISTS (SELECT 1 FROM p WHERE o.id = p.id AND o.ts BETWEEN p.ts + INTERVAL '{low} seconds' AND p.ts + INTERVAL '{high} seconds' {residual})"
        );
        let lonely = format!("SELECT 1 FROM o WHERE NOT {}", partner(low, high, if has_residual { "AND (o.v > p.v OR o.v = 0)" } else { "" }));
        let near = format!("{lonely} AND {}", partner(low - span, high + span, ""));
        let count = |text: &str| batch_answer(&sources(), &rows, text).len() as u64;
        prop_assert_eq!(counts.out_of_bound, count(&near));
        // The rows that end the right streams are over, too, where right ones are well after left ones.
        let ends = if low - high.max(span) > 5 { u64::from(streams) * 2 } else { 0 };
        prop_assert_eq!(counts.unmatched, count(&lonely) - count(&near) + ends);
    }

    /// Of rows that come late the pairs are the same however they come in batches, and windows over them take all that are given.
    #[test]
    fn batches_make_no_difference_to_joins(
        left in events(4, 3, 40),
        right in events(4, 3, 40),
        kind in kinds(),
        is_aggregated: bool,
        low in -20i64..20,
        span in 0i64..30,
        streams in 1u32..3,
        cuts in cuts(),
        lanes in 0usize..6,
        spills: bool,
    ) {
        let mut text = join(kind, low, low + span, "");
        if is_aggregated && kind != "FULL" {
            let time = if kind == "LEFT" { "p.ts" } else { "o.ts" };
            text = text.replace("p.id, p.v, p.ts, o.id, o.v, o.ts", "p.id, count(*), sum(o.v), max(o.ts)");
            text.push_str(&format!(" GROUP BY p.id, TUMBLE({time}, INTERVAL '10 seconds')"));
        }
        let rig = Rig::new(&sources(), &text, Late::default()).in_lanes(lanes).spilling_if(spills);
        let [(found, counts), (singly, of_single)] = rig.run_twice(&[left.clone(), right.clone()], streams, &cuts);
        prop_assert_eq!(sorted(found), sorted(singly));
        prop_assert_eq!(counts, of_single);
        // Only the join finds rows late, never the aggregate behind it.
        let plain = Rig::new(&sources(), &join("", low, low + span, ""), Late::default());
        prop_assert_eq!(plain.run(&[left, right], streams, &cuts).1.late_rows, counts.late_rows);
    }

    /// An aggregate over a join is given when its windows can have no more pairs, and not before.
    #[test]
    fn windows_over_joins_are_those_of_tables(
        left in events(5, 5, 5),
        right in events(5, 5, 3),
        kind in kinds().prop_filter("a time that is never NULL", |kind| *kind != "FULL"),
        by_right: bool,
        streams in 1u32..3,
        cuts in cuts(),
    ) {
        let time = if kind == "RIGHT" || by_right && kind.is_empty() { "o.ts" } else { "p.ts" };
        let selected = "count(*), count(o.id), sum(o.v - p.v)";
        let joined = format!("FROM p {kind} JOIN (SELECT DISTINCT ON (id) id, v, ts FROM o WITHIN INTERVAL '10 hours') o
            ON p.id = o.id AND o.ts >= p.ts - INTERVAL '2 seconds' AND p.ts + INTERVAL '20 seconds' > o.ts");
        let text = format!("SELECT p.id, TUMBLE_START({time}, INTERVAL '10' SECOND), {selected} {joined} GROUP BY p.id, TUMBLE({time}, INTERVAL '10' SECOND)");
        let rig = Rig::new(&sources(), &text, Late::default());
        let rows = [left, right];
        let (found, counts) = rig.run(&rows, streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let joined = joined.replace("FROM o WITHIN INTERVAL '10 hours'", "FROM o ORDER BY id, ts, v NULLS FIRST");
        let batch = format!("SELECT p.id, date_bin(INTERVAL '10' SECOND, {time}), {selected} {joined} GROUP BY 1, 2");
        prop_assert_eq!(sorted(found), batch_answer(&sources(), &rows, &batch));
    }
}

/// What a source's rows are joined with themselves: each pair once, though both sides come with the same batch.
#[test]
fn a_stream_with_itself() {
    let text =
        "SELECT a.v, b.v FROM p a JOIN p b ON a.id = b.id AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '5 seconds'";
    let source = || [RigSource { name: "p", delay_s: 5 }];
    let event = |id: &str, v: i64, s: i64| (Some(id.to_owned()), Some(v), s);
    let rows = [vec![event("a", 1, 10), event("a", 2, 12), event("b", 3, 12), event("a", 4, 16), event("a", 5, 15)]];
    for cut in 1..6 {
        let (found, _) = Rig::new(&source(), text, Late::default()).run(&rows, 1, &[(cut, cut % 2 == 0, 1)]);
        assert_eq!(sorted(found), ["1 | 2", "1 | 5", "2 | 4", "2 | 5", "5 | 4"]);
    }
}

#[test]
fn rows_without_a_partner_are_counted_by_why() {
    let rig = Rig::new(&sources(), &join("LEFT", 0, 10, ""), Late::default());
    let event = |id: &str, s: i64| (Some(id.to_owned()), Some(1), s);
    let mut machine = rig.machine(1);
    let mut apply = |source, from, events: &[Event]| {
        let outcome = machine.apply(&rig.arrival(source, 0, from, events)).unwrap();
        (outcome.rows.iter().flat_map(lines).collect::<Vec<_>>(), machine.counts())
    };
    apply(0, 0, &[event("x", 100), event("y", 100), event("z", 101)]);
    let (given, _) = apply(1, 0, &[event("x", 105), event("y", 111), event("q", 103)]);
    assert_eq!(given.len(), 1);
    // The left side is past 110, the right one at 108 and 109: nothing of y is over yet.
    apply(0, 3, &[event("end", 200), event("end", 200)]);
    let (given, _) = apply(1, 3, &[event("p", 112)]);
    assert!(given.is_empty(), "{given:?}");
    let (given, counts) = apply(1, 4, &[event("p", 114)]);
    assert_eq!((given.len(), counts.unmatched, counts.out_of_bound), (1, 0, 0), "y of 100; {given:?}");
    // Right rows wait ten seconds for left ones that are not late.
    let (given, counts) = apply(1, 5, &[event("p", 117)]);
    assert_eq!((given.len(), counts.unmatched, counts.out_of_bound), (1, 1, 0), "z, and q of 103; {given:?}");
    let (given, counts) = apply(1, 6, &[event("end", 300)]);
    assert_eq!((given.len(), counts.unmatched, counts.out_of_bound), (0, 4, 1), "y of 111, and p thrice; {given:?}");
    // The watermark is 195: what a right row of 184 belongs to is gone, of a later one not all.
    let (given, counts) = apply(1, 7, &[event("x", 184), event("x", 185)]);
    assert!(given.is_empty() && counts.late_rows == 1, "{counts:?}");
    let (_, counts) = apply(0, 5, &[event("x", 184), event("x", 185)]);
    assert_eq!((counts.late_rows, counts.rows_out), (2, 4), "the pair of 185; {counts:?}");
}

#[test]
fn joins_that_cannot_be_are_refused() {
    let rules = SessionContext::new().state();
    let sources: Vec<PlanSource> = sources()
        .iter()
        .map(|source| PlanSource { name: source.name.into(), schema: event_schema(), time_column: Some("ts".into()) })
        .collect();
    for (text, words) in [
        ("SELECT p.v FROM p JOIN o ON p.id = o.id", "two bounds"),
        ("SELECT p.v FROM p JOIN o ON p.id = o.id AND o.ts > p.ts", "two bounds"),
        ("SELECT p.v FROM p JOIN o ON o.ts BETWEEN p.ts AND p.ts + INTERVAL '1 hour'", "equal keys"),
        ("SELECT p.v FROM p JOIN o ON p.id = o.id AND o.ts BETWEEN p.ts AND p.ts + INTERVAL '1 month'", "two bounds"),
        ("SELECT p.v FROM p JOIN o ON p.id = o.id AND o.ts BETWEEN date_trunc('hour', p.ts) AND p.ts", "two bounds"),
        (
            "SELECT p.v FROM p JOIN o ON p.id = o.id AND o.ts BETWEEN p.ts + INTERVAL '2 hours' AND p.ts",
            "exclude each other",
        ),
        (
            "SELECT o.id, count(*) FROM p LEFT JOIN o ON p.id = o.id AND o.ts BETWEEN p.ts AND p.ts + INTERVAL '1 hour' GROUP BY o.id, TUMBLE(o.ts, INTERVAL '1 hour')",
            "event time",
        ),
        (
            "SELECT a.id FROM (SELECT id, count(*) FROM p GROUP BY id) a JOIN o ON a.id = o.id",
            "groups without a window",
        ),
    ] {
        let error = Plan::compile(&rules, &sources, text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
