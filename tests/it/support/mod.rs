//! What tests and whole-process benchmarks share: the real server as a child process, and a Kafka to feed it.
//!
//! `Server` starts the binary on free loopback ports with a data directory of its own, kills it with SIGKILL or stops it with
//! SIGTERM, and starts it again on the same directory.
#![allow(dead_code, reason = "each user takes a part")]

pub(crate) mod files;
pub(crate) mod kafka;
pub(crate) mod registry;
pub(crate) mod server;
pub(crate) mod service;

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Ports below those that the kernel gives to clients: one of these may be taken between the look and the server's start.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A free loopback port that no one else in this process was given lately.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that test beside this one begin elsewhere.
    let start = process::id().wrapping_mul(7919);
    let ports = (0..PORTS.len()).map(|_| {
        let place = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        (PORTS.start + place) as u16
    });
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free loopback port")
}
