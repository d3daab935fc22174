//! What tests and whole-process benchmarks share: the real server as a child process, and a Kafka to feed it.
//!
//! `Server` starts the binary on free loopback ports with a data directory of its own, kills it with SIGKILL or stops it with
//! SIGTERM, and starts it again on the same directory.
#![allow(dead_code, reason = "each user takes a part")]

pub(crate) mod kafka;
pub(crate) mod registry;
pub(crate) mod server;

use std::net::TcpListener;

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free loopback port").port()
}
