//! Copies of segments and checkpoints in a deep store: what is lost or damaged here comes back, what is dropped goes there as well, and a store that is away loses nothing.
//!
//! Each runs with a directory and, where `tests/run` has started one, with a bucket.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    files::files_with,
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
const PATIENCE: Duration = Duration::from_secs(60);

/// Where copies go to, one for each test.
struct Place {
    url: String,
    /// Of a directory.
    directory: Option<tempfile::TempDir>,
}

impl Place {
    fn all(test: &str) -> Vec<Self> {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}/deep", directory.path().display());
        let mut places = vec![Self { url, directory: Some(directory) }];
        match std::env::var("TIDEMILL_TEST_S3") {
            Ok(bucket) => {
                let name = test.rsplit("::").next().unwrap();
                places.push(Self { url: format!("{bucket}/{name}-{}", std::process::id()), directory: None });
            }
            Err(_) => println!("SKIPPED {test} with S3: no server (set TIDEMILL_TEST_S3, or use tests/run)"),
        }
        places
    }

    fn server(&self) -> Server {
        Server::start_with(BINARY, &["--storage-segments-url", &self.url, "--storage-checkpoints-url", &self.url])
    }

    /// The folder, of a directory.
    fn folder(&self) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.path().join("deep"))
    }

    /// How many files are in a directory; of a bucket nobody asks.
    fn files(&self, part: &str) -> Option<usize> {
        let folder = self.folder()?;
        let servers: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(servers.len(), 1, "one server: {servers:?}");
        Some(files(&servers[0].join(part)).len())
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[track_caller]
fn eventually(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it does not come to hold");
        thread::sleep(Duration::from_millis(50));
    }
}

fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
}

/// Files of a table's committed segments, oldest first.
fn segments(server: &Server, table: &str) -> Vec<PathBuf> {
    let id = server.value(&format!("SELECT id FROM rt.tables WHERE name = '{table}'"));
    let named = format!("SELECT file FROM rt.segments WHERE \"table\" = '{table}' AND file IS NOT NULL ORDER BY id");
    let folder = server.data_dir.join("tables").join(id).join("p00000");
    server.sql(&named).into_iter().map(|row| folder.join(row[0].as_deref().unwrap())).collect()
}

fn wait_stored(server: &Server, segments: usize) {
    let stored = "SELECT count(*) FILTER (WHERE stored), count(*) FILTER (WHERE NOT stored AND state = 'committed') FROM rt.segments";
    let stored = format!("SELECT concat_ws(' ', a, b) FROM ({stored}) AS counted(a, b)");
    server.wait_for(&stored, &format!("{segments} 0"), PATIENCE);
}

/// Rows of a segment: the notes take more than what is copied when a column is opened.
const ROWS: i64 = 20_000;

/// A table without and one with a key, with three segments each.
fn fill(server: &Server) {
    server.sql("CREATE TABLE plain (id BIGINT, note TEXT COMPRESSION none)");
    server.sql("CREATE TABLE keyed (id BIGINT PRIMARY KEY, note TEXT COMPRESSION none)");
    for round in 0..3 {
        for table in ["plain", "keyed"] {
            let (from, to) = (round * ROWS + 1, (round + 1) * ROWS);
            server
                .sql(&format!("INSERT INTO {table} SELECT i, md5(i::text) FROM generate_series({from}, {to}) AS s(i)"));
        }
        server.sql("SELECT rt.seal('plain'), rt.seal('keyed')");
    }
    wait_stored(server, 6);
}

fn check(server: &Server, table: &str) {
    let sums = format!("SELECT concat_ws(' ', count(*), sum(id), sum(length(note))) FROM {table}");
    let rows = 3 * ROWS;
    assert_eq!(server.value(&sums), format!("{rows} {} {}", rows * (rows + 1) / 2, rows * 32), "{table}");
}

