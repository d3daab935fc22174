//! Dead letters of a table with a key: once they can be rows they are, in the partitions of their keys, and win or lose by where they came from.

use std::fs;

use super::BINARY;
use crate::support::server::Server;

#[test]
fn letters_become_rows_of_the_partitions_that_own_their_keys() {
    for partitions in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        // Of keys 0 to 99 the first row fits; of 50 to 149 the one after it does not; of 0 to 19 the last one does.
        let line = |id: i64, n: i64| format!("{{\"id\":{id},\"n\":{n}}}\n");
        let mut text: String = (0..100).map(|id| line(id, id)).collect();
        text.extend((50..150).map(|id| line(id, id * 100_000_000)));
        text.extend((60..80).map(|id| line(id, -id)));
        text.push_str("{\"id\": 7, \"n\": oops}\n");
        let file = folder.path().join("numbers.ndjson");
        fs::write(&file, text).unwrap();
        let mut server = Server::start(BINARY);
        server.sql(&format!(
            "CREATE SOURCE numbers (id BIGINT, n BIGINT) WITH (connector = 'file', path = '{}', format = 'json')",
            file.display()
        ));
        server.sql(&format!(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, n INT) WITH (partitions = {partitions}) FROM SOURCE numbers"
        ));
        server.sql("SELECT rt.drain('numbers')");
        let before: i64 = (0..60).chain(80..100).sum::<i64>() - (60..80).sum::<i64>();
        let answer = "SELECT count(*) || ' ' || sum(n) FROM t";
        assert_eq!(server.value(answer), format!("100 {before}"));
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "101");
        server.sql("ALTER TABLE t ALTER COLUMN n TYPE BIGINT");
        assert_eq!(server.value("SELECT rt.dlq_replay('numbers')"), "100");
        let wide = (50..60).chain(80..150).map(|id| id * 100_000_000).sum::<i64>();
        let after = format!("150 {}", (0..50).sum::<i64>() + wide - (60..80).sum::<i64>());
        for _ in 0..2 {
            assert_eq!(server.value(answer), after, "{partitions} partitions");
            assert_eq!(server.value("SELECT raw_text FROM rt.dlq"), "{\"id\": 7, \"n\": oops}");
            let every = "SET rt.skip_upsert = on; SELECT count(*) FROM t";
            assert_eq!(server.value(every), "220", "each message once");
            server.kill_and_restart();
            server.sql("SELECT rt.drain('numbers')");
        }
    }
}
