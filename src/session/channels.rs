//! LISTEN and NOTIFY: who listens to which channel, and what waits for whom.
//!
//! A notification is put into the inbox of each listener when the transaction that said it ends; a connection empties its inbox as soon as it stands
//! idle, the sender's own as well. Nothing is kept: who is not connected hears nothing.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tidemill_query::notifications::Notification;
use tokio::sync::Notify;

use super::error::{Result, SqlError, state};

/// Bytes that may wait for one listener, who is in a transaction or does not read.
const INBOX_BYTES_MAX: usize = 64 << 20;

/// A notification on its way to a listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Of the session that said it.
    pub pid: i32,
    pub notification: Notification,
}

/// What waits for one session.
#[derive(Debug, Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    all: VecDeque<Arc<Delivered>>,
    bytes: usize,
}

impl Inbox {
    /// Returns when something waits.
    pub async fn arrived(&self) {
        loop {
            let arrived = self.arrived.notified();
            if !self.waiting.lock().all.is_empty() {
                return;
            }
            arrived.await;
        }
    }

    /// All that waits, the oldest first.
    pub fn take(&self) -> VecDeque<Arc<Delivered>> {
        std::mem::take(&mut *self.waiting.lock()).all
    }
}

/// The channels of a server.
#[derive(Debug, Default)]
pub struct Channels {
    listeners: Mutex<HashMap<String, BTreeMap<i32, Arc<Inbox>>>>,
}

impl Channels {
    /// What `pid` listens with: nothing yet. Dropping it ends all its listening.
    pub fn listener(self: &Arc<Self>, pid: i32) -> Listener {
        Listener { channels: Arc::clone(self), pid, inbox: Arc::default() }
    }

    /// Puts the notifications into the inboxes of all who listen. 54000, and nothing is sent, when that of one of them is full.
    pub fn send(&self, pid: i32, notifications: Vec<Notification>) -> Result<()> {
        let listeners = self.listeners.lock();
        let mut bytes: BTreeMap<i32, (usize, &Arc<Inbox>)> = BTreeMap::new();
        for notification in &notifications {
            for (listener, inbox) in listeners.get(&notification.channel).into_iter().flatten() {
                bytes.entry(*listener).or_insert((0, inbox)).0 += notification.bytes();
            }
        }
        // Inboxes only get emptier meanwhile.
        if let Some((listener, _)) =
            bytes.iter().find(|(_, (bytes, inbox))| inbox.waiting.lock().bytes + bytes > INBOX_BYTES_MAX)
        {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "too many notifications in the NOTIFY queue")
                .with_detail(format!(
                    "The session with PID {listener} listens, and has not taken {} MB of them.",
                    INBOX_BYTES_MAX >> 20
                ))
                .with_hint(
                    "Have it end its transaction or read its connection, or end it with pg_terminate_backend.",
                ));
        }
        for notification in notifications {
            let Some(inboxes) = listeners.get(&notification.channel) else { continue };
            let bytes = notification.bytes();
            let delivered = Arc::new(Delivered { pid, notification });
            for inbox in inboxes.values() {
                let mut waiting = inbox.waiting.lock();
                waiting.all.push_back(Arc::clone(&delivered));
                waiting.bytes += bytes;
                drop(waiting);
                inbox.arrived.notify_waiters();
            }
        }
        Ok(())
    }
}

/// One session's ears.
#[derive(Debug)]
pub struct Listener {
    channels: Arc<Channels>,
    pid: i32,
    inbox: Arc<Inbox>,
}

impl Listener {
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    pub fn listen(&self, channel: &str) {
        let mut listeners = self.channels.listeners.lock();
        listeners.entry(channel.to_owned()).or_default().insert(self.pid, Arc::clone(&self.inbox));
    }

    /// `None`: to no channel any more.
    pub fn unlisten(&self, channel: Option<&str>) {
        self.channels.listeners.lock().retain(|known, inboxes| {
            if channel.is_none_or(|channel| channel == known) {
                inboxes.remove(&self.pid);
            }
            !inboxes.is_empty()
        });
    }

    /// 54000 when a listener's inbox is full.
    pub fn send(&self, notifications: Vec<Notification>) -> Result<()> {
        match notifications.is_empty() {
            true => Ok(()),
            false => self.channels.send(self.pid, notifications),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.unlisten(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(channel: &str, payload: &str) -> Notification {
        Notification { channel: channel.into(), payload: payload.into() }
    }

    fn heard(listener: &Listener) -> Vec<String> {
        listener.inbox().take().iter().map(|heard| format!("{} {}", heard.pid, heard.notification.payload)).collect()
    }

    #[test]
    fn those_who_listen_hear() {
        let channels = Arc::new(Channels::default());
        let (one, other) = (channels.listener(1), channels.listener(2));
        one.listen("a");
        one.listen("a");
        other.listen("a");
        other.listen("b");
        one.send(vec![said("a", "x"), said("b", "y"), said("c", "z")]).unwrap();
        assert_eq!((heard(&one), heard(&other)), (vec!["1 x".to_owned()], vec!["1 x".into(), "1 y".into()]));
        other.unlisten(Some("a"));
        other.send(vec![said("a", "x")]).unwrap();
        assert_eq!((heard(&one).len(), heard(&other).len()), (1, 0));
        drop((one, other));
        assert!(channels.listeners.lock().is_empty());
    }

    #[test]
    fn an_inbox_that_is_full_stops_who_sends() {
        let channels = Arc::new(Channels::default());
        let (one, deaf) = (channels.listener(1), channels.listener(2));
        deaf.listen("a");
        let mut sent = 0;
        let error = loop {
            match one.send(vec![said("a", &"x".repeat(7000)); 100]) {
                Ok(()) => sent += 100,
                Err(error) => break error,
            }
        };
        assert_eq!(error.state, state::PROGRAM_LIMIT_EXCEEDED);
        assert!(error.detail.unwrap().contains("PID 2"));
        assert_eq!(heard(&deaf).len(), sent);
        one.send(vec![said("a", "x")]).unwrap();
    }
}
