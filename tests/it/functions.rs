//! Functions in WebAssembly: made, called in queries and pipelines, kept over a kill, and what they cannot do to the server.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(30);

const MODULE: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "alloc") (param i32) (result i32) i32.const 1024)
    (func (export "fee") (param i64) (result i64) (i64.add (i64.mul (local.get 0) (i64.const 3)) (i64.const 7)))
    (func (export "half") (param f64) (result f64) (f64.mul (local.get 0) (f64.const 0.5)))
    (func (export "is_even") (param i32) (result i32) (i32.eqz (i32.and (local.get 0) (i32.const 1))))
    (func (export "reciprocal") (param i64) (result i64) (i64.div_s (i64.const 100) (local.get 0)))
    (func (export "stuck") (param i64) (result i64)
        (if (i64.eq (local.get 0) (i64.const 13)) (then (loop (br 0)))) local.get 0)
    (func (export "slow") (param i64) (result i64) (local i64)
        (loop (br_if 0 (i64.lt_s (local.tee 1 (i64.add (local.get 1) (i64.const 1))) (i64.const 100000000)))) local.get 1)
    (func (export "tail") (param i32 i32) (result i64)
        (if (result i64) (i32.eqz (local.get 1))
            (then (i64.const -1))
            (else (i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get 0) (i32.const 1))) (i64.const 32))
                          (i64.extend_i32_u (i32.sub (local.get 1) (i32.const 1))))))))"#;

/// The module as a file outside of the data directory.
fn module(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidemill-{name}-{}.wasm", std::process::id()));
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    path
}

fn refused(server: &Server, sql: &str) -> (String, String, String) {
    let error = server.try_sql(sql).expect_err(sql);
    let error = error.as_db_error().expect("an error of the server").clone();
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

fn lines(server: &Server, sql: &str) -> Vec<String> {
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|cell| cell.unwrap_or_else(|| "null".into())).collect::<Vec<_>>().join(" ")
    };
    server.sql(sql).into_iter().map(text).collect()
}

