//! Tables that merge the rows of a key: totals are exact, whatever is killed in the middle.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};

use super::{BINARY, Random};
use crate::support::{
    kafka::Feed,
    server::{Server, connect, runtime},
};

const KEYS: i64 = 20;

/// What clients know of their statements.
#[derive(Default)]
struct Known {
    next: i64,
    /// Keys that each INSERT has rows of, and whether it was acknowledged.
    inserts: BTreeMap<i64, (Vec<i64>, bool)>,
    /// Of each key, UPDATEs that were sent, and those that were acknowledged.
    updates: BTreeMap<i64, (usize, usize)>,
}

/// Inserts rows until the server is gone; each has the number of its statement.
fn insert(port: u16, known: &Mutex<Known>) {
    runtime().block_on(async {
        let Ok(client) = connect(port).await else { return };
        loop {
            let (id, keys) = {
                let mut known = known.lock().unwrap();
                known.next += 1;
                let id = known.next;
                let keys = vec![id % KEYS, id * 7 % KEYS, id % KEYS];
                known.inserts.insert(id, (keys.clone(), false));
                (id, keys)
            };
            let rows: Vec<String> =
                keys.iter().map(|key| format!("({key}, 1, ARRAY[{id}]::BIGINT[], {id}, {id}, {id})")).collect();
            let sql = format!("INSERT INTO t (k, total, ids, first, last, most) VALUES {}", rows.join(", "));
            if client.batch_execute(&sql).await.is_err() {
                return;
            }
            known.lock().unwrap().inserts.get_mut(&id).unwrap().1 = true;
        }
    });
}

/// Changes rows by hand, and has files written again.
fn update(port: u16, known: &Mutex<Known>) {
    runtime().block_on(async {
        let Ok(client) = connect(port).await else { return };
        for step in 0.. {
            let key = step * 3 % KEYS;
            known.lock().unwrap().updates.entry(key).or_default().0 += 1;
            let sql = format!("UPDATE t SET note = coalesce(note, '') || 'x' WHERE k = {key}");
            match client.execute(&sql, &[]).await {
                Err(error) if error.as_db_error().is_some() => panic!("{sql}: {error:?}"),
                Err(_) => return,
                // The row was not there yet.
                Ok(0) => known.lock().unwrap().updates.get_mut(&key).unwrap().0 -= 1,
                Ok(_) => known.lock().unwrap().updates.get_mut(&key).unwrap().1 += 1,
            }
            let then = if step % 5 == 4 { "SELECT rt.compact('t')" } else { "SELECT 1" };
            if client.batch_execute(then).await.is_err() {
                return;
            }
        }
    });
}

fn check(server: &Server, known: &Known, when: &str) {
    let rows = server.sql("SELECT k, total, ids, first, last, most, length(note) FROM t ORDER BY k");
    assert_eq!(rows.len() as i64, KEYS, "{when}");
    for row in rows {
        let number = |at: usize| row[at].as_ref().map_or(0, |text: &String| text.parse::<i64>().unwrap());
        let (key, total) = (number(0), number(1));
        let ids = row[2].as_deref().unwrap_or_default();
        let ids = ids.split([',', '{', '}']).filter(|id| !id.is_empty());
        let ids: Vec<i64> = ids.map(|id| id.parse().unwrap()).collect();
        assert_eq!(ids.len() as i64, total, "{when}, key {key}: the sum counts what the array has");
        let mut found: BTreeMap<i64, usize> = BTreeMap::new();
        ids.iter().for_each(|id| *found.entry(*id).or_default() += 1);
        for (id, (keys, is_known)) in &known.inserts {
            let wanted = keys.iter().filter(|of| **of == key).count();
            let times = found.remove(id).unwrap_or(0);
            let is_right = times == wanted || (times == 0 && !is_known);
            assert!(is_right, "{when}, key {key}: statement {id} {times} times, not {wanted} (known: {is_known})");
        }
        assert!(found.is_empty(), "{when}, key {key}: rows of nobody: {found:?}");
        let (first, last, most) = (ids.first(), ids.last(), ids.iter().max());
        let wanted = [first, last, most].map(|id| id.copied().unwrap_or(0));
        assert_eq!([number(3), number(4), number(5)], wanted, "{when}, key {key}");
        let (sent, acknowledged) = known.updates.get(&key).copied().unwrap_or_default();
        let notes = number(6) as usize;
        assert!(
            (acknowledged..=sent).contains(&notes),
            "{when}, key {key}: {notes} of {acknowledged} to {sent} updates"
        );
    }
}

