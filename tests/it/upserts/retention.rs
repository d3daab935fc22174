//! Retention of a table with a key: a key goes with the segment of its row, and what had lost against that row does not come back.

use std::time::Duration;

use super::BINARY;
use crate::support::server::Server;

#[test]
fn keys_go_with_their_rows() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v INT, at TIMESTAMPTZ, note TEXT)
         WITH (time_column = 'at', version_column = 'v', retention = '30 days')",
    );
    let fill = |keys: &str, version: u32, days: u32, note: &str| {
        server.sql(&format!(
            "INSERT INTO t SELECT k, {version}, now() - interval '{days} days', '{note}' FROM generate_series({keys}) AS s(k)"
        ));
    };
    fill("1, 100", 1, 10, "old");
    server.sql("SELECT rt.seal('t')");
    fill("1, 50", 2, 100, "expired");
    server.sql("SELECT rt.seal('t')");
    // In memory, and lost against what expires.
    fill("31, 40", 1, 20, "late");
    assert_eq!(server.value("SELECT count(*) FROM t WHERE note = 'expired'"), "50");
    for round in 0..2 {
        // Retention is looked at when the server starts.
        server.kill_and_restart();
        server.wait_for("SELECT count(*) FROM t WHERE note = 'old' AND k > 50", "50", Duration::from_secs(20));
        server.wait_for("SELECT count(*) FROM t WHERE note = 'expired'", "0", Duration::from_secs(20));
        assert_eq!(server.value("SELECT count(*) FROM t WHERE note = 'old'"), "50", "round {round}");
        assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE state = 'committed'"), "1");
        server.sql("SELECT rt.seal('t')");
        server.sql("SELECT rt.compact('t')");
    }
    let keys = server.value("SELECT keys FROM rt.tables WHERE name = 't'");
    server.sql("INSERT INTO t VALUES (7, 1, now(), 'again')");
    assert_eq!(server.value("SELECT note FROM t WHERE k = 7"), "again");
    assert!(keys.parse::<u32>().unwrap() <= 60, "{keys} keys");
}
