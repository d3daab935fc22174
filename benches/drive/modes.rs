//! Tables that keep a row for each key in other ways than an upsert: partial rows that are merged, first rows of keys, and a database's stream of changes.

use std::time::{Duration, Instant};

use crate::{
    BINARY, Options, some_key,
    support::{
        kafka::{Feed, create_topic},
        server::Server,
    },
};

const PARTITIONS: u64 = 4;

/// A topic, the table that is made of it, and what the table says in the end.
struct Mode<'a> {
    name: &'a str,
    messages: Box<dyn Iterator<Item = (u64, String)> + 'a>,
    source: &'a str,
    columns: &'a str,
    table: &'a str,
    options: &'a str,
    question: &'a str,
    expected: String,
}

pub(crate) fn run(brokers: &str, options: &Options) {
    let messages = options.number("messages", 5_000_000);
    let keys = options.number("keys", messages / 5);
    let row = |number: u64| {
        let id = some_key(number, keys);
        (id, format!(r#"{{"id":{id},"cents":{},"city":"city {}"}}"#, number % 1000, id % 200))
    };
    let mut seen = vec![false; keys as usize];
    (0..messages).for_each(|number| seen[some_key(number, keys) as usize] = true);
    let distinct = seen.iter().filter(|seen| **seen).count();
    let total: u64 = (0..messages).map(|number| number % 1000).sum();
    let of_rows = |name, table, options, question, expected| Mode {
        name,
        messages: Box::new((0..messages).map(row)),
        source: "format = 'json'",
        columns: "id BIGINT NOT NULL, cents BIGINT, city TEXT",
        table,
        options,
        question,
        expected,
    };
    let partial = of_rows(
        "partial_upsert",
        "id BIGINT PRIMARY KEY, cents BIGINT MERGE increment, city TEXT",
        "mode = 'partial_upsert', partitions = 2",
        "SELECT count(*) || ' ' || sum(cents) FROM t",
        format!("{distinct} {total}"),
    );
    let dedup = of_rows(
        "dedup",
        "id BIGINT PRIMARY KEY, cents BIGINT, city TEXT",
        "mode = 'dedup', partitions = 2",
        "SELECT count(*) || ' ' || count(DISTINCT id) FROM t",
        format!("{distinct} {distinct}"),
    );
    [partial, dedup, changes(options.number("changes", 1_000_000))].into_iter().for_each(|mode| one(brokers, mode));
}

/// Rows that are inserted, updated three times and, one of five, deleted.
fn changes(count: u64) -> Mode<'static> {
    let rows = count / 5;
    let change = move |position: u64, step: u64, id: u64| {
        let image = |cents: u64| format!(r#"{{"id":{id},"cents":{cents},"city":"city {}"}}"#, id % 200);
        let (op, before, after) = match step {
            0 => ("c", "null".into(), image(id % 1000)),
            4 => ("d", image(id % 1000 + 3), "null".into()),
            _ => ("u", image(id % 1000 + step - 1), image(id % 1000 + step)),
        };
        let source = format!(r#"{{"connector":"postgresql","lsn":{position}}}"#);
        let json =
            format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}","ts_ms":1709294400000}}"#);
        (id, json)
    };
    let all = (0..5).flat_map(move |step| (0..rows).map(move |id| (step, id)));
    let all = all.filter(|(step, id)| *step < 4 || id % 5 == 0).zip(1..);
    let cents: u64 = (0..rows).filter(|id| id % 5 != 0).map(|id| id % 1000 + 3).sum();
    Mode {
        name: "debezium",
        messages: Box::new(all.map(move |((step, id), position)| change(position, step, id))),
        source: "format = 'debezium-json', delete_column = 'gone'",
        columns: "id BIGINT, cents BIGINT, city TEXT, gone BOOLEAN",
        table: "id BIGINT PRIMARY KEY, cents BIGINT, city TEXT, gone BOOLEAN",
        options: "mode = 'upsert', partitions = 2, delete_column = 'gone'",
        question: "SELECT count(*) || ' ' || sum(cents) FROM t",
        expected: format!("{} {cents}", rows - rows.div_ceil(5)),
    }
}

fn one(brokers: &str, mode: Mode<'_>) {
    let Mode { name, messages, source, columns, table, options, question, expected } = mode;
    create_topic(brokers, name, PARTITIONS as i32, &[]);
    let feed = Feed::new(brokers, name);
    let mut count = 0;
    for (id, json) in messages {
        // To the partition of the key, as a connector does.
        feed.send((id % PARTITIONS) as i32, json.as_bytes());
        count += 1;
    }
    feed.flush();
    let server = Server::start(BINARY.as_str());
    server.sql(&format!(
        "CREATE SOURCE raw ({columns}) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{name}', start = 'earliest', {source})"
    ));
    let (cpu, start) = (server.cpu_seconds(), Instant::now());
    server.sql(&format!("CREATE TABLE t ({table}) WITH ({options}) FROM SOURCE raw"));
    server.wait_for(question, &expected, Duration::from_secs(600));
    let seconds = start.elapsed().as_secs_f64();
    println!("{name:32}{:>12.0} messages/s ({count} in {seconds:.1} s), exact", count as f64 / seconds);
    println!("{:32}{:>12.2} s of CPU per million", "", (server.cpu_seconds() - cpu) * 1e6 / count as f64);
    let bytes = server.value("SELECT round((key_bytes::float8 / keys)::numeric, 1) FROM rt.tables WHERE name = 't'");
    println!("{:32}{bytes:>12} bytes a key", "");
}
