//! Buckets without gaps: `time_bucket_gapfill`, `locf` and `interpolate` give what a series of buckets beside the groups gives, by hand.

use std::{env, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::support::server::{Server, connect, runtime};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

type Rows = Vec<Vec<Option<String>>>;

/// Rows over four days, so few that many hours have none.
fn rows(rng: &mut StdRng) -> Vec<String> {
    let mut rows = Vec::new();
    for _ in 0..160 {
        let city = ["'Oslo'", "'Bergen'", "'Hamar'", "NULL"].choose(rng).unwrap();
        let minutes = rng.random_range(0..4 * 24 * 60);
        let at = match rng.random_range(0..20) {
            0 => "NULL".to_owned(),
            _ => format!("timestamptz '2026-03-01 00:00:00+00' + interval '{minutes} minutes'"),
        };
        let v = if rng.random_range(0..6) == 0 { "NULL".to_owned() } else { rng.random_range(-50..50).to_string() };
        rows.push(format!("({city}, {at}, {v}, {v}, {v})"));
    }
    rows
}

const COLUMNS: &str = "(city TEXT, at TIMESTAMPTZ, v INT, f DOUBLE PRECISION, n NUMERIC(12,4))";

/// The same question in two ways: with gaps filled, and as PostgreSQL would be asked.
struct Question {
    filled: String,
    by_hand: String,
}

fn question(rng: &mut StdRng) -> Question {
    let (width, round) = *[
        ("20 minutes", "date_bin('20 minutes', {at}, '2000-01-03 00:00+00')"),
        ("1 hour", "date_bin('1 hour', {at}, '2000-01-03 00:00+00')"),
        ("6 hours", "date_bin('6 hours', {at}, '2000-01-03 00:00+00')"),
        ("1 day", "date_bin('1 day', {at}, '2000-01-03 00:00+00')"),
        ("7 days", "date_bin('7 days', {at}, '2000-01-03 00:00+00')"),
        ("1 month", "date_trunc('month', {at})"),
    ]
    .choose(rng)
    .unwrap();
    let round = |at: &str| round.replace("{at}", at);
    let from = format!("2026-03-{:02} {:02}:10:00+00", rng.random_range(1..3), rng.random_range(0..24));
    let to = format!(
        "2026-03-{:02} {:02}:{}0:00+00",
        rng.random_range(3..6),
        rng.random_range(0..24),
        rng.random_range(0..6)
    );
    let mut conditions = match rng.random_range(0..3) {
        0 => vec!["v < 40".to_owned()],
        _ => Vec::new(),
    };
    // Given, or told by a condition; of the latter kind no row is outside.
    let mut call = format!("time_bucket_gapfill('{width}', at)");
    let mut until = format!("timestamptz '{to}'");
    match rng.random_range(0..5) {
        0 => call = format!("time_bucket_gapfill('{width}', at, '{from}', '{to}')"),
        1 => conditions.push(format!("at >= '{from}' AND at < '{to}'")),
        2 => conditions.push(format!("'{to}' > at AND '{from}' <= at AND at >= '2026-02-27 00:00:00+00'")),
        3 => {
            conditions.push(format!("at BETWEEN '{from}' AND '{to}'"));
            until += " + interval '1 microsecond'";
        }
        _ => {
            call = format!("time_bucket_gapfill('{width}', at, finish => '{to}')");
            conditions.push(format!("at > timestamptz '{from}' - interval '1 microsecond'"));
        }
    }
    let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let has_keys = rng.random_range(0..4) > 0;
    let having = if rng.random_range(0..4) == 0 { " HAVING count(*) > 1" } else { "" };
    let (key, keys) = if has_keys { ("city", "1, 2") } else { ("'all'", "1") };
    let filled = format!(
        "SELECT {call} AS b, {key} AS city, count(*), sum(v), round(avg(n), 3), locf(sum(v)), locf(max(v), treat_null_as_missing => true),
                interpolate(max(v)), round(interpolate(min(f))::numeric, 6), round(interpolate(max(n)), 4)
         FROM {{t}}{condition} GROUP BY {keys}{having} ORDER BY 2, 1"
    );
    let groups = if has_keys { "SELECT DISTINCT city FROM a" } else { "SELECT 'all' AS city" };
    let line = |value: &str| {
        format!(
            "({value}_0 * extract(epoch FROM b1 - b)::bigint + {value}_1 * extract(epoch FROM b - b0)::bigint) / extract(epoch FROM b1 - b0)::bigint"
        )
    };
    let between = |value: &str, line: String| {
        format!("CASE WHEN is_there THEN {value} WHEN {value}_0 IS NOT NULL AND {value}_1 IS NOT NULL THEN {line} END")
    };
    // `g0` numbers the rows that are there from the first on, `g1` from the last on: so a gap has the number of its neighbours.
    let by_hand = format!(
        "WITH a AS (SELECT {rounded} AS b, {key} AS city, count(*) AS c, sum(v) AS s, avg(n) AS mean, max(v)::bigint AS m, min(f) AS f, max(n) AS n
                    FROM {{t}}{condition} GROUP BY {keys}{having}),
              grid AS (SELECT g.b, k.city FROM generate_series({first}, ({until}) - interval '1 microsecond', interval '{width}') AS g(b) CROSS JOIN ({groups}) k
                       UNION SELECT b, city FROM a),
              all_rows AS (SELECT grid.b, grid.city, a.c IS NOT NULL AS is_there, a.c, a.s, a.mean, a.m, a.f, a.n
                           FROM grid LEFT JOIN a ON a.b IS NOT DISTINCT FROM grid.b AND a.city IS NOT DISTINCT FROM grid.city),
              numbered AS (SELECT *, count(c) OVER (PARTITION BY city ORDER BY b) AS g0, count(m) OVER (PARTITION BY city ORDER BY b) AS gm,
                                  count(c) FILTER (WHERE b IS NOT NULL) OVER (PARTITION BY city ORDER BY b DESC NULLS LAST) AS g1 FROM all_rows),
              sided AS (SELECT *, max(s) OVER (PARTITION BY city, g0) AS last_s, max(m) OVER (PARTITION BY city, gm) AS last_m,
                               max(b) FILTER (WHERE is_there) OVER (PARTITION BY city, g0) AS b0, max(b) FILTER (WHERE is_there) OVER (PARTITION BY city, g1) AS b1,
                               max(m) OVER (PARTITION BY city, g0) AS m_0, max(m) FILTER (WHERE b IS NOT NULL) OVER (PARTITION BY city, g1) AS m_1,
                               max(f) OVER (PARTITION BY city, g0) AS f_0, max(f) FILTER (WHERE b IS NOT NULL) OVER (PARTITION BY city, g1) AS f_1,
                               max(n) OVER (PARTITION BY city, g0) AS n_0, max(n) FILTER (WHERE b IS NOT NULL) OVER (PARTITION BY city, g1) AS n_1 FROM numbered)
         SELECT b, city, c, s, round(mean, 3), last_s, CASE WHEN b IS NULL THEN m ELSE last_m END, {m}, round(({f})::numeric, 6), round({n}, 4) FROM sided ORDER BY 2, 1",
        rounded = round("at"),
        first = round(&format!("timestamptz '{from}'")),
        m = between("m", line("m")),
        f = between("f", line("f")),
        n = between("n", line("n")),
    );
    Question { filled, by_hand }
}