#[test]
fn totals_are_exact_after_kill_9() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, total BIGINT MERGE increment, ids BIGINT[] MERGE append, first BIGINT MERGE ignore,
           last BIGINT, most BIGINT MERGE max, note TEXT)
         WITH (mode = 'partial_upsert', partitions = 3, seal_rows = 60)",
    );
    let known = Arc::new(Mutex::new(Known::default()));
    for round in 0..6u64 {
        let port = server.pg_port;
        let mut clients: Vec<_> = (0..3)
            .map(|_| {
                let known = Arc::clone(&known);
                thread::spawn(move || insert(port, &known))
            })
            .collect();
        // Statements and rows wait for each other; some rounds have none.
        if round % 3 > 0 {
            let known = Arc::clone(&known);
            clients.push(thread::spawn(move || update(port, &known)));
        }
        thread::sleep(Duration::from_millis(700 + 200 * round));
        server.kill_9();
        clients.into_iter().for_each(|client| client.join().unwrap());
        server.kill_and_restart();
        // What the log has is visible when a row is that came later.
        server.sql("INSERT INTO t (k, note) SELECT k, NULL FROM generate_series(0, 19) AS s(k)");
        check(&server, &known.lock().unwrap(), &format!("round {round}"));
    }
    let known = known.lock().unwrap();
    assert!(known.inserts.len() > 100, "{} statements", known.inserts.len());
    assert!(known.updates.values().map(|(_, done)| done).sum::<usize>() > 5, "{:?}", known.updates);
    server.sql("SELECT rt.seal('t')");
    check(&server, &known, "sealed");
    server.sql("SELECT rt.compact('t')");
    check(&server, &known, "compacted");
    server.kill_and_restart();
    check(&server, &known, "at the end");
}

/// A key as the messages so far leave it.
#[derive(Clone, Debug, Default)]
struct Order {
    version: i64,
    is_there: bool,
    total: Option<f64>,
    tags: Option<Vec<String>>,
    steps: Option<Vec<i64>>,
    first: Option<i64>,
    least: Option<i64>,
    status: Option<String>,
    visits: i64,
}

impl Order {
    fn seen(&self, id: i64) -> String {
        fn text<T: ToString>(value: &Option<T>) -> String {
            value.as_ref().map_or("NULL".into(), T::to_string)
        }
        fn list<T: ToString>(items: &Option<Vec<T>>) -> Option<String> {
            let items = items.as_ref()?.iter().map(T::to_string).collect::<Vec<_>>();
            Some(format!("{{{}}}", items.join(",")))
        }
        format!(
            "{id} {} {} {} {} {} {} {} {}",
            self.version,
            text(&self.total),
            text(&list(&self.tags)),
            text(&list(&self.steps)),
            text(&self.first),
            text(&self.least),
            text(&self.status),
            self.visits
        )
    }

