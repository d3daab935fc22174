//! Joins of streams, sessions and DISTINCT ON: monitoring of predictions, as it is written, over crashes and in any order.

use std::time::Duration;

use super::{BINARY, PATIENCE, lines, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::Server,
};

const ACCURACY: &str = "CREATE PIPELINE accuracy INTO model_minute WITH (delivery='exactly_once') AS
SELECT p.model, TUMBLE_START(p.ts, INTERVAL '1' MINUTE) AS minute, count(*) AS preds, count(o.id) AS matched, avg(abs(o.label - p.score)) AS mae
FROM predictions p LEFT JOIN (SELECT DISTINCT ON (id) id, label, ts FROM outcomes WITHIN INTERVAL '1 hour') o
  ON o.id = p.id AND o.ts BETWEEN p.ts AND p.ts + INTERVAL '10' MINUTE
GROUP BY p.model, TUMBLE(p.ts, INTERVAL '1' MINUTE);";

struct Monitoring {
    server: Server,
    predictions: Feed,
    outcomes: Feed,
}

/// `delay`: what both sources allow for disorder.
fn monitoring(brokers: &str, name: &str, delay: &str, partitions: i32) -> Monitoring {
    let topics = ["predictions", "outcomes"].map(|topic_of| topic(&format!("{name}-{topic_of}")));
    topics.iter().for_each(|topic| create_topic(brokers, topic, partitions, &[]));
    let [predictions, outcomes] = &topics;
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE predictions (id TEXT, model TEXT, feature_bucket INT, score DOUBLE PRECISION, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '{delay}')
         WITH (connector='kafka', brokers='{brokers}', topic='{predictions}', format='json')"
    ));
    server.sql(&format!(
        "CREATE SOURCE outcomes (id TEXT, label INT, ts TIMESTAMPTZ, WATERMARK FOR ts AS ts - INTERVAL '{delay}')
         WITH (connector='kafka', brokers='{brokers}', topic='{outcomes}', format='json')"
    ));
    server.sql("CREATE TABLE model_minute (model TEXT, minute TIMESTAMPTZ, preds BIGINT, matched BIGINT, mae DOUBLE PRECISION) WITH (seal_rows = 100)");
    Monitoring { server, predictions: Feed::new(brokers, predictions), outcomes: Feed::new(brokers, outcomes) }
}

