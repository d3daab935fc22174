//! OVER within windows against the same SQL over tables.

use super::{nested::inner, rig::*, *};

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_first_of_a_window_are_those_of_tables(
        rows in events(6, 3, 5),
        is_hop: bool,
        shape in 0usize..4,
        most in 0i64..4,
        streams in 1u32..4,
        cuts in cuts(),
        spills: bool,
        lanes in 0usize..6,
    ) {
        let text = |of: &str| match shape {
            0 => format!("SELECT id, e, c, n::bigint FROM (SELECT q.*, row_number() OVER (PARTITION BY e ORDER BY c DESC, id) AS n FROM ({of}) q) r WHERE n <= {most}"),
            1 => format!("SELECT id, b, n::bigint FROM (SELECT q.*, row_number() OVER (PARTITION BY b, e ORDER BY t, id DESC) AS n FROM ({of}) q) r WHERE r.n < {most} AND c > 1"),
            2 => format!("SELECT id, b, n::bigint, d::bigint FROM (SELECT q.*, rank() OVER (PARTITION BY e, c > 1 ORDER BY t DESC NULLS LAST) AS n, dense_rank() OVER (PARTITION BY e, c > 1 ORDER BY t DESC NULLS LAST) AS d FROM ({of}) q) r WHERE {most} >= n"),
            _ => format!("SELECT e, c, count(*) FROM (SELECT q.*, row_number() OVER (PARTITION BY e ORDER BY c, id) AS n FROM ({of}) q) r WHERE n = {most} GROUP BY e, c"),
        };
        let [stream, table] = inner(is_hop);
        let rig = Rig::new(&SOURCE, &text(&stream), Late::default()).spilling_if(spills).in_lanes(lanes);
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        prop_assert_eq!(sorted(found), batch_answer(&SOURCE, std::slice::from_ref(&rows), &text(&table)));
    }

    /// Rows of the source itself.
    #[test]
    fn the_first_rows_of_a_window_are_those_of_tables(
        rows in events(3, 3, 5),
        is_limited: bool,
        streams in 1u32..4,
        cuts in cuts(),
        spills: bool,
        lanes in 0usize..6,
    ) {
        let text = |window: &str| format!(
            "SELECT id, v, ts, n::bigint FROM (SELECT id, v, ts, row_number() OVER (PARTITION BY id, {window} ORDER BY v DESC, ts) AS n FROM s) q {}",
            if is_limited { "WHERE n <= 2" } else { "" }
        );
        let rig = Rig::new(&SOURCE, &text("TUMBLE(ts, INTERVAL '10 seconds')"), Late::default());
        let rig = rig.spilling_if(spills).in_lanes(lanes);
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let batch = text("date_bin(INTERVAL '10 seconds', ts)");
        prop_assert_eq!(sorted(found), batch_answer(&SOURCE, std::slice::from_ref(&rows), &batch));
    }

    #[test]
    fn batches_make_no_difference_to_ranks(rows in events(3, 4, 40), cuts in cuts(), spills: bool, lanes in 0usize..6) {
        let text = "SELECT id, v, ts, n::bigint FROM (SELECT id, v, ts, row_number() OVER (PARTITION BY id, TUMBLE(ts, INTERVAL '10 seconds') ORDER BY v DESC, ts) AS n FROM s) q WHERE n <= 2";
        let rig = Rig::new(&SOURCE, text, Late::default()).spilling_if(spills).in_lanes(lanes);
        let [(found, counts), (singly, of_single)] = rig.run_twice(&[rows], 2, &cuts);
        prop_assert_eq!(sorted(found), sorted(singly));
        prop_assert_eq!(counts, of_single);
    }
}

/// Of many rows only those are kept that may be among the first.
#[test]
fn no_more_rows_are_kept_than_are_asked_for() {
    let text = "SELECT id, v FROM (SELECT id, v, ts, row_number() OVER (PARTITION BY TUMBLE(ts, INTERVAL '1 day') ORDER BY v DESC) AS n FROM s) q WHERE n <= 3";
    let rig = Rig::new(&SOURCE, text, Late::default());
    let mut machine = rig.machine(1);
    let rows: Vec<Event> = (0..1000).map(|n| (Some(format!("k{n}")), Some(n * 7 % 1000), 1000 + n)).collect();
    machine.apply(&rig.arrival(0, 0, 0, &rows)).unwrap();
    assert_eq!(machine.size().1, 3);
}

#[test]
fn ranks_that_cannot_be_are_refused() {
    let rules = SessionContext::new().state();
    let source = PlanSource { name: "s".into(), schema: event_schema(), time_column: Some("ts".into()) };
    for (over, words) in [
        ("row_number() OVER (ORDER BY v)", "without a window"),
        ("row_number() OVER (PARTITION BY id ORDER BY v)", "without a window"),
        ("row_number() OVER (PARTITION BY ts ORDER BY v)", "without a window"),
        ("row_number() OVER (PARTITION BY HOP(ts, INTERVAL '5 s', INTERVAL '10 s') ORDER BY v)", "other than TUMBLE"),
        ("sum(v) OVER (PARTITION BY TUMBLE(ts, INTERVAL '5 s') ORDER BY v)", "sum() OVER"),
    ] {
        let text = format!("SELECT id FROM (SELECT id, {over} AS n FROM s) q WHERE n < 3");
        let error = Plan::compile(&rules, std::slice::from_ref(&source), &text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
