//! The HTTP API, spoken over a plain socket.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::server::Server;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

pub(crate) fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let address = format!("127.0.0.1:{}", server.http_port);
    let mut socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    socket.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn query(server: &Server, sql: &str) -> Answer {
    ask(server, "POST", "/api/v1/query", &[("Content-Type", "application/json")], &json!({ "sql": sql }).to_string())
}

#[test]
fn sql_is_answered_as_json_ndjson_and_csv() {
    let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    assert_eq!(ask(&server, "GET", "/healthz", &[], "").body, "ok\n");
    assert_eq!(ask(&server, "GET", "/readyz", &[], "").status, 200);
    query(&server, "CREATE TABLE t (a BIGINT, b TEXT, c NUMERIC(6,2), d JSONB)");
    query(&server, "INSERT INTO t VALUES (1, 'x,\"y\"', 1.50, '{\"k\": [1]}'), (9007199254740993, NULL, NULL, NULL)");
    let answer = query(&server, "SELECT 1; SELECT * FROM t ORDER BY a");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["rows"], json!([[1, "x,\"y\"", "1.50", { "k": [1] }], ["9007199254740993", null, null, null]]));
    assert_eq!(answer["columns"][2], json!({ "name": "c", "type": "numeric(6,2)" }));
    assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(2), &json!(false)));
    let csv = ask(&server, "POST", "/api/v1/query", &[("Accept", "text/csv")], "SELECT a, b FROM t ORDER BY a");
    assert_eq!(csv.body, "a,b\r\n1,\"x,\"\"y\"\"\"\r\n9007199254740993,\r\n");
    let lines =
        ask(&server, "POST", "/api/v1/query", &[("Accept", "application/x-ndjson")], "SELECT a, c FROM t ORDER BY a");
    assert_eq!(lines.body, "{\"a\":1,\"c\":\"1.50\"}\n{\"a\":\"9007199254740993\",\"c\":null}\n");
    let wrong = query(&server, "SELECT 1;\nSELECT nope FROM t");
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.json()["error"]["sqlstate"], "42703");
    assert_eq!(wrong.json()["error"]["position"], 18);
    assert_eq!(query(&server, "SELECT * FROM nowhere").status, 404);
    assert_eq!(query(&server, "  ").status, 400);
    let few = ask(
        &server,
        "POST",
        "/api/v1/query",
        &[("Content-Type", "application/json")],
        "{\"sql\": \"SELECT * FROM t\", \"max_rows\": 1}",
    );
    assert_eq!(few.json()["truncated"], true);
}

#[test]
fn pushed_rows_are_stored_whole_or_not_at_all_and_survive_a_kill() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    query(&server, "CREATE TABLE t (id INT NOT NULL, name TEXT DEFAULT 'none', n INT NOT NULL DEFAULT 5)");
    let push = |server: &Server, path: &str, body: &str| {
        ask(server, "POST", path, &[("Content-Type", "application/x-ndjson")], body)
    };
    let rows = "/api/v1/tables/t/rows";
    let answer =
        push(&server, rows, "{\"id\": 1, \"name\": \"a\"}\n\n{\"id\": 2, \"name\": null, \"n\": 6}\n{\"id\": 3}\n");
    assert_eq!((answer.status, answer.json()["rows"].clone()), (200, json!(3)), "{}", answer.body);
    let bad = "{\"id\": 4}\n{\"id\": \"x\"}\nnot json\n{\"name\": \"y\"}\n{\"id\": 5, \"n\": null}";
    let answer = push(&server, rows, bad);
    assert_eq!(answer.status, 400);
    let lines = answer.json()["error"]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["line"].as_u64().unwrap())
        .collect::<Vec<_>>();
    assert_eq!(lines, [2, 3, 4, 5]);
    let sum = "SELECT string_agg(id || coalesce(name, 'NULL') || n, ' ' ORDER BY id) FROM t";
    assert_eq!(server.value(sum), "1a5 2NULL6 3none5", "nothing of a refused request is stored");
    let answer = push(&server, &format!("{rows}?on_error=skip"), bad).json();
    assert_eq!((&answer["rows"], &answer["rejected"]), (&json!(1), &json!(4)));
    server.kill_and_restart();
    assert_eq!(server.value(sum), "1a5 2NULL6 3none5 4none5", "what was acknowledged survives");
    assert_eq!(push(&server, "/api/v1/tables/nope/rows", "{}").status, 404);
    assert_eq!(push(&server, &format!("{rows}?on_eror=skip"), "{}").status, 400);
}

#[test]
fn the_console_and_the_machines_pages_are_there_and_other_sites_are_not_let_in() {
    let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    query(&server, "CREATE TABLE t (a INT)");
    query(&server, "INSERT INTO t VALUES (1), (2)");
    let page = ask(&server, "GET", "/", &[], "");
    assert!(page.body.contains("<title>Tidemill</title>") && page.head.contains("content-security-policy"));
    let tables = ask(&server, "GET", "/api/v1/tables", &[], "").json();
    assert_eq!((&tables["tables"][0]["name"], &tables["tables"][0]["rows"]), (&json!("t"), &json!(2)));
    let metrics = ask(&server, "GET", "/metrics", &[], "").body;
    assert!(metrics.contains("tidemill_table_rows{table=\"t\"} 2"), "{metrics}");
    assert!(metrics.contains("tidemill_ingest_position{table=\"t\",source=\"t.log\",partition=\"0\"} 2"), "{metrics}");
    // Every path that is described answers, and nothing else does.
    let described = ask(&server, "GET", "/api/v1/openapi.json", &[], "").json();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let named = path.replace("{table}", "t").replace("{pipeline}", "p");
            let answer = ask(&server, &method.to_uppercase(), &named, &[], "");
            let is_answered = match answer.status {
                200 => true,
                400 => matches!(method.as_str(), "post" | "patch"),
                404 => answer.body.contains("pipeline \\\"p\\\" does not exist"),
                _ => false,
            };
            assert!(is_answered, "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
    assert_eq!(ask(&server, "GET", "/api/v1/nothing", &[], "").status, 404);
    assert_eq!(ask(&server, "GET", "/../etc/passwd", &[], "").status, 404);
    assert_eq!(ask(&server, "POST", "/api/v1/query", &[("Origin", "http://evil.example")], "DROP TABLE t").status, 403);
    assert_eq!(ask(&server, "POST", "/api/v1/query", &[("Host", "evil.example")], "DROP TABLE t").status, 403);
    assert_eq!(server.value("SELECT count(*) FROM t"), "2");
}
