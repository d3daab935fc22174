//! File sources over restarts: a partition stays its file whatever comes beside it.

use std::{fs, time::Duration};

use super::BINARY;
use crate::support::server::Server;

/// A directory was listed anew at each start, so that a file whose name sorts first took the place, and the offsets, of another one.
#[test]
fn a_new_file_in_the_directory_moves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: std::ops::Range<u64>| {
        let text: String = rows.map(|seq| format!("{{\"seq\":{seq}}}\n")).collect();
        fs::write(folder.path().join(name), text).unwrap();
    };
    write("m.ndjson", 0..3000);
    write("n.ndjson", 3000..6000);
    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE raw (seq BIGINT) WITH (connector = 'file', path = '{}/*.ndjson')",
        folder.path().display()
    ));
    server.sql("CREATE TABLE t WITH (seal_rows = 1000) FROM SOURCE raw");
    server.wait_for("SELECT count(*) FROM t", "6000", Duration::from_secs(20));
    server.sql("SELECT rt.seal('t')");
    write("a.ndjson", 100_000..109_000);
    server.kill_and_restart();
    server.sql("SELECT rt.drain('raw')");
    let row = &server.sql("SELECT count(*), count(DISTINCT seq), max(seq) FROM t")[0];
    assert_eq!(row[..], ["6000", "6000", "5999"].map(|value| Some(value.to_owned())));
    assert_eq!(server.value("SELECT count(*) FROM rt.events WHERE severity = 'page'"), "0");
}
