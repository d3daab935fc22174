//! CREATE, ALTER and DROP of sources and tables, as a client sees them.

use std::time::Duration;

use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

fn server() -> Server {
    Server::start(env!("CARGO_BIN_EXE_tidemill"))
}

/// SQLSTATE, message, hint of a statement that must fail.
fn refused(server: &Server, sql: &str) -> (String, String, String) {
    let error = match server.try_sql(sql) {
        Err(error) => error,
        Ok(rows) => panic!("{sql} was accepted: {rows:?}"),
    };
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

#[test]
fn tables_are_created_changed_and_dropped_and_survive_a_kill() {
    let mut server = server();
    server.sql("CREATE TABLE t (id BIGINT NOT NULL, name VARCHAR(10), price NUMERIC(8,2) DEFAULT 1.50, at TIMESTAMPTZ) WITH (time_column = 'at')");
    server.sql("INSERT INTO t VALUES (1, 'one', 2.25, '2026-01-01 00:00:00Z'), (2, 'two', NULL, NULL)");
    server.sql("ALTER TABLE t ADD COLUMN small INT DEFAULT 7, RENAME COLUMN name TO title");
    server.sql("INSERT INTO t (id, title) VALUES (3, 'three')");
    let wanted = "1|one|2.25|7 2|two|NULL|7 3|three|1.50|7";
    let read = |server: &Server| {
        let rows = server.sql("SELECT id, title, price, small FROM t ORDER BY id");
        let text = |row: &Vec<Option<String>>| {
            row.iter().map(|v| v.clone().unwrap_or("NULL".into())).collect::<Vec<_>>().join("|")
        };
        rows.iter().map(text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(read(&server), wanted);
    server.kill_and_restart();
    assert_eq!(read(&server), wanted);
    server.sql("SELECT rt.seal('t')");
    server.sql("ALTER TABLE t ALTER COLUMN small TYPE BIGINT, DROP COLUMN price, RENAME TO u");
    server.sql("INSERT INTO u VALUES (4, 'four', NULL, 5000000000)");
    assert_eq!(
        server.value("SELECT string_agg(id || ':' || small, ' ' ORDER BY id) FROM u"),
        "1:7 2:7 3:7 4:5000000000"
    );
    server.kill_and_restart();
    assert_eq!(server.value("SELECT sum(small) FROM u"), "5000000021");
    server.sql("DROP TABLE u");
    assert_eq!(refused(&server, "SELECT * FROM u").0, "42P01");
    assert!(
        std::fs::read_dir(server.data_dir.join("tables")).unwrap().next().is_none(),
        "the bytes of a dropped table are gone"
    );
    assert!(std::fs::read_dir(server.data_dir.join("logs")).unwrap().next().is_none());
    server.stop();
}

#[test]
fn a_generator_feeds_tables_by_name_and_through_a_transform() {
    let server = server();
    server.sql("CREATE SOURCE demo WITH (connector = 'generator', rate = 0, rows = 1000)");
    server.sql("CREATE TABLE orders FROM SOURCE demo");
    server.sql(
        "CREATE TABLE dear (order_id BIGINT, city TEXT, cents BIGINT) FROM SOURCE demo
         AS SELECT order_id, upper(city) AS city, CAST(total_price * 100 AS BIGINT) AS cents WHERE total_price > 20",
    );
    server.sql("SELECT rt.drain('demo')");
    assert_eq!(server.value("SELECT count(*) FROM orders"), "1000");
    assert_eq!(
        server.value("SELECT count(*) = (SELECT count(*) FROM orders WHERE total_price > 20) AND bool_and(city = upper(city)) FROM dear"),
        "t"
    );
    server.sql("INSERT INTO dear VALUES (-1, 'X', 1)");
    assert_eq!(server.value("SELECT count(*) FROM dear WHERE order_id = -1"), "1");
    let (code, message, hint) = refused(&server, "DROP SOURCE demo");
    assert_eq!(code, "2BP01", "{message}");
    assert!(hint.contains("CASCADE"));
    server.sql("DROP SOURCE demo CASCADE");
    assert_eq!(server.value("SELECT count(*) FROM orders"), "1000", "a table keeps its rows when its source goes");
    assert_eq!(server.value("SELECT count(*) FROM rt.sources"), "0");
}

#[test]
fn wrong_definitions_are_refused_with_a_state_and_a_hint() {
    let server = server();
    server.sql("CREATE TABLE t (a INT, b TEXT)");
    server.sql("CREATE SOURCE s (a INT, ts TIMESTAMP) WITH (connector = 'generator', rows = 1)");
    for (sql, state, words) in [
        ("CREATE TABLE t (a INT)", "42P07", "already exists"),
        ("CREATE SOURCE t (a INT) WITH (connector = 'generator')", "42P07", "already exists"),
        ("CREATE TABLE x (a INT, a TEXT)", "42701", "more than once"),
        ("CREATE TABLE x (a INTT)", "42704", "intt"),
        ("CREATE TABLE x (a INT) WITH (partition = 3)", "22023", "partitions"),
        ("CREATE TABLE x (a INT) WITH (partitions = 0)", "22023", "partitions"),
        ("CREATE TABLE x (a INT) WITH (retention = '7 days')", "22023", "time_column"),
        ("CREATE TABLE x (a INT) WITH (time_column = 'a')", "42804", "integer"),
        ("CREATE TABLE x (a INT PRIMARY KEY, b INT MERGE max) WITH (mode = 'upsert')", "42P16", "partial_upsert"),
        ("CREATE TABLE x (a INT) WITH (mode = 'upsert')", "42P16", "PRIMARY KEY"),
        ("CREATE TABLE x (a INT) FROM SOURCE ss", "42704", "ss"),
        // It was made, and got rows of nothing but NULL.
        ("CREATE TABLE x (nope INT) FROM SOURCE s", "42P16", "no column in common"),
        ("CREATE TABLE x (nope INT) FROM SOURCE s AS SELECT *", "42P16", "no column in common"),
        ("CREATE SOURCE x (a INT, CHECK (b > 0)) WITH (connector = 'generator')", "42703", "b"),
        ("CREATE SOURCE x (a INT, CHECK (nofun(a))) WITH (connector = 'generator')", "42883", "nofun"),
        ("CREATE TABLE x (a INT) FROM SOURCE s AS SELECT b AS a", "42703", "b"),
        (
            "CREATE SOURCE x (a INT) WITH (connector = 'kafka', topic = 't', broker = 'b:1')",
            "22023",
            "did you mean 'brokers'",
        ),
        ("CREATE TABLE x (a INT DEFAULT 'z')", "22P02", "z"),
        ("CREATE SOURCE x (a INT) WITH (connector = 'kafak')", "22023", "kafka"),
        ("CREATE SOURCE x (a INT) WITH (connector = 'kafka', topci = 't', brokers = 'b:1')", "22023", "topic"),
        ("CREATE SOURCE x (a INT, WATERMARK FOR b AS b) WITH (connector = 'generator')", "42703", "b"),
        ("ALTER TABLE t ALTER COLUMN b TYPE INT", "42804", "widening"),
        ("ALTER TABLE t ADD COLUMN a INT", "42701", "already exists"),
        ("ALTER TABLE t DROP COLUMN c", "42703", "c"),
        ("ALTER TABLE nope ADD COLUMN a INT", "42P01", "nope"),
        ("DROP TABLE s", "42809", "source"),
        ("DROP TABLE nope", "42P01", "nope"),
        ("INSERT INTO s VALUES (1)", "42P01", "\"s\""),
    ] {
        let (found, message, hint) = refused(&server, sql);
        assert_eq!(found, state, "{sql}: {message}");
        assert!(message.contains(words) || hint.contains(words), "{sql}: {message} / {hint}");
    }
    let broker =
        "CREATE SOURCE k (a INT) WITH (connector = 'kafka', brokers = '127.0.0.1:1', topic = 'orders', timeout = '1s')";
    let (state, message, _) = refused(&server, broker);
    assert_eq!(state, "08001");
    assert!(message.contains("127.0.0.1:1"), "{message}");
    for sql in [
        "CREATE TABLE IF NOT EXISTS t (z INT)",
        "DROP TABLE IF EXISTS nope",
        "ALTER TABLE t ADD COLUMN IF NOT EXISTS a INT",
    ] {
        server.sql(sql);
    }
    assert_eq!(server.value("SELECT count(*) FROM rt.tables"), "1", "what was refused left nothing");
}

#[test]
fn a_table_is_made_of_a_query() {
    let server = server();
    server.sql("CREATE TABLE numbers AS SELECT value AS n, value * 1.5 AS x, 'row ' || value AS label FROM generate_series(1, 1000) AS g(value)");
    assert_eq!(server.value("SELECT count(*) || ' ' || sum(n) FROM numbers"), "1000 500500");
    assert_eq!(refused(&server, "CREATE TABLE twice AS SELECT 1 AS a, 2 AS a").0, "42701");
    assert_eq!(refused(&server, "CREATE TABLE zero AS SELECT 1 / 0 AS a").0, "22012");
    assert_eq!(server.value("SELECT count(*) FROM rt.tables"), "1");
}

#[test]
fn the_catalog_tells_what_was_defined_when() {
    let mut server = server();
    server.sql("CREATE TABLE t (id BIGINT)");
    let first = server.value("SELECT max(version) FROM rt.catalog_log");
    server.sql("ALTER TABLE t ADD COLUMN c TEXT");
    server.sql("CREATE SOURCE demo WITH (connector = 'generator', rate = 1)");
    server.kill_and_restart();
    server.sql("DROP TABLE t");
    let last = server.value("SELECT max(version) FROM rt.catalog_log");
    let names = |version: &str| {
        let sql = format!(
            "SELECT string_agg(kind || ' ' || name || ' ' || version, ', ' ORDER BY kind) FROM rt.catalog_at({version})"
        );
        server.value(&sql)
    };
    assert_eq!(names(&first), "table t 1");
    assert_eq!(names(&last), "source demo 1");
    assert_eq!(names("0"), "NULL");
    let changes = server.value("SELECT string_agg(change, ' ' ORDER BY version) FROM rt.catalog_log");
    assert_eq!(changes, "table.create table.alter source.create table.drop");
    for (wrong, state) in [("-1", "22023"), ("1000000", "22023"), ("'x'", "22P02"), ("", "42883")] {
        assert_eq!(refused(&server, &format!("SELECT * FROM rt.catalog_at({wrong})")).0, state, "{wrong}");
    }
}

#[test]
fn a_bounded_read_begins_and_ends_at_exact_offsets() {
    let Some(brokers) = brokers("a_bounded_read_begins_and_ends_at_exact_offsets") else { return };
    let topic = format!("bounded-{}", std::process::id());
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    let produce = |from: i64, to: i64| {
        for id in from..to {
            feed.send(0, format!("{{\"id\":{id}}}").as_bytes());
        }
        feed.flush();
    };
    produce(0, 100);
    let mut server = server();
    for (name, start, stop) in [
        ("from_40", "offsets:{0:40}", None),
        ("to_now", "offsets:{0:40}", Some("latest")),
        ("to_70", "earliest", Some("offsets:{0:70}")),
        ("nothing", "latest", Some("latest")),
    ] {
        let stop = stop.map_or(String::new(), |stop| format!(", stop = '{stop}'"));
        server.sql(&format!(
            "CREATE SOURCE {name}_raw (id BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', \
             start = '{start}'{stop})"
        ));
        server.sql(&format!("CREATE TABLE {name} FROM SOURCE {name}_raw"));
    }
    produce(100, 130);
    let check = |server: &Server| {
        for (name, wanted) in
            [("from_40", "90 40 129"), ("to_now", "60 40 99"), ("to_70", "70 0 69"), ("nothing", "0 ")]
        {
            server.sql(&format!("SELECT rt.drain('{name}_raw')"));
            let sql = format!("SELECT concat_ws(' ', count(*), coalesce(min(id)::text, ''), max(id)) FROM {name}");
            assert_eq!(server.value(&sql), wanted, "{name}");
        }
    };
    check(&server);
    // The end is where it was when the source was made, also after a restart.
    server.kill_and_restart();
    check(&server);
    let message = refused(
        &server,
        &format!(
            "CREATE SOURCE future (id BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', stop = 'timestamp:2999-01-01')"
        ),
    );
    assert!(message.2.contains("has passed"), "{message:?}");
    assert_eq!(refused(&server, "CREATE SOURCE s WITH (connector = 'generator', stop = 'earliest')").0, "22023");
}

#[test]
fn columns_are_compressed_as_they_say() {
    let mut server = server();
    server.sql(
        "CREATE TABLE t (id BIGINT, byte_wise TEXT COMPRESSION none, fast TEXT COMPRESSION lz4, small TEXT COMPRESSION zstd, free TEXT DEFAULT 'x' COMPRESSION default)",
    );
    let note = "'order ' || i || ' is ' || md5(i::text) || ' and will be delivered to the customer'";
    let insert = |from: u32, to: u32| {
        format!("INSERT INTO t SELECT i, {note}, {note}, {note}, {note} FROM generate_series({from}, {to}) AS s(i)")
    };
    server.sql(&insert(1, 5000));
    server.sql("SELECT rt.seal('t')");
    let bytes = |column: &str| -> u64 {
        server
            .value(&format!("SELECT bytes FROM rt.columns WHERE \"table\" = 't' AND name = '{column}'"))
            .parse()
            .unwrap()
    };
    let (none, lz4, zstd) = (bytes("byte_wise"), bytes("fast"), bytes("small"));
    assert!(zstd < lz4 && lz4 < none, "{zstd}, {lz4}, {none} bytes");
    assert_eq!(bytes("free"), zstd);
    server.sql("ALTER TABLE t ALTER COLUMN byte_wise SET COMPRESSION lz4, ALTER free SET COMPRESSION none");
    server.sql(&insert(5001, 9000));
    server.sql("SELECT rt.seal('t')");
    let encodings = |server: &Server| {
        let rows = server.sql("SELECT encodings FROM rt.segments WHERE \"table\" = 't' AND rows > 0 ORDER BY id");
        rows.iter().filter_map(|row| row[0].clone()).collect::<Vec<_>>()
    };
    let expected = [
        r#"{"byte_wise":"blocks","fast":"lz4 blocks","free":"zstd blocks","id":"integers","small":"zstd blocks"}"#,
        r#"{"byte_wise":"lz4 blocks","fast":"lz4 blocks","free":"blocks","id":"integers","small":"zstd blocks"}"#,
    ];
    assert_eq!(encodings(&server), expected);
    // What psql's \d+ asks, and ours.
    let attributes = "SELECT string_agg(attname || ':' || attcompression, ' ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 't'::regclass AND attnum > 0";
    let chosen = "SELECT string_agg(compression, ' ' ORDER BY position) FROM rt.columns WHERE \"table\" = 't'";
    for _ in 0..2 {
        assert_eq!(server.value(attributes), "id: byte_wise:l fast:l small: free:");
        assert_eq!(server.value(chosen), "default lz4 lz4 zstd none");
        assert_eq!(
            server.value("SELECT count(*) FROM t WHERE byte_wise = fast AND fast = small AND small = free"),
            "9000"
        );
        assert_eq!(
            server.value(&format!("SELECT count(*) FROM t, LATERAL (SELECT id AS i) s WHERE fast = {note}")),
            "9000"
        );
        server.kill_and_restart();
    }
    assert_eq!(encodings(&server), expected);

    let (state, message, hint) = refused(&server, "ALTER TABLE t ALTER COLUMN fast SET COMPRESSION pglz");
    assert_eq!((state.as_str(), message.as_str()), ("22023", "invalid compression method \"pglz\""));
    assert!(hint.contains("zstd"), "{hint}");
    let (state, message, _) = refused(&server, "CREATE TABLE b (flag BOOLEAN COMPRESSION zstd)");
    assert_eq!((state.as_str(), message.as_str()), ("0A000", "column data type boolean does not support compression"));
    assert_eq!(refused(&server, "ALTER TABLE t ALTER COLUMN nothing SET COMPRESSION lz4").0, "42703");
    assert_eq!(server.value(chosen), "default lz4 lz4 zstd none");
    server.stop();
}

#[test]
fn a_source_is_read_again_when_somebody_says_so() {
    let mut server = server();
    server.sql("CREATE SOURCE s WITH (connector = 'generator', rate = 0, rows = 500)");
    let (state, message, hint) = refused(&server, "ALTER SOURCE s RESET OFFSETS TO 'earliest'");
    assert_eq!((state.as_str(), message.as_str()), ("55000", "no table reads from source \"s\""), "{hint}");
    server.sql("CREATE TABLE a FROM SOURCE s");
    server.sql("CREATE TABLE b FROM SOURCE s");
    let both = "SELECT (SELECT count(*) FROM a) || ' ' || (SELECT count(*) FROM b)";
    server.wait_for(both, "500 500", Duration::from_secs(20));
    server.sql("ALTER TABLE b PAUSE INGESTION");
    server.sql("ALTER SOURCE s RESET OFFSETS TO 'earliest'");
    server.wait_for(both, "1000 500", Duration::from_secs(20));
    assert_eq!(
        server
            .value("SELECT string_agg(DISTINCT state, ' ') FROM rt.partitions WHERE \"table\" = 'b' AND source = 's'"),
        "paused"
    );
    server.kill_and_restart();
    server.wait_for(both, "1000 500", Duration::from_secs(20));
    server.sql("ALTER TABLE b RESUME INGESTION");
    server.wait_for(both, "1000 1000", Duration::from_secs(20));
    for (sql, state, words) in [
        ("ALTER SOURCE s RESET OFFSETS TO 'first'", "22023", "earliest"),
        ("ALTER SOURCE s RESET OFFSETS TO 'offsets:{99:0}'", "22023", "partition 99"),
        ("ALTER SOURCE s RESET OFFSETS TO earliest", "42601", "earliest"),
        ("ALTER SOURCE s RESET OFFSETS", "42601", "end of input"),
        ("ALTER SOURCE s RENAME TO z", "0A000", "RESET OFFSETS"),
    ] {
        let (found, message, hint) = refused(&server, sql);
        assert_eq!(found, state, "{sql}: {message}");
        assert!(message.contains(words) || hint.contains(words), "{sql}: {message} / {hint}");
    }
    assert_eq!(server.value(both), "1000 1000");
}

/// Rows of a random number each: files of about 9 bytes a row.
#[test]
fn segments_grow_to_the_size_that_is_wanted() {
    let mut server = server();
    server.sql("CREATE TABLE t (a INT, b INT) WITH (seal_rows = 'auto', seal_bytes = '2MB')");
    assert_eq!(
        server.value("SELECT coalesce(seal_rows::text, 'auto') || ' ' || seal_bytes FROM rt.tables"),
        "auto 2097152"
    );
    let more = |server: &Server, times: usize| {
        for _ in 0..times {
            server.sql(
                "INSERT INTO t SELECT (random() * 1e9)::int, (random() * 1e9)::int FROM generate_series(1, 25000)",
            );
        }
    };
    let sizes = "SELECT string_agg(rows::text, ' ' ORDER BY id) FROM rt.segments WHERE state = 'committed'";
    more(&server, 4);
    server.wait_for(sizes, "100000", Duration::from_secs(60));
    more(&server, 15);
    let last = "SELECT bool_and(bytes BETWEEN 1600000 AND 2600000) FROM rt.segments WHERE state = 'committed' AND rows > 100000";
    server.wait_for(last, "t", Duration::from_secs(60));
    // What was learned is not forgotten.
    server.kill_and_restart();
    more(&server, 20);
    assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE rows = 100000 AND state = 'committed'"), "1");
    server.wait_for(last, "t", Duration::from_secs(60));
    server.sql("ALTER TABLE t SET (seal_rows = 50000)");
    more(&server, 2);
    assert_eq!(server.value("SELECT seal_rows FROM rt.tables"), "50000");
    assert_eq!(refused(&server, "ALTER TABLE t SET (seal_rows = 'sometimes')").0, "22023");
    assert_eq!(server.value("SELECT count(*) FROM t"), (41 * 25_000).to_string());
    server.stop();
}

/// A thousand UNION ALLs, or three hundred AT TIME ZONEs, ended the process: its stack was too small for the plan.
#[test]
fn long_statements_are_answered_or_refused() {
    let mut server = server();
    let chain = |first: &str, next: &str, times: usize| format!("{first}{}", next.repeat(times));
    assert_eq!(
        server.value(&format!("SELECT count(*) FROM ({}) q", chain("SELECT 1", " UNION ALL SELECT 1", 700))),
        "701"
    );
    assert_eq!(server.value(&chain("SELECT 7", "::int", 120)), "7");
    assert_eq!(
        server.value(&chain("SELECT timestamp '2024-01-01'", " AT TIME ZONE 'UTC'", 120)),
        "2024-01-01 00:00:00"
    );
    assert_eq!(server.value(&chain("SELECT 0", " + 1", 60)), "60");
    for (first, next) in
        [("SELECT 1", " UNION ALL SELECT 1"), ("SELECT 7", "::int"), ("SELECT now()", " AT TIME ZONE 'UTC'")]
    {
        assert_eq!(refused(&server, &chain(first, next, 5000)).0, "54001", "{first}{next}");
    }
    let brackets = format!("SELECT '{}{}'::jsonb", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(refused(&server, &brackets).0, "54001");
    assert_eq!(refused(&server, &brackets.replace("::jsonb", "::text::json")).0, "54001");
    server.stop();
}
