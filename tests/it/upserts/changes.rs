//! Change streams of Debezium: a database's inserts, updates, deletes and keys that change, and the table is the database.

use std::{collections::BTreeMap, fs, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use rdkafka::mocking::MockCluster;
use serde_json::{Value, json};

use super::{BINARY, Random};
use crate::support::{
    kafka::Feed,
    server::{Server, describe},
};

const CHANGES: usize = 6000;
const KEYS: usize = 500;
const RESTARTS: usize = 4;

/// A row of the database, without its key.
#[derive(Clone)]
struct Row {
    city: Option<usize>,
    cents: i64,
    day: i64,
    at_us: i64,
}

impl Row {
    fn random(random: &mut Random) -> Self {
        let cents = random.below(2_000_000) as i64 - 1_000_000;
        // Near 1970, where the size of a number does not tell its unit.
        let (day, at_us) = (random.below(20_000) as i64, random.below(100_000_000) as i64 * 1_000_000 + 500_000);
        Self { city: Some(random.below(9)).filter(|city| *city > 0), cents, day, at_us }
    }

    /// As Debezium writes it: decimals in bytes beside a schema, else as numbers.
    fn image(&self, id: i64, has_schema: bool) -> Value {
        let price: Value = match has_schema {
            true => STANDARD.encode(self.cents.to_be_bytes()).into(),
            false => format!("{}e-2", self.cents).parse::<f64>().expect("a number").into(),
        };
        let city = self.city.map(|city| format!("city \"{city}\""));
        json!({"id": id, "city": city, "price": price, "day": self.day, "at": self.at_us})
    }

    /// As the table is asked for it.
    fn seen(&self, id: i64) -> String {
        let city = self.city.map_or("NULL".into(), |city| format!("city \"{city}\""));
        format!("{id} {city} {} {} {}", self.cents, self.day, self.at_us)
    }
}

fn schema() -> Value {
    let decimal = "org.apache.kafka.connect.data.Decimal";
    let fields = json!([
        {"type": "int64", "optional": false, "field": "id"},
        {"type": "string", "optional": true, "field": "city"},
        {"type": "bytes", "optional": true, "name": decimal, "parameters": {"scale": "2"}, "field": "price"},
        {"type": "int32", "optional": true, "name": "io.debezium.time.Date", "field": "day"},
        {"type": "int64", "optional": true, "name": "io.debezium.time.MicroTimestamp", "field": "at"},
    ]);
    let image = |name: &str| json!({"type": "struct", "fields": fields, "optional": true, "field": name});
    json!({"type": "struct", "fields": [image("before"), image("after"), {"type": "string", "field": "op"}]})
}

/// Where keys that change become another's: Debezium sends a delete and a create, others an update.
#[derive(Clone, Copy, PartialEq)]
enum Moves {
    Split,
    Whole,
}

/// A database, and all that it ever said of itself.
struct Database {
    rows: BTreeMap<i64, Row>,
    /// The key that each change is about, and the change; none is a tombstone.
    changes: Vec<(i64, Option<String>)>,
    /// Rows that changes are.
    images: usize,
    random: Random,
}

impl Database {
    fn say(&mut self, op: &str, before: Option<(i64, &Row)>, after: Option<(i64, &Row)>) {
        let has_schema = self.random.below(2) == 0;
        let image = |of: Option<(i64, &Row)>| of.map(|(id, row)| row.image(id, has_schema));
        let (mut before_image, after_image) = (image(before), image(after));
        // Without REPLICA IDENTITY FULL, of what is deleted the key is known.
        if op == "d" && self.random.below(2) == 0 {
            before_image =
                before.map(|(id, _)| json!({"id": id, "city": null, "price": null, "day": null, "at": null}));
        }
        let lsn = 1000 + 8 * self.changes.len();
        let change = json!({
            "before": before_image, "after": after_image, "op": op, "ts_ms": 1_709_208_000_000_u64,
            "source": {"connector": "postgresql", "ts_ms": 1_709_208_000_000_u64, "lsn": lsn, "table": "orders"},
        });
        let message = if has_schema { json!({"schema": schema(), "payload": change}) } else { change };
        let (key, _) = after.or(before).expect("a change has a row");
        self.changes.push((key, Some(message.to_string())));
        if op == "d" {
            self.changes.push((key, None));
        }
        self.images += 1;
    }

    fn live(moves: Moves) -> Self {
        let mut database = Self { rows: BTreeMap::new(), changes: Vec::new(), images: 0, random: Random(5) };
        while database.images < CHANGES {
            let id = database.random.below(KEYS) as i64;
            let next = Row::random(&mut database.random);
            let Some(row) = database.rows.get(&id).cloned() else {
                let op = if database.images < CHANGES / 20 { "r" } else { "c" };
                database.say(op, None, Some((id, &next)));
                database.rows.insert(id, next);
                continue;
            };
            match database.random.below(6) {
                0 | 1 => {
                    database.say("d", Some((id, &row)), None);
                    database.rows.remove(&id);
                }
                2 => {
                    let other = database.random.below(KEYS) as i64;
                    if database.rows.contains_key(&other) {
                        continue;
                    }
                    if moves == Moves::Split {
                        database.say("d", Some((id, &row)), None);
                        database.say("c", None, Some((other, &next)));
                    } else {
                        database.say("u", Some((id, &row)), Some((other, &next)));
                        database.images += 1;
                    }
                    database.rows.remove(&id);
                    database.rows.insert(other, next);
                }
                _ => {
                    let before = Some((id, &row)).filter(|_| database.random.below(2) == 0);
                    database.say("u", before, Some((id, &next)));
                    database.rows.insert(id, next);
                }
            }
        }
        database
    }
}

fn seen(server: &Server) -> Vec<String> {
    let sql =
        "SELECT id, city, (price * 100)::BIGINT, day - DATE '1970-01-01', (extract(epoch FROM at) * 1000000)::BIGINT
               FROM t ORDER BY id";
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|value| value.unwrap_or_else(|| "NULL".into())).collect::<Vec<_>>().join(" ")
    };
    server.sql(sql).into_iter().map(text).collect()
}