#[test]
fn a_function_is_called_wherever_a_query_computes_and_outlives_a_kill() {
    let path = module("calls", MODULE);
    let file = path.display();
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (id BIGINT, n INT, x DOUBLE PRECISION, name TEXT)");
    server.sql("INSERT INTO t SELECT i, i, i, CASE WHEN i % 5 = 0 THEN NULL ELSE 'n' || i END FROM generate_series(1, 5000) AS s(i)");
    server.sql("SELECT rt.seal('t')");
    server.sql("INSERT INTO t VALUES (NULL, NULL, NULL, '')");
    server.sql(&format!("CREATE FUNCTION fee(amount BIGINT) RETURNS BIGINT LANGUAGE wasm AS '{file}'"));
    server.sql(&format!("CREATE FUNCTION IF NOT EXISTS half(DOUBLE PRECISION) RETURNS DOUBLE PRECISION IMMUTABLE STRICT LANGUAGE 'wasm' AS '{file}', 'half'"));
    server.sql(&format!("CREATE OR REPLACE FUNCTION even(n INT) RETURNS BOOLEAN LANGUAGE wasm AS '{file}', 'is_even'"));
    server.sql(&format!("CREATE FUNCTION tail(TEXT) RETURNS TEXT LANGUAGE wasm AS '{file}'"));
    // The bytes themselves.
    let digits: String = std::fs::read(&path).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    server.sql(&format!("CREATE FUNCTION reciprocal(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '\\x{digits}'"));
    std::fs::remove_file(&path).unwrap();
    server.sql("CREATE VIEW fees AS SELECT id, fee(id) AS fee FROM t");
    for round in 0..2 {
        assert_eq!(
            lines(&server, "SELECT fee(1), fee(NULL), half(5), half(2.5), even(3), tail('abc'), tail(''), fee(2::int)"),
            ["10 null 2.5 1.25 f bc null 13"]
        );
        assert_eq!(
            lines(&server, "SELECT count(*), sum(fee(id)), count(fee(id)) FROM t WHERE even(n)"),
            ["2500 18775000 2500"]
        );
        assert_eq!(
            lines(&server, "SELECT fee(id % 3) AS f, count(*) FROM t GROUP BY 1 ORDER BY 1 NULLS LAST"),
            ["7 1666", "10 1667", "13 1667", "null 1"]
        );
        assert_eq!(
            lines(&server, "SELECT id FROM t WHERE fee(id) = 3007 OR tail(name) = '4999' ORDER BY fee(id) DESC"),
            ["4999", "1000"]
        );
        assert_eq!(
            lines(&server, "SELECT a.id FROM t a JOIN t b ON fee(a.id) = b.id WHERE b.id < 14 ORDER BY 1"),
            ["1", "2"]
        );
        assert_eq!(server.value("SELECT max(fee) FROM fees"), "15007");
        assert_eq!(server.value("SELECT max(fee(id)) OVER () FROM t LIMIT 1"), "15007");
        assert_eq!(server.value("SELECT sum(reciprocal(id)) FROM t WHERE id < 4"), "183");
        assert_eq!(
            lines(&server, "SELECT name, arguments, returns, language, symbol, error FROM rt.functions ORDER BY name"),
            [
                "even n integer boolean wasm is_even null",
                "fee amount bigint bigint wasm fee null",
                "half double precision double precision wasm half null",
                "reciprocal bigint bigint wasm reciprocal null",
                "tail text text wasm tail null",
            ]
        );
        if round == 0 {
            server.kill_and_restart();
        }
    }
    assert_eq!(
        lines(
            &server,
            "SELECT proname, pg_get_function_result(oid), pg_get_function_arguments(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname < 'g' ORDER BY 1"
        ),
        ["even boolean n integer", "fee bigint amount bigint"]
    );
    assert_eq!(server.value("SELECT count(*) FROM rt.catalog_log WHERE change = 'function.create'"), "5");
    let (code, message, _) = refused(&server, "SELECT sum(reciprocal(id - 5)) FROM t");
    assert!(code == "38000" && message.contains("reciprocal()") && message.contains("divide by zero"), "{message}");
    assert_eq!(refused(&server, "SELECT even(3000000000)").0, "22003");
    let (code, ..) = refused(&server, "SELECT fee('a', 2)");
    assert_eq!(code, "42883");
    // Others see another body at once; a statement that was planned is planned anew.
    let other = module("other", r#"(module (func (export "fee") (param i64) (result i64) (i64.const 1)))"#);
    server
        .sql(&format!("CREATE OR REPLACE FUNCTION fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '{}'", other.display()));
    assert_eq!(server.value("SELECT max(fee) FROM fees"), "1");
    let (code, _, hint) = refused(
        &server,
        &format!("CREATE OR REPLACE FUNCTION fee(INT) RETURNS BIGINT LANGUAGE wasm AS '{}'", other.display()),
    );
    assert!(code == "42P13" && hint.contains("DROP FUNCTION fee"), "{code} {hint}");
    let (code, ..) = refused(&server, "DROP FUNCTION fee(bigint)");
    assert_eq!(code, "2BP01");
    server.sql("DROP FUNCTION fee, half CASCADE");
    server.sql("DROP FUNCTION IF EXISTS fee");
    let (code, ..) = refused(&server, "SELECT fee(1)");
    assert_eq!(code, "42883");
    assert_eq!(refused(&server, "SELECT * FROM fees").0, "42P01");
    // What nothing names is not kept: two modules, of which one is still there.
    server.kill_and_restart();
    let kept = std::fs::read_dir(server.data_dir.join("functions")).unwrap().count();
    assert_eq!(kept, 1);
    assert_eq!(server.value("SELECT tail('xyz')"), "yz");
    std::fs::remove_file(other).unwrap();
}

#[test]
fn what_is_no_function_is_refused_with_what_to_do() {
    let path = module("refused", MODULE);
    let (file, server) = (path.display().to_string(), Server::start(BINARY));
    let create = |what: &str| format!("CREATE FUNCTION {what}").replace("FILE", &file);
    for (what, state, words) in [
        ("f(BIGINT) RETURNS BIGINT LANGUAGE wasm AS 'FILE'", "42P13", "exports no function \"f\""),
        (
            "fee(INT) RETURNS BIGINT LANGUAGE wasm AS 'FILE'",
            "42P13",
            "(i64) -> (i64), and the declaration needs (i32) -> (i64)",
        ),
        ("fee(UUID) RETURNS BIGINT LANGUAGE wasm AS 'FILE'", "42P13", "cannot be passed"),
        ("fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '/nowhere/x.wasm'", "58P01", "/nowhere/x.wasm"),
        ("fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '/'", "42809", "no regular file"),
        ("fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '/etc/passwd'", "42P13", "no WebAssembly module"),
        ("fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '\\xzz'", "22P02", "hexadecimal"),
        ("fee(BIGINT) RETURNS BIGINT LANGUAGE sql AS 'SELECT 1'", "42704", "language \"sql\""),
        ("fee(BIGINT) RETURNS BIGINT AS 'FILE'", "42P13", "no language"),
        ("fee(BIGINT) RETURNS SETOF BIGINT LANGUAGE wasm AS 'FILE'", "0A000", "not rows"),
        ("fee(BIGINT) RETURNS BIGINT VOLATILE LANGUAGE wasm AS 'FILE'", "0A000", "IMMUTABLE"),
        ("fee(BIGINT) RETURNS BIGINT CALLED ON NULL INPUT LANGUAGE wasm AS 'FILE'", "0A000", "STRICT"),
        ("fee(BIGINT) RETURNS BIGINT STRICT CALLED ON NULL INPUT LANGUAGE wasm AS 'FILE'", "42601", "conflicting"),
        ("abs(BIGINT) RETURNS BIGINT LANGUAGE wasm AS 'FILE', 'fee'", "42723", "already exists"),
    ] {
        let (code, message, _) = refused(&server, &create(what));
        assert!(code == state && message.contains(words), "{what}: {code} {message}");
    }
    server.sql(&create("fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS 'FILE'"));
    assert_eq!(refused(&server, &create("fee(BIGINT) RETURNS BIGINT LANGUAGE wasm AS 'FILE'")).0, "42723");
    let (code, message, _) = refused(&server, "DROP FUNCTION feee");
    assert!(code == "42883" && message.contains("feee"), "{code} {message}");
    // Threads of sources are shared.
    let check = "CREATE SOURCE g (id BIGINT CHECK (fee(id) > 0)) WITH (connector = 'generator')";
    let check = check.replace("id BIGINT CHECK (fee(id) > 0)", "id BIGINT, CONSTRAINT c CHECK (fee(id) > 0)");
    let (code, message, hint) = refused(&server, &check);
    assert!(code == "0A000" && message.contains("fee()") && hint.contains("PIPELINE"), "{code} {message} {hint}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn an_endless_loop_ends_and_a_long_query_is_cancelled() {
    let path = module("endless", MODULE);
    let server = Server::start(BINARY);
    for name in ["stuck", "slow"] {
        server.sql(&format!("CREATE FUNCTION {name}(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '{}'", path.display()));
    }
    server.sql("CREATE TABLE t (id BIGINT)");
    server.sql("INSERT INTO t SELECT i FROM generate_series(1, 1000) AS s(i)");
    for sql in ["SELECT stuck(13)", "SELECT count(*) FROM t WHERE stuck(id) > 0"] {
        let begun = Instant::now();
        let (code, message, _) = refused(&server, sql);
        assert!(code == "57014" && message.contains("stuck()"), "{code} {message}");
        assert!(begun.elapsed() < Duration::from_secs(8), "{sql}: {:?}", begun.elapsed());
        assert_eq!(server.value("SELECT count(*) FROM t"), "1000");
    }
    assert_eq!(server.value("SELECT stuck(12)"), "12");
    // Each call ends, and all of them take minutes: threads are free soon after the query has ended.
    let cpu = || server.cpu_seconds();
    let (code, ..) = refused(&server, "SET statement_timeout = 700; SELECT sum(slow(id)) FROM t");
    assert_eq!(code, "57014");
    thread::sleep(Duration::from_millis(700));
    let before = cpu();
    thread::sleep(Duration::from_millis(1000));
    let spent = cpu() - before;
    assert!(spent < 0.6, "the server works on a query that has ended: {spent} s");
    std::fs::remove_file(path).unwrap();
}

/// One pipeline calls a function that does not end for one message: it stands before that one and says why, others go on, and nothing is lost when the function is another one.
#[test]
fn a_function_fails_its_pipeline_only() {
    let Some(brokers) = brokers("functions::a_function_fails_its_pipeline_only") else { return };
    let topic = format!("functions-{}", std::process::id());
    create_topic(&brokers, &topic, 1, &[]);
    let path = module("pipeline", MODULE);
    let mut server = Server::start(BINARY);
    server.sql(&format!("CREATE SOURCE events (id BIGINT, city TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json')"));
    for name in ["stuck", "fee", "reciprocal"] {
        server.sql(&format!("CREATE FUNCTION {name}(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '{}'", path.display()));
    }
    for name in ["held", "sound", "crashing"] {
        server.sql(&format!("CREATE TABLE {name} (id BIGINT, made BIGINT)"));
    }
    server.sql("CREATE PIPELINE held INTO held AS SELECT id, stuck(id) FROM events");
    server.sql("CREATE PIPELINE sound INTO sound AS SELECT id, fee(id) FROM events WHERE fee(id) > 10");
    server.sql("CREATE PIPELINE crashing INTO crashing AS SELECT id, reciprocal(id - 5) FROM events");
    let feed = Feed::new(&brokers, &topic);
    let send = |ids: std::ops::Range<i64>| {
        for id in ids {
            feed.send(0, format!(r#"{{"id":{id},"city":"c"}}"#).as_bytes());
        }
        feed.flush();
    };
    send(1..11);
    server.wait_for("SELECT count(*) FROM held", "10", PATIENCE);
    send(11..21);
    server.wait_for("SELECT state FROM rt.pipelines WHERE name = 'held'", "failing", PATIENCE);
    let error = server.value("SELECT error FROM rt.pipelines WHERE name = 'held'");
    assert!(error.contains("stuck()") && error.contains("within a second"), "{error}");
    server.wait_for("SELECT count(*) FROM sound", "19", PATIENCE);
    // A row that it cannot compute is a dead letter, as one that SQL cannot compute is.
    server.wait_for("SELECT count(*) FROM crashing", "19", PATIENCE);
    server.wait_for(
        "SELECT count(*) || max(reason) FROM rt.dlq",
        "1function reciprocal() failed: wasm trap: integer divide by zero",
        PATIENCE,
    );
    send(21..31);
    server.wait_for("SELECT count(*) FROM sound", "29", PATIENCE);
    server.kill_and_restart();
    server.wait_for("SELECT state FROM rt.pipelines WHERE name = 'held'", "failing", PATIENCE);
    assert_eq!(
        server.value("SELECT count(*) || '' || sum(made) FROM sound"),
        format!("29{}", (2..31).map(|id| id * 3 + 7).sum::<i64>())
    );
    let replace =
        format!("CREATE OR REPLACE FUNCTION stuck(BIGINT) RETURNS BIGINT LANGUAGE wasm AS '{}', 'fee'", path.display());
    let (code, message, hint) = refused(&server, &replace);
    assert!(code == "2BP01" && message.contains("stuck") && hint.contains("held"), "{code} {message} {hint}");
    assert_eq!(refused(&server, "DROP FUNCTION stuck").0, "2BP01");
    server.sql("CREATE OR REPLACE PIPELINE held INTO held AS SELECT id, fee(id) FROM events");
    server.wait_for("SELECT count(*) FROM held", "30", PATIENCE);
    assert_eq!(
        server.value("SELECT count(DISTINCT id) || ' ' || sum(made) FILTER (WHERE id > 20) FROM held"),
        format!("30 {}", (21..31).map(|id| id * 3 + 7).sum::<i64>())
    );
    server.sql(&replace);
    server.sql("DROP FUNCTION stuck");
    server.sql("DROP FUNCTION fee CASCADE");
    assert_eq!(lines(&server, "SELECT name FROM rt.pipelines"), ["crashing"]);
    std::fs::remove_file(path).unwrap();
}