#[test]
fn segments_that_are_lost_or_damaged_come_back() {
    for place in Place::all("deep_store::segments_that_are_lost_or_damaged_come_back") {
        let mut server = place.server();
        fill(&server);
        // While it runs: the query that found it fails, those after it do not.
        for table in ["plain", "keyed"] {
            flip(&segments(&server, table)[1]);
            let error = server.try_sql(&format!("SELECT sum(length(note)) FROM {table}")).unwrap_err();
            assert_eq!(error.code().unwrap().code(), "XX001");
            let states = format!(
                "SELECT string_agg(DISTINCT state, ' ') FROM rt.segments WHERE \"table\" = '{table}' AND file IS NOT NULL"
            );
            server.wait_for(&states, "committed", PATIENCE);
            check(&server, table);
        }
        let fetched = "SELECT count(*) FROM rt.events WHERE kind = 'segment_fetched'";
        assert_eq!(server.value(fetched), "2");
        // Keys are found as before, and changed.
        server.sql(&format!("UPDATE keyed SET note = note || '' WHERE id = {}", ROWS + 5));
        check(&server, "keyed");
        server.sql("SELECT rt.drain('plain'), rt.drain('keyed')");
        // Over a restart: one that is missing, one that is shorter, one that is found damaged only when it is read.
        let files: Vec<Vec<PathBuf>> = ["plain", "keyed"].iter().map(|table| segments(&server, table)).collect();
        server.kill_9();
        for table in &files {
            fs::remove_file(&table[0]).unwrap();
            File::options().write(true).open(&table[1]).unwrap().set_len(4096).unwrap();
            flip(&table[2]);
        }
        server.spawn();
        server.wait_ready();
        assert!(server.value(fetched).parse::<u32>().unwrap() >= 4);
        for table in ["plain", "keyed"] {
            let answer = server.try_sql(&format!("SELECT sum(length(note)) FROM {table}"));
            if answer.is_err() {
                server.wait_for("SELECT count(*) FROM rt.segments WHERE state = 'quarantined'", "0", PATIENCE);
            }
            check(&server, table);
        }
        // The role's view tells of it.
        let view = "SELECT concat_ws(' ', role, url, fetched >= 6, fetched_bytes > 0, error) FROM rt.storage WHERE role = 'segments'";
        assert_eq!(server.value(view), format!("segments {} t t", place.url));
        server.stop();
    }
}

#[test]
fn what_is_written_again_or_dropped_goes() {
    for place in Place::all("deep_store::what_is_written_again_or_dropped_goes") {
        let mut server = place.server();
        fill(&server);
        assert!(place.files("tables").is_none_or(|files| files == 6));
        // Three small ones become one.
        server.sql("SELECT rt.compact('plain')");
        wait_stored(&server, 4);
        server.sql("DELETE FROM keyed WHERE id <= 20000");
        server.sql("SELECT rt.compact('keyed')");
        server.sql("DROP TABLE plain");
        let kept = server.value("SELECT count(*) FROM rt.segments WHERE file IS NOT NULL").parse().unwrap();
        wait_stored(&server, kept);
        if place.directory.is_some() {
            eventually(|| place.files("tables") == Some(kept));
        }
        server.kill_and_restart();
        assert_eq!(server.value("SELECT count(*) FROM keyed"), "40000");
        // A drop right before a crash is made good at the start.
        server.sql("DROP TABLE keyed");
        server.kill_and_restart();
        if place.directory.is_some() {
            eventually(|| place.files("tables") == Some(0));
        }
        server.stop();
    }
}