    fn take(&mut self, message: &Value) {
        let version = message["v"].as_i64().unwrap();
        if version <= self.version {
            return;
        }
        if !self.is_there || message["gone"] == true {
            *self = Self { visits: 100, ..Self::default() };
        }
        self.version = version;
        self.is_there = message["gone"] != true;
        if !self.is_there {
            return;
        }
        if let Some(more) = message["total"].as_f64() {
            self.total = Some(self.total.unwrap_or(0.0) + more);
        }
        if let Some(more) = message["tags"].as_array() {
            let tags = self.tags.get_or_insert_default();
            for tag in more.iter().map(|tag| tag.as_str().unwrap().to_owned()) {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
        if let Some(more) = message["steps"].as_array() {
            self.steps.get_or_insert_default().extend(more.iter().map(|step| step.as_i64().unwrap()));
        }
        if let Some(n) = message["n"].as_i64() {
            self.first.get_or_insert(n);
            self.least = Some(self.least.map_or(n, |least| least.min(n)));
        }
        if let Some(status) = message["status"].as_str() {
            self.status = Some(status.to_owned());
        }
        if let Some(visits) = message["visits"].as_i64() {
            // A new key has the default where its message says nothing.
            self.visits += visits;
        }
    }
}

fn message(random: &mut Random, version: i64) -> Value {
    let mut message = json!({"id": random.below(60) as i64, "v": version});
    let mut put = |random: &mut Random, name: &str, value: Value| match random.below(3) {
        0 => {}
        1 => message[name] = Value::Null,
        _ => message[name] = value,
    };
    let tag = |random: &mut Random| format!("tag{}", random.below(9));
    let tags: Vec<String> = (0..random.below(4)).map(|_| tag(random)).collect();
    let total = 0.25 * random.below(100) as f64;
    put(random, "total", json!(total));
    put(random, "tags", json!(tags));
    put(random, "steps", json!([version]));
    let n = random.below(1000) as i64;
    put(random, "n", json!(n));
    let status = format!("status {}", random.below(9));
    put(random, "status", json!(status));
    let gone = random.below(9) == 0;
    put(random, "gone", json!(gone));
    message
}

fn orders(server: &Server) -> Vec<String> {
    let rows = server.sql("SELECT id, v, total, tags, steps, first, least, status, visits FROM t ORDER BY id");
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" ")
    };
    rows.into_iter().map(text).collect()
}

/// Partial messages of a topic, some of them late; the server is killed, and the topic is read once more from its start.
#[test]
fn each_message_of_a_topic_counts_once() {
    for (topic_partitions, partitions) in [(3, 2), (1, 3)] {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", topic_partitions, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let feed = Feed::new(&brokers, "orders");
        let mut server = Server::start(BINARY);
        server.sql(&format!(
            "CREATE SOURCE orders (id BIGINT, v BIGINT, total DOUBLE PRECISION, tags TEXT[], steps BIGINT[], n INT, status TEXT, gone BOOLEAN)
             WITH (connector = 'kafka', brokers = '{brokers}', topic = 'orders', format = 'json')"
        ));
        server.sql(&format!(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT, total DOUBLE PRECISION MERGE increment, tags TEXT[] MERGE union,
               steps BIGINT[] MERGE append, first INT MERGE ignore, least INT MERGE min, status TEXT, gone BOOLEAN,
               visits INT NOT NULL DEFAULT 100 MERGE increment)
             WITH (mode = 'partial_upsert', version_column = 'v', delete_column = 'gone', seal_rows = 400, partitions = {partitions})
             FROM SOURCE orders AS SELECT *, n AS first, n AS least"
        ));
        let mut random = Random(11);
        let mut wanted: BTreeMap<i64, Order> = BTreeMap::new();
        for part in 0..5 {
            for step in 0..1500 {
                let now = part * 1500 + step + 1;
                // Some come late, and some have the version of another.
                let version = if random.below(10) == 0 { (now - random.below(50) as i64).max(1) } else { now };
                let message = message(&mut random, version);
                let id = message["id"].as_i64().unwrap();
                let order = wanted.entry(id).or_default();
                // Of one version the later message counts as well: it ranks by its offset.
                if version == order.version {
                    order.version -= 1;
                }
                order.take(&message);
                feed.send(id as i32 % topic_partitions, message.to_string().as_bytes());
            }
            feed.flush();
            thread::sleep(Duration::from_millis(random.below(400) as u64));
            server.kill_and_restart();
        }
        server.sql("SELECT rt.drain('orders')");
        let there = wanted.iter().filter(|(_, order)| order.is_there);
        let mut wanted: Vec<String> = there.map(|(id, order)| order.seen(*id)).collect();
        assert!(wanted.len() > 30);
        let case = format!("{topic_partitions} to {partitions}");
        assert_eq!(orders(&server), wanted, "{case}");
        assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
        for what in ["SELECT rt.seal('t')", "SELECT rt.compact('t')", "ALTER SOURCE orders RESET OFFSETS TO 'earliest'"]
        {
            server.sql(what);
            server.sql("SELECT rt.drain('orders')");
            assert_eq!(orders(&server), wanted, "{case}, after {what}");
        }
        server.kill_and_restart();
        server.sql("SELECT rt.drain('orders')");
        assert_eq!(orders(&server), wanted, "{case}, restarted");
        // Rows by hand are of a source that ranks above, and a newer version counts.
        server.sql("INSERT INTO t (id, v, visits, steps) SELECT id, 1000000, 1, ARRAY[-1]::BIGINT[] FROM t");
        for row in &mut wanted {
            let mut parts: Vec<String> = row.split(' ').map(ToOwned::to_owned).collect();
            parts[1] = "1000000".into();
            parts[4] = match parts[4].as_str() {
                "NULL" => "{-1}".into(),
                steps => steps.replace('}', ",-1}"),
            };
            let visits = parts.len() - 1;
            parts[visits] = "101".into();
            *row = parts.join(" ");
        }
        assert_eq!(orders(&server), wanted, "{case}, by hand");
    }
}

