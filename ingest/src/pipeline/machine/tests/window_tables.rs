//! Windows as table functions: what the group functions give.

use super::{rig::*, *};
use crate::{
    Error,
    pipeline::plan::{parse, relations},
};

const SOURCES: [RigSource; 1] = [RigSource { name: "s", delay_s: DELAY_S }];

/// Each with the same by group functions.
const SAME: [(&str, &str); 11] = [
    (
        "SELECT window_start, window_end, id, count(*), sum(v) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, id",
        "SELECT TUMBLE_START(ts, INTERVAL '10' SECOND), TUMBLE_END(ts, INTERVAL '10' SECOND), id, count(*), sum(v) FROM s GROUP BY id, TUMBLE(ts, INTERVAL '10' SECOND)",
    ),
    (
        "select W.\"window_end\", count(*) from tumble(table s, descriptor(ts), interval '7 seconds') as w where v > 0 group by w.window_end having count(*) > 1 and window_start > TIMESTAMP '1970-01-01'",
        "SELECT TUMBLE_END(ts, INTERVAL '7' SECOND), count(*) FROM s WHERE v > 0 GROUP BY TUMBLE(ts, INTERVAL '7' SECOND) HAVING count(*) > 1",
    ),
    (
        "SELECT s.id, window_start AS at, max(v) FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '3' SECOND, INTERVAL '12' SECOND)) GROUP BY 1, at",
        "SELECT id, HOP_START(ts, INTERVAL '3' SECOND, INTERVAL '12' SECOND), max(v) FROM s GROUP BY id, HOP(ts, INTERVAL '3' SECOND, INTERVAL '12' SECOND)",
    ),
    (
        "SELECT window_end, count(*) FROM TABLE(HOP(DATA => TABLE s, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '12' SECOND, SLIDE => INTERVAL '3' SECOND)) GROUP BY 1",
        "SELECT HOP_END(ts, INTERVAL '3' SECOND, INTERVAL '12' SECOND), count(*) FROM s GROUP BY HOP(ts, INTERVAL '3' SECOND, INTERVAL '12' SECOND)",
    ),
    (
        "SELECT window_start, window_end, count(*) FROM TABLE(CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '5' SECOND, INTERVAL '20' SECOND)) AS w GROUP BY window_start, window_end",
        "SELECT CUMULATE_START(ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND), CUMULATE_END(ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND), count(*) FROM s GROUP BY CUMULATE(ts, INTERVAL '5' SECOND, INTERVAL '20' SECOND)",
    ),
    (
        "SELECT id, window_start, window_end, count(*) FROM TABLE(SESSION(TABLE s PARTITION BY (id), DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY id, window_start, window_end",
        "SELECT id, SESSION_START(ts, INTERVAL '4' SECOND), SESSION_END(ts, INTERVAL '4' SECOND), count(*) FROM s GROUP BY id, SESSION(ts, INTERVAL '4' SECOND)",
    ),
    (
        "SELECT id, v, window_end FROM TABLE(SESSION(TABLE s PARTITION BY v, id, DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY id, v, window_start, window_end",
        "SELECT id, v, SESSION_END(ts, INTERVAL '4' SECOND) FROM s GROUP BY id, v, SESSION(ts, INTERVAL '4' SECOND)",
    ),
    (
        "SELECT window_end, count(*) FROM TABLE(SESSION(TABLE s, DESCRIPTOR(ts), INTERVAL '4' SECOND)) GROUP BY window_start, window_end",
        "SELECT SESSION_END(ts, INTERVAL '4' SECOND), count(*) FROM s GROUP BY SESSION(ts, INTERVAL '4' SECOND)",
    ),
    (
        "SELECT window_end, id, count(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY GROUPING SETS ((window_start, window_end, id), (window_start, window_end))",
        "SELECT TUMBLE_END(ts, INTERVAL '10' SECOND), id, count(*) FROM s GROUP BY GROUPING SETS ((TUMBLE(ts, INTERVAL '10' SECOND), id), (TUMBLE(ts, INTERVAL '10' SECOND)))",
    ),
    (
        "SELECT window_end, max(n) FROM (SELECT id, window_start, window_end, count(*) AS n FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY id, window_start, window_end) g GROUP BY window_end",
        "SELECT e, max(n) FROM (SELECT id, TUMBLE_END(ts, INTERVAL '10' SECOND) AS e, count(*) AS n FROM s GROUP BY id, TUMBLE(ts, INTERVAL '10' SECOND)) g GROUP BY e",
    ),
    (
        "SELECT w.id, window_end, count(r.id) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) w JOIN s r ON r.id = w.id AND r.ts BETWEEN w.ts - INTERVAL '2 seconds' AND w.ts GROUP BY w.id, window_start, window_end",
        "SELECT w.id, TUMBLE_END(w.ts, INTERVAL '10' SECOND), count(r.id) FROM s w JOIN s r ON r.id = w.id AND r.ts BETWEEN w.ts - INTERVAL '2 seconds' AND w.ts GROUP BY w.id, TUMBLE(w.ts, INTERVAL '10' SECOND)",
    ),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn table_functions_give_what_group_functions_give(rows in events(3, 4, DELAY_S), cuts in cuts(), streams in 1u32..3) {
        for (table, group) in SAME {
            let run = |text: &str| Rig::new(&SOURCES, text, Late::default()).run(std::slice::from_ref(&rows), streams, &cuts).0;
            prop_assert_eq!(sorted(run(table)), sorted(run(group)), "{}", table);
        }
    }
}

