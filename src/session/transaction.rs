//! Where a session stands between BEGIN and COMMIT.
//!
//! Every statement is its own: an INSERT or a definition is durable and visible when it returns, and ROLLBACK does not take it back, nor
//! does an error in a later statement of the same string (the client is told so). What BEGIN gives is what clients rely on beside that: the state in ReadyForQuery, statements refused after an error,
//! cursors that live until the end, SET LOCAL.

/// What ReadyForQuery tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    Open,
    Failed,
}

/// What stays although it was done in a transaction that is rolled back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasting {
    pub rows: bool,
    pub definitions: bool,
}

impl Lasting {
    /// What a client that rolls back is told, if there is something to tell.
    pub fn warning(self) -> Option<&'static str> {
        match (self.rows, self.definitions) {
            (false, false) => None,
            (true, false) => Some(
                "rows changed in this transaction stay: each INSERT, UPDATE, DELETE and COPY is durable when it returns",
            ),
            (false, true) => Some(
                "definitions made in this transaction stay: each CREATE, ALTER and DROP is durable when it returns",
            ),
            (true, true) => Some(
                "rows changed and definitions made in this transaction stay: each statement is durable when it returns",
            ),
        }
    }
}

/// How much a transaction had said and asked to hear at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub listening: usize,
    pub said: usize,
}

/// The state of the transaction, and its savepoints.
#[derive(Clone, Debug)]
pub struct Transaction {
    status: Status,
    /// Inside a string of several statements, which PostgreSQL runs as one transaction.
    pub implicit: bool,
    /// What was done in it, or in a string of several statements, that ROLLBACK would have to take back.
    pub lasting: Lasting,
    savepoints: Vec<(String, Mark)>,
}

impl Default for Transaction {
    fn default() -> Self {
        Self { status: Status::Idle, implicit: false, lasting: Lasting::default(), savepoints: Vec::new() }
    }
}

impl Transaction {
    pub fn status(&self) -> Status {
        self.status
    }

    pub fn begin(&mut self) {
        self.status = Status::Open;
        self.lasting = Lasting::default();
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

    pub fn savepoint(&mut self, name: &str, mark: Mark) {
        self.savepoints.push((name.to_owned(), mark));
    }

    /// Goes back to a savepoint, which stays; `None` when there is none of the name.
    pub fn rollback_to(&mut self, name: &str) -> Option<Mark> {
        let index = self.savepoints.iter().rposition(|(known, _)| known == name)?;
        self.savepoints.truncate(index + 1);
        if self.status == Status::Failed {
            self.status = Status::Open;
        }
        Some(self.savepoints[index].1)
    }

    pub fn release(&mut self, name: &str) -> bool {
        let Some(index) = self.savepoints.iter().rposition(|(known, _)| known == name) else { return false };
        self.savepoints.truncate(index);
        true
    }
}