fn prediction(id: &str, model: &str, score: f64, at: &str) -> String {
    format!(r#"{{"id":"{id}","model":"{model}","feature_bucket":1,"score":{score},"ts":"2024-03-01T{at}Z"}}"#)
}

fn outcome(id: &str, label: i64, at: &str) -> String {
    format!(r#"{{"id":"{id}","label":{label},"ts":"2024-03-01T{at}Z"}}"#)
}

fn golden() -> (Vec<String>, Vec<String>) {
    let predictions = vec![
        prediction("p1", "m1", 0.9, "10:00:00"),
        prediction("p2", "m1", 0.2, "10:00:20"),
        prediction("p3", "m2", 0.6, "10:00:30"),
        prediction("p4", "m1", 0.5, "10:01:10"),
        prediction("p5", "m2", 0.1, "10:01:20"),
    ];
    let outcomes = vec![
        outcome("p1", 1, "10:02:00"),
        outcome("p2", 1, "10:00:25"),
        outcome("p3", 0, "10:05:00"),
        outcome("p5", 0, "10:12:00"),
        outcome("p9", 1, "10:03:00"),
        outcome("p1", 1, "10:02:00"),
    ];
    (predictions, outcomes)
}

const MINUTES: &str = "SELECT model, to_char(minute AT TIME ZONE 'UTC', 'HH24:MI'), preds, matched, round(mae::numeric, 3) FROM model_minute";
const EXPECTED: [&str; 4] = ["m1 10:00 2 2 0.450", "m1 10:01 1 0 null", "m2 10:00 1 1 0.600", "m2 10:01 1 0 null"];
const COUNTS: &str = "SELECT unmatched, out_of_bound, duplicates, late_rows FROM rt.pipelines WHERE name = 'accuracy'";

fn end(monitoring: &Monitoring) {
    send(&monitoring.predictions, 0, &[prediction("filler", "zz", 0.5, "10:30:00")]);
    send(&monitoring.outcomes, 0, &[outcome("filler", 1, "10:30:00")]);
}

fn drain(server: &Server) {
    server.sql("SELECT rt.drain('predictions'), rt.drain('outcomes')");
}

/// An outcome that comes minutes behind the watermark still finds its prediction, which waits.
#[test]
fn prediction_monitoring() {
    let Some(brokers) = brokers("pipelines::joins::prediction_monitoring") else { return };
    let monitoring = monitoring(&brokers, "golden", "5 seconds", 1);
    let Monitoring { server, .. } = &monitoring;
    server.sql(ACCURACY);
    let (predictions, outcomes) = golden();
    send(&monitoring.predictions, 0, &predictions);
    send(&monitoring.outcomes, 0, &outcomes);
    end(&monitoring);
    drain(server);
    assert_eq!(lines(server, MINUTES), EXPECTED);
    assert_eq!(lines(server, COUNTS), ["1 1 1 0"]);
    assert_eq!(server.value("SELECT count(*) FROM rt.dlq"), "0");
    let plan = server.sql(&format!("EXPLAIN {}", ACCURACY.replace("accuracy", "other")));
    let plan: Vec<String> = plan.into_iter().flatten().flatten().collect();
    let plan = plan.join("\n");
    assert!(["LeftJoin: on", "Distinct: on", "Source: outcomes"].iter().all(|words| plan.contains(words)), "{plan}");
}

/// The same with kill -9 after each event, in an order of arrival that changes within what the watermark allows.
#[test]
fn prediction_monitoring_in_any_order_over_kill_9() {
    let Some(brokers) = brokers("pipelines::joins::prediction_monitoring_in_any_order_over_kill_9") else { return };
    for round in 0..3usize {
        let mut monitoring = monitoring(&brokers, &format!("shuffled{round}"), "15 minutes", 1);
        monitoring.server.sql(&ACCURACY.replace("WITH (", "WITH (checkpoint_interval = '50ms', "));
        let (mut predictions, mut outcomes) = golden();
        predictions.rotate_left(round + 1);
        outcomes.rotate_left(2 * round + 1);
        outcomes.swap(0, 3);
        while let Some(next) = if outcomes.len() > predictions.len() { outcomes.pop() } else { predictions.pop() } {
            let feed = if next.contains("label") { &monitoring.outcomes } else { &monitoring.predictions };
            send(feed, 0, &[next]);
            if (predictions.len() + outcomes.len()) % 3 == round {
                std::thread::sleep(Duration::from_millis(120));
                monitoring.server.kill_and_restart();
            }
        }
        // Past the windows, what the join waits for, and the allowance.
        send(&monitoring.predictions, 0, &[prediction("filler", "zz", 0.5, "10:40:00")]);
        send(&monitoring.outcomes, 0, &[outcome("filler", 1, "10:40:00")]);
        let server = &mut monitoring.server;
        for _ in 0..2 {
            drain(server);
            assert_eq!(lines(server, MINUTES), EXPECTED, "round {round}");
            assert_eq!(lines(server, COUNTS), ["1 1 1 0"], "round {round}");
            server.kill_and_restart();
        }
    }
}

/// Many rows, two partitions each, killed in the middle: every prediction once, with the outcome that it has; sessions of the same rows beside it.
#[test]
fn joins_and_sessions_survive_kill_9() {
    let Some(brokers) = brokers("pipelines::joins::joins_and_sessions_survive_kill_9") else { return };
    let mut monitoring = monitoring(&brokers, "crash", "9 seconds", 2);
    let server = &mut monitoring.server;
    server.sql("CREATE TABLE pairs (id TEXT, score DOUBLE PRECISION, label INT) WITH (seal_rows = 700)");
    server.sql(
        "CREATE TABLE visits (model TEXT, begun TIMESTAMPTZ, ended TIMESTAMPTZ, rows BIGINT) WITH (seal_rows = 50)",
    );
    server.sql(
        "CREATE PIPELINE pairs INTO pairs WITH (checkpoint_interval = '100ms', idle_timeout = '1 hour') AS
         SELECT p.id, p.score, o.label FROM predictions p
         LEFT JOIN (SELECT DISTINCT ON (id) id, label, ts FROM outcomes WITHIN INTERVAL '1 hour') o
         ON o.id = p.id AND o.ts >= p.ts AND o.ts < p.ts + INTERVAL '5' SECOND WHERE p.model <> 'zz'",
    );
    server.sql(
        "CREATE PIPELINE visits INTO visits WITH (checkpoint_interval = '120ms', idle_timeout = '1 hour') AS
         SELECT model, SESSION_START(ts, INTERVAL '2' SECOND), SESSION_END(ts, INTERVAL '2' SECOND), count(*)
         FROM predictions GROUP BY model, SESSION(ts, INTERVAL '2' SECOND)",
    );
    const START_MS: i64 = 1_709_294_400_000;
    const ROWS: i64 = 12_000;
    let (mut pairs, mut visits) = (Vec::new(), std::collections::BTreeMap::<i64, Vec<i64>>::new());
    for row in 0..ROWS {
        // Ten milliseconds a row, up to two seconds out of order; a pause of three seconds after each thousand.
        let ts = START_MS + row * 10 + row / 1000 * 3000 - row * 7919 % 2000;
        let (model, score) = (row % 7, row % 100);
        let json = format!(r#"{{"id":"{row}","model":"m{model}","score":{score},"ts":{ts}}}"#);
        monitoring.predictions.send((row % 2) as i32, json.as_bytes());
        visits.entry(model).or_default().push(ts);
        // Most have an outcome in time, some too late, some twice, some none.
        let after = row * 31 % 6000;
        let has = row % 11 != 0;
        let json = format!(r#"{{"id":"{row}","label":{},"ts":{}}}"#, row % 2, ts + after);
        if has {
            (0..1 + i64::from(row % 13 == 0))
                .for_each(|_| monitoring.outcomes.send((row / 3 % 2) as i32, json.as_bytes()));
        }
        let label = if has && after < 5000 { (row % 2).to_string() } else { "null".into() };
        pairs.push(format!("{row} {score} {label}"));
        if row % 500 == 499 {
            monitoring.predictions.flush();
            monitoring.outcomes.flush();
            std::thread::sleep(Duration::from_millis(40));
        }
        if row % 3000 == 2200 {
            server.kill_and_restart();
        }
    }
    for partition in 0..2 {
        let ts = START_MS + ROWS * 10 + 1_000_000;
        monitoring
            .predictions
            .send(partition, format!(r#"{{"id":"f{partition}","model":"zz","score":1,"ts":{ts}}}"#).as_bytes());
        monitoring.outcomes.send(partition, format!(r#"{{"id":"g{partition}","label":1,"ts":{ts}}}"#).as_bytes());
    }
    monitoring.predictions.flush();
    monitoring.outcomes.flush();
    pairs.sort();
    let mut sessions = Vec::new();
    for (model, mut times) in visits {
        times.sort_unstable();
        for session in times.chunk_by(|a, b| b - a < 2000) {
            let end = session[session.len() - 1] + 2000;
            sessions.push(format!("m{model} {} {end} {}", session[0], session.len()));
        }
    }
    sessions.sort();
    assert!(sessions.len() > 14, "{sessions:?}");
    let all_pairs = "SELECT id, score::int, label FROM pairs";
    let all_visits = "SELECT model, (extract(epoch FROM begun) * 1000)::bigint, (extract(epoch FROM ended) * 1000)::bigint, rows FROM visits";
    for round in 0..2 {
        drain(server);
        let found = lines(server, all_pairs);
        let differs = found.iter().zip(&pairs).find(|(found, expected)| found != expected);
        assert!(
            found.len() == pairs.len() && differs.is_none(),
            "round {round}: {} of {} pairs, {differs:?}",
            found.len(),
            pairs.len()
        );
        assert_eq!(lines(server, all_visits), sessions, "round {round}");
        assert_eq!(server.value("SELECT sum(late_rows) FROM rt.pipelines"), "0");
        server.kill_and_restart();
    }
    server.wait_for("SELECT count(*) FROM rt.pipelines WHERE state = 'running'", "2", PATIENCE);
}

/// One side of a join is held back: the other one goes to files beyond the limit of memory, nothing is late when the first goes on, and nothing is lost.
#[test]
fn a_join_waits_for_a_side_that_is_held_back() {
    let Some(brokers) = brokers("pipelines::joins::a_join_waits_for_a_side_that_is_held_back") else { return };
    let monitoring = monitoring(&brokers, "held", "1 second", 1);
    let server = &monitoring.server;
    server.sql("CREATE TABLE pairs (id TEXT, label INT)");
    server.sql(
        "CREATE PIPELINE pairs INTO pairs WITH (memory_limit = '1MB', idle_timeout = '200ms') AS
         SELECT p.id, o.label FROM predictions p LEFT JOIN outcomes o ON o.id = p.id AND o.ts BETWEEN p.ts AND p.ts + INTERVAL '2' SECOND",
    );
    const START_MS: i64 = 1_709_294_400_000;
    const ROWS: i64 = 100_000;
    for row in 0..ROWS {
        let json = format!(r#"{{"id":"{row}","model":"m","score":1,"ts":{}}}"#, START_MS + row * 100);
        monitoring.predictions.send(0, json.as_bytes());
    }
    monitoring.predictions.flush();
    server.wait_for("SELECT rows_in FROM rt.pipelines", &ROWS.to_string(), PATIENCE);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(
        lines(
            server,
            "SELECT watermark IS NULL, state_bytes < 1000000, spilled_bytes > 2000000, state, error FROM rt.pipelines"
        ),
        ["t t t running null"]
    );
    for row in (0..ROWS).filter(|row| row % 5 > 0) {
        let json = format!(r#"{{"id":"{row}","label":1,"ts":{}}}"#, START_MS + row * 100 + row % 10 * 100);
        monitoring.outcomes.send(0, json.as_bytes());
    }
    let end = START_MS + ROWS * 100 + 60_000;
    monitoring.predictions.send(0, format!(r#"{{"id":"x","model":"m","score":1,"ts":{end}}}"#).as_bytes());
    monitoring.outcomes.send(0, format!(r#"{{"id":"y","label":1,"ts":{end}}}"#).as_bytes());
    monitoring.predictions.flush();
    monitoring.outcomes.flush();
    server.wait_for("SELECT count(*) FROM pairs", &ROWS.to_string(), PATIENCE);
    assert_eq!(
        lines(server, "SELECT count(DISTINCT id), count(label) FROM pairs"),
        [format!("{ROWS} {}", ROWS * 4 / 5)]
    );
    assert_eq!(lines(server, "SELECT late_rows, state, error FROM rt.pipelines"), ["0 running null"]);
}