/// A row whose segment is too old stays as long as rows in memory were merged with it: a crash takes these back.
#[test]
fn retention_waits_for_rows_that_are_merged_with_old_ones() {
    let mut server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT MERGE increment, at TIMESTAMPTZ)
         WITH (mode = 'partial_upsert', time_column = 'at')",
    );
    // Both will be too old; the second is merged with a row that is not.
    server.sql("INSERT INTO t SELECT k, 10, now() - interval '100 days' FROM generate_series(1, 2) AS s(k)");
    server.sql("SELECT rt.seal('t')");
    server.sql("INSERT INTO t VALUES (2, 1, now())");
    let seen = "SELECT string_agg(k || ' ' || n, ', ' ORDER BY k) FROM t";
    assert!(server.value(seen).ends_with("2 11"), "{}", server.value(seen));
    // It is looked at at once, and when the server starts, when rows of the log are read again.
    server.sql("ALTER TABLE t SET (retention = '30 days')");
    for round in 0..3 {
        server.kill_and_restart();
        server.wait_for("SELECT count(*) FROM t WHERE n = 11", "1", Duration::from_secs(20));
        thread::sleep(Duration::from_millis(500));
        assert!(server.value(seen).ends_with("2 11"), "round {round}: {}", server.value(seen));
    }
    server.wait_for(seen, "2 11", Duration::from_secs(90));
    server.sql("INSERT INTO t VALUES (1, 1, now())");
    assert_eq!(server.value(seen), "1 1, 2 11", "a key that went begins anew");
}

/// Lines of JSON by HTTP and COPY: what a line does not name, and what it says is null, stays.
#[test]
fn rows_by_copy_are_merged() {
    let server = Server::start(BINARY);
    server.sql(
        "CREATE TABLE t (k INT PRIMARY KEY, n INT NOT NULL DEFAULT 5 MERGE increment, note TEXT DEFAULT 'none')
         WITH (mode = 'partial_upsert')",
    );
    runtime().block_on(async {
        use futures::SinkExt;
        let client = connect(server.pg_port).await.unwrap();
        for (columns, rows) in [("k, note", "1,a\n2,\n"), ("k, n", "1,3\n2,4\n3,\n"), ("k, n, note", "1,,b\n")] {
            let sink = client.copy_in(&format!("COPY t ({columns}) FROM STDIN (FORMAT csv)")).await.unwrap();
            let mut sink = std::pin::pin!(sink);
            sink.send(bytes::Bytes::from(rows)).await.unwrap();
            sink.close().await.unwrap();
        }
    });
    let seen = "SELECT string_agg(k || ' ' || n || ' ' || note, ', ' ORDER BY k) FROM t";
    assert_eq!(server.value(seen), "1 8 b, 2 9 none, 3 5 none");
}
