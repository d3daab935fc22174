//! Simple and extended protocol, transactions, cursors, cancel, timeouts.

use std::time::Duration;

use super::fixture::{Fixture, SESSIONS_MAX, run, sqlstate, text};
use tokio_postgres::SimpleQueryMessage;

/// Takes so long that only stopping it ends the test in time.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 4000000) a(value), generate_series(1, 4000000) b(value) WHERE a.value + b.value < 0";

#[test]
fn several_statements_stop_at_the_first_error() {
    run(async {
        let fixture = Fixture::start().await;
        let client = fixture.connect().await;
        assert_eq!(text(&client, "SELECT 1; ; SELECT 'a;b' -- c;\n, 2").await, ["1", "a;b|2"]);
        assert_eq!(text(&client, " ; -- nothing\n").await, Vec::<String>::new());
        // A syntax error anywhere keeps all from running; an error while running keeps what comes after it.
        assert_eq!(sqlstate(client.simple_query("CREATE TABLE a (x INT); SELEKT 1").await), "42601");
        assert_eq!(
            sqlstate(client.simple_query("CREATE TABLE b (x INT); SELECT nope; CREATE TABLE c (x INT)").await),
            "42703"
        );
        let names: Vec<String> = tidemill_query::TableCatalog::tables(fixture.tables.as_ref())
            .into_iter()
            .map(|handle| handle.name)
            .collect();
        assert_eq!(names, ["b"]);
        fixture.stop().await;
    });
}

#[test]
fn errors_say_what_and_where() {
    run(async {
        let fixture = Fixture::start().await;
        let client = fixture.connect().await;
        let error = client.simple_query("SELECT 1; SELECT\n  1 +").await.unwrap_err();
        assert_eq!(error.as_db_error().unwrap().code().code(), "42601");
        for (sql, state, position) in [
            ("SELECT 'ä', nope", "42703", Some(13)),
            ("SELECT 1; SELECT nope", "42703", Some(18)),
            ("SELECT * FROM nowhere", "42P01", Some(15)),
            ("COPY (SELECT nope) TO STDOUT", "42703", Some(14)),
            ("SELECT nofunction(1)", "42883", None),
            ("UPDATE nowhere SET a = 1", "42P01", None),
            ("MERGE INTO nowhere USING a ON true WHEN MATCHED THEN DELETE", "0A000", None),
            ("SET nonsense = 1", "42704", None),
            ("SHOW nonsense", "42704", None),
            ("FETCH 1 FROM nothing", "34000", None),
            ("EXECUTE nothing", "26000", None),
            ("SELECT 1/0", "22012", None),
            ("SELECT 'x'::int", "22P02", None),
            ("COPY nowhere FROM STDIN", "42P01", None),
        ] {
            let error = client.simple_query(sql).await.err().unwrap_or_else(|| panic!("{sql} should fail"));
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), state, "{sql}: {error:?}");
            if let Some(position) = position {
                let found = match error.position() {
                    Some(tokio_postgres::error::ErrorPosition::Original(found)) => Some(*found),
                    _ => None,
                };
                assert_eq!(found, Some(position), "{sql}: {error:?}");
            }
        }
        assert_eq!(text(&client, "SELECT 1").await, ["1"]);
        fixture.stop().await;
    });
}