/// What PostgreSQL answers by hand, if there is one.
fn postgres(rows: &[String], questions: &[Question]) -> Option<Vec<Rows>> {
    let Ok(address) = env::var("TIDEMILL_TEST_POSTGRES") else {
        println!("SKIPPED gapfill, compared with PostgreSQL: set TIDEMILL_TEST_POSTGRES, or use tests/run");
        return None;
    };
    let (host, port) = address.split_once(':').expect("TIDEMILL_TEST_POSTGRES is host:port");
    Some(runtime().block_on(async {
        let (client, connection) = tokio_postgres::Config::new()
            .host(host)
            .port(port.parse().expect("a port"))
            .user("postgres")
            .dbname("postgres")
            .connect(NoTls)
            .await
            .expect("PostgreSQL answers");
        tokio::spawn(connection);
        let fill = format!("CREATE TABLE pg_temp.t {COLUMNS}; INSERT INTO pg_temp.t VALUES {}", rows.join(","));
        client.batch_execute(&format!("SET TimeZone = 'UTC'; {fill}")).await.expect("rows in PostgreSQL");
        let mut answers = Vec::new();
        for question in questions {
            let messages = client.simple_query(&question.by_hand.replace("{t}", "pg_temp.t")).await;
            let messages = messages.unwrap_or_else(|error| panic!("{}: {error:?}", question.by_hand));
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
                _ => None,
            });
            answers.push(rows.collect());
        }
        answers
    }))
}

