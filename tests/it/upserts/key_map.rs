//! The file of the key map: a start takes it, kill -9 at any step of anything leaves the table as it was, and a damaged file is made again.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::BINARY;
use crate::support::server::Server;

/// More rows than a start may read, so that the file is written in the background.
const ROWS: u32 = 70_000;
const LONG: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "SELECT count(*) FROM rt.segments WHERE state = 'committed' AND NOT in_key_map";
const KNOWN: &str = "SELECT count(*) FROM rt.segments WHERE state = 'committed' AND in_key_map";
const REFUSED: &str = "SELECT count(*) FROM rt.events WHERE kind = 'key_map_refused'";

/// A table of one partition with deletes, and a hundred thousand rows of which some lost, some are deleted, and some are tombstones.
fn filled(server: &Server) {
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v INT, gone BOOLEAN, note TEXT) WITH (version_column = 'v', delete_column = 'gone')",
    );
    fill(server, 1, 0, ROWS);
    server.sql("INSERT INTO t SELECT k, 2, true, NULL FROM generate_series(0, 999) AS s(k)");
    server.sql("DELETE FROM t WHERE k BETWEEN 1000 AND 1999");
    server.sql("UPDATE t SET note = 'changed' WHERE k BETWEEN 2000 AND 2999");
    server.sql("SELECT rt.seal('t')");
}

fn fill(server: &Server, version: u32, from: u32, rows: u32) {
    server.sql(&format!(
        "INSERT INTO t SELECT k, {version}, false, 'note ' || {version} FROM generate_series({from}, {}) AS s(k)",
        from + rows - 1
    ));
}

fn state(server: &Server) -> Vec<Vec<Option<String>>> {
    server.sql("SELECT note, count(*), sum(k), sum(v) FROM t GROUP BY note ORDER BY note")
}

fn directory(server: &Server) -> PathBuf {
    server.data_dir.join("tables").join(server.value("SELECT id FROM rt.tables WHERE name = 't'")).join("p00000")
}

