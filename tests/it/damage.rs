//! Segment files that change under a running server, or before its start: the query that needs them fails by name, the segment is quarantined,
//! everything else goes on.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Duration,
};

use crate::support::server::Server;

/// Rows of a segment: the notes take more than what is copied when a column is opened.
const ROWS: u32 = 20_000;
/// What the rows after those of the first segment are, and the ones after two: their time is their id in seconds.
const AFTER_FIRST: &str = "at > '1970-01-01 05:33:20Z'";
const AFTER_SECOND: &str = "at > '1970-01-01 11:06:40Z'";

/// Two tables: `hurt` with two committed segments and some rows that are consuming, `other` with one segment.
fn server() -> Server {
    let server = Server::start_alone(env!("CARGO_BIN_EXE_tidemill"));
    for table in ["hurt", "other"] {
        server.sql(&format!(
            "CREATE TABLE {table} (id BIGINT, note TEXT COMPRESSION none, at TIMESTAMPTZ) WITH (time_column = 'at')"
        ));
    }
    let fill = |table: &str, from: u32, to: u32| {
        server.sql(&format!(
            "INSERT INTO {table} SELECT i, md5(i::text), to_timestamp(i) FROM generate_series({from}, {to}) AS s(i)"
        ));
    };
    fill("hurt", 1, ROWS);
    fill("other", 1, ROWS);
    server.sql("SELECT rt.seal('hurt'), rt.seal('other')");
    fill("hurt", ROWS + 1, 2 * ROWS);
    server.sql("SELECT rt.seal('hurt')");
    fill("hurt", 2 * ROWS + 1, 2 * ROWS + 100);
    server
}

/// The first segment of `hurt`.
fn first_segment(server: &Server) -> PathBuf {
    let table = server.value("SELECT id FROM rt.tables WHERE name = 'hurt'");
    let file = "SELECT file FROM rt.segments WHERE \"table\" = 'hurt' AND file IS NOT NULL ORDER BY id LIMIT 1";
    server.data_dir.join("tables").join(table).join("p00000").join(server.value(file))
}

/// SQLSTATE and message.
fn refused(server: &Server, sql: &str) -> (String, String) {
    match server.try_sql(sql) {
        Ok(rows) => panic!("{sql} gave {rows:?}"),
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}\n{}", server.log()));
            (error.code().code().to_owned(), error.message().to_owned())
        }
    }
}

/// What needs the note of a row of the first segment fails by its name, whichever way the rows are read.
fn check_refused(server: &Server, state: &str, path: &std::path::Path) {
    for sql in [
        "SELECT sum(length(note)) FROM hurt",
        "SELECT note, count(*) FROM hurt GROUP BY note",
        "SELECT id FROM hurt WHERE note = '8'",
        "SELECT note FROM hurt WHERE id = 77",
    ] {
        let (found, message) = refused(server, sql);
        assert_eq!(found, state, "{sql}: {message}");
        assert!(message.contains(path.to_str().unwrap()), "{sql}: {message}");
    }
}

/// All else answers, and takes rows; the views tell which segment it is.
fn check_others(server: &Server) {
    let sealed = format!("SELECT count(*), min(id), count(note) FROM hurt WHERE {AFTER_FIRST}");
    let before = server.sql(&sealed);
    server.sql("INSERT INTO hurt VALUES (1000000, 'after', now())");
    let after = server.sql(&sealed);
    let rows = |answer: &[Vec<Option<String>>]| answer[0][0].as_ref().unwrap().parse::<u32>().unwrap();
    assert_eq!(rows(&after), rows(&before) + 1);
    assert_eq!(after[0][1], Some((ROWS + 1).to_string()));
    assert_eq!(after[0][2], after[0][0]);
    assert_eq!(
        server.value(&format!("SELECT note = md5('{0}') FROM hurt WHERE id = {0} AND {AFTER_FIRST}", ROWS + 5)),
        "t"
    );
    assert_eq!(server.value("SELECT sum(length(note)) FROM other"), (ROWS * 32).to_string());
    let states = "SELECT string_agg(state, ' ' ORDER BY id) FROM rt.segments WHERE \"table\" = 'hurt' AND rows > 0";
    assert_eq!(server.value(states), "quarantined committed consuming");
    let states = "SELECT string_agg(DISTINCT state, ' ') FROM rt.segments WHERE \"table\" = 'other' AND rows > 0";
    assert_eq!(server.value(states), "committed");
}

