//! Bytes that no client sends: the server answers with an error or closes, and goes on serving.

use std::time::Duration;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::fixture::{Fixture, run, text};

/// A connection that sends what it is told to.
pub(super) struct Raw {
    socket: TcpStream,
}

impl Raw {
    /// Connected, up to the first ReadyForQuery.
    pub(super) async fn connect(fixture: &Fixture) -> Self {
        let mut raw = Self { socket: TcpStream::connect(fixture.address).await.unwrap() };
        let body = b"\0\x03\0\0user\0raw\0\0";
        raw.socket.write_all(&(body.len() as u32 + 4).to_be_bytes()).await.unwrap();
        raw.socket.write_all(body).await.unwrap();
        raw.until(b'Z').await;
        raw
    }

    pub(super) async fn send(&mut self, kind: u8, body: &[u8]) {
        let mut message = vec![kind];
        message.extend((body.len() as u32 + 4).to_be_bytes());
        message.extend(body);
        // The server may have closed already.
        let _ = self.socket.write_all(&message).await;
    }

    /// Messages up to one of this kind; `None` when the connection was closed before.
    pub(super) async fn until(&mut self, kind: u8) -> Option<Vec<(u8, Vec<u8>)>> {
        let read = async {
            let mut messages = Vec::new();
            loop {
                let mut head = [0; 5];
                self.socket.read_exact(&mut head).await.ok()?;
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                let mut body = vec![0; length - 4];
                self.socket.read_exact(&mut body).await.ok()?;
                messages.push((head[0], body));
                if head[0] == kind {
                    return Some(messages);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the server neither answers nor closes")
    }
}

#[test]
fn wrong_lengths_and_kinds_end_the_connection_with_an_error() {
    run(async {
        let fixture = Fixture::start().await;
        for message in [
            &b"Q\xff\xff\xff\xff"[..],
            b"Q\x7f\xff\xff\xff",
            b"Q\0\0\0\x03",
            b"P\0\0\0\x06a\0",
            b"B\0\0\0\x0c\0\0\xff\xff\0\0\0\0",
            b"Q\0\0\0\x05x",
            b"Q\0\0\0\x06\xff\0",
            b"\0\0\0\0\x08\0\0\0\0",
            b"~\0\0\0\x04",
            b"D\0\0\0\x06Q\0",
            b"p\0\0\0\x05x",
        ] {
            let mut raw = Raw::connect(&fixture).await;
            raw.socket.write_all(message).await.unwrap();
            let answers = raw.until(b'E').await.unwrap_or_else(|| panic!("{message:?}: closed without a word"));
            assert!(answers.last().unwrap().1.starts_with(b"SFATAL\0"), "{message:?}");
        }
        assert_eq!(text(&fixture.connect().await, "SELECT 1").await, ["1"]);
        fixture.stop().await;
    });
}

#[test]
fn wrong_beginnings_are_refused() {
    run(async {
        let fixture = Fixture::start().await;
        for bytes in [
            &b"\0\0\0\x04"[..],
            b"\xff\xff\xff\xff\0\0\0\0",
            b"\0\0\xff\xff\0\x03\0\0",
            b"\0\0\0\x08\0\x02\0\0",
            b"\0\0\0\x0c\0\x03\0\0user",
            b"\0\0\0\x09\0\x03\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let mut socket = TcpStream::connect(fixture.address).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            let read = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
            let _ = read.expect("the server does not close");
            assert_eq!(answer.first(), Some(&b'E'), "{bytes:?}");
        }
        assert_eq!(text(&fixture.connect().await, "SELECT 1").await, ["1"]);
        fixture.stop().await;
    });
}

#[test]
fn random_messages_do_no_harm() {
    run(async {
        let fixture = Fixture::start().await;
        let mut runner = TestRunner::deterministic();
        let kinds = prop_oneof![
            4 => proptest::sample::select(b"QPBDECHSdcf".to_vec()),
            1 => any::<u8>(),
        ];
        let message = (kinds, proptest::collection::vec(any::<u8>(), 0..40));
        let messages = proptest::collection::vec(message, 1..8);
        for _ in 0..100 {
            let mut raw = Raw::connect(&fixture).await;
            for (kind, body) in messages.new_tree(&mut runner).unwrap().current() {
                raw.send(kind, &body).await;
            }
            drop(raw);
        }
        assert_eq!(text(&fixture.connect().await, "SELECT 1").await, ["1"]);
        fixture.stop().await;
    });
}

#[test]
fn errors_in_extended_messages_are_passed_over_up_to_sync() {
    run(async {
        let fixture = Fixture::start().await;
        let mut raw = Raw::connect(&fixture).await;
        raw.send(b'P', b"\0SELECT nope\0\0\0").await;
        raw.send(b'B', b"\0\0\0\0\0\0\0\0").await;
        raw.send(b'E', b"\0\0\0\0\0").await;
        raw.send(b'S', b"").await;
        let answers = raw.until(b'Z').await.unwrap();
        assert_eq!(answers.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), b"EZ");
        raw.send(b'P', b"\0\0\0\0").await;
        raw.send(b'B', b"\0\0\0\0\0\0\0\0").await;
        raw.send(b'D', b"P\0").await;
        raw.send(b'E', b"\0\0\0\0\0").await;
        raw.send(b'S', b"").await;
        let answers = raw.until(b'Z').await.unwrap();
        assert_eq!(answers.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), b"12nIZ");
        fixture.stop().await;
    });
}