#[test]
fn transactions_keep_their_state() {
    run(async {
        let fixture = Fixture::start().await;
        let client = fixture.connect().await;
        client.simple_query("BEGIN").await.unwrap();
        assert_eq!(sqlstate(client.simple_query("SELECT nope").await), "42703");
        assert_eq!(sqlstate(client.simple_query("SELECT 1").await), "25P02");
        assert_eq!(sqlstate(client.query("SELECT 1", &[]).await), "25P02");
        client.simple_query("COMMIT").await.unwrap();
        client.simple_query("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await.unwrap();
        assert_eq!(text(&client, "SHOW transaction_isolation").await, ["repeatable read"]);
        assert_eq!(sqlstate(client.simple_query("CREATE TABLE t (a INT)").await), "25006");
        client.simple_query("ROLLBACK").await.unwrap();
        client.simple_query("BEGIN; SAVEPOINT s").await.unwrap();
        assert_eq!(sqlstate(client.simple_query("SELECT nope").await), "42703");
        client.simple_query("ROLLBACK TO s").await.unwrap();
        assert_eq!(text(&client, "SELECT 2").await, ["2"]);
        client.simple_query("RELEASE s; END").await.unwrap();
        assert_eq!(sqlstate(client.simple_query("SAVEPOINT s").await), "25P01");
        fixture.stop().await;
    });
}

#[test]
fn settings_are_the_sessions_own() {
    run(async {
        let fixture = Fixture::start().await;
        let client = fixture.try_connect("application_name=tests options='-c statement_timeout=1234ms'").await.unwrap();
        let other = fixture.connect().await;
        assert_eq!(text(&client, "SHOW application_name; SHOW statement_timeout").await, ["tests", "1234ms"]);
        client.simple_query("SET TimeZone = 'Asia/Kolkata'; SET search_path TO a, \"B\"").await.unwrap();
        assert_eq!(text(&client, "SHOW timezone").await, ["Asia/Kolkata"]);
        assert_eq!(text(&client, "SELECT '2024-01-01 00:00:00+00'::timestamptz").await, ["2024-01-01 05:30:00+05:30"]);
        assert_eq!(
            text(&other, "SHOW timezone; SELECT '2024-01-01 00:00:00+00'::timestamptz").await,
            ["UTC", "2024-01-01 00:00:00+00"]
        );
        client.simple_query("RESET ALL").await.unwrap();
        assert_eq!(text(&client, "SHOW timezone; SHOW statement_timeout").await, ["UTC", "1234ms"]);
        client.simple_query("BEGIN; SET LOCAL statement_timeout = '5s'").await.unwrap();
        assert_eq!(text(&client, "SHOW statement_timeout").await, ["5s"]);
        client.simple_query("COMMIT").await.unwrap();
        assert_eq!(text(&client, "SHOW statement_timeout").await, ["1234ms"]);
        assert_eq!(sqlstate(fixture.try_connect("options='-c nonsense=1'").await), "42704");
        client.simple_query("DISCARD ALL; CLOSE ALL; UNLISTEN *; DEALLOCATE ALL").await.unwrap_err();
        client.simple_query("DISCARD ALL").await.unwrap();
        fixture.stop().await;
    });
}

#[test]
fn prepared_statements_and_portals() {
    run(async {
        let fixture = Fixture::start().await;
        let mut client = fixture.connect().await;
        let statement = client.prepare("SELECT $1::int + 1 AS next, $2::text").await.unwrap();
        assert_eq!(statement.columns()[0].name(), "next");
        for n in [1, 41] {
            let row = client.query_one(&statement, &[&n, &"x"]).await.unwrap();
            assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (n + 1, "x"));
        }
        // A portal read in pieces runs no further than it is read.
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("SELECT * FROM generate_series(1, 100000000)", &[]).await.unwrap();
        for piece in 0..3 {
            let rows = transaction.query_portal(&portal, 1000).await.unwrap();
            assert_eq!(rows.len(), 1000);
            assert_eq!(rows[0].get::<_, i32>(0), piece * 1000 + 1);
        }
        drop(portal);
        transaction.commit().await.unwrap();
        // In SQL.
        client.simple_query("PREPARE p (int, text) AS SELECT $1 * 2, upper($2)").await.unwrap();
        assert_eq!(text(&client, "EXECUTE p(20 + 1, 'a')").await, ["42|A"]);
        assert_eq!(sqlstate(client.simple_query("EXECUTE p(1)").await), "42601");
        assert_eq!(sqlstate(client.simple_query("PREPARE p AS SELECT 1").await), "42P05");
        assert!(!text(&client, "EXPLAIN EXECUTE p(1, 'a')").await.is_empty());
        client.simple_query("DEALLOCATE p").await.unwrap();
        assert_eq!(sqlstate(client.simple_query("EXECUTE p(1, 'a')").await), "26000");
        // Errors in the extended protocol leave the connection usable.
        assert_eq!(sqlstate(client.query("SELECT nope", &[]).await), "42703");
        assert_eq!(client.query_one("SELECT 7::int8", &[]).await.unwrap().get::<_, i64>(0), 7);
        fixture.stop().await;
    });
}