fn plan(text: &str) -> Result<Plan> {
    let config = datafusion::prelude::SessionConfig::new();
    let rules = SessionContext::new_with_config(config).state();
    let source = PlanSource { name: "s".into(), schema: event_schema(), time_column: Some("ts".into()) };
    Plan::compile(&rules, &[source], text)
}

#[test]
fn columns_of_windows_have_their_names() {
    let text = "SELECT window_start, count(*) AS n, window_end FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end";
    assert_eq!(plan(text).unwrap().names(), ["window_start", "n", "window_end"]);
    let rules = SessionContext::new().state();
    let query = parse(&rules, &text.replace("TABLE s", "TABLE \"S x\" PARTITION BY a").replace("TUMBLE", "session"));
    assert_eq!(relations(&query.unwrap()), ["S x"]);
}

#[test]
fn what_cannot_be_grouped_is_refused_with_what_to_do() {
    let of = |call: &str, group: &str| format!("SELECT count(*) FROM TABLE({call}) {group}");
    let tumble = "TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)";
    let group = "GROUP BY window_start, window_end";
    plan(&of(tumble, group)).unwrap();
    for (text, code, words) in [
        (of(tumble, ""), "0A000", "grouped by their window"),
        (of(tumble, "GROUP BY id"), "0A000", "grouped by their window"),
        (of(tumble, "GROUP BY window_time"), "0A000", "window_time"),
        (of(tumble, &format!("WHERE window_end > TIMESTAMP '2020-01-01' {group}")), "0A000", "HAVING"),
        (of(tumble, "GROUP BY ALL"), "0A000", "GROUP BY ALL"),
        (
            of(
                tumble,
                "JOIN TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE) b ON b.id = s.id GROUP BY s.window_end",
            ),
            "0A000",
            "only one with windows",
        ),
        (of(&tumble.replace("TABLE s", "TABLE s PARTITION BY id"), group), "0A000", "TUMBLE takes no PARTITION BY"),
        (of(&tumble.replace("MINUTE)", "MINUTE, INTERVAL '5' SECOND)"), group), "0A000", "no offset"),
        (of(&tumble.replace(", INTERVAL '1' MINUTE", ""), group), "22023", "INTERVAL '5' MINUTE"),
        (of(&tumble.replace("DESCRIPTOR(ts)", "ts"), group), "22023", "DESCRIPTOR(time)"),
        (of(&tumble.replace("DESCRIPTOR(ts)", "DESCRIPTOR(ts, id)"), group), "22023", "DESCRIPTOR(time)"),
        (of(&tumble.replace("INTERVAL '1' MINUTE", "1 +"), group), "22023", "lengths of TUMBLE"),
        (of(&tumble.replace("'1' MINUTE", "'1' MONTH"), group), "22023", "months"),
        (of(&tumble.replace("TABLE s", "DATA => TABLE s, DATA => TABLE s"), group), "22023", "data twice"),
        (
            of("CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)", "GROUP BY window_start"),
            "0A000",
            "CUMULATE",
        ),
        (
            of("SESSION(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", "GROUP BY id, window_start, window_end"),
            "0A000",
            "PARTITION BY",
        ),
        (of("SESSION(TABLE s PARTITION BY id, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", group), "0A000", "PARTITION BY"),
    ] {
        let error = plan(&text).expect_err(&text);
        let said = match &error {
            Error::Unsupported { message, hint } => ("0A000", format!("{message} {hint:?}")),
            Error::Definition { message, hint } => ("22023", format!("{message} {hint:?}")),
            other => panic!("{text}: {other:?}"),
        };
        assert!(said.0 == code && said.1.contains(words), "{text}: {said:?}");
    }
    // A time that is none, and a source that is none, are those of any query.
    for text in [tumble.replace("ts", "id"), tumble.replace("ts", "nothing"), tumble.replace("TABLE s", "TABLE q")] {
        plan(&of(&text, group)).unwrap_err();
    }
}

#[test]
fn a_source_with_such_a_column_is_told() {
    let rules = SessionContext::new().state();
    let mut fields: Vec<_> = event_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("window_end", ArrowType::Utf8, true)));
    let source = PlanSource { name: "s".into(), schema: Arc::new(Schema::new(fields)), time_column: Some("ts".into()) };
    let text = "SELECT count(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_end";
    let error = Plan::compile(&rules, &[source], text).unwrap_err();
    assert!(error.to_string().contains("has a column window_end"), "{error}");
}
