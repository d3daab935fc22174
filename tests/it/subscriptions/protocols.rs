//! The ways in which rows come: extended protocol, portals, COPY in its formats, cursors, psql, HTTP.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    pin::pin,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tokio_postgres::{SimpleQueryMessage, types::ToSql};

use super::{BINARY, PATIENCE, state};
use crate::support::server::{Server, connect, runtime};

fn filled(server: &Server) {
    server.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, city TEXT, price NUMERIC(8,2))");
    server.sql("INSERT INTO t VALUES (1, 'Oslo', 1.50), (2, 'Rome', 2)");
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

#[test]
fn extended_protocol_with_parameters() {
    let server = Server::start(BINARY);
    filled(&server);
    runtime().block_on(async {
        let (client, writer) = (connect(server.pg_port).await.unwrap(), connect(server.pg_port).await.unwrap());
        let statement =
            client.prepare("SUBSCRIBE TO (SELECT id, city FROM t WHERE price < $1 AND id > $2)").await.unwrap();
        let names: Vec<_> = statement.columns().iter().map(|column| (column.name(), column.type_().name())).collect();
        assert_eq!(names, [("rt_time", "timestamptz"), ("rt_diff", "int8"), ("id", "int8"), ("city", "text")]);
        let parameters: [&dyn ToSql; 2] = [&0_i64, &"%o%"];
        let sql = "SUBSCRIBE SELECT id, city FROM t WHERE id > $1 AND city LIKE $2";
        let rows = client.query_raw(sql, parameters).await.unwrap();
        let mut rows = pin!(rows);
        let mut next = async || {
            let row = in_time(rows.next()).await.unwrap().unwrap();
            let time: chrono::DateTime<chrono::Utc> = row.get("rt_time");
            (time, row.get::<_, i64>("rt_diff"), row.get::<_, i64>("id"), row.get::<_, Option<String>>("city"))
        };
        let mut first = [next().await, next().await];
        first.sort();
        assert_eq!(first[0].0, first[1].0);
        assert!((chrono::Utc::now() - first[0].0).num_seconds().abs() < 60);
        assert_eq!((first[0].1, first[0].2, first[1].2), (1, 1, 2));
        writer.simple_query("UPDATE t SET city = 'Lyon' WHERE id = 1").await.unwrap();
        let (went, came) = (next().await, next().await);
        assert_eq!((went.1, went.2, went.3.as_deref()), (-1, 1, Some("Oslo")));
        assert_eq!((came.0, came.1, came.2, came.3.as_deref()), (went.0, 1, 1, Some("Lyon")));
        assert!(came.0 > first[0].0);
        // What does not pass is not told, and what comes to pass is.
        writer.simple_query("INSERT INTO t VALUES (3, 'Bern', 3)").await.unwrap();
        writer.simple_query("DELETE FROM t WHERE id = 2").await.unwrap();
        assert_eq!(next().await.2, 2);
    });
}

