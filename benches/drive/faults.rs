//! One set of messages, read again and again by new servers that are killed and stopped meanwhile: each time the same table, compared with its topic and with what was sent.

use std::{
    collections::HashMap,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    BINARY, Options,
    support::{
        kafka::{Feed, create_topic},
        server::Server,
    },
};

const PARTITIONS: u64 = 4;
const COLUMNS: &str = "id BIGINT NOT NULL, version BIGINT, city TEXT, cents BIGINT";

/// What the table has in the end: rows, and the sums of two columns.
type Totals = (u64, u64, u64);

pub(crate) fn run(brokers: &str, options: &Options) {
    let runs = options.number("runs", 24);
    let events = options.number("events", 10_000_000);
    let keys = options.number("keys", events / 5);
    let mut random = Random(options.number("seed", 42));
    let (all, winners) = send(brokers, events, keys, &mut random);
    println!("sent {events} messages of {keys} keys, in no order of versions");
    for number in 1..=runs {
        // Of every three runs two have a key.
        let (rows, wanted) = if number % 3 == 0 { ("all rows", all) } else { ("upserts", winners) };
        let start = Instant::now();
        let faults = one(brokers, number % 3 != 0, events, wanted, &mut random);
        println!("run {number:>3}: {rows:8} {faults}, exact after {:>5.1} s", start.elapsed().as_secs_f64());
    }
    println!("{runs} runs of {events} messages: nothing lost, nothing twice");
}

fn send(brokers: &str, events: u64, keys: u64, random: &mut Random) -> (Totals, Totals) {
    create_topic(brokers, "faults", PARTITIONS as i32, &[]);
    let feed = Feed::new(brokers, "faults");
    let mut newest: HashMap<u64, (u64, u64)> = HashMap::new();
    let mut all = (0, 0, 0);
    for _ in 0..events {
        // Versions differ from each other, so that it does not matter who comes first.
        let (id, version, cents) = (random.below(keys), random.next() >> 24, random.below(10_000));
        let json = format!(r#"{{"id":{id},"version":{version},"city":"city {}","cents":{cents}}}"#, id % 200);
        feed.send(random.below(PARTITIONS) as i32, json.as_bytes());
        all = (all.0 + 1, all.1 + version, all.2 + cents);
        let known = newest.entry(id).or_insert((version, cents));
        if version >= known.0 {
            *known = (version, cents);
        }
    }
    feed.flush();
    let sums = newest.values().fold((0, 0), |sums, value| (sums.0 + value.0, sums.1 + value.1));
    (all, (newest.len() as u64, sums.0, sums.1))
}

fn one(brokers: &str, has_key: bool, events: u64, wanted: Totals, random: &mut Random) -> String {
    let mut server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE raw ({COLUMNS}) WITH (connector = 'kafka', brokers = '{brokers}', topic = 'faults', format = 'json', start = 'earliest')"
    ));
    let (key, mode) = match has_key {
        true => (", PRIMARY KEY (id)", "mode = 'upsert', version_column = 'version', "),
        false => ("", ""),
    };
    server.sql(&format!(
        "CREATE TABLE t ({COLUMNS}{key}) WITH ({mode}partitions = 3, seal_rows = 200000) FROM SOURCE raw"
    ));
    let (mut kills, mut ends, mut stops) = (0, 0, 0);
    // Faults for as long as there is something to read, at most so many.
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(300 + random.below(6000)));
        match random.below(4) {
            0 | 1 => {
                server.kill_and_restart();
                kills += 1;
            }
            2 => {
                server.stop();
                server.spawn();
                server.wait_ready();
                ends += 1;
            }
            _ => {
                signal(server.pid(), "STOP");
                thread::sleep(Duration::from_millis(500 + random.below(3000)));
                signal(server.pid(), "CONT");
                stops += 1;
            }
        }
        if read(&server) >= events {
            break;
        }
    }
    let start = Instant::now();
    while read(&server) < events {
        assert!(start.elapsed() < Duration::from_secs(900), "only {} of {events} messages were read", read(&server));
        thread::sleep(Duration::from_millis(200));
    }
    server.sql("SELECT rt.drain('t')");
    let number = |text: &Option<String>| text.as_deref().unwrap_or("0").parse::<u64>().expect("a number");
    let row = &server.sql("SELECT count(*), sum(version), sum(cents) FROM t")[0];
    assert_eq!((number(&row[0]), number(&row[1]), number(&row[2])), wanted, "the table is what was sent");
    let wrong = server.sql(
        "SELECT source, from_offset, missing, extra, state, detail FROM rt.consistency_check('t') WHERE state <> 'equal' OR missing > 0 OR extra > 0",
    );
    assert!(wrong.is_empty(), "the table differs from its topic: {wrong:?}");
    format!("{kills} × kill -9, {ends} ends in order, {stops} × SIGSTOP")
}

/// Messages that were taken.
fn read(server: &Server) -> u64 {
    server
        .value("SELECT coalesce(sum(position), 0)::bigint FROM rt.partitions WHERE \"table\" = 't'")
        .parse()
        .expect("a number")
}

fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// A sequence that is the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