#[test]
fn gaps_are_filled_as_a_series_of_buckets_fills_them() {
    let seed = env::var("TIDEMILL_TEST_GAPFILL_SEED").map_or(20_261_122, |text| text.parse().expect("a number"));
    println!("gapfill: seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let rows = rows(&mut rng);
    let questions: Vec<Question> = (0..40).map(|_| question(&mut rng)).collect();
    let server = Server::start(BINARY);
    server.sql(&format!("CREATE TABLE consuming {COLUMNS}"));
    server.sql(&format!("INSERT INTO consuming VALUES {}", rows.join(",")));
    server.sql(&format!("CREATE TABLE sealed {COLUMNS}"));
    for some in rows.chunks(60) {
        server.sql(&format!("INSERT INTO sealed VALUES {}", some.join(",")));
        server.sql("SELECT rt.seal('sealed')");
    }
    server.sql(
        "CREATE INDEX ON sealed USING star_tree (city, date_trunc('hour', at))
         AGGREGATE (count(*), sum(v), avg(n), max(v), min(f), max(n)) WITH (max_leaf_records = 5)",
    );
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(60));
    let by_postgres = postgres(&rows, &questions);
    let mut made = 0;
    for (index, question) in questions.iter().enumerate() {
        let by_hand = server.sql(&format!("SET TimeZone = 'UTC'; {}", question.by_hand.replace("{t}", "consuming")));
        if let Some(answers) = &by_postgres {
            assert_eq!(by_hand, answers[index], "seed {seed}: PostgreSQL answers otherwise: {}", question.by_hand);
        }
        made += by_hand.iter().filter(|row| row[2].is_none()).count();
        for (table, settings) in [
            ("consuming", "SET rt.aggregate_in_segment = off"),
            ("consuming", "SET rt.aggregate_in_segment = on"),
            ("sealed", "SET rt.use_star_tree = off"),
            ("sealed", "SET rt.use_star_tree = on"),
        ] {
            let filled = format!("SET TimeZone = 'UTC'; {settings}; {}", question.filled.replace("{t}", table));
            assert_eq!(server.sql(&filled), by_hand, "seed {seed}: {filled}\nis not\n{}", question.by_hand);
        }
    }
    assert!(made > 500, "only {made} buckets were made");
}

/// However many buckets there are, they are made one batch at a time, and a query that makes them can be stopped.
#[test]
fn very_many_buckets_are_made_as_they_are_read() {
    let server = Server::start_with(BINARY, &["--memory-query-bytes", "64MB"]);
    server.sql("CREATE TABLE t (city TEXT, at TIMESTAMP, v INT)");
    server.sql("INSERT INTO t VALUES ('Oslo', '2026-01-01', 1), ('Bergen', '2026-12-31', 2)");
    let year = "SELECT time_bucket_gapfill('1 microsecond', at, '2026-01-01', '2027-01-01') AS b, locf(max(city)) AS city, count(*) AS n FROM t GROUP BY 1";
    assert_eq!(
        // One row alone, since lanes above give theirs in any order.
        server.sql(&format!(
            "SELECT b, city, n FROM ({year}) y WHERE n IS NULL AND b < '2026-01-01 00:00:00.000002' LIMIT 1"
        )),
        [[Some("2026-01-01 00:00:00.000001".to_owned()), Some("Oslo".to_owned()), None]]
    );
    let before = server.peak_memory_mib();
    let error = server
        .try_sql(&format!("SET statement_timeout = '3s'; SELECT count(*), min(city) FROM ({year}) y"))
        .unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error:?}");
    assert_eq!(
        server.value(&format!("SELECT count(*) FROM ({}) y", year.replace("1 microsecond", "10 seconds"))),
        "3153600"
    );
    let more = server.peak_memory_mib() - before;
    assert!(more < 100, "{more} MiB");
    assert_eq!(server.value("SELECT 1"), "1");
}

/// Where buckets begin and end may be parameters, of the call or of the conditions.
#[test]
fn bounds_may_be_parameters() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (at TIMESTAMPTZ, v INT)");
    server.sql("INSERT INTO t VALUES ('2026-01-01 01:00+00', 1), ('2026-01-01 03:00+00', 3)");
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let moment = |hour: u64| std::time::UNIX_EPOCH + Duration::from_secs(1_767_225_600 + hour * 3600);
        let by_conditions = client
            .prepare("SELECT time_bucket_gapfill('1 hour', at) AS b, interpolate(max(v)) FROM t WHERE at >= $1 AND at < $2 GROUP BY 1")
            .await
            .unwrap();
        let by_arguments = client
            .prepare("SELECT time_bucket_gapfill('1 hour', at, $1::timestamptz, $2) AS b, interpolate(max(v)) FROM t WHERE v < $3 GROUP BY 1")
            .await
            .unwrap();
        for hours in [(1, 4), (0, 2), (2, 5)] {
            let (from, to) = (moment(hours.0), moment(hours.1));
            let rows = client.query(&by_conditions, &[&from, &to]).await.unwrap();
            assert_eq!(rows.len() as u64, hours.1 - hours.0);
            assert_eq!(rows[0].get::<_, std::time::SystemTime>(0), from);
            let rows = client.query(&by_arguments, &[&from, &to, &9]).await.unwrap();
            let values: Vec<Option<i32>> = rows.iter().map(|row| row.get(1)).collect();
            match hours {
                (1, 4) => assert_eq!(values, [Some(1), Some(2), Some(3)]),
                (0, 2) => assert_eq!(values, [None, Some(1), Some(3)]),
                // The row before the first bucket is its neighbour, too.
                _ => assert_eq!(values, [Some(1), Some(2), Some(3), None]),
            }
        }
    });
}
