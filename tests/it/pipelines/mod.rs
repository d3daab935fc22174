//! Pipelines: SQL from topics into tables, by event time, exactly once.

mod changing;
mod checkpoints;
mod crash;
mod definitions;
mod joins;
mod lanes;
mod late;
mod look_ups;
mod replacing;
mod replays;
mod restarting;
mod rules;
mod scenarios;
mod services;
mod sinks;
mod spilling;
mod transforms;
mod windows;

use std::time::Duration;

use crate::support::{kafka::Feed, server::Server};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// A topic of this run alone.
fn topic(name: &str) -> String {
    format!("pipelines-{name}-{}", std::process::id())
}

fn send(feed: &Feed, partition: i32, messages: &[String]) {
    for message in messages {
        feed.send(partition, message.as_bytes());
    }
    feed.flush();
}

/// What is in one and not in the other.
fn differences(server: &Server, one: &str, other: &str) -> Vec<String> {
    lines(
        server,
        &format!(
            "SELECT count(*) FROM (({one}) EXCEPT ({other})) d UNION ALL SELECT count(*) FROM (({other}) EXCEPT ({one})) d"
        ),
    )
}

/// Rows as lines of text, sorted.
fn lines(server: &Server, sql: &str) -> Vec<String> {
    let text = |row: Vec<Option<String>>| {
        row.into_iter().map(|cell| cell.unwrap_or_else(|| "null".into())).collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = server.sql(sql).into_iter().map(text).collect();
    lines.sort();
    lines
}

/// The SQLSTATE, message and hint that a statement fails with.
fn refused(server: &Server, sql: &str) -> (String, String, String) {
    let error = server.try_sql(sql).expect_err(sql);
    let error = error.as_db_error().expect("an error of the server").clone();
    (error.code().code().to_owned(), error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

const PATIENCE: Duration = Duration::from_secs(30);
