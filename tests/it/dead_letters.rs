//! `rt.dlq_replay`: what could not become a row becomes one after the cause is gone, once, also across kill -9.

use std::{fs, thread, time::Duration};

use crate::support::server::{Server, connect, describe, runtime};

const MESSAGES: i64 = 2_000;
/// From here on `n` does not fit an INT.
const FIRST_WIDE: i64 = 1_500;

fn n(id: i64) -> i64 {
    if id < FIRST_WIDE { id } else { id * 10_000_000 }
}

/// A table whose INT is too small for a quarter of its source, and one message that is no JSON at all.
fn with_dead_letters(arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("numbers.ndjson");
    let mut text: String = (0..MESSAGES).map(|id| format!("{{\"id\":{id},\"n\":{}}}\n", n(id))).collect();
    text.push_str("{\"id\": 7, \"n\": oops}\n");
    fs::write(&file, text).unwrap();
    let server = Server::start_with(env!("CARGO_BIN_EXE_tidemill"), arguments);
    let path = file.display();
    server.sql(&format!(
        "CREATE SOURCE numbers (id BIGINT, n BIGINT) WITH (connector = 'file', path = '{path}', format = 'json')"
    ));
    server.sql("CREATE TABLE t (id BIGINT, n INT) FROM SOURCE numbers");
    server.sql("SELECT rt.drain('numbers')");
    assert_eq!(server.value("SELECT count(*) FROM t"), FIRST_WIDE.to_string());
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), (MESSAGES - FIRST_WIDE + 1).to_string());
    (server, folder)
}

fn assert_replayed(server: &Server) {
    let sum: i64 = (0..MESSAGES).map(n).sum();
    assert_eq!(
        server.sql("SELECT count(*), count(DISTINCT id), sum(n) FROM t"),
        [[MESSAGES, MESSAGES, sum].map(|number| Some(number.to_string()))]
    );
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "1");
    assert_eq!(server.value("SELECT raw_text FROM rt.dlq"), "{\"id\": 7, \"n\": oops}");
}

#[test]
fn letters_become_rows_once_the_column_is_wide_enough() {
    let (mut server, _folder) = with_dead_letters(&[]);
    // Nothing has changed: nothing comes of it.
    assert_eq!(server.value("SELECT rt.dlq_replay('numbers')"), "0");
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), (MESSAGES - FIRST_WIDE + 1).to_string());
    server.sql("ALTER TABLE t ALTER COLUMN n TYPE BIGINT");
    assert_eq!(server.value("SELECT rt.dlq_replay('numbers')"), (MESSAGES - FIRST_WIDE).to_string());
    assert_replayed(&server);
    assert_eq!(server.value("SELECT rt.dlq_replay('t')"), "0");
    server.kill_and_restart();
    assert_replayed(&server);
    // The file of the replayed letters is gone from disk, too.
    let dead = fs::read_dir(server.data_dir.join("tables")).into_iter().flatten().flatten();
    let dead: usize = dead
        .flat_map(|table| fs::read_dir(table.path()).into_iter().flatten().flatten())
        .flat_map(|partition| fs::read_dir(partition.path()).into_iter().flatten().flatten())
        .filter(|file| file.path().extension().is_some_and(|ending| ending == "dead"))
        .count();
    assert_eq!(dead, 1, "one file of dead letters holds the one that is left");
}

#[test]
fn a_crash_around_the_commit_of_a_replay_loses_and_repeats_nothing() {
    for failpoint in ["commit::before_log", "commit::after_log"] {
        let (mut server, _folder) = with_dead_letters(&[]);
        server.sql("SELECT rt.seal('t')");
        server.sql("ALTER TABLE t ALTER COLUMN n TYPE BIGINT");
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{failpoint}=sleep(60000)"))]);
        server.wait_ready();
        let port = server.pg_port;
        let replay = thread::spawn(move || {
            runtime().block_on(async {
                let client = connect(port).await.unwrap();
                client.simple_query("SELECT rt.dlq_replay('numbers')").await.expect_err("killed in the middle")
            })
        });
        // The rows are visible as soon as they are in memory; their commit sleeps.
        server.wait_for("SELECT count(*) FROM t", &MESSAGES.to_string(), Duration::from_secs(20));
        thread::sleep(Duration::from_millis(500));
        server.kill_and_restart();
        replay.join().unwrap();
        // Before the commit the letters are still letters; after it they are rows. In between there is nothing.
        let rows: i64 = server.value("SELECT count(*) FROM t").parse().unwrap();
        let letters: i64 = server.value("SELECT count(*) FROM rt.dlq").parse().unwrap();
        assert_eq!(rows + letters, MESSAGES + 1, "{failpoint}");
        assert_eq!(rows, if failpoint == "commit::before_log" { FIRST_WIDE } else { MESSAGES }, "{failpoint}");
        server.sql("SELECT rt.dlq_replay('numbers')");
        assert_replayed(&server);
    }
}

#[test]
fn a_replay_of_what_is_not_there_names_it() {
    let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    let error = server.try_sql("SELECT rt.dlq_replay('nothing')").expect_err("there is no such source");
    assert!(describe(&error).contains("nothing"), "{}", describe(&error));
    assert_eq!(server.value("SELECT rt.dlq_replay(NULL)"), "NULL");
}
