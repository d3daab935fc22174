//! Lists as rows against the same SQL over tables.

use super::{rig::*, *};

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn items_are_those_of_tables(rows in events(4, 3, 5), shape in 0usize..4, streams in 1u32..4, cuts in cuts()) {
        let list = "CASE WHEN v > 2 THEN NULL WHEN v = 2 THEN make_array(v, 7) ELSE make_array(v, v + 1, NULL) END";
        let (text, window) = match shape {
            0 => (format!("SELECT id, unnest({list}), ts FROM s"), ""),
            1 => (format!("SELECT id, x * 2 FROM (SELECT id, unnest({list}) AS x FROM s WHERE v > 0) q WHERE x > 1"), ""),
            2 => (format!("SELECT id, unnest({list}) AS x, unnest(make_array(v::text, id)) AS y FROM s"), ""),
            _ => (format!("SELECT x, count(*), max(ts) FROM (SELECT unnest({list}) AS x, ts FROM s) q GROUP BY x, "), "WINDOW"),
        };
        let of = |by: &str| if window.is_empty() { text.clone() } else { format!("{text}{by}") };
        let rig = Rig::new(&SOURCE, &of("TUMBLE(ts, INTERVAL '10 seconds')"), Late::default());
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let ends = |line: &String| !(line.contains("end") || shape == 3 && line.contains("1970-01-02"));
        let found: Vec<String> = found.into_iter().filter(ends).collect();
        let expected = batch_answer(&SOURCE, std::slice::from_ref(&rows), &of("date_bin(INTERVAL '10 seconds', ts)"));
        let expected: Vec<String> = expected.into_iter().filter(ends).collect();
        prop_assert_eq!(sorted(found), expected);
    }
}

/// A row whose list cannot be computed is one dead letter, and its neighbours are rows.
#[test]
fn a_row_without_a_list_is_left_out_alone() {
    let rig = Rig::new(&SOURCE, "SELECT id, unnest(make_array(v, 10 / v)) FROM s", Late::default());
    let event = |id: &str, v: i64| (Some(id.to_owned()), Some(v), 100);
    let mut machine = rig.machine(1);
    let outcome = machine.apply(&rig.arrival(0, 0, 0, &[event("a", 1), event("b", 0), event("c", 5)])).unwrap();
    let found: Vec<String> = outcome.rows.iter().flat_map(lines).collect();
    assert_eq!(sorted(found), ["a | 1", "a | 10", "c | 2", "c | 5"]);
    assert_eq!(outcome.rejects.len(), 1);
    assert!(outcome.rejects[0].1.reason.contains("division by zero"));
}