fn wait_for_file(path: &Path) {
    let start = Instant::now();
    while !path.try_exists().unwrap() {
        assert!(start.elapsed() < LONG, "{} does not appear", path.display());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Old versions come late to keys of all kinds: none of them is seen.
fn check_late_rows(server: &Server) {
    let before = state(server);
    fill(server, 0, 0, 5000);
    assert_eq!(state(server), before, "late rows");
}

#[test]
fn a_start_takes_the_keys_from_the_file() {
    takes_the_keys_from_the_file(Server::start(BINARY), false);
}

/// The same where there is no memory for most of the map.
#[test]
fn keys_beyond_their_memory_are_in_files() {
    takes_the_keys_from_the_file(Server::start_with(BINARY, &["--memory-key-map-bytes", "64kB"]), true);
}

fn takes_the_keys_from_the_file(mut server: Server, spills: bool) {
    filled(&server);
    // What is said of memory.
    let check = |server: &Server| {
        let sizes = "SELECT key_bytes > 1000000 AND key_bytes_in_files < key_bytes, key_bytes_in_files > key_bytes - 70000 FROM rt.tables";
        let in_files = if spills { "t" } else { "f" };
        assert_eq!(server.sql(sizes), [[Some("t".to_owned()), Some(in_files.to_owned())]]);
        let capacity = "SELECT bytes_in_files > bytes - 70000 FROM rt.upsert_capacity('t') WHERE partition IS NULL";
        assert_eq!(server.value(capacity), in_files);
        // Files without names: a process that ends leaves nothing.
        let mut files = fs::read_dir(server.data_dir.join("spill")).unwrap().map(|file| file.unwrap().file_name());
        assert!(!files.any(|name| name.to_string_lossy().ends_with(".spill")));
        let by_key = "SELECT note FROM t WHERE k = 2500";
        assert_eq!(server.value(by_key), "changed");
    };
    check(&server);
    if spills {
        server.wait_for("SELECT count(*) FROM rt.events WHERE kind = 'key_maps_large'", "1", LONG);
    }
    server.wait_for(UNKNOWN, "0", LONG);
    let before = state(&server);
    assert!(before.len() == 2 && before[0][1] == Some("1000".into()), "{before:?}");
    for round in 0..3 {
        server.kill_and_restart();
        assert_eq!(state(&server), before);
        check(&server);
        assert_eq!(server.value(&format!("SELECT ({KNOWN}) > 0")), "t", "round {round}");
        assert_eq!(server.value("SELECT keys FROM rt.tables WHERE name = 't'"), ROWS.to_string());
        check_late_rows(&server);
        if round == 1 {
            server.sql("SELECT rt.seal('t')");
            server.sql("SELECT rt.compact('t')");
            server.wait_for(UNKNOWN, "0", LONG);
        }
    }
    // Newer ones win, also over deleted keys.
    fill(&server, 9, 500, 1000);
    assert_eq!(server.value("SELECT count(*) FROM t WHERE v = 9"), "1000");
    assert_eq!(server.value("SELECT count(*) FROM t"), (ROWS - 1000).to_string());
    assert_eq!(server.value(REFUSED), "0");
}

#[test]
fn a_server_that_ends_in_good_order_leaves_a_file() {
    let mut server = Server::start(BINARY);
    server.sql("CREATE TABLE t (k BIGINT PRIMARY KEY, v INT) WITH (partitions = 3)");
    server.sql("INSERT INTO t SELECT k, 1 FROM generate_series(1, 1000) AS s(k)");
    server.sql("SELECT rt.seal('t')");
    // In memory, and with them gone the rows before are there again until they are read again.
    server.sql("INSERT INTO t SELECT k, 2 FROM generate_series(1, 500) AS s(k)");
    assert_eq!(server.value(KNOWN), "0");
    for _ in 0..2 {
        server.stop();
        assert!(directory_of(&server).iter().all(|partition| partition.join("keys.map").try_exists().unwrap()));
        server.spawn();
        server.wait_ready();
        assert_eq!(server.value(UNKNOWN), "0");
        server.wait_for("SELECT sum(v) FROM t", "1500", LONG);
        assert_eq!(server.value("SELECT count(*) FROM t"), "1000");
    }
    server.sql("DROP TABLE t");
    assert_eq!(directory_of(&server), Vec::<PathBuf>::new());
}

/// The directories of all partitions of all tables.
fn directory_of(server: &Server) -> Vec<PathBuf> {
    let list = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    list(&server.data_dir.join("tables")).iter().flat_map(|table| list(table)).collect()
}

#[test]
fn writing_the_file_may_end_at_every_step() {
    for (point, is_written) in [
        ("key_map::create", false),
        ("key_map::write", false),
        ("key_map::sync_file", false),
        ("key_map::rename", false),
        ("key_map::sync_dir", true),
    ] {
        let mut server = Server::start(BINARY);
        filled(&server);
        server.wait_for(UNKNOWN, "0", LONG);
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{point}=sleep(600000)"))]);
        server.wait_ready();
        let path = directory(&server).join("keys.map");
        let old = fs::metadata(&path).unwrap().len();
        // New keys, new versions of old ones, and some of these in memory alone.
        fill(&server, 3, 60_000, 90_000);
        server.sql("SELECT rt.seal('t')");
        fill(&server, 4, 65_000, 1000);
        let before = state(&server);
        match point {
            "key_map::create" => thread::sleep(Duration::from_secs(2)),
            "key_map::sync_dir" => {
                let start = Instant::now();
                while fs::metadata(&path).unwrap().len() == old {
                    assert!(start.elapsed() < LONG, "no new file");
                    thread::sleep(Duration::from_millis(20));
                }
            }
            _ => {
                wait_for_file(&path.with_extension("map.tmp"));
                thread::sleep(Duration::from_millis(300));
            }
        }
        // Others go on meanwhile.
        fill(&server, 5, 100, 10);
        server.kill_and_restart();
        assert!(!path.with_extension("map.tmp").try_exists().unwrap(), "{point}");
        let is_known = server.value(&format!("SELECT ({UNKNOWN}) = 0"));
        assert_eq!(is_known, if is_written { "t" } else { "f" }, "{point}");
        server.wait_for("SELECT count(*) FROM t WHERE v = 5", "10", LONG);
        server.wait_for("SELECT count(*) FROM t WHERE v = 4", "1000", LONG);
        assert_eq!(server.value(REFUSED), "0", "{point}");
        server.sql("DELETE FROM t WHERE v = 5");
        assert_eq!(state(&server), before, "{point}");
        if !is_written {
            server.wait_for(&format!("SELECT ({KNOWN}) > 2"), "t", LONG);
        }
        server.kill_and_restart();
        assert_eq!(state(&server), before, "{point}, once more");
        check_late_rows(&server);
    }
}

/// After the file was written the table changes in every way, and each change is cut short.
#[test]
fn what_comes_after_the_file_counts() {
    let mut server = Server::start(BINARY);
    filled(&server);
    server.wait_for(UNKNOWN, "0", LONG);
    let steps: [(&str, &[&str]); 6] = [
        (
            "commit::before_log",
            &["INSERT INTO t VALUES (5, 7, false, 'seal'), (3000, 7, true, NULL)", "SELECT rt.seal('t')"],
        ),
        (
            "commit::after_log",
            &["INSERT INTO t VALUES (6, 8, false, 'seal'), (3001, 8, true, NULL)", "SELECT rt.seal('t')"],
        ),
        ("change::written", &["UPDATE t SET note = 'twice' WHERE k BETWEEN 2000 AND 4000"]),
        ("change::logged", &["UPDATE t SET note = 'twice' WHERE k BETWEEN 5000 AND 6000"]),
        ("change::logged", &["DELETE FROM t WHERE k BETWEEN 2500 AND 5500"]),
        ("compact::logged", &["SELECT rt.compact('t')"]),
    ];
    for (point, statements) in steps {
        // The same, made from the segments alone.
        let twin = tempfile::tempdir().unwrap();
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", &format!("{point}=panic"))]);
        server.wait_ready();
        let path = directory(&server);
        let (last, before) = statements.split_last().unwrap();
        before.iter().for_each(|sql| drop(server.sql(sql)));
        let ends = server.try_sql(&format!("SET statement_timeout = '5s'; {last}"));
        assert!(ends.is_err(), "{point}: {last} was cut short");
        server.kill_9();
        copy(&server.data_dir, &twin.path().join("data"));
        let there = twin.path().join("data").join(path.strip_prefix(&server.data_dir).unwrap());
        fs::remove_file(there.join("keys.map")).unwrap();
        let without = Server::start_in(BINARY, &twin.path().join("data"));
        server.spawn();
        server.wait_ready();
        assert_eq!(server.value(REFUSED), "0");
        // What was not committed is read again.
        let start = Instant::now();
        while state(&server) != state(&without) {
            assert!(start.elapsed() < LONG, "{point}: {:?} is not {:?}", state(&server), state(&without));
            thread::sleep(Duration::from_millis(50));
        }
        check_late_rows(&server);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn keys_that_retention_took_do_not_come_back_with_the_file() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, v INT, at TIMESTAMPTZ, note TEXT)
         WITH (time_column = 'at', version_column = 'v', retention = '30 days')",
    );
    server.sql(&format!(
        "INSERT INTO t SELECT k, 1, now() - interval '10 days', 'old' FROM generate_series(1, {ROWS}) AS s(k)"
    ));
    server.sql("SELECT rt.seal('t')");
    server.wait_for(UNKNOWN, "0", LONG);
    // Retention is looked at when the server starts and once a minute: this is after the file was written.
    server
        .sql("INSERT INTO t SELECT k, 2, now() - interval '100 days', 'expired' FROM generate_series(1, 500) AS s(k)");
    server.sql("SELECT rt.seal('t')");
    let left = (ROWS - 500).to_string();
    for point in ["retention::before_log=panic", "retention::after_log=panic", "retention::after_log=off"] {
        server.kill_9();
        server.spawn_with(&[("FAILPOINTS", point)]);
        server.wait_ready();
        if !point.starts_with("retention::before_log") {
            server.wait_for("SELECT count(*) FROM t", &left, LONG);
        }
        assert_eq!(server.value("SELECT count(*) FROM t WHERE note = 'old'"), left, "{point}");
        assert_eq!(server.value(&format!("SELECT ({KNOWN}) > 0")), "t", "{point}");
    }
    server.kill_and_restart();
    assert_eq!(server.value("SELECT count(*) FROM t"), left);
}

#[test]
fn a_damaged_file_is_made_again() {
    let mut server = Server::start(BINARY);
    filled(&server);
    server.wait_for(UNKNOWN, "0", LONG);
    let before = state(&server);
    let path = directory(&server).join("keys.map");
    let length = fs::metadata(&path).unwrap().len();
    let places = [0, 9, 100, length / 3, length - 500, length - 20];
    for place in places {
        server.kill_9();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(place)).unwrap();
        file.read_exact(&mut byte).unwrap();
        file.seek(SeekFrom::Start(place)).unwrap();
        file.write_all(&[byte[0] ^ 4]).unwrap();
        drop(file);
        server.spawn();
        server.wait_ready();
        assert_eq!(state(&server), before, "byte {place}");
        assert_eq!(server.value(REFUSED), "1", "byte {place}");
        assert_eq!(server.value(KNOWN), "0", "byte {place}");
        server.wait_for(UNKNOWN, "0", LONG);
        server.kill_and_restart();
        assert_eq!(state(&server), before);
        assert_eq!(server.value(REFUSED), "0");
    }
    server.kill_9();
    fs::write(&path, &fs::read(&path).unwrap()[..length as usize / 2]).unwrap();
    server.spawn();
    server.wait_ready();
    assert_eq!(state(&server), before);
    assert_eq!(server.value(REFUSED), "1");
}
