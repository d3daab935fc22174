//! Conditions on rounded moments, as the ranges that they become and as they are, in zones of all kinds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tidemill_query::{ScalarValue, Session, parse::parse};
use tidemill_storage::{schema::DataType, segment::Segment};

use crate::support::{World, block_on, rows, text};

const COLUMNS: [(&str, DataType); 4] =
    [("id", DataType::BigInt), ("at", DataType::TimestampTz), ("t", DataType::Timestamp), ("d", DataType::Date)];

/// 2026-03-29 00:00 UTC: clocks are put on in Berlin.
const SPRING: i64 = 1_774_742_400_000_000;
const MINUTE: i64 = 60_000_000;

/// Moments around changes of clocks, some of them at the beginning of something, a tenth of them NULL.
fn filled(world: &World, rng: &mut StdRng) {
    let mut moment = || {
        if rng.random_range(0..10) == 0 {
            return None;
        }
        // Germany, the United States, Brazil in 2018 (at midnight), Samoa in 2011 (a day that was not).
        let base = *[SPRING, 1_772_953_200_000_000, 1_541_296_800_000_000, 1_325_239_200_000_000].choose(rng).unwrap();
        let minutes = rng.random_range(-5000..5000) / [1, 15, 60].choose(rng).unwrap() * 15;
        Some(base + minutes * MINUTE + [0, 0, 0, 1, -1, 30_000_000].choose(rng).unwrap())
    };
    let moments: Vec<Option<i64>> = (0..900).map(|_| moment()).collect();
    let mut writer = world.table("m", &COLUMNS);
    let day = |at: &Option<i64>| at.map(|at| at.div_euclid(1440 * MINUTE) as i32);
    let columns: Vec<ArrayRef> = vec![
        Arc::new((0..moments.len() as i64).collect::<Int64Array>()),
        Arc::new(moments.iter().copied().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(moments.iter().rev().copied().collect::<TimestampMicrosecondArray>()),
        Arc::new(moments.iter().map(day).collect::<Date32Array>()),
    ];
    let batch = RecordBatch::try_new(writer.consuming().schema().arrow(), columns).unwrap();
    writer.append(&batch, &[]).unwrap();
}

const ROUNDED: [(&str, &str); 22] = [
    ("date_trunc('hour', at)", "timestamptz"),
    ("date_trunc('minute', at)", "timestamptz"),
    ("date_trunc('day', at)", "timestamptz"),
    ("date_trunc('week', at)", "timestamptz"),
    ("date_trunc('month', at)", "timestamptz"),
    ("date_trunc('year', at)", "timestamptz"),
    ("date_trunc('day', at, 'America/Sao_Paulo')", "timestamptz"),
    ("date_trunc('hour', t)", "timestamp"),
    ("date_trunc('quarter', t)", "timestamp"),
    ("date_trunc('day', t)", "timestamp"),
    ("date_trunc('month', d)", "timestamptz"),
    ("date_bin('7 minutes', at, '2001-01-01')", "timestamptz"),
    ("date_bin('2 days', t, timestamp '2001-01-01 03:00')", "timestamp"),
    ("time_bucket('5 minutes', at)", "timestamptz"),
    ("time_bucket(interval '1 week', t)", "timestamp"),
    ("time_bucket('3 months', t)", "timestamp"),
    ("time_bucket('1 day', at, interval '6 hours')", "timestamptz"),
    ("time_bucket('1 day', at, 'Europe/Berlin')", "timestamptz"),
    ("at::date", "date"),
    ("t::date", "date"),
    ("at::date::timestamp", "timestamp"),
    ("date_trunc('day', at::timestamp)", "timestamp"),
];

fn constant(kind: &str, rng: &mut StdRng) -> String {
    if rng.random_range(0..25) == 0 {
        return format!("NULL::{kind}");
    }
    let day = *[
        "2026-03-28",
        "2026-03-29",
        "2026-03-30",
        "2026-03-08",
        "2018-11-04",
        "2011-12-30",
        "2026-03-01",
        "2026-01-01",
    ]
    .choose(rng)
    .unwrap();
    let clock = match rng.random_range(0..4) {
        0 => format!(" {:02}:{:02}", rng.random_range(0..24), rng.random_range(0..60)),
        1 => format!(" {:02}:00", rng.random_range(0..24)),
        _ => String::new(),
    };
    match kind {
        "date" => format!("{kind} '{day}'"),
        _ => format!("{kind} '{day}{clock}'"),
    }
}

fn condition(rng: &mut StdRng) -> String {
    let (rounded, kind) = ROUNDED.choose(rng).unwrap();
    let (a, b) = (constant(kind, rng), constant(kind, rng));
    let one = match rng.random_range(0..10) {
        0..=3 => format!("{rounded} {} {a}", ["=", "<>", "<", "<=", ">", ">="].choose(rng).unwrap()),
        4 => format!("{a} {} {rounded}", ["=", "<", ">="].choose(rng).unwrap()),
        5 => format!("{rounded} {}BETWEEN {a} AND {b}", ["", "NOT "].choose(rng).unwrap()),
        6 => format!("{rounded} >= {a} AND {rounded} < {b}"),
        7 => format!("{rounded} {}IN ({a}, {b}, {})", ["", "NOT "].choose(rng).unwrap(), constant(kind, rng)),
        8 => format!("{rounded} = {a} OR id % 7 = 3"),
        _ => format!("{rounded} IS NOT DISTINCT FROM {a}"),
    };
    if rng.random_range(0..4) == 0 { format!("NOT ({one})") } else { one }
}

fn set(session: &Session, name: &str, value: &str) {
    session.settings().set(name, value, false).unwrap();
}

#[test]
fn ranges_say_what_the_conditions_said() {
    let world = World::new();
    let mut rng = StdRng::seed_from_u64(29);
    filled(&world, &mut rng);
    let zones = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "+05:30", "Pacific/Apia", "America/New_York"];
    for _ in 0..300 {
        let zone = *zones.choose(&mut rng).unwrap();
        let session = world.session();
        set(&session, "TimeZone", zone);
        let condition = condition(&mut rng);
        let ask = |sql: &str| rows(&session, sql).unwrap_or_else(|error| panic!("{zone}: {sql}: {error}"));
        let filtered = ask(&format!("SELECT id FROM m WHERE {condition} ORDER BY id"));
        // As a value, where it stays what it is.
        let plain = ask(&format!(
            "SELECT id FROM (SELECT id, CASE WHEN {condition} THEN 1 ELSE 0 END AS passes FROM m) x WHERE passes = 1 ORDER BY id"
        ));
        assert_eq!(filtered, plain, "{zone}: {condition}");
        let counted = ask(&format!("SELECT count(*) FILTER (WHERE {condition}) FROM m"));
        assert_eq!(counted[0][0], plain.len().to_string(), "{zone}: {condition}");
    }
}