/// How long after an INSERT began, and after it returned, its row is there.
#[test]
fn a_change_is_there_within_milliseconds() {
    let server = Server::start(BINARY);
    filled(&server);
    runtime().block_on(async {
        for (what, sql, first) in [
            ("rows that changed", "SUBSCRIBE SELECT id, city FROM t WHERE id > 0", 1000),
            ("the whole query", "SUBSCRIBE SELECT count(*), sum(price) FROM t WHERE id > 0", 2000),
        ] {
            let (client, writer) = (connect(server.pg_port).await.unwrap(), connect(server.pg_port).await.unwrap());
            let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
            let rows = client.simple_query_raw(sql).await.unwrap();
            tokio::spawn(async move {
                let mut rows = pin!(rows);
                while let Some(Ok(message)) = rows.next().await {
                    if let SimpleQueryMessage::Row(row) = message
                        && row.get(1) == Some("1")
                    {
                        let _ = heard.send(Instant::now());
                    }
                }
            });
            in_time(hears.recv()).await.unwrap();
            let mut waits = Vec::new();
            for id in first..first + 40 {
                while hears.try_recv().is_ok() {}
                writer.simple_query(&format!("INSERT INTO t VALUES ({id}, 'Rome', 1)")).await.unwrap();
                let visible = Instant::now();
                let came = in_time(hears.recv()).await.unwrap();
                waits.push(came.saturating_duration_since(visible));
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            waits.sort();
            println!(
                "{what}: visible to the client after the INSERT's return: median {:?}, worst {:?}",
                waits[20], waits[39]
            );
            assert!(waits[20] < Duration::from_millis(500), "{what}: {waits:?}");
        }
    });
}

/// Lines as they come, and none after the end.
fn lines(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn psql_gets_lines_by_copy() {
    let server = Server::start(BINARY);
    filled(&server);
    let url = format!("postgres://tidemill@127.0.0.1:{}/tidemill?sslmode=disable", server.pg_port);
    for (format, oslo, went) in
        [("(FORMAT csv, HEADER)", ",1,1,Oslo", ",-1,1,Oslo"), ("(FORMAT text)", "\t1\t1\tOslo", "\t-1\t1\tOslo")]
    {
        let sql = format!("COPY (SUBSCRIBE SELECT id, city FROM t WHERE city = 'Oslo') TO STDOUT {format}");
        // psql gathers what it writes into a pipe.
        let mut psql = Command::new("stdbuf")
            .args(["-oL", "psql", "-X", "-q", &url, "-c", &sql])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql is installed");
        let (out, err) = (lines(psql.stdout.take().unwrap()), lines(psql.stderr.take().unwrap()));
        let next = || out.recv_timeout(PATIENCE).expect("a line in time");
        if format.contains("csv") {
            assert_eq!(next(), "rt_time,rt_diff,id,city");
        }
        assert!(next().ends_with(oslo));
        server.sql("DELETE FROM t WHERE id = 1");
        assert!(next().ends_with(went));
        server.sql("INSERT INTO t VALUES (1, 'Oslo', 1.50)");
        assert!(next().ends_with(oslo));
        let pid = server.value("SELECT pid FROM rt.queries WHERE query LIKE 'SUBSCRIBE%'");
        server.sql(&format!("SELECT pg_cancel_backend({pid})"));
        assert!(err.recv_timeout(PATIENCE).unwrap().contains("canceling statement due to user request"));
        assert!(!psql.wait().unwrap().success());
    }
}

#[test]
fn binary_copy_is_sent_as_it_comes() {
    let server = Server::start(BINARY);
    filled(&server);
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let bytes = client.copy_out("COPY (SUBSCRIBE SELECT id FROM t) TO STDOUT (FORMAT binary)").await.unwrap();
        let mut bytes = pin!(bytes);
        let mut first = in_time(bytes.next()).await.unwrap().unwrap().to_vec();
        assert!(first.starts_with(b"PGCOPY\n"));
        first.extend(in_time(bytes.next()).await.unwrap().unwrap());
        server_insert(server.pg_port).await;
        let row = in_time(bytes.next()).await.unwrap().unwrap();
        assert_eq!((&row[..2], &row[row.len() - 8..]), (&3_i16.to_be_bytes()[..], &9_i64.to_be_bytes()[..]));
    });
}

async fn server_insert(port: u16) {
    connect(port).await.unwrap().simple_query("INSERT INTO t VALUES (9, 'Lima', 1)").await.unwrap();
}

