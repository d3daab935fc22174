//! A user's path: a topic of nested JSON → CREATE SOURCE and TABLE → psql, a Rust and a Python client read the right answers while rows still
//! arrive, after sealing, after kill -9.
//!
//! The events are the GitHub events of `../shared/data` when they are there, else generated ones of the same shape.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command, time::Duration};

use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::{Server, connect, runtime},
};

fn events() -> Vec<String> {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/github-events.ndjson");
    if let Ok(text) = fs::read_to_string(real) {
        return text.lines().map(ToOwned::to_owned).collect();
    }
    (0..800)
        .map(|i| {
            let kind = ["PushEvent", "CreateEvent", "WatchEvent", "ForkEvent"][(i % 7 % 4) as usize];
            serde_json::json!({
                "id": format!("{}", 17_244_207_336u64 + i),
                "type": kind,
                "actor": {"id": i * 31, "login": format!("user-{}", i % 97), "url": "https://example.org"},
                "repo": {"id": i, "name": format!("team-{}/project-{}", i % 13, i % 51)},
                "payload": {"size": i % 5, "commits": (0..i % 5).map(|c| serde_json::json!({"sha": format!("{c:040x}"), "n": c})).collect::<Vec<_>>()},
                "public": i % 3 != 0,
                "created_at": format!("2021-07-21T06:{:02}:{:02}Z", i / 60 % 60, i % 60),
            })
            .to_string()
        })
        .collect()
}

/// What the answers must be, from the events themselves.
struct Oracle {
    by_type: Vec<(String, i64)>,
    commits: i64,
    logins: i64,
}

impl Oracle {
    fn of(events: &[String]) -> Self {
        let mut by_type = BTreeMap::new();
        let mut logins = std::collections::BTreeSet::new();
        let mut commits = 0;
        for event in events {
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            *by_type.entry(event["type"].as_str().unwrap().to_owned()).or_insert(0) += 1;
            logins.insert(event["actor"]["login"].as_str().unwrap().to_owned());
            commits += event["payload"]["size"].as_i64().unwrap_or(0);
        }
        let mut by_type: Vec<_> = by_type.into_iter().collect();
        by_type.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        Self { by_type, commits, logins: logins.len() as i64 }
    }
}

const BY_TYPE: &str = "SELECT type, count(*) FROM events GROUP BY type ORDER BY count(*) DESC, type";

fn check(server: &Server, oracle: &Oracle) {
    // The simple protocol, as text.
    let rows = server.sql(BY_TYPE);
    let wanted: Vec<_> = oracle.by_type.iter().map(|(t, n)| vec![Some(t.clone()), Some(n.to_string())]).collect();
    assert_eq!(rows, wanted);
    assert_eq!(server.value("SELECT count(DISTINCT login) FROM events"), oracle.logins.to_string());
    assert_eq!(server.value("SELECT sum(commits) FROM events"), oracle.commits.to_string());
    assert_eq!(server.value("SELECT sum((doc #>> '{payload,size}')::bigint) FROM events"), oracle.commits.to_string());

    // A Rust client: prepared, typed, binary.
    runtime().block_on(async {
        let client = connect(server.pg_port).await.unwrap();
        for (kind, count) in &oracle.by_type {
            let row = client.query_one("SELECT count(*), min(id) FROM events WHERE type = $1", &[kind]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), *count);
            assert!(row.get::<_, i64>(1) > 0);
        }
    });

    // psql, as a person would.
    if let Ok(output) = Command::new("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &server.pg_port.to_string(),
            "-U",
            "tidemill",
            "-d",
            "tidemill",
            "-XAt",
            "-c",
            BY_TYPE,
        ])
        .output()
    {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let wanted: String = oracle.by_type.iter().map(|(t, n)| format!("{t}|{n}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    } else {
        println!("SKIPPED users_path with psql: there is no psql");
    }

    // Python, when the test command has prepared it.
    let python = env::var("TIDEMILL_CACHE")
        .map_or_else(|_| Path::new(&env::var("HOME").unwrap_or_default()).join(".cache/tidemill"), Into::into)
        .join("python/bin/python");
    if python.is_file() {
        let script = "import sys, psycopg\n\
            with psycopg.connect(sys.argv[1]) as c:\n    for kind, n in c.execute(sys.argv[2]):\n        print(f'{kind}|{n}')\n";
        let address = format!("host=127.0.0.1 port={} user=tidemill dbname=tidemill", server.pg_port);
        let output = Command::new(python).args(["-c", script, &address, BY_TYPE]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let wanted: String = oracle.by_type.iter().map(|(t, n)| format!("{t}|{n}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted);
    } else {
        println!("SKIPPED users_path with psycopg: no Python environment (tests/run makes it)");
    }
}

#[test]
fn from_topic_to_three_clients() {
    let Some(brokers) = brokers("users_path::from_topic_to_three_clients") else { return };
    let events = events();
    let topic = format!("github-{}", std::process::id());
    create_topic(&brokers, &topic, 3, &[]);
    let feed = Feed::new(&brokers, &topic);
    let (first, rest) = events.split_at(events.len() / 2);
    for (i, event) in first.iter().enumerate() {
        feed.send((i % 3) as i32, event.as_bytes());
    }
    feed.send(0, b"{\"id\": \"not a number\", \"type\": \"Poison\"}");
    feed.send(1, b"{ broken");
    feed.flush();

    let mut server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    server.sql(&format!(
        "CREATE SOURCE github (id BIGINT NOT NULL, type TEXT, login TEXT PATH '$.actor.login', repo TEXT PATH '$.repo.name',
             commits INT PATH '$.payload.size', public BOOLEAN, created_at TIMESTAMPTZ, doc JSONB PATH '$')
         WITH (connector = 'kafka', brokers = '{brokers}', topic = '{topic}', format = 'json')"
    ));
    server.sql(
        "CREATE TABLE events (id BIGINT NOT NULL, type TEXT, login TEXT, repo TEXT, commits INT, public BOOLEAN, created_at TIMESTAMPTZ, doc JSONB)
         WITH (time_column = 'created_at', partitions = 2) FROM SOURCE github",
    );
    server.sql("SELECT rt.drain('github')");
    check(&server, &Oracle::of(first));

    // The rest arrives while we look.
    for (i, event) in rest.iter().enumerate() {
        feed.send((i % 3) as i32, event.as_bytes());
    }
    feed.flush();
    server.wait_for("SELECT count(*) FROM events", &events.len().to_string(), Duration::from_secs(20));
    let oracle = Oracle::of(&events);
    check(&server, &oracle);

    server.sql("SELECT rt.seal('events')");
    assert_eq!(server.value("SELECT count(*) FROM rt.segments WHERE state <> 'committed' AND rows > 0"), "0");
    check(&server, &oracle);

    server.kill_and_restart();
    check(&server, &oracle);

    let letters = server.sql("SELECT reason, raw_text FROM rt.dlq ORDER BY \"offset\" DESC, 2");
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters.iter().any(|row| row[1].as_deref() == Some("{ broken")), "{letters:?}");
    assert!(letters.iter().any(|row| row[0].as_deref().is_some_and(|reason| reason.contains("id"))), "{letters:?}");
    server.stop();
}