#[test]
fn plans_ask_for_ranges() {
    let world = World::new();
    filled(&world, &mut StdRng::seed_from_u64(1));
    let session = world.session();
    let plan = |sql: &str| {
        let rows = rows(&session, &format!("EXPLAIN {sql}")).unwrap();
        rows.into_iter().flatten().collect::<Vec<_>>().join("\n")
    };
    for (condition, wanted) in [
        ("date_trunc('hour', at) = '2026-03-29 10:00'", "at >= '2026-03-29 10:00:00' AND at < '2026-03-29 11:00:00'"),
        ("date_trunc('hour', at) > '2026-03-29 10:01'", "at >= '2026-03-29 11:00:00'"),
        (
            "at::date BETWEEN '2026-03-01' AND '2026-03-31'",
            "at >= '2026-03-01 00:00:00' AND at < '2026-04-01 00:00:00'",
        ),
        ("date_trunc('month', t) <= '2026-03-15'", "t < '2026-04-01 00:00:00'"),
        (
            "time_bucket('1 hour', t) IN ('2026-03-01 01:00', '2026-03-01 02:00')",
            "t >= '2026-03-01 01:00:00' AND t < '2026-03-01 03:00:00'",
        ),
    ] {
        let shown = plan(&format!("SELECT count(*) FROM m WHERE {condition}"));
        assert!(shown.contains(wanted) && !shown.contains("FilterExec"), "{condition}:\n{shown}");
    }
    set(&session, "TimeZone", "Europe/Berlin");
    // The day that has 23 hours keeps its condition beside a range.
    let shown = plan("SELECT count(*) FROM m WHERE date_trunc('day', at) = '2026-03-29'");
    assert!(shown.contains("AND at < ") && shown.contains(" AND date_trunc(day, at) = "), "{shown}");
    let shown = plan("SELECT count(*) FROM m WHERE date_trunc('day', at) = '2026-07-29'");
    assert!(shown.contains("AND at < ") && !shown.contains("date_trunc("), "{shown}");
}

/// A kept plan would have the range of another value, or none.
#[test]
fn ranges_are_those_of_the_parameters() {
    let world = World::new();
    let mut rng = StdRng::seed_from_u64(5);
    filled(&world, &mut rng);
    let session = world.session();
    let sql = "SELECT count(*), sum(id) FROM m WHERE date_trunc('hour', at) = $1 OR at::date IN ('2026-03-28', $2)";
    let plan = block_on(session.plan(&parse(sql).unwrap()[0], sql)).unwrap();
    for hours in 0..40 {
        let hour = (hours % 9 != 8).then(|| SPRING + hours * 60 * MINUTE);
        let day = (hours % 5 != 4).then(|| 20_541 + hours as i32 % 4);
        let values = vec![ScalarValue::TimestampMicrosecond(hour, Some("UTC".into())), ScalarValue::Date32(day)];
        let bound = session.bind(&plan, values).unwrap();
        let found = text(&block_on(async { session.execute(&bound).unwrap().collect_all().await.unwrap() }));
        let seconds = hour.map_or("NULL".to_owned(), |us| (us / 1_000_000).to_string());
        let day = day.map_or("NULL".to_owned(), |day| format!("date '1970-01-01' + {day}"));
        let passes = format!("date_trunc('hour', at) = to_timestamp({seconds}) OR at::date IN ('2026-03-28', {day})");
        let plain =
            format!("SELECT sum(CASE WHEN {passes} THEN 1 ELSE 0 END), sum(CASE WHEN {passes} THEN id END) FROM m");
        assert_eq!(found, rows(&session, &plain).unwrap(), "{passes}");
    }
}
