//! Look-ups in tables against joins of tables.

use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, AsArray};

use super::{rig::*, *};

fn sources() -> [RigSource; 1] {
    [RigSource { name: "s", delay_s: 5 }]
}

/// A row, and the value and second of what it finds.
type Expected = (Option<String>, Option<i64>, i64, Option<(Option<i64>, i64)>);

/// What a table with a key has: each id once.
fn keyed() -> impl Strategy<Value = Vec<Event>> {
    events(6, 3, 30).prop_map(|rows| {
        let of_key: BTreeMap<Option<String>, Event> = rows.into_iter().map(|row| (row.0.clone(), row)).collect();
        of_key.into_values().filter(|row| row.0.is_some()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_find_the_row_of_their_key(
        rows in events(8, 3, 5),
        table in keyed(),
        is_outer: bool,
        has_residual: bool,
        is_latest: bool,
        is_aggregated: bool,
        streams in 1u32..3,
        cuts in cuts(),
    ) {
        let kind = if is_outer { "LEFT" } else { "INNER" };
        let residual = if has_residual { "AND (t.v > s.v OR t.v = 0)" } else { "" };
        let from = |latest: &str| format!("FROM s {kind} JOIN {latest} t ON s.id = t.id {residual}");
        let selected = if is_aggregated { "t.v, count(*), sum(s.v), count(t.id)" } else { "s.id, s.v, s.ts, t.v, t.ts, t.id" };
        let (grouped, of_batch) = match is_aggregated {
            true => ("GROUP BY t.v, TUMBLE(s.ts, INTERVAL '10 seconds')", "GROUP BY t.v, date_bin(INTERVAL '10 seconds', s.ts)"),
            false => ("WHERE s.v IS DISTINCT FROM 2", "WHERE s.v IS DISTINCT FROM 2"),
        };
        let text = format!("SELECT {selected} {} {grouped}", from(if is_latest { "LATEST" } else { "" }));
        let kept = RigTable::new("t", true, &table);
        let rig = Rig::with_tables(&sources(), &[kept], &text, Late::default());
        let (found, counts) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        prop_assert_eq!(counts.late_rows, 0);
        // The rows that end each stream find nothing.
        let ends = ["null | 2 | 14 | 0", "null | 4 | 28 | 0"];
        let found = sorted(found.into_iter().filter(|line| !ends.contains(&line.as_str())).collect());
        let of_tables = [RigSource { name: "s", delay_s: 0 }, RigSource { name: "t", delay_s: 0 }];
        let expected = batch_answer(&of_tables, &[rows, table], &format!("SELECT {selected} {} {of_batch}", from("")));
        prop_assert_eq!(found, expected);
    }

    /// Without the primary key: of the rows that fulfil the condition the latest.
    #[test]
    fn rows_find_the_latest(
        rows in events(5, 3, 5),
        table in events(5, 3, 30),
        is_outer: bool,
        streams in 1u32..3,
        cuts in cuts(),
    ) {
        let text = format!(
            "SELECT s.id, s.v, s.ts, t.v, t.ts FROM s {} JOIN LATEST t ON t.id = s.id AND t.ts BETWEEN s.ts - INTERVAL '20 seconds' AND s.ts",
            if is_outer { "LEFT" } else { "" }
        );
        let kept = RigTable::new("t", false, &table);
        let rig = Rig::with_tables(&sources(), &[kept], &text, Late::default());
        let (found, _) = rig.run(std::slice::from_ref(&rows), streams, &cuts);
        let mut expected = Vec::new();
        for (id, v, second) in &rows {
            let fits = |row: &&Event| id.is_some() && row.0 == *id && row.2 <= *second && row.2 >= second - 20;
            // Of the same time the one with the greatest columns; NULL is least.
            let latest = table.iter().filter(fits).max_by_key(|row| (row.2, row.1));
            if latest.is_some() || is_outer {
                expected.push((id.clone(), *v, *second, latest.map(|row| (row.1, row.2))));
            }
        }
        let event = |(id, v, second, latest): Expected| {
            let batch = event_batch(&[(id, v, second)]);
            let right = match latest {
                Some((v, second)) => event_batch(&[(None, v, second)]),
                None => RecordBatch::new_empty(event_schema()),
            };
            let right = lines(&right).pop().map_or("null | null".into(), |line| line.replacen("null | ", "", 1));
            format!("{} | {right}", lines(&batch)[0])
        };
        prop_assert_eq!(sorted(found), sorted(expected.into_iter().map(event).collect()));
    }
}

/// A table that changes meanwhile: an arrival that is taken again is told what it was told.
#[test]
fn what_a_table_said_is_said_again() {
    let event = |id: &str, v: i64| (Some(id.to_owned()), Some(v), 100);
    let table = RigTable::new("t", true, &[event("a", 1)]);
    let text = "SELECT s.v, t.v FROM s LEFT JOIN LATEST t ON t.id = s.id";
    let rig = Rig::with_tables(&sources(), &[Arc::clone(&table)], text, Late::default());
    let mut machine = rig.machine(1);
    let picture = machine.picture().unwrap();
    let arrivals = [rig.arrival(0, 0, 0, &[event("a", 1), event("b", 2)]), rig.arrival(0, 0, 2, &[event("a", 3)])];
    let mut kept = Vec::new();
    let mut given: Vec<String> = Vec::new();
    for arrival in &arrivals {
        given.extend(machine.apply(arrival).unwrap().rows.iter().flat_map(lines));
        kept.push(machine.answers());
        *table.rows.lock() = vec![event("a", 9), event("b", 9)];
    }
    assert_eq!(given, ["1 | 1", "2 | null", "3 | 9"]);
    table.rows.lock().clear();
    let mut again = rig.restore(picture).unwrap();
    let mut repeated: Vec<String> = Vec::new();
    for (arrival, answers) in arrivals.iter().zip(kept) {
        repeated.extend(again.apply_again(arrival, answers).unwrap().rows.iter().flat_map(lines));
    }
    assert_eq!(repeated, given);
    // What is new is asked.
    let outcome = again.apply(&rig.arrival(0, 0, 3, &[event("a", 4)])).unwrap();
    assert_eq!(outcome.rows.iter().flat_map(lines).collect::<Vec<_>>(), ["4 | null"]);
}

/// A table that cannot be asked has the pipeline fail; no row is a dead letter for it, also beside one that is.
#[test]
fn no_row_is_to_blame_for_a_table() {
    let event = |id: &str, v: i64| (Some(id.to_owned()), Some(v), 100);
    let table = RigTable::new("t", true, &[event("a", 1)]);
    let text = "SELECT 10 / s.v, t.v FROM s JOIN LATEST t ON t.id = s.id";
    let rig = Rig::with_tables(&sources(), &[Arc::clone(&table)], text, Late::default());
    let mut machine = rig.machine(1);
    let rows = [event("a", 1), event("a", 0), event("b", 2), event("a", 5)];
    let outcome = machine.apply(&rig.arrival(0, 0, 0, &rows)).unwrap();
    assert_eq!(outcome.rows.iter().flat_map(lines).collect::<Vec<_>>(), ["10 | 1", "2 | 1"]);
    assert_eq!(outcome.rejects.len(), 1);
    table.is_broken.store(true, Ordering::SeqCst);
    let error = machine.apply(&rig.arrival(0, 0, 4, &rows)).unwrap_err().to_string();
    assert!(error.contains("the table is broken"), "{error}");
}

/// A service that answers keys, refuses `bad`, and knows nothing of others.
#[derive(Debug)]
struct Service;

impl TableRows for Service {
    fn rows_of(&self, _: &[usize], keys: &[ArrayRef], _: &[usize]) -> Result<RecordBatch> {
        let keys: Vec<Option<&str>> = keys[0].as_string_view().iter().collect();
        let answer = |key: &&str| key.starts_with('a').then(|| format!("{{\"of\": \"{key}\"}}"));
        let bodies: arrow::array::StringViewArray = keys.iter().map(|key| key.as_ref().and_then(answer)).collect();
        let refusals: arrow::array::StringArray =
            keys.iter().map(|key| (*key == Some("bad")).then_some("no")).collect();
        let numbers = arrow::array::UInt32Array::from_iter_values(0..keys.len() as u32);
        let columns: [(&str, ArrayRef); 3] =
            [("key", Arc::new(numbers)), ("body", Arc::new(bodies)), ("refusal", Arc::new(refusals))];
        Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?)
    }
}

/// A row that the service refuses is a dead letter and holds nobody up, wherever the call stands, beside rows that fail otherwise.
#[test]
fn rows_ask_a_service() {
    let event = |id: Option<&str>, v: i64| (id.map(str::to_owned), Some(v), 100);
    let rows = [
        event(Some("a"), 1),
        event(Some("bad"), 2),
        event(None, 3),
        event(Some("c"), 4),
        event(Some("a"), 5),
        event(Some("a"), 0),
    ];
    let call = "http_lookup('http://here/order', id)";
    for (text, expected, rejected) in [
        (
            format!("SELECT v, {call} AS details FROM s"),
            &["1 | {\"of\": \"a\"}", "3 | null", "4 | null", "5 | {\"of\": \"a\"}", "0 | {\"of\": \"a\"}"][..],
            1,
        ),
        (format!("SELECT 10 / v FROM s WHERE {call} IS NOT NULL"), &["10", "2"], 2),
        (format!("SELECT v FROM s WHERE v > 1 AND {call} IS NULL"), &["3", "4"], 1),
        (
            format!("SELECT n, count(*) FROM (SELECT {call} AS n FROM s WHERE v > 2) x GROUP BY n"),
            &["null | 2", "{\"of\": \"a\"} | 1"],
            0,
        ),
        (
            format!("SELECT DISTINCT ON (id) id, {call} AS d, {call} IS NULL AS none FROM s"),
            &["a | {\"of\": \"a\"} | false", "c | null | true", "null | null | true"],
            1,
        ),
        (
            "SELECT http_lookup('http://here', concat('a', http_lookup('http://there', id))) FROM s WHERE v = 1".into(),
            &["{\"of\": \"a{\"of\": \"a\"}\"}"],
            0,
        ),
    ] {
        let rig = Rig::with_services(&sources(), &text, 2, &Arc::new(Service));
        let mut machine = rig.machine(1);
        let mut outcome = machine.apply(&rig.arrival(0, 0, 0, &rows)).unwrap();
        let end = machine.apply(&rig.arrival(0, 0, 6, &[(None, None, 1 << 30)])).unwrap();
        outcome.rows.extend(end.rows);
        outcome.rows.extend(machine.apply(&Arrival::Give).unwrap().rows);
        let lines: Vec<String> = outcome.rows.iter().flat_map(lines).take(expected.len()).collect();
        assert_eq!(sorted(lines), sorted(expected.iter().map(|line| (*line).to_owned()).collect()), "{text}");
        assert_eq!(outcome.rejects.len(), rejected, "{text} {:?}", outcome.rejects);
    }
}

#[test]
fn questions_that_cannot_be_are_refused() {
    let rules = SessionContext::new().state();
    let source = PlanSource { name: "s".into(), schema: event_schema(), time_column: Some("ts".into()) };
    for (text, words) in [
        ("SELECT http_lookup('https://a/b', id) FROM s", "over https"),
        ("SELECT http_lookup('nowhere', id) FROM s", "no address"),
        ("SELECT http_lookup(id, id) FROM s", "not a constant"),
        ("SELECT http_lookup('http://a', ts) FROM s", "a key that is a text"),
        ("SELECT http_lookup('http://a') FROM s", "http_lookup"),
        ("SELECT count(*) FROM s GROUP BY http_lookup('http://a', id)", "in a subquery"),
        ("SELECT max(http_lookup('http://a', id)::text) FROM s GROUP BY id", "in a subquery"),
        ("SELECT a.v FROM s a JOIN s b ON a.id = b.id AND http_lookup('http://a', a.id) IS NULL", "in a subquery"),
    ] {
        let error = Plan::compile(&rules, std::slice::from_ref(&source), text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}

#[test]
fn look_ups_that_cannot_be_are_refused() {
    let rules = SessionContext::new().state();
    let source = PlanSource { name: "s".into(), schema: event_schema(), time_column: Some("ts".into()) };
    let mut tables = plan_tables(&[RigTable::new("t", true, &[]), RigTable::new("u", false, &[])]);
    tables.push(PlanTable { name: "w".into(), time: None, ..tables[1].clone() });
    for (text, words) in [
        ("SELECT t.v FROM t", "cannot stand alone"),
        ("SELECT t.v FROM t JOIN s ON t.id = s.id", "cannot stand alone"),
        ("SELECT t.v FROM s JOIN t ON t.v = s.v", "does not name its primary key"),
        ("SELECT u.v FROM s JOIN u ON u.id = s.id", "does not name its primary key"),
        ("SELECT w.v FROM s JOIN LATEST w ON w.id = s.id", "no time_column"),
        ("SELECT t.v FROM s JOIN t ON t.id > s.id", "without equal keys"),
        ("SELECT t.v FROM s RIGHT JOIN t ON t.id = s.id", "Right"),
        ("SELECT t.v FROM s JOIN t FOR SYSTEM_TIME AS OF s.ts ON t.id = s.id", "FOR SYSTEM_TIME AS OF"),
        ("SELECT t.v FROM s JOIN LATEST t ON t.id = s.id OR s.v = 1", "with OR"),
        ("SELECT x.v FROM s JOIN LATEST s x ON x.id = s.id", "takes a table"),
    ] {
        let error = Plan::with_tables(&rules, std::slice::from_ref(&source), &tables, text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}\n{error}");
    }
}
