//! An HTTP service that looks keys up, and fails or is slow when it is told.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How it behaves. Keys that begin with `gone` are not found, those that begin with `bad` refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    Well,
    Slow(Duration),
    Failing,
}

struct Shared {
    mood: Mutex<Mood>,
    /// How often each key was asked for.
    asked: Mutex<BTreeMap<String, usize>>,
    is_stopping: AtomicBool,
}

/// Listens until it is dropped.
pub(crate) struct Service {
    port: u16,
    shared: Arc<Shared>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            mood: Mutex::new(Mood::Well),
            asked: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if served.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                let served = Arc::clone(&served);
                // A client that goes away is no fault of the service.
                thread::spawn(move || _ = serve(&served, &stream));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/order", self.port)
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.shared.mood.lock().expect("mood") = mood;
    }

    pub(crate) fn asked(&self) -> BTreeMap<String, usize> {
        self.shared.asked.lock().expect("asked").clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn serve(shared: &Shared, mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let key = first.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned();
        let mood = *shared.mood.lock().expect("mood");
        *shared.asked.lock().expect("asked").entry(key.clone()).or_default() += 1;
        let (status, body) = match mood {
            Mood::Failing => (500, "out of order".to_owned()),
            _ if key.starts_with("gone") => (404, "no such order".to_owned()),
            _ if key.starts_with("bad") => (422, "that is no order".to_owned()),
            _ => (200, format!(r#"{{"order":"{key}","items":["a","b"]}}"#)),
        };
        if let Mood::Slow(time) = mood {
            thread::sleep(time);
        }
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
}
