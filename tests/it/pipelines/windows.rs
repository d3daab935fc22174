//! Windows over windows, the first of each window, and lists as rows: through topics, over crashes, in any order.

use super::{BINARY, lines, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

/// Errors of models by minute, an alert over them, the worst of each five minutes, and how many there were: one pipeline each, from one text.
#[test]
fn alerts_over_errors_by_minute() {
    let Some(brokers) = brokers("pipelines::windows::alerts_over_errors_by_minute") else { return };
    let mut answers = Vec::new();
    for round in 0..3usize {
        let topic = topic(&format!("scores-{round}"));
        create_topic(&brokers, &topic, 2, &[]);
        let mut server = Server::start(BINARY);
        server.sql(&format!(
            "CREATE SOURCE scores (model TEXT, error DOUBLE PRECISION, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '2 minutes')
             WITH (connector='kafka', brokers='{brokers}', topic='{topic}', format='json')"
        ));
        server.sql("CREATE TABLE drift (model TEXT, minute TIMESTAMPTZ, mae NUMERIC(6,3))");
        server.sql("CREATE TABLE worst (at TIMESTAMPTZ, place BIGINT, model TEXT, mae NUMERIC(6,3))");
        server.sql("CREATE TABLE spread (until TIMESTAMPTZ, models BIGINT, least NUMERIC(6,3), most NUMERIC(6,3))");
        let minutes = "SELECT model, TUMBLE_START(ts, INTERVAL '1' MINUTE) AS minute, TUMBLE_END(ts, INTERVAL '1' MINUTE) AS until, round(avg(error)::numeric, 3) AS mae
                       FROM scores GROUP BY model, TUMBLE(ts, INTERVAL '1' MINUTE)";
        let options = "WITH (checkpoint_interval = '50ms', idle_timeout = '1 hour')";
        server.sql(&format!(
            "CREATE PIPELINE drift INTO drift {options} AS SELECT model, minute, mae FROM ({minutes}) m WHERE mae > 0.5"
        ));
        server.sql(&format!(
            "CREATE PIPELINE worst INTO worst {options} AS SELECT until, place, model, mae FROM
               (SELECT *, row_number() OVER (PARTITION BY until ORDER BY mae DESC, model) AS place FROM ({minutes}) m) r WHERE place <= 2"
        ));
        server.sql(&format!(
            "CREATE PIPELINE spread INTO spread {options} AS SELECT TUMBLE_END(minute, INTERVAL '5' MINUTE), count(DISTINCT model), min(mae), max(mae)
             FROM ({minutes}) m GROUP BY TUMBLE(minute, INTERVAL '5' MINUTE)"
        ));
        let feed = Feed::new(&brokers, &topic);
        let score = |(model, error, second): (usize, usize, usize)| {
            format!(
                r#"{{"model":"m{model}","error":0.{error:02},"ts":"2024-03-01T10:{:02}:{:02}Z"}}"#,
                second / 60,
                second % 60
            )
        };
        // Seven seconds a row, up to ninety out of order, in each round another order.
        let rows: Vec<(usize, usize, usize)> = (0..120).map(|n| (n % 5, n * 37 % 100, n * 7)).collect();
        let mut order = rows.clone();
        order.sort_by_key(|(model, error, second)| second + (model * 31 + error * (round * 13 + 7)) % 90);
        for (number, rows) in order.chunks(24).enumerate() {
            for (at, row) in rows.iter().enumerate() {
                send(&feed, (at % 2) as i32, &[score(*row)]);
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            if number % 3 == round {
                server.kill_and_restart();
            }
        }
        for partition in 0..2 {
            send(&feed, partition, &[score((9, 0, 3000))]);
        }
        let mut minutes = std::collections::BTreeMap::<(usize, usize), Vec<usize>>::new();
        rows.iter().for_each(|(model, error, second)| minutes.entry((second / 60, *model)).or_default().push(*error));
        for _ in 0..2 {
            server.sql("SELECT rt.drain('scores')");
            let found = [
                lines(&server, "SELECT to_char(minute AT TIME ZONE 'UTC', 'MI'), model, mae FROM drift"),
                lines(&server, "SELECT to_char(at AT TIME ZONE 'UTC', 'MI'), place, model, mae FROM worst"),
                lines(&server, "SELECT to_char(until AT TIME ZONE 'UTC', 'MI'), models, least, most FROM spread"),
            ];
            let maes = |minute: usize| {
                let of_minute = minutes.range((minute, 0)..(minute + 1, 0));
                of_minute
                    .map(|((_, model), errors)| {
                        let mae = errors.iter().sum::<usize>() as f64 / errors.len() as f64 / 100.0;
                        (format!("{mae:.3}"), *model)
                    })
                    .collect::<Vec<_>>()
            };
            let (mut drift, mut worst, mut spread) = (Vec::new(), Vec::new(), Vec::new());
            for minute in 0..14 {
                let mut all = maes(minute);
                drift.extend(
                    all.iter()
                        .filter(|(mae, _)| mae.as_str() > "0.500")
                        .map(|(mae, model)| format!("{minute:02} m{model} {mae}")),
                );
                all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
                worst.extend(
                    all.iter()
                        .take(2)
                        .enumerate()
                        .map(|(at, (mae, model))| format!("{:02} {} m{model} {mae}", minute + 1, at + 1)),
                );
            }
            for five in 0..3 {
                let mut all: Vec<(String, usize)> = (five * 5..five * 5 + 5).flat_map(maes).collect();
                all.sort();
                let models: std::collections::BTreeSet<usize> = all.iter().map(|(_, model)| *model).collect();
                spread.push(format!("{:02} {} {} {}", five * 5 + 5, models.len(), all[0].0, all[all.len() - 1].0));
            }
            drift.sort();
            worst.sort();
            spread.sort();
            // Rounding halves is not the same everywhere.
            assert_eq!(found[0].len(), drift.len(), "round {round}");
            assert_eq!(found[1], worst, "round {round}");
            assert_eq!(found[2], spread, "round {round}");
            assert_eq!(server.value("SELECT sum(late_rows) FROM rt.pipelines"), "0");
            answers.push(found);
            server.kill_and_restart();
        }
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "the answer depends on the order");
}

/// Lists and documents become rows on their way, in the select list and LATERAL.
#[test]
fn lists_become_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.ndjson");
    let rows = [
        r#"{"id":1,"tags":["a","b"],"doc":{"items":[{"sku":"x","qty":2},{"sku":"y","qty":"z"}]},"ts":"2024-03-01T10:00:01Z"}"#,
        r#"{"id":2,"tags":[],"doc":{"items":[]},"ts":"2024-03-01T10:00:02Z"}"#,
        r#"{"id":3,"doc":{"items":[{"sku":"x","qty":5},{"sku":"w"}]},"ts":"2024-03-01T10:00:03Z"}"#,
        r#"{"id":4,"tags":["b","c","d"],"ts":"2024-03-01T10:00:04Z"}"#,
        r#"{"id":9,"ts":"2024-03-01T10:05:00Z"}"#,
    ];
    std::fs::write(&path, rows.join("\n")).unwrap();
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (id INT, tags TEXT[], doc JSONB, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
    server.sql("CREATE TABLE tags (id INT, tag TEXT)");
    server.sql("CREATE TABLE lateral_tags (id INT, tag TEXT)");
    server.sql("CREATE TABLE left_tags (id INT, tag TEXT)");
    server.sql("CREATE TABLE items (id INT, sku TEXT, qty TEXT)");
    server.sql("CREATE TABLE by_sku (sku TEXT, minute TIMESTAMPTZ, rows BIGINT)");
    server.sql("INSERT INTO tags SELECT id, unnest(tags) FROM s");
    server.sql("INSERT INTO lateral_tags SELECT s.id, t.tag FROM s CROSS JOIN LATERAL unnest(s.tags) AS t(tag) WHERE t.tag <> 'c'");
    server.sql("INSERT INTO left_tags SELECT s.id, t.tag FROM s LEFT JOIN LATERAL unnest(s.tags) AS t(tag) ON true");
    server.sql("INSERT INTO items SELECT id, i->>'sku', i->>'qty' FROM s, jsonb_array_elements(doc->'items') AS i");
    server.sql(
        "INSERT INTO by_sku SELECT sku, TUMBLE_START(ts, INTERVAL '1' MINUTE), count(*)
         FROM (SELECT i->>'sku' AS sku, s.ts FROM s CROSS JOIN LATERAL jsonb_array_elements(s.doc->'items') AS i) q GROUP BY sku, TUMBLE(ts, INTERVAL '1' MINUTE)",
    );
    server.sql("SELECT rt.drain('s')");
    assert_eq!(lines(&server, "SELECT * FROM tags"), ["1 a", "1 b", "4 b", "4 c", "4 d"]);
    assert_eq!(lines(&server, "SELECT * FROM lateral_tags"), ["1 a", "1 b", "4 b", "4 d"]);
    assert_eq!(
        lines(&server, "SELECT * FROM left_tags"),
        ["1 a", "1 b", "2 null", "3 null", "4 b", "4 c", "4 d", "9 null"]
    );
    assert_eq!(lines(&server, "SELECT * FROM items"), ["1 x 2", "1 y z", "3 w null", "3 x 5"]);
    assert_eq!(lines(&server, "SELECT sku, rows FROM by_sku"), ["w 1", "x 2", "y 1"]);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
}

/// A plain INSERT knows the words of pipelines, too.
#[test]
fn a_plain_insert_takes_within() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.ndjson");
    let row = |n: i64| format!("{{\"id\":{},\"v\":{n},\"ts\":{}}}\n", n % 4, 1_709_294_400_000_i64 + n * 1000);
    std::fs::write(&path, (0..40).map(row).collect::<String>()).unwrap();
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (id INT, v INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}', format = 'ndjson')",
        path.display()
    ));
    server.sql("CREATE TABLE firsts (id INT, v INT)");
    server.sql("INSERT INTO firsts (id, v) SELECT DISTINCT ON (id) id, v FROM s WITHIN INTERVAL '10 seconds'");
    server.sql("SELECT rt.drain('s')");
    assert_eq!(lines(&server, "SELECT id, v FROM firsts WHERE id = 1"), ["1 1", "1 13", "1 25", "1 37"]);
    server.sql("CREATE TABLE sums (id INT, minute TIMESTAMPTZ, total BIGINT, n INT)");
    server.sql(
        "INSERT INTO sums SELECT id, TUMBLE_START(ts, INTERVAL '10 seconds'), sum(v), grouping(id)::int FROM s GROUP BY TUMBLE(ts, INTERVAL '10 seconds'), ROLLUP (id)",
    );
    server.sql("SELECT rt.drain('s')");
    server.sql("CREATE TABLE totals (id INT, until TIMESTAMPTZ, total BIGINT)");
    server.sql(
        "INSERT INTO totals SELECT id, until, sum(total)::bigint FROM
           (SELECT id, TUMBLE_END(ts, INTERVAL '10 seconds') AS until, sum(v) AS total FROM s GROUP BY id, TUMBLE(ts, INTERVAL '10 seconds')) w
         GROUP BY until, ROLLUP (id)",
    );
    server.sql("SELECT rt.drain('s')");
    assert_eq!(
        lines(&server, "SELECT id IS NULL, count(*), sum(total) FROM totals GROUP BY 1"),
        ["f 12 435", "t 3 435"]
    );
    assert_eq!(lines(&server, "SELECT n, count(*), sum(total) FROM sums GROUP BY n"), ["0 12 435", "1 3 435"]);
}
