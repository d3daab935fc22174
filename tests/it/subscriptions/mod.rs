//! SUBSCRIBE, LISTEN and NOTIFY as clients see them: over the simple and the extended protocol, through COPY and cursors, with psql.

mod agreement;
mod life;
pub(crate) mod notifications;
mod protocols;
mod topics;

use std::{
    collections::BTreeMap,
    pin::Pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryStream};

use crate::support::server::{Server, describe};

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");
/// For what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Values of a row as text.
type Values = Vec<Option<String>>;

/// A row of a subscription with PROGRESS.
#[derive(Clone, Debug)]
struct Change {
    time: String,
    /// `None`: everything of this time was sent.
    diff: Option<i64>,
    values: Values,
}

/// Somebody who has SUBSCRIBEd and adds up what comes.
struct Subscriber {
    client: Client,
    connection: JoinHandle<()>,
    rows: Pin<Box<SimpleQueryStream>>,
    /// How often each row is in the result.
    state: BTreeMap<Values, i64>,
    last: String,
    /// Whether rows of `last` may still come.
    is_open: bool,
}

impl Subscriber {
    /// `query` without SUBSCRIBE; `options` beside PROGRESS.
    async fn open(server: &Server, settings: &str, query: &str, options: &str) -> Self {
        let config = format!("host=127.0.0.1 port={} user=tidemill dbname=tidemill", server.pg_port);
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        if !settings.is_empty() {
            client.simple_query(settings).await.unwrap();
        }
        let sql = format!("SUBSCRIBE TO ({query}) WITH (progress{options})");
        let rows = client.simple_query_raw(&sql).await.unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)));
        Self { client, connection, rows: Box::pin(rows), state: BTreeMap::new(), last: String::new(), is_open: false }
    }

    async fn next(&mut self) -> Result<Change, tokio_postgres::Error> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.rows.next()).await.expect("a row in time");
            if let SimpleQueryMessage::Row(row) = message.expect("a subscription ends with an error only")? {
                let value = |at: usize| row.get(at).map(str::to_owned);
                let is_progress = row.get(1) == Some("t");
                let diff = value(2).map(|diff| diff.parse().unwrap());
                assert_eq!(diff.is_none(), is_progress);
                let values = (3..row.len()).map(value).collect();
                return Ok(Change { time: row.get(0).unwrap().to_owned(), diff, values });
            }
        }
    }

    /// Takes the next row into the state.
    async fn step(&mut self) -> Result<Change, tokio_postgres::Error> {
        let change = self.next().await?;
        if self.is_open {
            assert_eq!(change.time, self.last, "rows of one moment come together");
        } else {
            assert!(change.time > self.last, "{} comes after {}", change.time, self.last);
        }
        self.last.clone_from(&change.time);
        self.is_open = change.diff.is_some();
        match change.diff {
            Some(diff) => {
                assert_ne!(diff, 0);
                *self.state.entry(change.values.clone()).or_default() += diff;
            }
            None => {
                self.state.retain(|_, count| *count != 0);
                let negative = self.state.iter().find(|(_, count)| **count < 0);
                assert!(negative.is_none(), "a row that is not there went: {negative:?}");
            }
        }
        Ok(change)
    }

    /// Reads to the end of a moment.
    async fn moment(&mut self) -> Result<(), tokio_postgres::Error> {
        while self.step().await?.diff.is_some() {}
        Ok(())
    }

    /// Reads until the state is what it should be, at the end of some moment.
    async fn until(&mut self, wanted: &BTreeMap<Values, i64>) {
        let start = Instant::now();
        while self.is_open || self.last.is_empty() || self.state != *wanted {
            assert!(start.elapsed() < PATIENCE, "the state is {:?}, not {wanted:?}", self.state);
            self.step().await.unwrap_or_else(|error| panic!("{}", describe(&error)));
        }
    }

    /// What ends it.
    async fn end(&mut self) -> tokio_postgres::Error {
        loop {
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }
}

impl Drop for Subscriber {
    /// The client goes away without a word; it would wait for the end of the statement.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The result of a query as a multiset.
async fn result(client: &Client, query: &str) -> BTreeMap<Values, i64> {
    let mut counts = BTreeMap::new();
    for message in client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {}", describe(&error))) {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Values = (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect();
            *counts.entry(values).or_default() += 1;
        }
    }
    counts
}

/// SQLSTATE of an error that the server sent.
fn state(error: &tokio_postgres::Error) -> String {
    error.code().unwrap_or_else(|| panic!("no error of the server: {error}")).code().to_owned()
}