#[test]
fn what_is_forgotten_is_in_no_copy() {
    let place = Place::all("deep_store::what_is_forgotten_is_in_no_copy").remove(0);
    let folder = place.folder().unwrap();
    let mut server = place.server();
    server.sql("CREATE TABLE people (id BIGINT, who TEXT COMPRESSION none)");
    server.sql("INSERT INTO people SELECT i, 'person ' || i FROM generate_series(1, 500) AS s(i)");
    server.sql("INSERT INTO people VALUES (1000, 'zzmarker')");
    server.sql("SELECT rt.seal('people')");
    wait_stored(&server, 1);
    assert_eq!(files_with(&folder, "zzmarker").len(), 1);
    let answer = server.sql("CALL rt.forget('who', 'zzmarker')");
    assert_eq!(files_with(&folder, "zzmarker"), [""; 0], "{answer:?}");
    assert_eq!(server.value("SELECT count(*) FROM people"), "500");
    // A store that does not answer cannot say so.
    server.sql("INSERT INTO people VALUES (1001, 'zzmarker')");
    server.sql("SELECT rt.seal('people')");
    server.wait_for("SELECT count(*) FROM rt.segments WHERE file IS NOT NULL AND NOT stored", "0", PATIENCE);
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).unwrap();
    fs::write(&folder, "").unwrap();
    let answer = format!("{:?}", server.sql("CALL rt.forget('who', 'zzmarker')"));
    assert!(answer.contains("copies of its segments may have the value"), "{answer}");
    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    eventually(|| files_with(&folder, "zzmarker").is_empty());
    server.stop();
}

/// A topic, and a pipeline of one total for each key; state of more than a megabyte is kept as a picture and what came since.
struct Totals {
    server: Server,
    feed: Feed,
    sent: i64,
}

const KEYS: i64 = 40_000;

impl Totals {
    fn new(place: &Place, brokers: &str, topic: &str, options: &str) -> Self {
        create_topic(brokers, topic, 1, &[]);
        let server = place.server();
        server.sql(&format!(
            "CREATE SOURCE s (key BIGINT, value BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
        ));
        server.sql("CREATE TABLE totals (key BIGINT PRIMARY KEY, rows BIGINT, total BIGINT)");
        server.sql(&format!(
            "CREATE PIPELINE totals INTO totals WITH (checkpoint_interval = '50ms'{options}) AS
             SELECT key, count(*), sum(value)::bigint FROM s GROUP BY key"
        ));
        Self { server, feed: Feed::new(brokers, topic), sent: 0 }
    }

