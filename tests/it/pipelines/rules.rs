//! Rules: pipelines of which a number is out of bounds, and what is done about them; and their life over HTTP.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{BINARY, PATIENCE, checkpoints::Rounds, lines, refused, topic};
use crate::{
    http::ask,
    subscriptions::notifications::{heard, listener},
    support::{
        kafka::{brokers, create_topic},
        server::{Server, runtime},
    },
};

/// A step that never ends and messages that wait: the rule sees them, and the pipeline goes on within ten seconds, without a row twice.
#[test]
fn a_rule_starts_a_frozen_pipeline_again() {
    let Some(brokers) = brokers("pipelines::rules::frozen") else { return };
    let mut rounds = Rounds::new(&brokers, "rules");
    rounds.server.sql(
        "CREATE RULE frozen ON ALL PIPELINES WHEN lag > 50 FOR '2 seconds' DO RESTART;
         CREATE RULE told ON PIPELINE sums WHEN lag >= 100 DO NOTIFY ops",
    );
    rounds.kept();
    rounds.server.kill_9();
    // Both pipelines hang, each in its own step.
    let failpoints = "pipeline::step=12*off->1*sleep(600000)->3*off->1*sleep(600000)->off";
    rounds.server.spawn_with(&[("FAILPOINTS", failpoints)]);
    rounds.server.wait_ready();
    let (port, listens) = (rounds.server.pg_port, Arc::new(Barrier::new(2)));
    let listening = Arc::clone(&listens);
    let told = thread::spawn(move || {
        runtime().block_on(async {
            let (client, mut ear) = listener(port).await;
            client.simple_query("LISTEN ops").await.unwrap();
            listening.wait();
            heard(&mut ear).await
        })
    });
    listens.wait();
    let begun = Instant::now();
    for _ in 0..12 {
        rounds.send();
        thread::sleep(Duration::from_millis(60));
    }
    rounds.server.wait_for("SELECT sum(restarts) >= 2 FROM rt.pipelines", "t", PATIENCE);
    rounds.server.sql("SELECT rt.drain('s')");
    println!("frozen pipelines gave everything after {:?}", begun.elapsed());
    let told = told.join().unwrap();
    let (channel, payload) = told.split_once(' ').unwrap();
    let payload: Value = serde_json::from_str(payload).unwrap();
    assert_eq!((channel, &payload["rule"], &payload["pipeline"]), ("ops", &json!("told"), &json!("sums")));
    assert!(payload["value"].as_f64().unwrap() >= 100.0);
    rounds.check();
    let events = "SELECT count(*) >= 2 FROM rt.events WHERE kind = 'rule' AND message LIKE 'rule ''frozen'' on pipeline%lag is%> 50 for 2 s%RESTART is done'";
    rounds.server.wait_for(events, "t", PATIENCE);
    assert_eq!(
        lines(
            &rounds.server,
            "SELECT name, pipeline, range, hold_s, fired >= 1, error FROM rt.rules WHERE fired > 0 ORDER BY name"
        ),
        ["frozen null > 50 2 t null", "told sums >= 100 0 t null"]
    );
    // Rules are as durable as what they watch, and go with it.
    rounds.server.kill_and_restart();
    rounds.check();
    assert_eq!(rounds.server.value("SELECT count(*) FROM rt.rules WHERE NOT is_default AND metric = 'lag'"), "2");
    rounds.server.sql("DROP PIPELINE sums");
    assert_eq!(lines(&rounds.server, "SELECT name FROM rt.rules WHERE NOT is_default"), ["frozen"]);
    rounds.server.sql("DROP RULE frozen");
    rounds.server.kill_and_restart();
    assert_eq!(rounds.server.value("SELECT count(*) FROM rt.rules WHERE NOT is_default"), "0");
}

/// What ALTER PIPELINE sets, a rule sets as well: more lanes for one that has much to do.
#[test]
fn a_rule_gives_a_pipeline_more_lanes() {
    let Some(brokers) = brokers("pipelines::rules::lanes") else { return };
    let mut rounds = Rounds::new(&brokers, "widens");
    rounds.server.sql("CREATE RULE wider ON PIPELINE totals WHEN rows_in > 5 DO SET (parallelism = 2)");
    rounds.server.sql("CREATE RULE stops ON PIPELINE sums WHEN rows_in > 5 FOR '1 hour' DO PAUSE");
    let lanes = "SELECT parallelism FROM rt.pipelines ORDER BY name";
    let begun = Instant::now();
    while lines(&rounds.server, lanes) != ["1", "2"] {
        assert!(begun.elapsed() < PATIENCE, "no more lanes");
        rounds.send();
        thread::sleep(Duration::from_millis(100));
    }
    rounds.check();
    rounds.server.sql("ALTER RULE wider DISABLE; ALTER PIPELINE totals SET (parallelism = 1)");
    for _ in 0..25 {
        rounds.send();
        thread::sleep(Duration::from_millis(100));
    }
    rounds.check();
    assert_eq!(lines(&rounds.server, lanes), ["1", "1"], "nobody sets what a rule that is disabled would");
    // The same name with other bounds is another rule, and enabled.
    rounds.server.sql("CREATE OR REPLACE RULE wider ON PIPELINE totals WHEN rows_in > 5 DO PAUSE");
    let begun = Instant::now();
    while rounds.server.value("SELECT state FROM rt.pipelines WHERE name = 'totals'") != "paused" {
        assert!(begun.elapsed() < PATIENCE, "it is not paused");
        rounds.send();
        thread::sleep(Duration::from_millis(100));
    }
    rounds.server.sql("DROP RULE wider; ALTER PIPELINE totals RESUME");
    rounds.check();
}