/// In order without a version, as a topic has them; and in any order, repeated, by the log's position.
#[test]
fn a_table_is_the_database() {
    for (moves, topic_partitions, partitions, is_shuffled) in
        [(Moves::Split, 3, 2, false), (Moves::Whole, 1, 3, false), (Moves::Whole, 3, 4, true)]
    {
        let case = format!("{topic_partitions} to {partitions}, shuffled: {is_shuffled}");
        let mut database = Database::live(moves);
        let wanted: Vec<String> = database.rows.iter().map(|(id, row)| row.seen(*id)).collect();
        assert!(wanted.len() > KEYS / 4, "{}", wanted.len());
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("shop.public.orders", topic_partitions, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let feed = Feed::new(&brokers, "shop.public.orders");
        let mut server = Server::start(BINARY);
        server.sql(&format!(
            "CREATE SOURCE orders (id BIGINT, city TEXT, price NUMERIC(10, 2), day DATE, at TIMESTAMP EPOCH 'us', gone BOOLEAN,
               lsn BIGINT PATH '$.source.lsn', PRIMARY KEY (id))
             WITH (connector = 'kafka', brokers = '{brokers}', topic = 'shop.public.orders', format = 'debezium-json', delete_column = 'gone')"
        ));
        let version = if is_shuffled { "version_column = 'lsn'," } else { "" };
        server.sql(&format!(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, city TEXT, price NUMERIC(10, 2), day DATE, at TIMESTAMP, lsn BIGINT, gone BOOLEAN)
             WITH ({version} delete_column = 'gone', seal_rows = 500, partitions = {partitions}) FROM SOURCE orders"
        ));
        let mut random = Random(7);
        if is_shuffled {
            let again: Vec<_> = database.changes.iter().step_by(10).cloned().collect();
            database.changes.extend(again);
            random.shuffle(&mut database.changes);
        }
        for part in database.changes.chunks(database.changes.len() / RESTARTS + 1) {
            for (key, change) in part {
                let partition = match is_shuffled {
                    true => random.below(topic_partitions as usize) as i32,
                    false => *key as i32 % topic_partitions,
                };
                match change {
                    Some(change) => feed.send(partition, change.as_bytes()),
                    None => feed.send_tombstone(partition, &key.to_be_bytes()),
                }
            }
            feed.flush();
            std::thread::sleep(Duration::from_millis(random.below(300) as u64));
            server.kill_and_restart();
        }
        for bad in [r#"{"op":"t","source":{"table":"orders"}}"#, r#"{"op":"m","message":{}}"#, r#"{"id":1}"#] {
            feed.send(0, bad.as_bytes());
        }
        feed.flush();
        server.sql("SELECT rt.drain('orders')");
        assert_eq!(seen(&server), wanted, "{case}");
        let reasons = server.sql("SELECT reason FROM rt.dlq ORDER BY \"offset\"");
        let reasons: Vec<String> = reasons.into_iter().map(|row| row[0].clone().unwrap()).collect();
        assert_eq!(reasons.len(), 3, "{case}: {reasons:?}");
        for (reason, wanted) in reasons.iter().zip(["op \"t\"", "op \"m\"", "no \"op\""]) {
            assert!(reason.contains(wanted), "{reason}");
        }
        if !is_shuffled {
            let every = server.value("SET rt.skip_upsert = on; SELECT count(*) FROM t");
            assert_eq!(every, database.images.to_string(), "{case}: each change once");
        }
        server.sql("SELECT rt.seal('t')");
        assert_eq!(seen(&server), wanted, "{case}, sealed");
        server.kill_and_restart();
        assert_eq!(seen(&server), wanted, "{case}, restarted");
    }
}