#[test]
fn cursors_move_forward() {
    run(async {
        let fixture = Fixture::start().await;
        let client = fixture.connect().await;
        assert_eq!(sqlstate(client.simple_query("DECLARE c CURSOR FOR SELECT 1").await), "25P01");
        client
            .simple_query("BEGIN; DECLARE c NO SCROLL CURSOR FOR SELECT * FROM generate_series(1, 10)")
            .await
            .unwrap();
        assert_eq!(text(&client, "FETCH c").await, ["1"]);
        assert_eq!(text(&client, "FETCH FORWARD 2 FROM c").await, ["2", "3"]);
        let moved = client.simple_query("MOVE 3 IN c").await.unwrap();
        assert!(moved.iter().any(|message| matches!(message, SimpleQueryMessage::CommandComplete(3))), "{moved:?}");
        assert_eq!(text(&client, "FETCH NEXT FROM c; FETCH ALL c; FETCH ALL c").await, ["7", "8", "9", "10"]);
        assert_eq!(sqlstate(client.simple_query("FETCH PRIOR FROM c").await), "55000");
        client.simple_query("ROLLBACK").await.unwrap();
        assert_eq!(sqlstate(client.simple_query("FETCH c").await), "34000");
        client.simple_query("DECLARE h CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 3)").await.unwrap();
        client.simple_query("BEGIN; COMMIT").await.unwrap();
        assert_eq!(text(&client, "FETCH 2 FROM h; CLOSE h").await, ["1", "2"]);
        // One that goes back, as PostgreSQL's does.
        client
            .simple_query("DECLARE s SCROLL CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 20000)")
            .await
            .unwrap();
        for (fetch, rows) in [
            ("FETCH 3 FROM s", &["1", "2", "3"] as &[&str]),
            ("FETCH BACKWARD 2 FROM s", &["2", "1"]),
            ("FETCH PRIOR FROM s", &[]),
            ("FETCH FIRST IN s", &["1"]),
            ("FETCH ABSOLUTE 15000 s", &["15000"]),
            ("FETCH RELATIVE -1 FROM s", &["14999"]),
            ("FETCH 0 FROM s", &["14999"]),
            ("FETCH LAST FROM s", &["20000"]),
            ("FETCH NEXT FROM s", &[]),
            ("FETCH -2 FROM s", &["20000", "19999"]),
            ("FETCH ABSOLUTE -3 FROM s", &["19998"]),
        ] {
            assert_eq!(text(&client, fetch).await, rows, "{fetch}");
        }
        let moved = client.simple_query("MOVE BACKWARD ALL IN s").await.unwrap();
        assert!(
            moved.iter().any(|message| matches!(message, SimpleQueryMessage::CommandComplete(19_997))),
            "{moved:?}"
        );
        assert_eq!(text(&client, "FETCH s; CLOSE s").await, ["1"]);
        assert_eq!(sqlstate(client.simple_query("CLOSE h").await), "34000");
        fixture.stop().await;
    });
}