/// One event of it, which asks for a person.
fn check_event(server: &Server, path: &std::path::Path) {
    let events = server.sql("SELECT severity, message FROM rt.events WHERE kind = 'quarantined'");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0][0].as_deref(), Some("page"));
    let message = events[0][1].as_deref().unwrap();
    assert!(message.contains("table 'hurt'") && message.contains(path.to_str().unwrap()), "{message}");
}

fn shrink(path: &std::path::Path) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(4096).unwrap();
}

/// Reading beyond the end of a mapped file is SIGBUS, which ends a process that does not expect it.
#[test]
fn a_file_that_shrinks_under_the_server_is_quarantined() {
    let mut server = server();
    let (pid, path) = (server.pid(), first_segment(&server));
    shrink(&path);
    check_refused(&server, "XX001", &path);
    check_others(&server);
    check_event(&server, &path);
    assert_eq!(server.pid(), pid);
    // The next start finds that the file is not the committed one.
    server.kill_and_restart();
    server.sql("SELECT rt.drain('hurt'), rt.drain('other')");
    check_refused(&server, "XX001", &path);
    check_others(&server);
    check_event(&server, &path);
    server.stop();
}

/// The column was read, verified and mapped before.
#[test]
fn a_file_that_shrinks_after_it_was_read_is_quarantined() {
    let mut server = server();
    let path = first_segment(&server);
    assert_eq!(server.value("SELECT sum(length(note)) FROM hurt"), ((2 * ROWS + 100) * 32).to_string());
    shrink(&path);
    check_refused(&server, "XX001", &path);
    check_others(&server);
    check_event(&server, &path);
    server.stop();
}

#[test]
fn a_flipped_byte_is_never_answered_from() {
    let mut server = server();
    let path = first_segment(&server);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
    check_refused(&server, "XX001", &path);
    let (_, message) = refused(&server, "SELECT note FROM hurt WHERE id = 1");
    assert!(message.contains("column note, section") && message.contains("CRC-32C"), "{message}");
    check_others(&server);
    check_event(&server, &path);
    // The other column's bytes are whole.
    let ids = format!("SELECT sum(id) FROM hurt WHERE id <= {ROWS}");
    assert_eq!(server.value(&ids), "200010000");
    // A start once took it for sound again, until some query read the column.
    server.kill_and_restart();
    check_event(&server, &path);
    let state = "SELECT state FROM rt.segments WHERE \"table\" = 'hurt' ORDER BY id LIMIT 1";
    assert_eq!(server.value(state), "quarantined");
    check_refused(&server, "XX001", &path);
    assert_eq!(server.value(&ids), "200010000");
    // Put right, it is sound.
    file.write_all_at(&byte, middle).unwrap();
    for _ in 0..2 {
        server.kill_and_restart();
        assert_eq!(server.value("SELECT count(*) FROM rt.events WHERE kind = 'quarantined'"), "0");
        assert_eq!(server.value(state), "committed");
    }
    assert_eq!(
        server.value(&format!("SELECT sum(length(note)) FROM hurt WHERE id <= {ROWS}")),
        (ROWS * 32).to_string()
    );
    server.stop();
}

#[test]
fn a_missing_file_is_quarantined_at_the_start() {
    let mut server = server();
    let path = first_segment(&server);
    server.sql("SELECT rt.drain('hurt'), rt.drain('other')");
    server.kill_9();
    fs::remove_file(&path).unwrap();
    server.spawn();
    server.wait_ready();
    server.wait_for(&format!("SELECT count(*) FROM hurt WHERE {AFTER_SECOND}"), "100", Duration::from_secs(30));
    check_refused(&server, "58P01", &path);
    check_others(&server);
    check_event(&server, &path);
    server.stop();
}