#[test]
fn files_of_changes_and_what_definitions_must_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changes.ndjson");
    let lines = [
        r#"{"op":"c","after":{"id":1,"price":"BNI=","note":"a","doc":"{\"a\":1}"},"source":{"ts_ms":1709208000123}}"#,
        r#"{"op":"c","after":{"id":2,"price":"BNI=","note":"b","doc":null},"source":{"ts_ms":1709208000123}}"#,
        r#"{"op":"u","after":{"id":1,"price":"//8=","note":"c","doc":"[2]"},"source":{"ts_ms":1709208000456}}"#,
        r#"{"op":"u","after":{"id":1,"price":"//8=","note":"__debezium_unavailable_value","doc":"[2]"},"source":{"ts_ms":1709208000789}}"#,
        r#"{"op":"d","before":{"id":2,"note":null},"source":{"ts_ms":1709208000456}}"#,
        r#"{"schema":{},"payload":null}"#,
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let server = Server::start(BINARY);
    let with = |format: &str| format!("WITH (connector = 'file', path = '{}', {format})", file.display());
    let changes = with("format = 'debezium-json', decimal.handling.mode = 'precise'");
    server.sql(&format!(
        "CREATE SOURCE s (id INT PRIMARY KEY NOT ENFORCED, price NUMERIC(10, 2), note TEXT, doc JSONB, __deleted BOOLEAN,
           at TIMESTAMPTZ PATH '$.source.ts_ms', op TEXT PATH '$.op') {changes}"
    ));
    server.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, price NUMERIC(10, 2), note TEXT, doc JSONB, __deleted BOOLEAN, at TIMESTAMPTZ)
         WITH (delete_column = '__deleted', version_column = 'at') FROM SOURCE s",
    );
    server.sql("CREATE TABLE log (id INT, op TEXT) FROM SOURCE s");
    server.sql("SELECT rt.drain('s')");
    assert_eq!(
        server.value("SELECT id || ' ' || price || ' ' || note || ' ' || doc::text || ' ' || extract(milliseconds FROM at)::int FROM t"),
        "1 -0.01 c [2] 456"
    );
    assert_eq!(server.value("SELECT string_agg(op || id, ' ' ORDER BY id, op) FROM log"), "c1 u1 c2 d2");
    let letter = "SELECT \"column\" || ': ' || reason FROM rt.dlq WHERE \"table\" = 't'";
    assert!(server.value(letter).contains("note: column \"note\" (text)"), "{}", server.value(letter));

    // Events that were flattened are rows already.
    let flat = folder.path().join("flat.ndjson");
    fs::write(
        &flat,
        "{\"id\":1,\"__deleted\":\"false\"}\n{\"id\":2,\"__deleted\":\"false\"}\n{\"id\":1,\"__deleted\":\"true\"}\n",
    )
    .unwrap();
    server.sql(&format!(
        "CREATE SOURCE flat (id INT, __deleted BOOLEAN) WITH (connector = 'file', path = '{}')",
        flat.display()
    ));
    server.sql(
        "CREATE TABLE f (id INT PRIMARY KEY, __deleted BOOLEAN) WITH (delete_column = '__deleted') FROM SOURCE flat",
    );
    server.sql("SELECT rt.drain('flat')");
    assert_eq!(server.value("SELECT string_agg(id::text, ' ') FROM f"), "2");

    for (columns, options, wanted) in [
        ("id INT", changes.clone(), "needs the column \"__deleted\""),
        ("id INT, __deleted TEXT", changes.clone(), "column \"__deleted\" cannot say what was deleted"),
        (
            "id INT, gone BOOLEAN PATH '$.x'",
            with("format = 'debezium-json', delete_column = 'gone'"),
            "cannot say what was deleted",
        ),
        (
            "id INT, __deleted BOOLEAN",
            with("format = 'debezium-json', decimal.handling.mode = 'exact'"),
            "precise, string or double",
        ),
        (
            "id INT, gone BOOLEAN",
            with("format = 'json', delete_column = 'gone'"),
            "unknown option 'delete_column' for format 'json'",
        ),
        ("id INT PRIMARY KEY", with("format = 'json'"), "0A000: a source whose messages are rows has no primary key"),
        ("id INT, __deleted BOOLEAN, PRIMARY KEY (no)", changes.clone(), "42703: column \"no\" named in key"),
        ("id INT, __deleted BOOLEAN, PRIMARY KEY (id, id)", changes.clone(), "42701"),
    ] {
        let sql = format!("CREATE SOURCE bad ({columns}) {options}");
        let error = describe(&server.try_sql(&sql).expect_err(&sql));
        assert!(error.contains(wanted), "{sql}: {error}");
    }
}
