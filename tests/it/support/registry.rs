//! A schema registry as far as readers need one: ids and subjects' versions by GET.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

#[derive(Default)]
struct Shared {
    /// Status and body by path.
    answers: Mutex<HashMap<String, (u16, String)>>,
    /// Paths in the order in which they were asked for, and each request's Authorization.
    asked: Mutex<Vec<(String, Option<String>)>>,
    is_stopping: AtomicBool,
}

/// Listens until it is dropped.
pub(crate) struct Registry {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Registry {
    /// On a free port, or on the one given.
    pub(crate) fn start(port: Option<u16>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if served.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    // A client that goes away is no fault of the registry.
                    let _ = serve(&served, &stream);
                }
            }
        });
        Self { port, shared, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a path is answered with from now on.
    pub(crate) fn answer(&self, path: &str, status: u16, body: &str) {
        self.shared.answers.lock().expect("answers").insert(path.to_owned(), (status, body.to_owned()));
    }

    /// Registers a schema; `kind` is AVRO, PROTOBUF or JSON, `references` the JSON of a list.
    pub(crate) fn register(&self, id: u32, kind: &str, schema: &str, references: &str) {
        self.answer(&format!("/schemas/ids/{id}"), 200, &body(kind, schema, references));
    }

    pub(crate) fn asked(&self) -> Vec<(String, Option<String>)> {
        self.shared.asked.lock().expect("asked").clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the registry's thread");
        }
    }
}

/// A registry's answer that holds a schema.
pub(crate) fn body(kind: &str, schema: &str, references: &str) -> String {
    let mut text = String::new();
    for c in schema.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    // Of Avro a registry does not tell the kind.
    let kind = if kind == "AVRO" { String::new() } else { format!(",\"schemaType\":\"{kind}\"") };
    format!("{{\"schema\":\"{text}\",\"references\":{references}{kind}}}")
}

fn serve(shared: &Shared, stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("authorization: ") {
            authorization = Some(line[line.len() - value.len()..].to_owned());
        }
    }
    let unknown = (404, "{\"error_code\":40403,\"message\":\"Schema not found\"}".to_owned());
    let known = shared.answers.lock().expect("answers").get(&path).cloned();
    shared.asked.lock().expect("asked").push((path, authorization));
    let (status, body) = known.unwrap_or(unknown);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
