//! A schema registry of many subjects: registering, looking up over HTTP as clients do, trying a change out, starting again.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Instant,
};

use crate::{BINARY, Options, line, some_key, support::server::Server};

const HEAD: &str = "Host: 127.0.0.1\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n";

/// One connection, which is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self(BufReader::new(socket))
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> String {
        let length = body.len();
        let request =
            format!("{method} /api/v1/schemas{path} HTTP/1.1\r\n{HEAD}Content-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut head, mut length) = (String::new(), 0);
        self.0.read_line(&mut head).unwrap();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(told) = line.strip_prefix("content-length:") {
                length = told.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(head.contains(" 200 "), "{method} {path}: {head}{answer}");
        answer
    }
}

fn schema(number: u64, more: &str) -> String {
    let fields = (0..12).map(|at| format!(r#"{{"name":"f{at}_{number}","type":["null","string"],"default":null}}"#));
    let fields = fields.collect::<Vec<_>>().join(",");
    format!(r#"{{"type":"record","name":"S{number}","fields":[{{"name":"id","type":"long"}},{fields}{more}]}}"#)
}

fn body(schema: &str) -> String {
    serde_json::json!({ "schema": schema }).to_string()
}

fn timed(times: &mut Vec<f64>, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    times.push(begun.elapsed().as_secs_f64() * 1000.0);
}

pub(crate) fn run(options: &Options) {
    let subjects = options.number("subjects", 10_000);
    let look_ups = options.number("lookups", 20_000);
    let mut server = Server::start(BINARY.as_str());
    let mut client = Client::new(server.http_port);
    println!("{:32}{:>10}{:>10}{:>10}{:>10}   ms", "", "median", "90 %", "99 %", "worst");
    let mut times = Vec::new();
    let begun = Instant::now();
    for number in 0..subjects {
        let body = body(&schema(number, ""));
        timed(&mut times, || _ = client.ask("POST", &format!("/subjects/s{number}-value/versions"), &body));
    }
    let took = begun.elapsed().as_secs_f64();
    line("register", &mut times);
    println!("{subjects} subjects in {took:.1} s");
    let look_up = |client: &mut Client, what: &str| {
        let mut by_id = Vec::new();
        let mut by_subject = Vec::new();
        let mut by_schema = Vec::new();
        for at in 0..look_ups {
            let number = some_key(at, subjects);
            timed(&mut by_id, || _ = client.ask("GET", &format!("/schemas/ids/{}", number + 1), ""));
            timed(&mut by_subject, || {
                let answer = client.ask("GET", &format!("/subjects/s{number}-value/versions/latest"), "");
                assert!(answer.contains(&format!("f0_{number}")), "{answer}");
            });
            if at % 10 == 0 {
                let body = body(&schema(number, ""));
                timed(&mut by_schema, || _ = client.ask("POST", &format!("/subjects/s{number}-value"), &body));
            }
        }
        line(&format!("by id{what}"), &mut by_id);
        line(&format!("by subject, latest{what}"), &mut by_subject);
        line(&format!("by schema{what}"), &mut by_schema);
    };
    look_up(&mut client, "");
    let mut times = Vec::new();
    for at in 0..200 {
        let number = some_key(at, subjects);
        let schema = schema(number, r#",{"name":"more","type":["null","int"],"default":null}"#);
        let sql = format!("ALTER SUBJECT \"s{number}-value\" PROPOSE '{schema}'");
        timed(&mut times, || _ = server.sql(&sql));
    }
    line("PROPOSE, nobody reads it", &mut times);
    times.clear();
    server.sql("SELECT count(*) FROM rt.subjects");
    timed(&mut times, || assert_eq!(server.value("SELECT count(*) FROM rt.subjects"), subjects.to_string()));
    line("rt.subjects", &mut times);
    let mut starts: Vec<f64> = (0..5).map(|_| server.kill_and_restart().as_secs_f64() * 1000.0).collect();
    line("start after kill -9", &mut starts);
    look_up(&mut Client::new(server.http_port), ", after it");
    println!("memory of the server: {} MiB", server.memory_mib());
}
