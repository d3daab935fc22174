//! LISTEN, UNLISTEN and NOTIFY of a session: done at once outside of BEGIN, else when the transaction is committed, or never.

use super::{
    Delivered, Response, Session,
    error::{Result, SqlError},
    transaction::Mark,
};

/// What becomes of a session's listening at the end of its transaction; `None` of [`Self::Unlisten`]: all channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listening {
    Listen(String),
    Unlisten(Option<String>),
}

impl Session {
    pub(super) fn change_listening(&mut self, change: Listening) -> Result<Response> {
        let tag = match &change {
            Listening::Listen(_) => "LISTEN",
            Listening::Unlisten(_) => "UNLISTEN",
        };
        self.listening.push(change);
        self.settle_listening()?;
        Ok(Response::Command(tag.to_owned()))
    }

    pub(super) fn notify(&mut self, channel: &str, payload: &str) -> Result<Response> {
        self.query.outbox().push(channel, payload)?;
        self.settle_listening()?;
        Ok(Response::Command("NOTIFY".to_owned()))
    }

    /// Outside of a transaction block each statement is one.
    fn settle_listening(&mut self) -> Result<()> {
        if self.transaction.is_block() { Ok(()) } else { self.commit_listening() }
    }

    /// The transaction took place. 54000 when somebody who listens takes nothing any more.
    pub(super) fn commit_listening(&mut self) -> Result<()> {
        for change in std::mem::take(&mut self.listening) {
            match change {
                Listening::Listen(channel) => self.listener.listen(&channel),
                Listening::Unlisten(channel) => self.listener.unlisten(channel.as_deref()),
            }
        }
        let said = self.query.outbox().take();
        self.listener.send(said)
    }

    /// The transaction, or what came after a savepoint of it, did not take place.
    pub(super) fn forget_listening(&mut self, from: Mark) {
        self.listening.truncate(from.listening);
        self.query.outbox().truncate(from.said);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { listening: self.listening.len(), said: self.query.outbox().len() }
    }

    /// What the session is to be told; nothing while a transaction is open.
    pub fn take_delivered(&mut self) -> impl Iterator<Item = std::sync::Arc<Delivered>> + use<> {
        let is_idle = self.status() == super::Status::Idle;
        is_idle.then(|| self.listener.inbox().take()).into_iter().flatten()
    }

    /// For who waits for something to be delivered.
    pub fn inbox(&self) -> &std::sync::Arc<super::Inbox> {
        self.listener.inbox()
    }

    /// A transaction without BEGIN is over, its statements are answered.
    pub(super) fn end_listening(&mut self) {
        if let Err(SqlError { state, message, .. }) = self.commit_listening() {
            self.notice(true, state, format!("{message}: what pg_notify said was not sent"));
        }
    }
}
