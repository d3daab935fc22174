//! A damaged segment of a table with a key: nobody knows which rows of others lost against its own, so every query fails until it is whole again.

use std::fs;

use super::BINARY;
use crate::support::server::{Server, describe};

#[test]
fn old_rows_do_not_come_back_when_the_new_ones_are_damaged() {
    let mut server = Server::start(BINARY);
    server
        .sql("CREATE TABLE t (k BIGINT PRIMARY KEY, at TIMESTAMPTZ) WITH (time_column = 'at', version_column = 'at')");
    for day in [1, 2] {
        server
            .sql(&format!("INSERT INTO t SELECT k, '2024-03-0{day} 00:00:00Z' FROM generate_series(1, 5000) AS s(k)"));
        server.sql("SELECT rt.seal('t')");
    }
    let old = "SELECT count(*) FROM t WHERE at < '2024-03-02 00:00:00Z'";
    assert_eq!(server.value(old), "0");
    let table = server.value("SELECT id FROM rt.tables");
    let file = server.value("SELECT file FROM rt.segments WHERE state = 'committed' ORDER BY id DESC LIMIT 1");
    let path = server.data_dir.join("tables").join(table).join("p00000").join(file);
    server.stop();
    let keys = path.with_file_name("keys.map");
    let key_map = fs::read(&keys).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    // In the head of the first column: the keys.
    damaged[66] ^= 1;
    fs::write(&path, &damaged).unwrap();
    // What the key map knows needs no damaged byte.
    server.spawn();
    server.wait_ready();
    assert_eq!(server.value(old), "0");
    assert!(describe(&server.try_sql("SELECT * FROM t WHERE k = 7").unwrap_err()).contains(path.to_str().unwrap()));
    server.kill_9();
    fs::remove_file(&keys).unwrap();
    for _ in 0..2 {
        server.spawn();
        server.wait_ready();
        for question in [old, "SELECT count(*) FROM t", "SELECT * FROM t WHERE k = 7"] {
            let error = describe(&server.try_sql(question).expect_err(question));
            assert!(error.contains(path.to_str().unwrap()), "{question}: {error}");
        }
        assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE state = 'quarantined'"), "1");
        server.stop();
        assert!(!keys.try_exists().unwrap(), "as long as it is damaged nobody knows what to write");
    }
    // With a key map that nobody trusted meanwhile, and without one.
    fs::write(&path, &whole).unwrap();
    fs::write(&keys, key_map).unwrap();
    for _ in 0..2 {
        server.spawn();
        server.wait_ready();
        assert_eq!(server.value(old), "0");
        assert_eq!(server.value("SELECT count(*) FROM t"), "5000");
        server.kill_9();
        let _ = fs::remove_file(&keys);
    }
}
