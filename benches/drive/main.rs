//! Whole-process benchmarks: the release binary, a real Kafka, a client; figures on one screen.
//!
//! ```text
//! cargo bench --bench drive -- drain --rows 5000000       rows/s and CPU seconds from a preloaded topic of 4 partitions
//! cargo bench --bench drive -- freshness --seconds 20     producer's stamp → first visible, at 50,000 rows/s (--rate, --warmup 30)
//! cargo bench --bench drive -- start --rows 20000000      kill -9, start, first answer with 200 committed segments
//! cargo bench --bench drive -- kill --times 30            kill -9 at random moments; exact after each
//! cargo bench --bench drive -- faults --runs 24           kill -9, ends, stops while one topic is read by new servers; exact each time (--events 10000000)
//! cargo bench --bench drive -- dashboard --clients 16     six prepared queries on one restaurant: latencies, queries/s (--rows, --seconds)
//! cargo bench --bench drive -- keys --keys 50000000       upserts from a topic, look-ups, restarts, beside a table without a key (--updates, --clients)
//! cargo bench --bench drive -- modes                      partial upserts, dedup and Debezium's changes from topics (--messages 5000000, --keys, --changes 1000000)
//! cargo bench --bench drive -- calls                      functions in WebAssembly and models, called by queries of one lane (--rows 5000000)
//! cargo bench --bench drive -- windows                    count and sum by key in windows: backlog, closed to visible, bytes a key (--messages 10000000, --keys 10000, --open 1000000, --parallelism 1)
//! cargo bench --bench drive -- state --groups 10000000    a large state that changes in part: checkpoints, stops, recovery (--churn, --rounds 20, --parallelism 1, --memory-mb 12000)
//! cargo bench --bench drive -- subjects                   a schema registry of 10,000 subjects: look-ups over HTTP, a start (--subjects, --lookups 20000)
//! cargo bench --bench drive -- join --rows 5000000        an interval join whose rows all stay open (--memory-mb 12000)
//! cargo bench --bench drive -- sink --messages 3000000    topic to topic, exactly once: records/s, message to committed record (--rate 2000, --warmup 15, --seconds 20)
//! ```
//!
//! What stands for what: drain is ingestion under backlog, freshness is a dashboard's eye on a live stream, start is an operator's restart, kill and faults
//! are power cuts, dashboard an application with many users, keys and modes one whose rows change, windows, state, join and sink what stream jobs do. Better is: more rows/s, fewer CPU seconds, fewer milliseconds; kill and faults know only right and wrong.
//! A broker is started by `tests/tools/kafka` unless `TIDEMILL_TEST_KAFKA` names one.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "for benchmarks, which print and measure"
)]

#[path = "../../tests/it/support/mod.rs"]
mod support;

mod calls;
mod dashboard;
mod drain;
mod faults;
mod freshness;
mod join;
mod keys;
mod kill;
mod modes;
mod sink;
mod start;
mod state;
mod subjects;
mod windows;

use std::{collections::HashMap, env, path::Path, process::Command, sync::LazyLock};

/// The server under test: what cargo built beside this, or what `TIDEMILL_TEST_BINARY` names.
pub(crate) static BINARY: LazyLock<String> =
    LazyLock::new(|| env::var("TIDEMILL_TEST_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tidemill").to_owned()));

/// `--name value` pairs.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        match self.0.get(name) {
            None => default,
            Some(text) => {
                text.replace('_', "").parse().unwrap_or_else(|_| panic!("--{name} takes a number, not {text}"))
            }
        }
    }
}

fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let command = arguments.next().unwrap_or_default();
    let mut options = HashMap::new();
    while let Some(name) = arguments.next() {
        let name = name.strip_prefix("--").unwrap_or_else(|| panic!("expected --name value, not {name}")).to_owned();
        options.insert(name, arguments.next().expect("a value after --name"));
    }
    let options = Options(options);
    match command.as_str() {
        "drain" => with_kafka(|brokers| drain::run(brokers, &options)),
        "faults" => with_kafka(|brokers| faults::run(brokers, &options)),
        "freshness" => with_kafka(|brokers| freshness::run(brokers, &options)),
        "keys" => with_kafka(|brokers| keys::run(brokers, &options)),
        "kill" => with_kafka(|brokers| kill::run(brokers, &options)),
        "modes" => with_kafka(|brokers| modes::run(brokers, &options)),
        "calls" => calls::run(&options),
        "dashboard" => dashboard::run(&options),
        "join" => with_kafka(|brokers| join::run(brokers, &options)),
        "sink" => with_kafka(|brokers| sink::run(brokers, &options)),
        "start" => start::run(&options),
        "subjects" => subjects::run(&options),
        "state" => with_kafka(|brokers| state::run(brokers, &options)),
        "windows" => with_kafka(|brokers| windows::run(brokers, &options)),
        _ => {
            println!(
                "drive: say drain, freshness, start, kill, faults, keys, modes, windows, state, join, sink, subjects, calls or dashboard; see benches/drive/main.rs"
            )
        }
    }
}

/// Keys in no order, each about as often as any other.
pub(crate) fn some_key(number: u64, keys: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) % keys
}

/// Quantiles of times in milliseconds.
pub(crate) fn line(name: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!("{name:32}{:>10.2}{:>10.2}{:>10.2}{:>10.2}", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// Runs with the broker that the environment names, or with one of its own.
fn with_kafka(run: impl FnOnce(&str)) {
    if let Ok(brokers) = env::var("TIDEMILL_TEST_KAFKA") {
        return run(&brokers);
    }
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/kafka");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let port = support::free_port();
    let call = |arguments: &[&str]| {
        let status = Command::new(&tool).args(arguments).status().expect("tests/tools/kafka runs");
        assert!(status.success(), "tests/tools/kafka {arguments:?} ended with {status}");
    };
    let home = folder.path().join("kafka");
    let home = home.to_str().expect("a path in UTF-8");
    call(&["fetch"]);
    call(&["start", home, &port.to_string()]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&format!("127.0.0.1:{port}"))));
    call(&["stop", home]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
