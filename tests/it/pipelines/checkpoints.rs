//! What keeps a pipeline right when its files, its disk or its memory do not: damaged checkpoints, failures in the middle of a step, limits.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{BINARY, PATIENCE, lines, refused, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const START_MS: i64 = 1_709_294_400_000;
/// Rows of one round: ten of each of ten keys, in ten seconds of event time.
const ROUND: i64 = 100;

pub(super) struct Rounds {
    pub(super) server: Server,
    feed: Feed,
    sent: i64,
}

impl Rounds {
    /// A topic, and pipelines `sums` (windows) and `totals` (groups for ever) over it.
    pub(super) fn new(brokers: &str, name: &str) -> Self {
        Self::on(Server::start(BINARY), brokers, name)
    }

    fn on(server: Server, brokers: &str, name: &str) -> Self {
        let topic = topic(name);
        create_topic(brokers, &topic, 1, &[]);
        server.sql(&format!(
            "CREATE SOURCE s (key INT, value BIGINT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts)
             WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
        ));
        server.sql("CREATE TABLE sums (key INT, start TIMESTAMPTZ, rows BIGINT, total BIGINT)");
        server.sql("CREATE TABLE totals (key INT PRIMARY KEY, rows BIGINT, total BIGINT)");
        server.sql(
            "CREATE PIPELINE sums INTO sums WITH (checkpoint_interval = '50ms', idle_timeout = '1 hour') AS
             SELECT key, TUMBLE_START(ts, INTERVAL '10' SECOND), count(*), sum(value)::bigint FROM s GROUP BY key, TUMBLE(ts, INTERVAL '10' SECOND)",
        );
        server.sql(
            "CREATE PIPELINE totals INTO totals WITH (checkpoint_interval = '50ms', idle_timeout = '1 hour') AS
             SELECT key, count(*), sum(value)::bigint FROM s GROUP BY key",
        );
        Self { server, feed: Feed::new(brokers, &topic), sent: 0 }
    }

