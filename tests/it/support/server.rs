//! The server as a child process.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::free_port;

pub(crate) struct Server {
    binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) pg_port: u16,
    pub(crate) http_port: u16,
    /// The subcommand that runs: `server` or `quickstart`.
    command: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
    /// Removed at the end when the server made it.
    _temporary: Option<tempfile::TempDir>,
}

impl Server {
    /// A server in a fresh data directory, ready for queries.
    pub(crate) fn start(binary: impl Into<PathBuf>) -> Self {
        Self::start_with(binary, &[])
    }

    /// The same without a deep store, whatever the environment says: what is damaged stays so.
    pub(crate) fn start_alone(binary: impl Into<PathBuf>) -> Self {
        Self::start_with(binary, &["--storage-segments-url", "", "--storage-checkpoints-url", ""])
    }

    /// A server in a data directory of the caller's.
    pub(crate) fn start_in(binary: impl Into<PathBuf>, data_dir: &Path) -> Self {
        let mut server = Self {
            binary: binary.into(),
            data_dir: data_dir.to_owned(),
            pg_port: free_port(),
            http_port: free_port(),
            command: "server",
            arguments: Vec::new(),
            child: None,
            _temporary: None,
        };
        server.spawn();
        server.wait_ready();
        server
    }

    /// [`Self::start`] with more arguments for `tidemill server`.
    pub(crate) fn start_with(binary: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self::start_command("server", binary, arguments)
    }

    /// `tidemill <command>` in a fresh data directory, ready for queries.
    pub(crate) fn start_command(command: &'static str, binary: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self {
            binary: binary.into(),
            data_dir: temporary.path().join("data"),
            pg_port: free_port(),
            http_port: free_port(),
            command,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            child: None,
            _temporary: Some(temporary),
        };
        server.spawn();
        server.wait_ready();
        server
    }

    /// Starts the process and returns at once.
    pub(crate) fn spawn(&mut self) {
        self.spawn_with(&[]);
    }

    /// The same with variables in its environment.
    pub(crate) fn spawn_with(&mut self, environment: &[(&str, &str)]) {
        assert!(self.child.is_none(), "the server is running");
        fs::create_dir_all(&self.data_dir).expect("the data directory");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("the server's log");
        let child = Command::new(&self.binary)
            .arg(self.command)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .arg("--pg-listen")
            .arg(format!("127.0.0.1:{}", self.pg_port))
            .arg("--http-listen")
            .arg(format!("127.0.0.1:{}", self.http_port))
            .args(&self.arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log handle"))
            .stderr(log)
            .spawn()
            .expect("the server binary starts");
        self.child = Some(child);
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Waits until a query is answered; returns how long that took.
    pub(crate) fn wait_ready(&mut self) -> Duration {
        let start = Instant::now();
        let runtime = runtime();
        loop {
            let answered = runtime.block_on(async {
                let client = connect(self.pg_port).await.ok()?;
                client.simple_query("SELECT 1").await.ok()
            });
            if answered.is_some() {
                return start.elapsed();
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no answer within 60 s:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, as a power cut would look to the process.
    pub(crate) fn kill_9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill -9");
            child.wait().expect("the killed server is gone");
        }
    }

    /// SIGTERM; panics unless the server exits with 0 within 30 s.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill -TERM");
        assert!(status.success());
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the server's status") {
                assert!(status.success(), "SIGTERM ended the server with {status}:\n{}", self.log());
                return;
            }
            if start.elapsed() > Duration::from_secs(30) {
                child.kill().ok();
                panic!("the server did not end within 30 s of SIGTERM:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9, start, ready; returns the time to the first answer.
    pub(crate) fn kill_and_restart(&mut self) -> Duration {
        self.kill_9();
        self.spawn();
        self.wait_ready()
    }

    /// Rows of the last statement as text, `None` for NULL; panics on errors.
    pub(crate) fn sql(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_sql(sql).unwrap_or_else(|error| {
            panic!("{sql}\n{}\n{}", describe(&error), self.log().lines().rev().take(20).collect::<Vec<_>>().join("\n"))
        })
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        runtime().block_on(async {
            let client = connect(self.pg_port).await?;
            let mut rows = Vec::new();
            for message in client.simple_query(sql).await? {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        rows.push((0..row.len()).map(|i| row.get(i).map(ToOwned::to_owned)).collect());
                    }
                    SimpleQueryMessage::RowDescription(_) => rows.clear(),
                    _ => {}
                }
            }
            Ok(rows)
        })
    }

    /// The only value of the only row, as text.
    pub(crate) fn value(&self, sql: &str) -> String {
        let rows = self.sql(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "{sql} gave {rows:?}");
        rows[0][0].clone().unwrap_or_else(|| "NULL".into())
    }

    /// Asks until `sql` gives `wanted`.
    pub(crate) fn wait_for(&self, sql: &str, wanted: &str, within: Duration) {
        let start = Instant::now();
        loop {
            let value = self.value(sql);
            if value == wanted {
                return;
            }
            assert!(start.elapsed() < within, "{sql} is {value} after {within:?}, not {wanted}:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// User and system CPU seconds that the process has used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("/proc/<pid>/stat");
        let after_name = stat.rsplit_once(')').expect("a process name").1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().expect("utime") + fields[12].parse::<f64>().expect("stime");
        ticks / 100.0
    }

    /// Peak resident memory in MiB.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        self.memory("VmHWM")
    }

    /// What it has now.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.memory("VmRSS")
    }

    fn memory(&self, kind: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc/<pid>/status");
        let line = status.lines().find(|line| line.starts_with(kind)).expect(kind);
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("kB") / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if thread::panicking() {
            let log = self.log();
            eprintln!("--- end of the server's log ---\n{}", tail(&log, 40));
        }
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime")
}

/// A client of the server on `port`; its connection is driven on the current runtime.
pub(crate) async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("tidemill")
        .dbname("tidemill")
        .connect_timeout(Duration::from_secs(5))
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// SQLSTATE and message of an error.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{}: {} (hint: {:?})", error.code().code(), error.message(), error.hint()),
        None => error.to_string(),
    }
}

/// Bytes of all files below `folder`.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
