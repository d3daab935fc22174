//! Where a session stands between BEGIN and COMMIT.
//!
//! Every statement is its own: an INSERT is durable and visible when it returns, and ROLLBACK does not take it back (the client is
//! told so). What BEGIN gives is what clients rely on beside that: the state in ReadyForQuery, statements refused after an error,
//! cursors that live until the end, SET LOCAL.

/// What ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    Open,
    Failed,
}

/// The state of the transaction, and its savepoints.
#[derive(Clone, Debug)]
pub struct Transaction {
    status: Status,
    /// Inside a string of several statements, which PostgreSQL runs as one transaction.
    pub implicit: bool,
    /// Something was inserted that ROLLBACK would have to take back.
    pub wrote: bool,
    savepoints: Vec<String>,
}

impl Default for Transaction {
    fn default() -> Self {
        Self { status: Status::Idle, implicit: false, wrote: false, savepoints: Vec::new() }
    }
}

impl Transaction {
    pub fn status(&self) -> Status {
        self.status
    }

    pub fn begin(&mut self) {
        self.status = Status::Open;
        self.wrote = false;
        self.savepoints.clear();
    }

    pub fn end(&mut self) {
        *self = Self { implicit: self.implicit, ..Self::default() };
    }

    pub fn fail(&mut self) {
        if self.status == Status::Open {
            self.status = Status::Failed;
        }
    }

    /// Whether a cursor declared now outlives its statement.
    pub fn is_block(&self) -> bool {
        self.status != Status::Idle || self.implicit
    }

    pub fn savepoint(&mut self, name: &str) {
        self.savepoints.push(name.to_owned());
    }

    /// Goes back to a savepoint, which stays; false when there is none of the name.
    pub fn rollback_to(&mut self, name: &str) -> bool {
        let Some(index) = self.savepoints.iter().rposition(|known| known == name) else { return false };
        self.savepoints.truncate(index + 1);
        if self.status == Status::Failed {
            self.status = Status::Open;
        }
        true
    }

    pub fn release(&mut self, name: &str) -> bool {
        let Some(index) = self.savepoints.iter().rposition(|known| known == name) else { return false };
        self.savepoints.truncate(index);
        true
    }
}