    pub(super) fn send(&mut self) {
        for row in self.sent..self.sent + ROUND {
            let ts = START_MS + row * 100;
            self.feed.send(0, format!(r#"{{"key":{},"value":{row},"ts":{ts}}}"#, row % 10).as_bytes());
        }
        self.feed.flush();
        self.sent += ROUND;
    }

    /// Sends a round, and returns when it is in a checkpoint of both.
    pub(super) fn kept(&mut self) {
        self.send();
        self.server.sql("SELECT rt.drain('s')");
        let covered =
            format!("SELECT count(DISTINCT pipeline) FROM rt.checkpoints WHERE offsets = '{{\"s/0\":{}}}'", self.sent);
        self.server.wait_for(&covered, "2", PATIENCE);
    }

    /// Everything is there once: all windows but the last.
    pub(super) fn check(&self) {
        self.server.sql("SELECT rt.drain('s')");
        let closed = self.sent - ROUND;
        let expected = [format!("{} {closed} {}", closed / 10, closed * (closed - 1) / 2)];
        assert_eq!(
            lines(&self.server, "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(total), 0) FROM sums"),
            expected
        );
        let expected = [format!("10 {} {}", self.sent, self.sent * (self.sent - 1) / 2)];
        assert_eq!(lines(&self.server, "SELECT count(*), sum(rows), sum(total) FROM totals"), expected);
    }

    /// Files of state of a pipeline, oldest first.
    fn states(&self, pipeline: &str) -> Vec<PathBuf> {
        self.states_of(&self.id(pipeline))
    }

    fn id(&self, pipeline: &str) -> String {
        self.server.value(&format!("SELECT id FROM rt.pipelines WHERE name = '{pipeline}'"))
    }

    /// The same by its id, which needs no server.
    fn states_of(&self, id: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.server.data_dir, "state", &mut found);
        found.retain(|path| {
            path.parent().and_then(Path::file_name).is_some_and(|name| name.to_string_lossy().ends_with(id))
        });
        found.sort();
        found
    }
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, ending, found);
        } else if path.extension().is_some_and(|known| known == ending) {
            found.push(path);
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The server, whose pipeline keeps a total for each key of a topic.
fn with_totals(server: Server, brokers: &str, topic: &str) -> Server {
    server.sql(&format!(
        "CREATE SOURCE s (key BIGINT, value BIGINT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}')"
    ));
    server.sql("CREATE TABLE totals (key BIGINT PRIMARY KEY, rows BIGINT, total BIGINT)");
    server.sql(
        "CREATE PIPELINE totals INTO totals WITH (checkpoint_interval = '50ms', memory_limit = '1GB') AS
         SELECT key, count(*), sum(value)::bigint FROM s GROUP BY key",
    );
    server
}

/// Of `sent` messages, whose values are 0, 1, 2 and so on.
fn check_totals(server: &Server, keys: u64, sent: u64) {
    server.sql("SELECT rt.drain('s')");
    let found = lines(server, "SELECT count(*), sum(rows), sum(total) FROM totals");
    assert_eq!(found, [format!("{keys} {sent} {}", sent * (sent - 1) / 2)]);
}

/// A checkpoint of very many groups, a few of which change, is what came, not what there is; over kill -9, and with the newest damaged.
#[test]
fn a_large_state_that_changes_little_is_kept_by_what_came() {
    let Some(brokers) = brokers("pipelines::checkpoints::large_state") else { return };
    let topic = topic("large");
    create_topic(&brokers, &topic, 1, &[]);
    let mut server = with_totals(Server::start_alone(BINARY), &brokers, &topic);
    let feed = Feed::new(&brokers, &topic);
    let (mut sent, keys) = (0, 40_000);
    let mut send = |server: &Server, rows: u64| {
        for row in sent..sent + rows {
            feed.send(0, format!(r#"{{"key":{},"value":{row}}}"#, row * 7 % keys).as_bytes());
        }
        feed.flush();
        sent += rows;
        server.sql("SELECT rt.drain('s')");
        let covered = format!("SELECT count(*) > 0 FROM rt.checkpoints WHERE offsets = '{{\"s/0\":{sent}}}'");
        server.wait_for(&covered, "t", PATIENCE);
        sent
    };
    let check = |server: &Server, sent: u64| check_totals(server, keys, sent);
    send(&server, keys);
    let newest = "SELECT arrival_bytes > 0, bytes FROM rt.checkpoints ORDER BY id DESC LIMIT 1";
    let mut states = Vec::new();
    for round in 0..9 {
        let sent = send(&server, 60);
        if round > 0 {
            assert!(lines(&server, newest)[0].starts_with('t'), "round {round}: {:?}", lines(&server, newest));
            states.push(lines(&server, newest)[0].clone());
        }
        if round % 2 == 1 {
            server.kill_and_restart();
        }
        check(&server, sent);
    }
    states.dedup();
    assert_eq!(states.len(), 1, "the state itself was not written again: {states:?}");
    let sent = send(&server, 60);
    server.kill_9();
    let mut diaries = Vec::new();
    collect(&server.data_dir, "diary", &mut diaries);
    diaries.sort();
    let last = diaries.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
    let end = bytes.len();
    bytes[end - 5] ^= 1;
    fs::write(last, bytes).unwrap();
    server.spawn();
    server.wait_ready();
    check(&server, sent);
    let events = "SELECT count(*) FROM rt.events WHERE kind = 'checkpoint_damaged' AND message LIKE '%.diary%'";
    assert_eq!(server.value(events), "1");
    // An end in good order leaves a state that nothing has to be derived for; what came since has one more behind it.
    let before = server.value("SELECT max(id) FROM rt.checkpoints");
    server.stop();
    server.spawn();
    server.wait_ready();
    check(&server, sent);
    let whole = format!("SELECT count(*) > 0 FROM rt.checkpoints WHERE arrival_bytes IS NULL AND id > {before}");
    assert_eq!(server.value(&whole), "t", "{:?}", lines(&server, newest));
}

/// New pictures of a large state are made beside the pipeline: no checkpoint waits for one, also when one cannot be made, and over kill -9 while it is.
#[test]
fn a_picture_of_a_large_state_is_made_anew_beside_it() {
    let Some(brokers) = brokers("pipelines::checkpoints::beside") else { return };
    let topic = topic("beside");
    create_topic(&brokers, &topic, 2, &[]);
    let mut server = with_totals(Server::start(BINARY), &brokers, &topic);
    let feed = Feed::new(&brokers, &topic);
    let (mut sent, keys) = (0, 150_000);
    let mut send = |server: &Server, rows: u64| {
        for row in sent..sent + rows {
            let (key, partition) = (row * 7919 % keys, (row % 2) as i32);
            feed.send(partition, format!(r#"{{"key":{key},"value":{row}}}"#).as_bytes());
        }
        feed.flush();
        sent += rows;
        server.sql("SELECT rt.drain('s')");
        sent
    };
    let check = |server: &Server, sent: u64| check_totals(server, keys, sent);
    let newest = |server: &Server| -> (String, bool) {
        let line = server.sql("SELECT bytes, arrival_bytes > 0 FROM rt.checkpoints ORDER BY id DESC LIMIT 1").remove(0);
        (line[0].clone().unwrap(), line[1].as_deref() == Some("t"))
    };
    // A new picture is there when the state's file is another one, and what came still stands beside it.
    let made_anew = |server: &Server, send: &mut dyn FnMut(&Server, u64) -> u64| {
        let begun = newest(server).0;
        for round in 0.. {
            assert!(round < 120, "no new picture: {:?}", newest(server));
            let sent = send(server, 5_000);
            check(server, sent);
            let (bytes, is_part) = newest(server);
            assert!(is_part, "round {round}: the pipeline stood still for a picture");
            if bytes != begun {
                return sent;
            }
        }
        unreachable!()
    };
    send(&server, keys);
    while !newest(&server).1 {
        send(&server, 100);
    }
    made_anew(&server, &mut send);
    server.kill_and_restart();
    let sent = made_anew(&server, &mut send);
    check(&server, sent);
    server.kill_9();
    server.spawn_with(&[("FAILPOINTS", "pipeline::renewal=2*return->1*sleep(600000)")]);
    server.wait_ready();
    let failed =
        "SELECT count(*) >= 2 FROM rt.events WHERE kind = 'checkpoint_failed' AND message LIKE '%could not be made%'";
    while server.value(failed) != "t" {
        let sent = send(&server, 5_000);
        check(&server, sent);
    }
    // One hangs: what comes is kept beside the old picture.
    for _ in 0..8 {
        let sent = send(&server, 5_000);
        check(&server, sent);
        assert!(newest(&server).1);
    }
    server.kill_9();
    server.spawn();
    server.wait_ready();
    let sent = made_anew(&server, &mut send);
    // An end in good order takes a whole picture.
    server.stop();
    server.spawn();
    server.wait_ready();
    check(&server, sent);
    let mut files = Vec::new();
    collect(&server.data_dir, "diary", &mut files);
    collect(&server.data_dir, "tmp", &mut files);
    assert!(files.len() <= 2, "what no checkpoint names is deleted: {files:?}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let Some(brokers) = brokers("pipelines::checkpoints::a_damaged_checkpoint_is_passed_over") else { return };
    let mut rounds = Rounds::on(Server::start_alone(BINARY), &brokers, "damaged");
    for (number, damage) in [
        (|path: &Path| flip(path)) as fn(&Path),
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, b"TMSTATE2").unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        for _ in 0..3 {
            rounds.kept();
        }
        let files: Vec<Vec<PathBuf>> = ["sums", "totals"].iter().map(|name| rounds.states(name)).collect();
        rounds.server.kill_9();
        for of_pipeline in &files {
            assert!((2..=4).contains(&of_pipeline.len()), "{files:?}");
            damage(of_pipeline.last().unwrap());
        }
        rounds.server.spawn();
        rounds.server.wait_ready();
        rounds.check();
        let events = "SELECT count(*) FROM rt.events WHERE kind = 'checkpoint_damaged' AND message LIKE '%.state%'";
        assert_eq!(rounds.server.value(events), "2", "damage {number}");
        assert_eq!(rounds.server.value("SELECT count(*) FROM rt.pipelines WHERE error IS NOT NULL"), "0");
    }
}

/// Where the table has rows past the last sound checkpoint, going on from it would give them twice; with no sound one, everything.
#[test]
fn without_a_checkpoint_to_go_on_from_a_pipeline_stands_still() {
    let name = "pipelines::checkpoints::without_a_checkpoint_to_go_on_from_a_pipeline_stands_still";
    let Some(brokers) = brokers(name) else { return };
    let mut rounds = Rounds::on(Server::start_alone(BINARY), &brokers, "stuck");
    (0..4).for_each(|_| rounds.kept());
    rounds.server.sql("SELECT rt.seal('sums')");
    let id = rounds.id("sums");
    let files = rounds.states_of(&id);
    let ends = lines(&rounds.server, "SELECT id, rows_out FROM rt.checkpoints WHERE pipeline = 'sums'");
    let committed = rounds.server.value("SELECT max(rows_out) FROM rt.checkpoints WHERE pipeline = 'sums'");
    let past: Vec<&PathBuf> = files
        .iter()
        .filter(|file| {
            let id: u64 = file.file_stem().unwrap().to_string_lossy().trim_start_matches('c').parse().unwrap();
            ends.contains(&format!("{id} {committed}"))
        })
        .collect();
    assert!(!past.is_empty() && past.len() < ends.len(), "{ends:?} {files:?}");
    for all in [false, true] {
        rounds.server.kill_9();
        // The second time it has gone on.
        let there = rounds.states_of(&id);
        let sound: Vec<(PathBuf, Vec<u8>)> = there.iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect();
        for file in there.iter().filter(|file| all || past.contains(file)) {
            flip(file);
        }
        rounds.server.spawn();
        rounds.server.wait_ready();
        let [state] = &lines(&rounds.server, "SELECT state, error FROM rt.pipelines WHERE name = 'sums'")[..] else {
            panic!("one pipeline")
        };
        assert!(state.starts_with("broken") && state.contains(".state"), "{state}");
        // What was committed stays; the other pipeline goes on.
        assert_eq!(rounds.server.value("SELECT count(*) FROM sums"), committed);
        rounds.send();
        let all_rows = rounds.sent.to_string();
        rounds.server.wait_for("SELECT sum(rows) FROM totals", &all_rows, PATIENCE);
        let (code, message, hint) = refused(&rounds.server, "ALTER PIPELINE sums PAUSE");
        assert!(code == "55000" && hint.contains("drop it"), "{code} {message} {hint}");
        rounds.server.kill_9();
        for (file, bytes) in &sound {
            fs::write(file, bytes).unwrap();
        }
        rounds.server.spawn();
        rounds.server.wait_ready();
        if all {
            rounds.check();
        }
    }
}

/// A step that fails half-way is undone and done again, without a row twice; the server and other pipelines go on.
#[test]
fn a_failure_in_the_middle_of_a_step_is_undone() {
    let Some(brokers) = brokers("pipelines::checkpoints::a_failure_in_the_middle_of_a_step_is_undone") else { return };
    let mut rounds = Rounds::new(&brokers, "undone");
    rounds.kept();
    for failure in ["return", "panic"] {
        rounds.server.kill_9();
        let failpoints = format!("pipeline::applied=8*off->1*{failure}->5*off->2*{failure}->3*off->1*{failure}->off");
        rounds.server.spawn_with(&[("FAILPOINTS", &failpoints)]);
        rounds.server.wait_ready();
        for _ in 0..12 {
            rounds.send();
            thread::sleep(Duration::from_millis(60));
        }
        rounds.server.wait_for("SELECT sum(restarts) >= 3 FROM rt.pipelines", "t", PATIENCE);
        rounds.server.wait_for("SELECT count(*) FROM rt.pipelines WHERE state = 'running'", "2", PATIENCE);
        rounds.check();
        assert_eq!(rounds.server.value("SELECT count(*) > 0 FROM rt.events WHERE kind = 'pipeline_failed'"), "t");
    }
    rounds.server.kill_and_restart();
    rounds.check();
}

/// A step that never ends, and a source that says nothing more: the pipeline is taken from them and goes on from its last checkpoint, without a row twice.
#[test]
fn a_stuck_pipeline_starts_again() {
    let Some(brokers) = brokers("pipelines::checkpoints::a_stuck_pipeline_starts_again") else { return };
    let mut rounds = Rounds::new(&brokers, "hangs");
    for pipeline in ["sums", "totals"] {
        rounds.server.sql(&format!("ALTER PIPELINE {pipeline} SET (stuck_after = '1s')"));
    }
    rounds.kept();
    for (point, words) in [("step", "a step over rows"), ("poll", "source ''s'' has messages")] {
        rounds.server.kill_9();
        let failpoints = format!("pipeline::{point}=12*off->1*sleep(600000)->9*off->1*sleep(600000)->off");
        rounds.server.spawn_with(&[("FAILPOINTS", &failpoints)]);
        rounds.server.wait_ready();
        for _ in 0..12 {
            rounds.send();
            thread::sleep(Duration::from_millis(60));
        }
        rounds.server.wait_for("SELECT sum(restarts) >= 2 FROM rt.pipelines", "t", PATIENCE);
        rounds.server.wait_for("SELECT count(*) FROM rt.pipelines WHERE state = 'running'", "2", PATIENCE);
        rounds.check();
        let events = format!(
            "SELECT count(*) >= 2 FROM rt.events WHERE kind = 'pipeline_stuck' AND severity = 'page' AND message LIKE '%{words}%'"
        );
        assert_eq!(rounds.server.value(&events), "t", "{point}");
    }
    // What says nothing because there is nothing is not stuck.
    let restarts = "SELECT sum(restarts) FROM rt.pipelines";
    let before = rounds.server.value(restarts);
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(rounds.server.value(restarts), before);
    rounds.server.kill_and_restart();
    rounds.check();
    rounds.server.sql("ALTER PIPELINE sums SET (stuck_after = '0')");
}

/// A crash at any step of a checkpoint loses nothing and repeats nothing.
#[test]
fn a_crash_at_each_step_of_a_checkpoint() {
    let Some(brokers) = brokers("pipelines::checkpoints::a_crash_at_each_step_of_a_checkpoint") else { return };
    let mut rounds = Rounds::new(&brokers, "steps");
    for point in ["checkpoint::state", "checkpoint::before_sync", "checkpoint::before_log", "checkpoint::after_log"] {
        rounds.kept();
        rounds.server.kill_9();
        // The first checkpoints of both, where their streams begin, are to pass.
        rounds.server.spawn_with(&[("FAILPOINTS", &format!("{point}=8*off->sleep(600000)"))]);
        rounds.server.wait_ready();
        for _ in 0..10 {
            rounds.send();
            thread::sleep(Duration::from_millis(100));
        }
        // Rows are seen that no checkpoint covers.
        rounds.server.wait_for("SELECT sum(rows) FROM totals", &rounds.sent.to_string(), PATIENCE);
        rounds.server.kill_and_restart();
        rounds.check();
    }
}

/// A disk that fails for a while: the pipeline goes on, says so, and makes its checkpoints later.
#[test]
fn checkpoints_that_fail_are_tried_again() {
    let Some(brokers) = brokers("pipelines::checkpoints::checkpoints_that_fail_are_tried_again") else { return };
    let mut rounds = Rounds::new(&brokers, "failing");
    for (point, failure) in
        [("state", "return"), ("before_sync", "panic"), ("before_log", "return"), ("after_log", "return")]
    {
        rounds.server.kill_9();
        rounds.server.spawn_with(&[("FAILPOINTS", &format!("checkpoint::{point}=8*off->4*{failure}->off"))]);
        rounds.server.wait_ready();
        let failed = "SELECT count(*) FROM rt.events WHERE kind = 'checkpoint_failed'";
        let before = rounds.server.value(failed);
        for _ in 0..20 {
            rounds.kept();
            if rounds.server.value(failed) != before {
                break;
            }
        }
        assert_ne!(rounds.server.value(failed), before, "{point}");
        rounds.check();
        rounds.server.kill_and_restart();
        rounds.check();
    }
}

/// A pipeline that has too much to keep in mind stands still and says so; others do not, and more memory lets it go on where it was.
#[test]
fn a_pipeline_stands_still_at_its_memory_limit() {
    let Some(brokers) = brokers("pipelines::checkpoints::a_pipeline_stands_still_at_its_memory_limit") else { return };
    let mut rounds = Rounds::new(&brokers, "memory");
    // A single group stays in memory.
    rounds.server.sql("CREATE TABLE wide (stop TIMESTAMPTZ, rows BIGINT, texts BIGINT)");
    rounds.server.sql(
        "CREATE PIPELINE wide INTO wide WITH (memory_limit = '300kB', checkpoint_interval = '50ms', idle_timeout = '1 hour', stuck_after = '2s') AS
         SELECT TUMBLE_END(ts, INTERVAL '1' HOUR), count(*), count(DISTINCT repeat('wide', 30) || value) FROM s GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)",
    );
    for _ in 0..170 {
        rounds.send();
    }
    rounds.server.wait_for("SELECT state FROM rt.pipelines WHERE name = 'wide'", "failing", PATIENCE);
    let check = |server: &Server| {
        let why = "SELECT error FROM rt.pipelines WHERE name = 'wide'";
        let why = server.value(why);
        assert!(why.contains("memory_limit is 307200") && why.contains("stands still"), "{why}");
        assert_eq!(server.value("SELECT count(*) FROM wide"), "0");
    };
    check(&rounds.server);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(rounds.server.value("SELECT restarts FROM rt.pipelines WHERE name = 'wide'"), "0", "it is not stuck");
    let pages = "SELECT count(*) > 0 FROM rt.events WHERE kind = 'pipeline_memory' AND message LIKE '%wide%'";
    assert_eq!(rounds.server.value(pages), "t");
    rounds.send();
    rounds.server.wait_for("SELECT sum(rows) FROM totals", &rounds.sent.to_string(), PATIENCE);
    rounds.server.kill_and_restart();
    rounds.server.wait_for("SELECT state FROM rt.pipelines WHERE name = 'wide'", "failing", PATIENCE);
    check(&rounds.server);

    for (options, code, words) in [
        ("late = 'update'", "0A000", "late"),
        ("memory_limits = '1GB'", "22023", "memory_limits"),
        ("memory_limit = 'much'", "22023", "memory_limit"),
    ] {
        let (found, message, _) = refused(&rounds.server, &format!("ALTER PIPELINE wide SET ({options})"));
        assert!(found == code && message.contains(words), "{options}: {found} {message}");
    }
    rounds.server.sql("ALTER PIPELINE wide SET (memory_limit = '64MB', checkpoint_interval = '200ms')");
    // An hour of event time is 36,000 rows.
    while rounds.sent < 36_300 {
        rounds.send();
    }
    rounds.check();
    assert_eq!(lines(&rounds.server, "SELECT count(*), sum(rows), sum(texts) FROM wide"), ["1 36000 36000"]);
    rounds.server.kill_and_restart();
    rounds.check();
    assert_eq!(rounds.server.value("SELECT count(*) FROM wide"), "1");
    assert_eq!(
        rounds.server.value("SELECT memory_limit FROM rt.pipelines WHERE name = 'wide'"),
        (64 << 20).to_string()
    );
}
