//! What a session says with NOTIFY and `pg_notify`, until its transaction ends.

use std::collections::HashSet;

use crate::SqlError;

/// Bytes of a payload, one more than the most.
const PAYLOAD_BYTES: usize = 8000;
/// Bytes of a channel's name, one more than the most.
const CHANNEL_BYTES: usize = 64;
/// Bytes of all that a transaction says.
const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// What a notification takes beside its texts.
const ENTRY_BYTES: usize = 64;

/// A text for all who listen to a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    pub channel: String,
    pub payload: String,
}

impl Notification {
    /// What it takes in a queue.
    pub fn bytes(&self) -> usize {
        ENTRY_BYTES + self.channel.len() + self.payload.len()
    }
}

/// Notifications of one transaction, in the order in which they were said first: the same is sent once.
#[derive(Debug, Default)]
pub struct Outbox {
    said: Vec<Notification>,
    known: HashSet<Notification>,
    bytes: usize,
}

impl Outbox {
    /// 22023 for names and payloads that are too long, 54000 when a transaction says too much.
    pub fn push(&mut self, channel: &str, payload: &str) -> Result<(), SqlError> {
        if channel.is_empty() {
            return Err(SqlError::invalid_parameter("channel name cannot be empty"));
        }
        if channel.len() >= CHANNEL_BYTES {
            return Err(SqlError::invalid_parameter("channel name too long"));
        }
        if payload.len() >= PAYLOAD_BYTES {
            return Err(SqlError::invalid_parameter("payload string too long").with_hint(format!(
                "It may have {} bytes: put the data into a table and its key into the payload.",
                PAYLOAD_BYTES - 1
            )));
        }
        let notification = Notification { channel: channel.to_owned(), payload: payload.to_owned() };
        if self.known.contains(&notification) {
            return Ok(());
        }
        self.bytes += notification.bytes();
        if self.bytes > OUTBOX_BYTES_MAX {
            self.bytes -= notification.bytes();
            return Err(SqlError::new("54000", "too many notifications in one transaction")
                .with_detail(format!("They may take {} MB.", OUTBOX_BYTES_MAX >> 20)));
        }
        self.known.insert(notification.clone());
        self.said.push(notification);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.said.len()
    }

    pub fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// Forgets all but the first ones.
    pub fn truncate(&mut self, length: usize) {
        for notification in self.said.drain(length.min(self.said.len())..) {
            self.bytes -= notification.bytes();
            self.known.remove(&notification);
        }
    }

    /// All of them; none is left.
    pub fn take(&mut self) -> Vec<Notification> {
        std::mem::take(self).said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_each_once_and_not_too_much() {
        let mut outbox = Outbox::default();
        outbox.push("a", "1").unwrap();
        outbox.push("a", "2").unwrap();
        outbox.push("a", "1").unwrap();
        assert_eq!(outbox.len(), 2);
        outbox.truncate(1);
        outbox.push("a", "2").unwrap();
        outbox.push("b", &"x".repeat(7999)).unwrap();
        assert_eq!(outbox.push("b", &"x".repeat(8000)).unwrap_err().sqlstate, "22023");
        assert_eq!(outbox.push("", "").unwrap_err().sqlstate, "22023");
        assert_eq!(outbox.push(&"c".repeat(64), "").unwrap_err().sqlstate, "22023");
        assert_eq!(outbox.take().len(), 3);
        assert!(outbox.is_empty() && outbox.bytes == 0);
        let filled = (0..).map(|at| outbox.push("a", &format!("{at:7999}"))).find_map(Result::err);
        assert_eq!(filled.unwrap().sqlstate, "54000");
        outbox.truncate(0);
        outbox.push("a", "").unwrap();
    }
}
