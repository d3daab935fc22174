//! Groups without a window against GROUP BY over the same rows as a table.

use super::{rig::*, *};

const SOURCE: [RigSource; 1] = [RigSource { name: "s", delay_s: 5 }];
const TEXT: &str = "SELECT id, count(*), sum(v), min(ts), avg(v) FILTER (WHERE v > 1), count(DISTINCT v), max(id) FROM s WHERE v IS DISTINCT FROM 3 GROUP BY id";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_given_last_is_the_group(rows in events(6, 4, 40), streams in 1u32..4, cuts in cuts(), spills: bool, lanes in 0usize..6) {
        let rig = Rig::new(&SOURCE, TEXT, Late::default()).spilling_if(spills).in_lanes(lanes);
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        let key = |line: &String| line.split(' ').next().unwrap().to_owned();
        let last: BTreeMap<String, String> = found.iter().map(|line| (key(line), line.clone())).collect();
        prop_assert_eq!(sorted(last.into_values().collect()), batch_answer(&SOURCE, std::slice::from_ref(&rows), TEXT));
    }
}

/// Groups are given when it is time, those alone that changed.
#[test]
fn what_did_not_change_is_not_given() {
    let rig = Rig::new(&SOURCE, "SELECT id, sum(v) FROM s GROUP BY id", Late::default());
    let event = |id: &str, v: i64| (Some(id.to_owned()), Some(v), 100);
    let mut machine = rig.machine(1);
    let mut apply =
        |arrival: &Arrival| -> Vec<String> { machine.apply(arrival).unwrap().rows.iter().flat_map(lines).collect() };
    assert!(apply(&rig.arrival(0, 0, 0, &[event("a", 1), event("b", 2)])).is_empty());
    assert!(apply(&rig.arrival(0, 0, 2, &[event("a", 3)])).is_empty());
    assert_eq!(sorted(apply(&Arrival::Give)), ["a | 4", "b | 2"]);
    assert!(apply(&Arrival::Give).is_empty());
    apply(&rig.arrival(0, 0, 3, &[event("c", 1), event("a", 1)]));
    assert_eq!(sorted(apply(&Arrival::Give)), ["a | 5", "c | 1"]);
}
