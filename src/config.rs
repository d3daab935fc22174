//! Settings: a TOML file, `TIDEMILL_<SECTION>_<KEY>` in the environment, flags. The flag wins, then the environment, then the file.
//!
//! Every setting stands once in [`SETTINGS`]; the three ways in, the help and the errors are made from it. Nothing unknown is taken: a key
//! that is not there is refused with the nearest one that is.

mod file;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{sql::options, suggest};

/// A setting: where it stands and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub section: &'static str,
    pub key: &'static str,
    /// What values look like, for `--help`.
    pub value: &'static str,
    pub help: &'static str,
}

impl Setting {
    /// `data-dir`, `pg-listen`: the server's own settings have no prefix.
    pub fn flag(&self) -> String {
        match self.section {
            "server" => self.key.replace('_', "-"),
            section => format!("{section}-{}", self.key.replace('_', "-")),
        }
    }

    pub fn environment(&self) -> String {
        format!("TIDEMILL_{}_{}", self.section.to_uppercase(), self.key.to_uppercase())
    }

    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

macro_rules! settings {
    ($($section:literal $key:literal $value:literal $help:literal)*) => {
        /// All settings but the users, which have no flag: what is on a command line is there for everybody to read.
        pub const SETTINGS: &[Setting] = &[$(Setting { section: $section, key: $key, value: $value, help: $help }),*];
    };
}

settings! {
    "server" "data_dir" "DIR" "where everything is kept; one process at a time [./tidemill-data]"
    "server" "node_name" "NAME" "what this server calls itself [tidemill]"
    "server" "shutdown_grace" "DURATION" "how long running queries may go on after SIGTERM [10s]"
    "pg" "listen" "HOST:PORT" "where PostgreSQL clients connect [127.0.0.1:5433]"
    "pg" "tls_cert" "FILE" "certificate chain, PEM; with a key, clients may use TLS"
    "pg" "tls_key" "FILE" "private key of the certificate, PEM"
    "pg" "require_tls" "BOOL" "refuse connections without TLS [false]"
    "pg" "max_connections" "N" "connections at one time [200]"
    "http" "listen" "HOST:PORT" "console, API, metrics and health; loopback only [127.0.0.1:8433]"
    "memory" "query_bytes" "SIZE" "of all queries together; above it they spill or fail [1GB]"
    "memory" "ingest_bytes" "SIZE" "of rows that are not sealed yet; above it sources wait [1GB]"
    "memory" "key_map_bytes" "SIZE" "of memory for the key maps of all tables with a primary key; what is more goes to files [2GB]"
    "memory" "result_cache_bytes" "SIZE" "of answers of sealed segments that are kept; 0 keeps none [64MB]"
    "memory" "subscription_bytes" "SIZE" "of rows that all subscriptions keep to compare them; above it one more fails [256MB]"
    "query" "lanes" "N" "parallel streams of one query [number of cores]"
    "query" "statement_timeout" "DURATION" "of sessions that do not set their own; 0 is none [0]"
    "query" "spill_bytes" "SIZE" "of spill files at one time [16GB]"
    "query" "max_subscriptions" "N" "SUBSCRIBE statements at one time [100]"
    "storage" "segments_url" "URL" "where segments are copied to and fetched from: file:///mnt/deep or s3://bucket/prefix; keys as AWS_… of the environment"
    "storage" "checkpoints_url" "URL" "where checkpoints of pipelines are copied to and fetched from; the same"
    "index" "cpu" "PERCENT" "share of one processor for building indexes of existing segments [50]"
    "compact" "cpu" "PERCENT" "share of one processor for writing segments again without rows that nobody sees [25]"
    "log" "level" "LEVEL" "error, warn, info, debug or trace, or directives such as info,tidemill=debug [info]"
    "log" "format" "FORMAT" "compact or json [compact]"
}

/// Sections that the file may have.
const SECTIONS: &[&str] = &["server", "pg", "http", "memory", "query", "storage", "index", "compact", "log"];
const USERS: &str = "users";
/// What may stand in our environment and is not for us: variables of the tests and of their tools, and those that Kubernetes gives to everything
/// beside a service called tidemill.
const FOREIGN: &[&str] = &["TIDEMILL_TEST_", "TIDEMILL_CACHE", "TIDEMILL_SERVICE_", "TIDEMILL_PORT"];

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub data_dir: PathBuf,
    pub node_name: String,
    pub shutdown_grace: Duration,
    pub pg_listen: SocketAddr,
    pub pg_tls: Option<(PathBuf, PathBuf)>,
    pub pg_require_tls: bool,
    pub pg_max_connections: usize,
    /// Name and password or SCRAM verifier.
    pub users: Vec<User>,
    pub http_listen: SocketAddr,
    pub query_bytes: u64,
    pub ingest_bytes: u64,
    pub key_map_bytes: u64,
    pub result_cache_bytes: u64,
    pub subscription_bytes: u64,
    pub lanes: usize,
    /// Zero is none.
    pub statement_timeout: Duration,
    pub spill_bytes: u64,
    pub max_subscriptions: usize,
    /// Where segments are copied to.
    pub segments_url: Option<String>,
    /// And checkpoints of pipelines.
    pub checkpoints_url: Option<String>,
    /// Percent of one processor.
    pub index_cpu: u32,
    /// The same.
    pub compact_cpu: u32,
    pub log_level: String,
    pub log_json: bool,
    /// The texts that were given, by "section.key", for `rt.settings`; without secrets.
    pub given: BTreeMap<String, String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// A password, or "SCRAM-SHA-256$…" as PostgreSQL stores it.
    pub secret: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "./tidemill-data".into(),
            node_name: "tidemill".into(),
            shutdown_grace: Duration::from_secs(10),
            pg_listen: SocketAddr::from(([127, 0, 0, 1], 5433)),
            pg_tls: None,
            pg_require_tls: false,
            pg_max_connections: 200,
            users: Vec::new(),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 8433)),
            query_bytes: 1 << 30,
            ingest_bytes: 1 << 30,
            key_map_bytes: 2 << 30,
            result_cache_bytes: 64 << 20,
            subscription_bytes: 256 << 20,
            lanes: std::thread::available_parallelism().map_or(2, usize::from),
            statement_timeout: Duration::ZERO,
            spill_bytes: 16 << 30,
            max_subscriptions: 100,
            segments_url: None,
            checkpoints_url: None,
            index_cpu: 50,
            compact_cpu: 25,
            log_level: "info".into(),
            log_json: false,
            given: BTreeMap::new(),
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// Something wrong with the configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// "tidemill.toml:12", "environment variable TIDEMILL_PG_LISTEN", "--pg-listen"
    pub place: String,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl Config {
    /// Reads all three ways. `flags` are (flag without dashes, value). Every problem is found, not only the first.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut config = Self::default();
        let mut problems = Vec::new();
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => file::read(&mut config, &path.display().to_string(), &text, &mut problems),
                Err(error) => problems.push(Problem {
                    place: path.display().to_string(),
                    message: format!("cannot be read: {error}"),
                    hint: None,
                }),
            }
        }
        let mut environment =
            environment.into_iter().filter(|(name, _)| name.starts_with("TIDEMILL_")).collect::<Vec<_>>();
        environment.sort();
        for (name, value) in environment {
            config.take_environment(&name, &value, &mut problems);
        }
        for (flag, value) in flags {
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.flag() == flag) {
                config.take(setting, &value, &format!("--{flag}"), &mut problems);
            }
        }
        config.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// What a setting is now, as text; `None` when it is not set.
    pub fn value(&self, setting: &Setting) -> Option<String> {
        if let Some(given) = self.given.get(&setting.path()) {
            return Some(given.clone());
        }
        Some(match (setting.section, setting.key) {
            ("server", "data_dir") => self.data_dir.display().to_string(),
            ("server", "node_name") => self.node_name.clone(),
            ("server", "shutdown_grace") => format!("{:?}", self.shutdown_grace),
            ("pg", "listen") => self.pg_listen.to_string(),
            ("pg", "require_tls") => self.pg_require_tls.to_string(),
            ("pg", "max_connections") => self.pg_max_connections.to_string(),
            ("http", "listen") => self.http_listen.to_string(),
            ("memory", "query_bytes") => self.query_bytes.to_string(),
            ("memory", "ingest_bytes") => self.ingest_bytes.to_string(),
            ("memory", "key_map_bytes") => self.key_map_bytes.to_string(),
            ("memory", "result_cache_bytes") => self.result_cache_bytes.to_string(),
            ("memory", "subscription_bytes") => self.subscription_bytes.to_string(),
            ("query", "lanes") => self.lanes.to_string(),
            ("query", "statement_timeout") => format!("{:?}", self.statement_timeout),
            ("query", "spill_bytes") => self.spill_bytes.to_string(),
            ("query", "max_subscriptions") => self.max_subscriptions.to_string(),
            ("index", "cpu") => self.index_cpu.to_string(),
            ("compact", "cpu") => self.compact_cpu.to_string(),
            ("log", "level") => self.log_level.clone(),
            ("log", "format") => if self.log_json { "json" } else { "compact" }.to_owned(),
            _ => return None,
        })
    }

    fn take_environment(&mut self, name: &str, value: &str, problems: &mut Vec<Problem>) {
        let place = format!("environment variable {name}");
        if name == "TIDEMILL_PG_USERS" {
            for entry in value.split(',').filter(|entry| !entry.trim().is_empty()) {
                match entry.trim().split_once(':') {
                    Some((user, secret)) => self.users.push(User { name: user.into(), secret: secret.into() }),
                    None => problems.push(Problem {
                        place: place.clone(),
                        message: "must be name:password, separated by commas".into(),
                        hint: None,
                    }),
                }
            }
            return;
        }
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.environment() == name) {
            self.take(setting, value, &place, problems);
            return;
        }
        if !FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
            let known = SETTINGS.iter().map(Setting::environment).collect::<Vec<_>>();
            problems.push(Problem {
                place,
                message: "unknown setting".into(),
                hint: suggest::hint(name, known.iter().map(String::as_str)),
            });
        }
    }

    fn take(&mut self, setting: &Setting, value: &str, place: &str, problems: &mut Vec<Problem>) {
        match self.set(setting, value.trim()) {
            Ok(()) => {
                self.given.insert(setting.path(), value.trim().to_owned());
            }
            Err(message) => problems.push(Problem {
                place: place.into(),
                message: format!("{}: {message}", setting.path()),
                hint: None,
            }),
        }
    }

    fn set(&mut self, setting: &Setting, value: &str) -> Result<(), String> {
        match (setting.section, setting.key) {
            ("server", "data_dir") if value.is_empty() => return Err("must not be empty".into()),
            ("server", "data_dir") => self.data_dir = value.into(),
            ("server", "node_name") => self.node_name = value.into(),
            ("server", "shutdown_grace") => self.shutdown_grace = duration(value)?,
            ("pg", "listen") => self.pg_listen = address(value)?,
            ("pg", "tls_cert") => self.tls_cert = Some(value.into()),
            ("pg", "tls_key") => self.tls_key = Some(value.into()),
            ("pg", "require_tls") => self.pg_require_tls = boolean(value)?,
            ("pg", "max_connections") => self.pg_max_connections = number(value, 1, 100_000)? as usize,
            ("http", "listen") => self.http_listen = address(value)?,
            ("memory", "query_bytes") => self.query_bytes = size(value)?,
            ("memory", "ingest_bytes") => self.ingest_bytes = size(value)?,
            ("memory", "key_map_bytes") => self.key_map_bytes = options::bytes(value)?,
            ("memory", "result_cache_bytes") => self.result_cache_bytes = size(value)?,
            ("memory", "subscription_bytes") => self.subscription_bytes = options::bytes(value)?,
            ("query", "lanes") => self.lanes = number(value, 1, 1024)? as usize,
            ("query", "statement_timeout") => self.statement_timeout = duration(value)?,
            ("query", "spill_bytes") => self.spill_bytes = size(value)?,
            ("query", "max_subscriptions") => self.max_subscriptions = number(value, 0, 100_000)? as usize,
            ("storage", "segments_url") => self.segments_url = store_url(value)?,
            ("storage", "checkpoints_url") => self.checkpoints_url = store_url(value)?,
            ("index", "cpu") => self.index_cpu = number(value, 1, 100)? as u32,
            ("compact", "cpu") => self.compact_cpu = number(value, 1, 100)? as u32,
            ("log", "level") => {
                log_level(value)?;
                self.log_level = value.into();
            }
            ("log", "format") => {
                self.log_json = match value {
                    "compact" => false,
                    "json" => true,
                    _ => return Err(format!("'{value}' is neither compact nor json")),
                }
            }
            (section, key) => unreachable!("invariant: setting {section}.{key} stands in SETTINGS, so it is set here"),
        }
        Ok(())
    }

    /// What no single setting can tell.
    fn check(&mut self, problems: &mut Vec<Problem>) {
        let mut wrong = |setting: &str, message: String, hint: &str| {
            problems.push(Problem { place: setting.into(), message, hint: Some(hint.into()) });
        };
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => self.pg_tls = Some((certificate.clone(), key.clone())),
            (None, None) => {}
            (Some(_), None) => wrong("pg.tls_key", "is missing beside pg.tls_cert".into(), "give both or none"),
            (None, Some(_)) => wrong("pg.tls_cert", "is missing beside pg.tls_key".into(), "give both or none"),
        }
        if self.pg_require_tls && self.pg_tls.is_none() {
            wrong("pg.require_tls", "needs a certificate".into(), "give pg.tls_cert and pg.tls_key");
        }
        if !is_loopback(self.pg_listen.ip()) {
            if self.users.is_empty() {
                wrong(
                    "pg.listen",
                    format!(
                        "{} is open to the network, but there are no users, so anybody could connect",
                        self.pg_listen
                    ),
                    "name users with passwords in [[pg.users]], or listen on 127.0.0.1",
                );
            }
            if self.pg_tls.is_none() {
                wrong(
                    "pg.listen",
                    format!(
                        "{} is open to the network, but there is no TLS, so anybody could read along",
                        self.pg_listen
                    ),
                    "give pg.tls_cert and pg.tls_key, or listen on 127.0.0.1",
                );
            }
        }
        if !is_loopback(self.http_listen.ip()) {
            wrong(
                "http.listen",
                format!(
                    "{} is open to the network, but the HTTP server has neither users nor TLS yet",
                    self.http_listen
                ),
                "listen on 127.0.0.1 and put a proxy with authentication before it",
            );
        }
        for (index, user) in self.users.iter().enumerate() {
            if user.name.is_empty() || user.secret.is_empty() {
                wrong("pg.users", "a user needs a name and a password".into(), "name = \"…\", password = \"…\"");
            }
            if self.users[..index].iter().any(|other| other.name == user.name) {
                wrong("pg.users", format!("user \"{}\" is there twice", user.name), "names are unique");
            }
        }
    }
}