#[test]
fn what_rules_take_and_refuse() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.ndjson");
    std::fs::write(&path, "{\"a\":1}\n").unwrap();
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (a INT) WITH (connector = 'file', path = '{}', format = 'ndjson');
         CREATE TABLE t (a INT); CREATE PIPELINE p INTO t AS SELECT a FROM s",
        path.display()
    ));
    // Every server has rules.
    let shipped = "SELECT name, metric, range, action, is_default, enabled FROM rt.rules ORDER BY name";
    let before = lines(&server, shipped);
    assert_eq!(
        before,
        [
            "failed failures > 0 RESTART, after 0.1 s to 10 s t t",
            "keeps_failing failing > 5 minutes EVENT t t",
            "little_memory memory > 90% EVENT t t",
            "sink_holds_it held > 5 minutes EVENT t t",
            "stuck silence > stuck_after of the pipeline RESTART t t",
        ]
    );
    for (sql, code, words, hint) in [
        ("CREATE RULE r ON PIPELINE q WHEN lag > 1 DO EVENT", "42704", "pipeline \"q\"", ""),
        ("CREATE RULE r ON PIPELINE p WHEN lags > 1 DO EVENT", "42703", "\"lags\"", "lag"),
        ("CREATE RULE r ON PIPELINE p WHEN lag > 'many' DO EVENT", "22023", "lag", ""),
        ("CREATE RULE r ON PIPELINE p WHEN failing > '3 GB' DO EVENT", "22023", "failing", ""),
        ("CREATE RULE r ON PIPELINE p WHEN lag > 1 FOR 'soon' DO EVENT", "22023", "soon", ""),
        ("CREATE RULE r ON PIPELINE p WHEN lag = 1 DO EVENT", "42601", "=", ""),
        ("CREATE RULE r ON PIPELINE p WHEN lag > 1 DO DROP", "42601", "DROP", ""),
        ("CREATE RULE r ON PIPELINE p WHEN lag > 1 DO SET (late = 'drop')", "0A000", "late", "parallelism"),
        ("CREATE RULE r ON PIPELINE p WHEN lag > 1 DO SET (parallelism = 0)", "22023", "parallelism", ""),
        ("CREATE RULE r ON t WHEN lag > 1 DO EVENT", "42601", "\"t\"", ""),
        ("CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING", "0A000", "rewrite", "CREATE RULE"),
        ("CREATE RULE stuck ON PIPELINE p WHEN lag > 1 DO EVENT", "42809", "stuck", "stuck_after"),
        ("CREATE RULE keeps_failing ON PIPELINE p WHEN lag > 1 DO EVENT", "42710", "keeps_failing", "OR REPLACE"),
        ("ALTER RULE nobody DISABLE", "42704", "nobody", ""),
        ("DROP RULE nobody", "42704", "nobody", ""),
        ("DROP RULE keeps_failing", "42809", "keeps_failing", "DISABLE"),
        ("ALTER RULE failed DISABLE", "42809", "failed", ""),
    ] {
        let (found, message, found_hint) = refused(&server, sql);
        assert_eq!(found, code, "{sql}: {message}");
        assert!(message.contains(words) && found_hint.contains(hint), "{sql}: {message}; {found_hint}");
    }
    assert_eq!(lines(&server, shipped), before);
    // One that every server has may be another one here, until that is dropped.
    server.sql("ALTER RULE keeps_failing DISABLE; CREATE OR REPLACE RULE little_memory ON PIPELINE p WHEN memory > 0.5 FOR '3s' DO SET (memory_limit = '1GB')");
    server.sql(
        "CREATE RULE IF NOT EXISTS little_memory ON PIPELINE p WHEN lag > 1 DO EVENT; ALTER PIPELINE p RENAME TO pp",
    );
    assert_eq!(
        lines(&server, "SELECT name, pipeline, range, action, enabled FROM rt.rules WHERE NOT is_default"),
        ["keeps_failing null > 5 minutes EVENT f", "little_memory pp > 0.5 SET (memory_limit = '1GB') t"]
    );
    server.sql("DROP RULE keeps_failing, little_memory; DROP RULE IF EXISTS nobody");
    assert_eq!(lines(&server, shipped), before);
}

fn call(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer =
        ask(server, method, &format!("/api/v1/pipelines{path}"), &[("Content-Type", "application/json")], &body);
    (answer.status, answer.json())
}