#[test]
fn cursors_fetch_what_there_is() {
    let server = Server::start(BINARY);
    filled(&server);
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let rows = async |sql: &str| -> Vec<String> {
            let messages = in_time(client.simple_query(sql)).await.unwrap();
            let row = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    Some(format!("{} {}", row.get("rt_diff").unwrap(), row.get("id").unwrap()))
                }
                _ => None,
            };
            messages.iter().filter_map(row).collect()
        };
        assert_eq!(state(&client.simple_query("DECLARE c CURSOR FOR SUBSCRIBE t").await.unwrap_err()), "25P01");
        client.simple_query("BEGIN; SAVEPOINT s").await.unwrap();
        assert_eq!(state(&client.simple_query("DECLARE c SCROLL CURSOR FOR SUBSCRIBE t").await.unwrap_err()), "0A000");
        client.simple_query("ROLLBACK TO s").await.unwrap();
        client.simple_query("DECLARE c CURSOR FOR SUBSCRIBE SELECT id FROM t ORDER BY id").await.unwrap();
        assert_eq!(rows("FETCH 1 c").await, ["1 1"]);
        assert_eq!(rows("FETCH ALL c").await, ["1 2"]);
        let start = Instant::now();
        assert_eq!(rows("FETCH ALL c WITH (timeout = '200ms')").await, [] as [&str; 0]);
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert_eq!(rows("FETCH ALL c WITH (timeout = '0s')").await, [] as [&str; 0]);
        let late = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server_insert(server.pg_port).await;
            server
        });
        // Waits for one row.
        assert_eq!(rows("FETCH 100 c").await, ["1 9"]);
        let server = late.await.unwrap();
        client.simple_query("COMMIT").await.unwrap();
        assert_eq!(server_queries(&client).await, 0, "the cursor is gone with its transaction");
        drop(server);
    });
}

/// Subscriptions that run.
async fn server_queries(client: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM rt.queries WHERE query LIKE 'SUBSCRIBE%'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[test]
fn lines_of_json_over_http() {
    let server = Server::start(BINARY);
    filled(&server);
    let ask = |accept: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.http_port)).unwrap();
        let sql = "SUBSCRIBE SELECT id FROM t WHERE id > 1";
        write!(
            stream,
            "POST /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        )
        .unwrap();
        lines(stream)
    };
    let answer = ask("application/x-ndjson");
    let found = |wanted: &str| {
        while !answer.recv_timeout(PATIENCE).expect("a line in time").contains(wanted) {}
    };
    found(r#""rt_diff":1,"id":2}"#);
    server.sql("DELETE FROM t");
    found(r#""rt_diff":-1,"id":2}"#);
    drop(answer);
    let refused = ask("application/json");
    assert!(refused.recv_timeout(PATIENCE).unwrap().contains("400"));
}

#[test]
fn what_can_not_be_subscribed_to() {
    let server = Server::start(BINARY);
    filled(&server);
    server.sql("CREATE VIEW v AS SELECT city, count(*) AS n FROM t GROUP BY city");
    for (sql, wanted) in [
        ("SUBSCRIBE SELECT now(), id FROM t", "0A000"),
        ("SUBSCRIBE SELECT id FROM t WHERE price > random()", "0A000"),
        ("SUBSCRIBE SELECT age(now() - INTERVAL '1 day') FROM t", "0A000"),
        ("SUBSCRIBE SELECT pg_notify('a', city) FROM t", "0A000"),
        ("SUBSCRIBE rt.queries", "0A000"),
        ("SUBSCRIBE SELECT relname FROM pg_class", "0A000"),
        ("SUBSCRIBE nowhere", "42P01"),
        ("SUBSCRIBE SELECT nothing FROM t", "42703"),
        ("SUBSCRIBE INSERT INTO t VALUES (1)", "42601"),
        ("SUBSCRIBE WITH d AS (SELECT 1) DELETE FROM t", "42601"),
        ("SUBSCRIBE t WITH (snapshots)", "22023"),
        ("SUBSCRIBE SELECT id FROM t WHERE id = $1", "42P02"),
        ("PREPARE p AS SUBSCRIBE t", "42601"),
        ("SUBSCRIBE SELECT 1 / 0", "22012"),
    ] {
        let error = server.try_sql(sql).expect_err(sql);
        assert_eq!(state(&error), wanted, "{sql}: {error:?}");
    }
    // Without a table there is an end.
    let rows = |sql: &str| -> Vec<String> { server.sql(sql).into_iter().map(|row| row[2].clone().unwrap()).collect() };
    assert_eq!(rows("SUBSCRIBE VALUES (1), (2)"), ["1", "2"]);
    assert_eq!(rows("SUBSCRIBE SELECT * FROM generate_series(1, 3)"), ["1", "2", "3"]);
    // Views are read, by name as well.
    runtime().block_on(async {
        let mut subscriber = super::Subscriber::open(&server, "", "SELECT * FROM v", "").await;
        subscriber.moment().await.unwrap();
        assert_eq!(subscriber.state.len(), 2);
    });
}