/// Where there is none, the text is empty.
fn store_url(value: &str) -> Result<Option<String>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    tidemill_ingest::deep_store::check(value).map(|()| Some(value.to_owned()))
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1{port}"));
    text.parse().map_err(|_| format!("'{text}' is not an address such as 127.0.0.1:5433"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

/// Levels, and directives with one: `info,tidemill=debug`. A word alone that is no level would be taken for the name of a module whose every
/// message is wanted.
fn log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let not = |what: &str| match suggest::hint(what, LEVELS) {
        Some(hint) => format!("'{what}' is not a log level ({hint})"),
        None => format!("'{what}' is not a log level; these are {}", LEVELS.join(", ")),
    };
    // A span's fields may hold commas and have a grammar of their own.
    if !text.contains(['[', '{']) {
        for directive in text.split(',').map(str::trim) {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level.trim());
            if !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                return Err(not(level));
            }
        }
    }
    text.parse::<tracing_subscriber::EnvFilter>().map(|_| ()).map_err(|error| format!("{}: {error}", not(text)))
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    match text.replace('_', "").parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("'{text}' is not a number from {min} to {max}")),
    }
}

/// "30 days", "500ms", "0".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" | "0ms" => Ok(Duration::ZERO),
        _ => options::duration_us(text).map(|us| Duration::from_micros(us as u64)),
    }
}

fn size(text: &str) -> Result<u64, String> {
    const MIN: u64 = 16 << 20;
    match options::bytes(text)? {
        bytes if bytes < MIN => Err(format!("'{text}' is less than 16MB")),
        bytes => Ok(bytes),
    }
}

#[cfg(test)]
mod tests;
