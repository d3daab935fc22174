//! Messages that no decoder likes, from a real broker: each is a row or a dead letter, and the good ones before and after it come through.

use std::{collections::HashMap, time::Duration};

use super::{BINARY, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

#[test]
fn no_message_holds_up_the_good_ones() {
    let Some(brokers) = brokers("exactly_once::hostile::no_message_holds_up_the_good_ones") else { return };
    let topic = topic("hostile");
    create_topic(&brokers, &topic, 1, &[("max.message.bytes", "20000000")]);
    // What compresses well would be small on its way.
    let feed = Feed::with(&brokers, &topic, &HashMap::from([("compression.type", "none")]));
    let text = |bytes: usize| -> String { (0..bytes).map(|at| char::from(b'a' + (at * at / 7 % 26) as u8)).collect() };
    let wide = text(10 << 20);
    let good = |seq: u64, note: &str| format!("{{\"seq\":{seq},\"note\":\"{note}\"}}");

    feed.send(0, good(1, "before").as_bytes());
    feed.send(0, good(2, &wide).as_bytes());
    let cut = good(3, &wide);
    feed.send(0, &cut.as_bytes()[..cut.len() - 2]);
    feed.send(0, b"{\"seq\":4,\"note\":\"\xff\xfe\"}");
    feed.send(0, format!("{{\"seq\":5,\"note\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000)).as_bytes());
    feed.send(0, "[".repeat(10_000_000).as_bytes());
    feed.send(0, b"");
    feed.send(0, b"{\"seq\":1e99,\"note\":\"\"}");
    feed.send(0, &[0; 1000]);
    feed.send(0, good(6, "after").as_bytes());
    feed.flush();

    let mut server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE raw (seq BIGINT, note TEXT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json')"
    ));
    server.sql("CREATE TABLE t (seq BIGINT, note TEXT) FROM SOURCE raw");
    for round in 0..2 {
        server.wait_for("SELECT count(*) FROM t WHERE note = 'after'", "1", Duration::from_secs(30));
        let rows = server.sql("SELECT seq, length(note) FROM t ORDER BY seq");
        let lengths: Vec<_> = rows.iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect();
        let expected = [("1", "6"), ("2", "10485760"), ("6", "5")].map(|(seq, long)| (seq.to_owned(), long.to_owned()));
        assert_eq!(lengths, expected, "round {round}");
        let letters = server.sql("SELECT \"offset\", reason FROM rt.dlq ORDER BY \"offset\"");
        let offsets: Vec<_> = letters.iter().map(|letter| letter[0].clone().unwrap()).collect();
        assert_eq!(offsets, ["2", "3", "4", "5", "6", "7", "8"], "round {round}: {letters:?}");
        assert!(
            letters.iter().all(|letter| letter[1].as_ref().is_some_and(|reason| !reason.is_empty())),
            "{letters:?}"
        );
        server.sql("SELECT rt.seal('t')");
        server.kill_and_restart();
    }
}
