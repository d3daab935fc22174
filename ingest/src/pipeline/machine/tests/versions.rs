//! FOR SYSTEM_TIME AS OF against its definition: of the versions of the key the last one at or before the time of the row.

use super::{rig::*, *};

fn sources() -> [RigSource; 2] {
    [RigSource { name: "p", delay_s: 5 }, RigSource { name: "r", delay_s: 3 }]
}

fn text(kind: &str, residual: &str) -> String {
    format!(
        "SELECT p.id, p.v, p.ts, r.v, r.ts FROM p {kind} JOIN r FOR SYSTEM_TIME AS OF p.ts ON r.id = p.id {residual}"
    )
}

/// A row, and what is given beside it.
fn line(left: &Event, version: Option<&Event>) -> String {
    let right = version.map(|version| lines(&event_batch(&[(None, version.1, version.2)])).remove(0));
    let right = right.map_or_else(|| "null | null".into(), |line| line.replacen("null | ", "", 1));
    format!("{} | {right}", lines(&event_batch(std::slice::from_ref(left)))[0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_find_the_version_of_their_time(
        rows in events(4, 3, 5),
        versions in events(4, 4, 3),
        is_outer: bool,
        has_residual: bool,
        streams in 1u32..3,
        cuts in cuts(),
        spills: bool,
        lanes in 0usize..6,
    ) {
        let residual = if has_residual { "AND r.v > 0" } else { "" };
        let rig = Rig::new(&sources(), &text(if is_outer { "LEFT" } else { "" }, residual), Late::default()).spilling_if(spills).in_lanes(lanes);
        let (found, counts) = rig.run(&[rows.clone(), versions.clone()], streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let mut expected = Vec::new();
        for row in &rows {
            let fits = |version: &&Event| row.0.is_some() && version.0 == row.0 && version.2 <= row.2;
            let version = versions.iter().filter(fits).max_by_key(|version| (version.2, version.1));
            let version = version.filter(|version| !has_residual || version.1.is_some_and(|v| v > 0));
            if is_outer || version.is_some() {
                expected.push(line(row, version));
            }
        }
        prop_assert_eq!(sorted(found), sorted(expected));
    }

    /// Of rows that come late the answer is the same however they come in batches, also in windows behind it.
    #[test]
    fn batches_make_no_difference_to_versions(
        rows in events(3, 3, 40),
        versions in events(3, 3, 40),
        is_aggregated: bool,
        streams in 1u32..3,
        cuts in cuts(),
        spills: bool,
        lanes in 0usize..6,
    ) {
        let mut text = text("LEFT", "");
        if is_aggregated {
            text = text.replace("p.id, p.v, p.ts, r.v, r.ts", "p.id, count(*), sum(r.v), max(r.ts)");
            text.push_str(" GROUP BY p.id, TUMBLE(p.ts, INTERVAL '10 seconds')");
        }
        let rig = Rig::new(&sources(), &text, Late::default()).spilling_if(spills).in_lanes(lanes);
        let [(found, counts), (singly, of_single)] = rig.run_twice(&[rows, versions], streams, &cuts);
        prop_assert_eq!(sorted(found), sorted(singly));
        prop_assert_eq!(counts, of_single);
    }

    /// Windows over versions are given when they can have no more rows.
    #[test]
    fn windows_over_versions_are_whole(
        rows in events(4, 4, 5),
        versions in events(4, 4, 3),
        streams in 1u32..3,
        cuts in cuts(),
        spills: bool,
        lanes in 0usize..6,
    ) {
        let text = "SELECT p.id, extract(epoch FROM TUMBLE_START(p.ts, INTERVAL '10 seconds'))::bigint, count(*), sum(r.v) FROM p LEFT JOIN r FOR SYSTEM_TIME AS OF p.ts AS r ON r.id = p.id
                    GROUP BY p.id, TUMBLE(p.ts, INTERVAL '10 seconds')";
        let rig = Rig::new(&sources(), text, Late::default()).spilling_if(spills).in_lanes(lanes);
        let (found, counts) = rig.run(&[rows.clone(), versions.clone()], streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let mut groups: BTreeMap<(Option<String>, i64), (i64, Option<i64>)> = BTreeMap::new();
        for row in &rows {
            let fits = |version: &&Event| row.0.is_some() && version.0 == row.0 && version.2 <= row.2;
            let version = versions.iter().filter(fits).max_by_key(|version| (version.2, version.1));
            let group = groups.entry((row.0.clone(), row.2.div_euclid(10) * 10)).or_default();
            group.0 += 1;
            if let Some(v) = version.and_then(|version| version.1) {
                group.1 = Some(group.1.unwrap_or(0) + v);
            }
        }
        let or_null = |value: Option<String>| value.unwrap_or_else(|| "null".into());
        let group = |((id, start), (count, sum)): ((Option<String>, i64), (i64, Option<i64>))| {
            format!("{} | {start} | {count} | {}", or_null(id), or_null(sum.map(|sum| sum.to_string())))
        };
        prop_assert_eq!(sorted(found), sorted(groups.into_iter().map(group).collect()));
    }
}

/// Versions of the past that nobody can ask for are let go.
#[test]
fn only_versions_are_kept_that_can_be_asked_for() {
    let rig = Rig::new(&sources(), &text("", ""), Late::default());
    let mut machine = rig.machine(1);
    let event = |v: i64, s: i64| (Some("a".to_owned()), Some(v), s);
    machine.apply(&rig.arrival(0, 0, 0, &[event(0, 1000)])).unwrap();
    for n in 0..200u64 {
        machine.apply(&rig.arrival(1, 0, n, &[event(n as i64, 1000 + n as i64)])).unwrap();
        machine.apply(&rig.arrival(0, 0, n + 1, &[event(0, 1000 + n as i64)])).unwrap();
    }
    let (_, rows) = machine.size();
    assert!(rows < 30, "{rows}");
    assert_eq!(machine.counts().rows_out, 195);
}

#[test]
fn versions_that_cannot_be_are_refused() {
    let rules = SessionContext::new().state();
    let source = |name: &str, time: Option<&str>| PlanSource {
        name: name.into(),
        schema: event_schema(),
        time_column: time.map(str::to_owned),
    };
    let sources = [source("p", Some("ts")), source("r", Some("ts")), source("n", None)];
    for (text, words) in [
        ("SELECT 1 FROM p JOIN r FOR SYSTEM_TIME AS OF r.ts ON r.id = p.id", "not the event time"),
        ("SELECT 1 FROM p JOIN n FOR SYSTEM_TIME AS OF p.ts ON n.id = p.id", "no event time"),
        ("SELECT 1 FROM p JOIN r FOR SYSTEM_TIME AS OF p.ts ON r.v > p.v", "without equal keys"),
        ("SELECT 1 FROM p FULL JOIN r FOR SYSTEM_TIME AS OF p.ts ON r.id = p.id", "Full"),
        ("SELECT 1 FROM p JOIN r FOR SYSTEM_TIME AS OF p.ts ON r.id = p.id OR p.v = 1", "cannot be read"),
    ] {
        let error = Plan::compile(&rules, &sources, text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