    fn send(&mut self, rows: i64) {
        for row in self.sent..self.sent + rows {
            self.feed.send(0, format!(r#"{{"key":{},"value":{row}}}"#, row % KEYS).as_bytes());
        }
        self.feed.flush();
        self.sent += rows;
    }

    /// Returns when all that was sent is in a checkpoint.
    fn kept(&self) {
        self.server.sql("SELECT rt.drain('s')");
        let covered = format!("SELECT count(*) > 0 FROM rt.checkpoints WHERE offsets = '{{\"s/0\":{}}}'", self.sent);
        self.server.wait_for(&covered, "t", PATIENCE);
    }

    fn check(&self) {
        self.server.sql("SELECT rt.drain('s')");
        let totals = "SELECT concat_ws(' ', count(*), sum(rows), sum(total)) FROM totals";
        let expected = format!("{} {} {}", KEYS.min(self.sent), self.sent, self.sent * (self.sent - 1) / 2);
        self.server.wait_for(totals, &expected, PATIENCE);
    }

    /// Files of the pipeline's checkpoints, here.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = files(&self.server.data_dir.join("pipelines"));
        found.retain(|path| {
            ["state", "diary", "spill"].iter().any(|ending| path.extension().is_some_and(|known| known == *ending))
        });
        found
    }
}

/// All files of all checkpoints are gone or damaged, and the pipeline goes on from the last one: it derives nothing again that its table has, which would be told.
#[test]
fn checkpoints_that_are_lost_or_damaged_come_back() {
    let test = "deep_store::checkpoints_that_are_lost_or_damaged_come_back";
    let Some(brokers) = brokers(test) else { return };
    for (number, place) in Place::all(test).into_iter().enumerate() {
        for (spilling, options) in [(false, ""), (true, ", memory_limit = '1MB'")] {
            let topic = format!("deep-{number}-{spilling}-{}", std::process::id());
            let mut totals = Totals::new(&place, &brokers, &topic, options);
            totals.send(KEYS);
            totals.kept();
            for round in 0..4 {
                totals.send(500);
                totals.kept();
                totals.send(500);
                totals.kept();
                let newest = totals.server.value("SELECT max(id) FROM rt.checkpoints");
                totals.server.kill_9();
                let files = totals.files();
                assert!(!files.is_empty());
                assert_eq!(spilling, files.iter().any(|path| path.extension().is_some_and(|ending| ending == "spill")));
                for (at, path) in files.iter().enumerate() {
                    match (round + at) % 2 {
                        0 => fs::remove_file(path).unwrap(),
                        _ => flip(path),
                    }
                }
                totals.server.spawn();
                totals.server.wait_ready();
                totals.check();
                let oldest = totals.server.value("SELECT count(*) FROM rt.checkpoints");
                assert_ne!(oldest, "0");
                let events = |kind: &str| {
                    totals.server.value(&format!("SELECT count(*) > 0 FROM rt.events WHERE kind = '{kind}'"))
                };
                assert_eq!((events("checkpoint_fetched"), events("checkpoint_damaged")), ("t".into(), "f".into()));
                let now = totals.server.value("SELECT max(id) FROM rt.checkpoints");
                assert!(now.parse::<u64>().unwrap() >= newest.parse().unwrap(), "{now} after {newest}");
            }
            // What older checkpoints had goes, and all of it with the pipeline.
            if place.directory.is_some() {
                assert!(place.files("pipelines").unwrap() < 60, "{:?}", place.files("pipelines"));
                totals.server.sql("DROP PIPELINE totals");
                eventually(|| place.files("pipelines") == Some(0));
            }
            totals.server.stop();
            // The next one has a server of its own.
            if let Some(folder) = place.folder() {
                fs::remove_dir_all(folder).unwrap();
            }
        }
    }
}

/// Checkpoints wait for the store, rows do not; a pipeline that starts waits for it. Once it is back everything is there once.
#[test]
fn a_store_that_is_away_loses_nothing() {
    let test = "deep_store::a_store_that_is_away_loses_nothing";
    let Some(brokers) = brokers(test) else { return };
    let place = Place::all(test).remove(0);
    let mut totals = Totals::new(&place, &brokers, &format!("deep-away-{}", std::process::id()), "");
    totals.send(KEYS);
    totals.kept();
    for crashes in [false, true] {
        let (folder, away) = (place.folder().unwrap(), place.folder().unwrap().with_extension("away"));
        fs::rename(&folder, &away).unwrap();
        fs::write(&folder, "").unwrap();
        totals.send(1000);
        totals.check();
        let failed =
            "SELECT count(*) > 0 FROM rt.events WHERE kind = 'checkpoint_failed' AND message LIKE '%deep store%'";
        totals.server.wait_for(failed, "t", PATIENCE);
        let error =
            "SELECT count(*) FROM rt.storage WHERE role = 'checkpoints' AND failures > 0 AND error LIKE '%deep store%'";
        totals.server.wait_for(error, "1", PATIENCE);
        if crashes {
            totals.server.kill_and_restart();
            // It signs what it gives with a checkpoint, which is not to be had.
            let failing = "SELECT count(*) FROM rt.pipelines WHERE state = 'failing' AND error LIKE '%deep store%'";
            totals.server.wait_for(failing, "1", PATIENCE);
        }
        fs::remove_file(&folder).unwrap();
        fs::rename(&away, &folder).unwrap();
        totals.server.wait_for("SELECT state FROM rt.pipelines", "running", PATIENCE);
        totals.kept();
        totals.check();
    }
    totals.server.kill_and_restart();
    totals.check();
    totals.server.stop();
}