/// The life of a pipeline over HTTP, from validation to its end, is that of its statements.
#[test]
fn pipelines_live_over_http() {
    let Some(brokers) = brokers("pipelines::rules::http") else { return };
    let topic = topic("http");
    create_topic(&brokers, &topic, 1, &[]);
    let server = Server::start(BINARY);
    server.sql(&format!(
        "CREATE SOURCE s (\"A b\" INT) WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}');
         CREATE TABLE t (a INT, b INT); CREATE TABLE \"T x\" (a INT)"
    ));
    let none = Value::Null;
    assert_eq!(call(&server, "GET", "", &none), (200, json!({ "pipelines": [] })));
    let wrong = json!({ "name": "p", "into": ["T x"], "query": "SELECT c FROM s" });
    let (status, answer) = call(&server, "POST", "/validate", &wrong);
    assert_eq!((status, &answer["error"]["sqlstate"], &answer["error"]["position"]), (400, &json!("42703"), &json!(1)));
    let definition = json!({
        "name": "my \"pipe", "into": [{ "name": "t", "columns": ["b"] }, "T x"], "query": "SELECT \"A b\" FROM s",
        "options": { "checkpoint_interval": "200ms", "parallelism": 2 },
    });
    let (status, answer) = call(&server, "POST", "/validate", &definition);
    assert!(status == 200 && answer["valid"] == true && !answer["plan"].as_array().unwrap().is_empty(), "{answer}");
    assert_eq!(server.value("SELECT count(*) FROM rt.pipelines"), "0", "validation makes nothing");
    let (status, answer) = call(&server, "POST", "", &definition);
    assert_eq!((status, &answer["name"], &answer["parallelism"]), (201, &json!("my \"pipe"), &json!(2)), "{answer}");
    let (status, answer) = call(&server, "POST", "", &definition);
    assert_eq!((status, &answer["error"]["sqlstate"]), (400, &json!("42710")));
    let path = "/my%20%22pipe";
    let feed = crate::support::kafka::Feed::new(&brokers, &topic);
    (0..50).for_each(|n| feed.send(0, format!(r#"{{"A b":{n}}}"#).as_bytes()));
    feed.flush();
    server.sql("SELECT rt.drain('s')");
    assert_eq!(server.value("SELECT count(*) || ' ' || sum(b) || ' ' || count(a) FROM t"), "50 1225 0");
    let begun = Instant::now();
    assert_eq!(call(&server, "POST", &format!("{path}/pause"), &none).1["state"], "paused");
    assert_eq!(call(&server, "POST", &format!("{path}/resume"), &none).0, 200);
    let (status, answer) = call(&server, "POST", &format!("{path}/restart"), &none);
    assert!(status == 200 && answer["restarts"] == 1, "{answer}");
    println!("pause, resume and restart took {:?}", begun.elapsed());
    let (_, answer) = call(&server, "GET", &format!("{path}/checkpoints"), &none);
    let last = answer["checkpoints"].as_array().unwrap().last().unwrap()["id"].clone();
    let (status, answer) = call(&server, "POST", &format!("{path}/restart"), &json!({ "checkpoint": last }));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(call(&server, "POST", &format!("{path}/restart"), &json!({ "checkpoint": 99999 })).0, 404);
    assert_eq!(call(&server, "POST", &format!("{path}/explode"), &none).0, 404);
    let change = json!({ "name": "q", "options": { "memory_limit": "64MB" } });
    let (status, answer) = call(&server, "PATCH", path, &change);
    assert_eq!((status, &answer["name"], &answer["memory_limit"]), (200, &json!("q"), &json!(64 << 20)), "{answer}");
    for (method, path, body, status) in [
        ("GET", "/nobody", &none, 404),
        ("GET", "/nobody/checkpoints", &none, 404),
        ("DELETE", "/nobody", &none, 404),
        ("POST", "", &json!({ "name": "x" }), 400),
        ("POST", "", &json!({ "name": "x", "into": [], "query": "SELECT 1" }), 400),
        ("POST", "", &json!({ "name": "x", "into": ["t"], "query": "SELECT 1 FROM s; DROP TABLE t" }), 400),
        (
            "POST",
            "",
            &json!({ "name": "x", "into": ["t"], "query": "SELECT 1 FROM s", "options": { "parallelism": [] } }),
            400,
        ),
        ("PUT", "/q", &none, 405),
    ] {
        let (found, answer) = call(&server, method, path, body);
        assert!(found == status && answer["error"]["message"].is_string(), "{method} {path} {body}: {found} {answer}");
    }
    let (_, answer) = call(&server, "PATCH", "/nobody", &change);
    assert_eq!((&answer["error"]["sqlstate"], &answer["error"]["position"]), (&json!("42704"), &none));
    (50..60).for_each(|n| feed.send(0, format!(r#"{{"A b":{n}}}"#).as_bytes()));
    feed.flush();
    server.sql("SELECT rt.drain('s')");
    assert_eq!(server.value("SELECT count(*) || ' ' || sum(b) FROM t"), "60 1770");
    assert_eq!(call(&server, "DELETE", "/q", &none), (200, json!({ "dropped": "q", "notices": [] })));
    assert_eq!(call(&server, "GET", "", &none), (200, json!({ "pipelines": [] })));
    assert_eq!(server.value("SELECT count(*) FROM \"T x\""), "60", "rows stay");
}
