//! Sessions against their definition.

use super::{rig::*, *};

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];
const GAP_S: i64 = 7;

fn rig(late: Late) -> Rig {
    let text = format!(
        "SELECT id, extract(epoch FROM SESSION_START(ts, INTERVAL '{GAP_S} seconds'))::bigint, extract(epoch FROM SESSION_END(ts, INTERVAL '{GAP_S} seconds'))::bigint,
         count(*), sum(v), count(DISTINCT v) FILTER (WHERE v > 0) FROM s GROUP BY id, SESSION(ts, INTERVAL '{GAP_S} seconds')"
    );
    Rig::new(&SOURCE, &text, late)
}

/// Rows of a key in the order of time; a session ends where the next row is the gap or more away.
fn expected(rows: &[Event]) -> Vec<String> {
    let mut of_key: BTreeMap<Option<String>, Vec<(i64, Option<i64>)>> = BTreeMap::new();
    for (id, value, second) in rows {
        of_key.entry(id.clone()).or_default().push((*second, *value));
    }
    let mut lines = Vec::new();
    for (id, mut rows) in of_key {
        rows.sort_unstable();
        for session in rows.chunk_by(|a, b| b.0 - a.0 < GAP_S) {
            let values: Vec<i64> = session.iter().filter_map(|row| row.1).collect();
            let sum = if values.is_empty() { "null".into() } else { values.iter().sum::<i64>().to_string() };
            let mut distinct: Vec<i64> = values.into_iter().filter(|value| *value > 0).collect();
            distinct.sort_unstable();
            distinct.dedup();
            lines.push(format!(
                "{} | {} | {} | {} | {sum} | {}",
                id.as_deref().unwrap_or("null"),
                session[0].0,
                session[session.len() - 1].0 + GAP_S,
                session.len(),
                distinct.len()
            ));
        }
    }
    sorted(lines)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn sessions_are_stretches_of_rows(
        rows in events(4, 4, 5),
        streams in 1u32..4,
        cuts in cuts(),
        lanes in 0usize..6,
        spills: bool,
    ) {
        let rig = rig(Late::default()).in_lanes(lanes).spilling_if(spills);
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        prop_assert_eq!(sorted(found), expected(&rows));
    }

    /// Also rows that come too late do the same however they come in batches.
    #[test]
    fn batches_make_no_difference_to_sessions(rows in events(3, 4, 30), cuts in cuts(), spills: bool) {
        let one_by_one = rig(Late::default()).run(std::slice::from_ref(&rows), 1, &[(1, false, 1)]);
        let rig = rig(Late::default()).spilling_if(spills);
        let sorted = |(found, counts)| (sorted(found), counts);
        prop_assert_eq!(sorted(rig.run(std::slice::from_ref(&rows), 1, &cuts)), sorted(one_by_one));
    }
}

/// A row between two sessions makes them one, in whatever order they came.
#[test]
fn sessions_merge() {
    let event = |s: i64| (Some("a".to_owned()), Some(1), s);
    for rows in [[100, 112, 106], [106, 100, 112], [112, 106, 100]] {
        let late = [RigSource { name: "s", delay_s: 20 }];
        let text = "SELECT id, count(*) FROM s GROUP BY id, SESSION(ts, INTERVAL '7 seconds')";
        let (found, _) = Rig::new(&late, text, Late::default()).run(&[rows.map(event).to_vec()], 1, &[(1, true, 1)]);
        assert_eq!(found, ["a | 3"]);
    }
}
