//! TRUNCATE beside writers and readers, over kill -9 at every step; and the bytes of what went.

use std::time::Duration;

use crate::support::{
    files::files_with,
    server::{Server, connect, runtime},
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn filled(server: &Server) {
    server.sql("CREATE TABLE plain (k BIGINT, note TEXT) WITH (partitions = 3, seal_rows = 400)");
    server.sql("CREATE TABLE keyed (k BIGINT PRIMARY KEY, note TEXT) WITH (partitions = 3, seal_rows = 400)");
    for table in ["plain", "keyed"] {
        server.sql(&format!("INSERT INTO {table} SELECT k, 'marker-' || k FROM generate_series(1, 2000) AS s(k)"));
        server.sql(&format!("SELECT rt.seal('{table}')"));
        server.sql(&format!("INSERT INTO {table} SELECT k, 'marker-' || k FROM generate_series(1500, 2500) AS s(k)"));
        server.sql(&format!("DELETE FROM {table} WHERE k % 10 = 3"));
    }
}

fn counts(server: &Server) -> [String; 2] {
    ["plain", "keyed"].map(|table| server.value(&format!("SELECT count(*) FROM {table}")))
}

#[test]
fn what_went_stays_away_and_its_bytes_are_gone() {
    let mut server = Server::start(BINARY);
    filled(&server);
    // DELETE has let go of the log of those before.
    server.sql("INSERT INTO plain VALUES (1777, 'marker-1777')");
    assert!(!files_with(&server.data_dir, "marker-1777").is_empty(), "the rows are in some file");
    server.sql("TRUNCATE plain, keyed");
    assert_eq!(counts(&server), ["0", "0"]);
    assert_eq!(files_with(&server.data_dir, "marker-1777"), Vec::<String>::new());
    server.sql("INSERT INTO keyed VALUES (7, 'first'), (8, 'first')");
    for _ in 0..2 {
        server.kill_and_restart();
        assert_eq!(counts(&server), ["0", "2"]);
        assert_eq!(server.value("SELECT keys FROM rt.tables WHERE name = 'keyed'"), "2");
    }
}

/// Before the metadata log has it nothing happened, after that all of it, of both tables.
#[test]
fn a_statement_that_is_cut_short_is_done_or_not() {
    for (point, is_done) in [("truncate::sealed", false), ("truncate::logged", true)] {
        let mut server = Server::start(BINARY);
        filled(&server);
        let before = counts(&server);
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{point}=panic"))]);
        server.wait_ready();
        server.try_sql("TRUNCATE keyed, plain").expect_err("the statement was cut short");
        server.kill_and_restart();
        assert_eq!(counts(&server), if is_done { ["0".into(), "0".into()] } else { before }, "{point}");
        server.sql("INSERT INTO keyed VALUES (1, 'again')");
        server.sql("TRUNCATE plain, keyed");
        server.kill_and_restart();
        assert_eq!(counts(&server), ["0", "0"], "{point}");
    }
}

/// Each row comes once: those that were there go, and nothing is read again.
#[test]
fn a_stream_goes_on_where_it_was() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE SOURCE demo WITH (connector = 'generator', rate = 2000, rows = 12000, partitions = 2)");
    server.sql("CREATE TABLE seen (id BIGINT, city TEXT) WITH (partitions = 2) FROM SOURCE demo AS SELECT order_id AS id, city");
    server.wait_for("SELECT count(*) > 1000 FROM seen", "t", Duration::from_secs(30));
    server.sql("TRUNCATE seen");
    server.kill_and_restart();
    // What was there before it is not read again, so fewer rows come than there are messages.
    server.wait_for("SELECT count(*) > 1000 FROM seen", "t", Duration::from_secs(30));
    server.wait_for(
        "SELECT sum(position)::bigint FROM rt.partitions WHERE \"table\" = 'seen' AND source = 'demo'",
        "12000",
        Duration::from_secs(60),
    );
    let count: i64 = server.value("SELECT count(*) FROM seen").parse().unwrap();
    assert!(count <= 11_000, "{count}");
}

#[test]
fn a_read_only_transaction_keeps_its_rows() {
    let server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k INT)");
    server.sql("INSERT INTO t VALUES (1)");
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        let error = client.batch_execute("BEGIN READ ONLY; TRUNCATE t").await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "25006");
        assert_eq!(error.message(), "cannot execute TRUNCATE TABLE in a read-only transaction");
    });
    assert_eq!(server.value("SELECT count(*) FROM t"), "1");
}