#[test]
fn cancel_timeout_and_disconnect_stop_the_work() {
    run(async {
        let fixture = Fixture::start().await;
        let client = fixture.connect().await;
        // Cancel request on a second connection.
        let token = client.cancel_token();
        let running = tokio::spawn(async move { (sqlstate(client.simple_query(ENDLESS).await), client) });
        while !fixture.shared.registry.sessions().iter().any(|entry| entry.activity().running) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        let (state, client) = tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
        assert_eq!(state, "57014");
        assert!(fixture.shared.engine.queries().running().is_empty());
        nothing_works(&fixture, "a cancelled query").await;
        // statement_timeout.
        client.simple_query("SET statement_timeout = 100").await.unwrap();
        assert_eq!(sqlstate(client.simple_query(ENDLESS).await), "57014");
        assert_eq!(sqlstate(client.query(ENDLESS, &[]).await), "57014");
        nothing_works(&fixture, "a query that took too long").await;
        client.simple_query("RESET statement_timeout").await.unwrap();
        assert_eq!(text(&client, "SELECT 1").await, ["1"]);
        // A client that goes away.
        let mut gone = super::hostile::Raw::connect(&fixture).await;
        gone.send(b'Q', format!("{ENDLESS}\0").as_bytes()).await;
        while fixture.shared.engine.queries().running().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(gone);
        nothing_works(&fixture, "the query of a client that left").await;
        assert!(fixture.shared.engine.queries().running().is_empty());
        // One that sleeps, and one whose client takes no rows.
        for sql in ["SELECT pg_sleep(3600)", "SELECT repeat('x', 1000) FROM generate_series(1, 100000000)"] {
            let mut gone = super::hostile::Raw::connect(&fixture).await;
            gone.send(b'Q', format!("{sql}\0").as_bytes()).await;
            while fixture.shared.engine.queries().running().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(gone);
            nothing_works(&fixture, sql).await;
        }
        fixture.stop().await;
    });
}

/// Waits until no query has a thread or memory: an answer is not enough, the work must end.
async fn nothing_works(fixture: &Fixture, what: &str) {
    let quiet = async {
        while fixture.shared.engine.queries().at_work() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), quiet).await.unwrap_or_else(|_| panic!("{what} still works"));
}

#[test]
fn backends_are_cancelled_and_terminated_by_sql() {
    run(async {
        let fixture = Fixture::start().await;
        let (client, victim) = (fixture.connect().await, fixture.connect().await);
        let pid = fixture.shared.registry.sessions().iter().map(|entry| entry.pid).max().unwrap();
        let running = tokio::spawn(async move { (sqlstate(victim.simple_query(ENDLESS).await), victim) });
        while fixture.shared.engine.queries().running().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(text(&client, &format!("SELECT pg_cancel_backend({pid})")).await, ["t"]);
        let (state, victim) = tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
        assert_eq!(state, "57014");
        assert_eq!(text(&victim, "SELECT 1").await, ["1"]);
        assert_eq!(text(&client, &format!("SELECT pg_terminate_backend({pid})")).await, ["t"]);
        let closed = async {
            while !victim.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), closed).await.unwrap();
        assert_eq!(text(&client, "SELECT pg_cancel_backend(99999)").await, ["f"]);
        fixture.stop().await;
    });
}

/// asyncpg reads the answer of Parse, Describe, Flush before it sends Sync: an error that waited for Sync hung it for ever.
#[test]
fn an_error_is_sent_before_sync() {
    run(async {
        let fixture = Fixture::start().await;
        let mut raw = super::hostile::Raw::connect(&fixture).await;
        raw.send(b'P', b"s\0SELECT * FROM nosuch\0\0\0").await;
        raw.send(b'D', b"Ss\0").await;
        raw.send(b'H', b"").await;
        let messages = raw.until(b'E').await.unwrap();
        assert!(messages.iter().any(|(_, body)| body.windows(5).any(|window| window == b"42P01")), "{messages:?}");
        raw.send(b'S', b"").await;
        raw.until(b'Z').await.unwrap();
        fixture.stop().await;
    });
}

#[test]
fn too_many_connections_are_refused() {
    run(async {
        let fixture = Fixture::start().await;
        let mut clients = Vec::new();
        for _ in 0..SESSIONS_MAX {
            clients.push(fixture.connect().await);
        }
        assert_eq!(sqlstate(fixture.try_connect("").await), "53300");
        clients.pop();
        let freed = async {
            while fixture.try_connect("").await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), freed).await.unwrap();
        fixture.stop().await;
    });
}
