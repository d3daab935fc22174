//! LISTEN and NOTIFY.

use std::time::Duration;

use futures::{StreamExt, channel::mpsc, stream};
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::{BINARY, PATIENCE, state};
use crate::support::server::{Server, runtime};

/// A client and what it is notified of: "channel payload", with the sender's pid.
pub(crate) async fn listener(port: u16) -> (Client, mpsc::UnboundedReceiver<(String, i32)>) {
    let config = format!("host=127.0.0.1 port={port} user=tidemill dbname=tidemill");
    let (client, mut connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let (sender, receiver) = mpsc::unbounded();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(heard) = message {
                let _ = sender.unbounded_send((format!("{} {}", heard.channel(), heard.payload()), heard.process_id()));
            }
        }
    });
    (client, receiver)
}

pub(crate) async fn heard(receiver: &mut mpsc::UnboundedReceiver<(String, i32)>) -> String {
    tokio::time::timeout(PATIENCE, receiver.next()).await.expect("a notification in time").unwrap().0
}

async fn silence(receiver: &mut mpsc::UnboundedReceiver<(String, i32)>) {
    let nothing = tokio::time::timeout(Duration::from_millis(150), receiver.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[test]
fn notifications_as_postgresql_has_them() {
    let server = Server::start(BINARY);
    runtime().block_on(async {
        let (one, mut ear) = listener(server.pg_port).await;
        let (other, mut other_ear) = listener(server.pg_port).await;
        let said = async |sql: &str| other.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        one.simple_query("LISTEN orders; LISTEN \"Other\"").await.unwrap();
        // Idle connections hear at once, with the sender's pid.
        said("NOTIFY orders, 'it''s'").await;
        let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let first = tokio::time::timeout(PATIENCE, ear.next()).await.unwrap().unwrap();
        assert_eq!(first, ("orders it's".to_owned(), pid));
        said("NOTIFY \"Other\"").await;
        assert_eq!(heard(&mut ear).await, "Other ");
        other.execute("SELECT pg_notify('ord' || 'ers', $1)", &[&"by a function"]).await.unwrap();
        assert_eq!(heard(&mut ear).await, "orders by a function");
        // One's own, too.
        said("LISTEN orders").await;
        said("NOTIFY orders, 'own'").await;
        assert_eq!(
            (heard(&mut ear).await, heard(&mut other_ear).await),
            ("orders own".to_owned(), "orders own".to_owned())
        );
        said("UNLISTEN orders").await;

        // In a transaction at its end, each once, in order; or never.
        said("BEGIN").await;
        said("NOTIFY orders, 'b'").await;
        said("NOTIFY orders, 'a'").await;
        said("SELECT pg_notify('orders', 'b')").await;
        said("SAVEPOINT s").await;
        said("NOTIFY orders, 'taken back'").await;
        said("ROLLBACK TO s").await;
        said("NOTIFY orders, 'c'").await;
        silence(&mut ear).await;
        said("COMMIT").await;
        for wanted in ["orders b", "orders a", "orders c"] {
            assert_eq!(heard(&mut ear).await, wanted);
        }
        said("BEGIN").await;
        said("LISTEN orders").await;
        said("NOTIFY orders, 'never'").await;
        said("ROLLBACK").await;
        assert_eq!(state(&other.simple_query("NOTIFY orders, 'nor this'; SELECT 1/0").await.unwrap_err()), "22012");
        assert_eq!(
            state(&other.simple_query("SELECT pg_notify('orders', 'nor that'), 1/(1 - 1)").await.unwrap_err()),
            "22012"
        );
        silence(&mut ear).await;
        said("NOTIFY orders, 'for one'").await;
        assert_eq!(heard(&mut ear).await, "orders for one");
        silence(&mut other_ear).await;

        // Who is in a transaction hears at its end.
        one.simple_query("BEGIN").await.unwrap();
        said("NOTIFY orders, 'later'").await;
        one.simple_query("SELECT 1").await.unwrap();
        silence(&mut ear).await;
        one.simple_query("COMMIT").await.unwrap();
        assert_eq!(heard(&mut ear).await, "orders later");

        one.simple_query("UNLISTEN orders").await.unwrap();
        said("NOTIFY orders").await;
        said("NOTIFY \"Other\", 'still'").await;
        assert_eq!(heard(&mut ear).await, "Other still");
        one.simple_query("UNLISTEN *; LISTEN orders").await.unwrap();
        one.simple_query("DISCARD ALL").await.unwrap();
        said("NOTIFY orders; NOTIFY \"Other\"").await;
        silence(&mut ear).await;

        for (sql, wanted) in [
            (format!("NOTIFY orders, '{}'", "x".repeat(8000)), "22023"),
            ("SELECT pg_notify('', 'x')".into(), "22023"),
            ("NOTIFY".into(), "42601"),
            ("LISTEN a b".into(), "42601"),
        ] {
            assert_eq!(state(&other.simple_query(&sql).await.unwrap_err()), wanted, "{sql}");
        }
        said(&format!("NOTIFY orders, '{}'", "x".repeat(7999))).await;
    });
}
