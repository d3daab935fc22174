//! Events of Kafka: keys split over partitions and topics at random, kill -9 in between, and the table is that of the plain map.

use std::{collections::BTreeMap, env, time::Duration};

use super::{BINARY, Random};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const EVENTS: usize = 30_000;
const KEYS: usize = 4000;

#[test]
fn topics_need_no_keys_and_no_order() {
    let Some(brokers) = brokers("upserts::arrivals::topics_need_no_keys_and_no_order") else { return };
    let kills: usize = env::var("TIDEMILL_TEST_KILLS").map_or(5, |text| text.parse().expect("a number"));
    let mut random = Random(3);
    // Versions tell the events of a key apart.
    let mut model: BTreeMap<usize, (usize, usize, bool)> = BTreeMap::new();
    let events: Vec<(usize, usize, bool)> =
        (0..EVENTS).map(|version| (random.below(KEYS), version, random.below(10) == 0)).collect();
    for (amount, (key, version, gone)) in events.iter().enumerate() {
        let known = model.entry(*key).or_insert((*version, amount, *gone));
        if *version >= known.0 {
            *known = (*version, amount, *gone);
        }
    }
    let seen = || model.values().filter(|(_, _, gone)| !gone);
    let expected = format!("{} {}", seen().count(), seen().map(|(_, amount, _)| amount).sum::<usize>());

    let mut order: Vec<usize> = (0..EVENTS).collect();
    for (arrival, (partitions, of_table)) in [(1, 3), (3, 4), (2, 1)].into_iter().enumerate() {
        random.shuffle(&mut order);
        let topics: Vec<String> =
            ["a", "b"].map(|name| format!("upserts-{name}-{arrival}-{}", std::process::id())).into();
        let mut server = Server::start(BINARY);
        let feeds: Vec<Feed> = topics
            .iter()
            .zip(["a", "b"])
            .map(|(topic, name)| {
                create_topic(&brokers, topic, partitions, &[]);
                server.sql(&format!(
                    "CREATE SOURCE {name} (k TEXT, part INT, v BIGINT, gone BOOLEAN, amount BIGINT)
                     WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json')"
                ));
                Feed::new(&brokers, topic)
            })
            .collect();
        server.sql(&format!(
            "CREATE TABLE t (k TEXT, part INT, v BIGINT, gone BOOLEAN, amount BIGINT, PRIMARY KEY (k, part))
             WITH (version_column = 'v', delete_column = 'gone', seal_rows = 2000, partitions = {of_table}) FROM SOURCES (a, b)"
        ));
        for part in order.chunks(EVENTS / kills + 1) {
            for at in part {
                let (key, version, gone) = events[*at];
                let text = format!(
                    r#"{{"k":"key {}","part":{},"v":{version},"gone":{gone},"amount":{at}}}"#,
                    key / 3,
                    key % 3
                );
                feeds[random.below(2)].send(random.below(partitions as usize) as i32, text.as_bytes());
            }
            feeds.iter().for_each(Feed::flush);
            std::thread::sleep(Duration::from_millis(random.below(400) as u64));
            server.kill_and_restart();
            let twice = "SELECT count(*) - count(DISTINCT k || ' ' || part::text) FROM t";
            assert_eq!(server.value(twice), "0", "a key is there once");
        }
        // Without a key: a dead letter, not a row.
        feeds[0].send(0, br#"{"part":1,"v":1,"gone":false,"amount":1}"#);
        feeds[0].flush();
        server.sql("SELECT rt.drain('a'), rt.drain('b')");
        let answer = "SELECT count(*) || ' ' || sum(amount) FROM t";
        assert_eq!(server.value(answer), expected, "{partitions} partitions");
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "1");
        let every = "SET rt.skip_upsert = on; SELECT count(*) || ' ' || count(DISTINCT amount) FROM t";
        assert_eq!(server.value(every), format!("{EVENTS} {EVENTS}"), "each event once");
        server.sql("SELECT rt.seal('t')");
        assert_eq!(server.value(answer), expected);
        let used = server.value("SELECT count(DISTINCT partition) FROM rt.segments WHERE state = 'committed'");
        assert_eq!(used, of_table.to_string(), "keys are spread");
        // Committed is what all partitions have.
        let behind = "SELECT count(*) FROM rt.partitions WHERE committed_offset <> position";
        assert_eq!(server.value(behind), "0");
        server.kill_and_restart();
        assert_eq!(server.value(answer), expected);
    }
}
