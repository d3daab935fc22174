//! Errors as PostgreSQL states them: a SQLSTATE that clients decide by, a message in its wording, a hint, a position.
//!
//! Our own code raises [`SqlError`] and lets it travel inside `DataFusionError::External`; what DataFusion, Arrow and the SQL parser
//! raise by themselves is read here, and only here, from their types and, where those tell too little, from their words.

mod near;
mod read;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

pub(crate) use self::near::nearest;
use self::read::{read, read_arrow, read_storage};

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// Five characters, PostgreSQL's appendix A.
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Character of the statement's text, counted from 1.
    pub position: Option<usize>,
}

impl SqlError {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn at(mut self, position: Option<usize>) -> Self {
        self.position = self.position.or(position);
        self
    }

    pub fn not_supported(what: impl fmt::Display) -> Self {
        Self::new("0A000", format!("{what} is not supported"))
    }

    pub fn undefined_table(name: &str) -> Self {
        Self::new("42P01", format!("relation \"{name}\" does not exist"))
    }

    pub fn datatype_mismatch(message: impl Into<String>) -> Self {
        Self::new("42804", message)
    }

    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new("42601", message)
    }

    pub fn invalid_text(type_name: &str, text: &str) -> Self {
        Self::new("22P02", format!("invalid input syntax for type {type_name}: \"{text}\""))
    }

    pub fn invalid_datetime(type_name: &str, text: &str) -> Self {
        Self::new("22007", format!("invalid input syntax for type {type_name}: \"{text}\""))
    }

    pub fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::new("22023", message)
    }

    pub fn out_of_range(type_name: &str) -> Self {
        Self::new("22003", format!("{type_name} out of range"))
    }

    pub fn division_by_zero() -> Self {
        Self::new("22012", "division by zero")
    }

    pub fn cancelled() -> Self {
        Self::new("57014", "canceling statement due to user request")
    }

    pub fn timed_out() -> Self {
        Self::new("57014", "canceling statement due to statement timeout")
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new("XX000", message)
    }

    /// Adds positions that DataFusion and the parser give as line and column of `sql`.
    pub fn from_datafusion(error: &DataFusionError, sql: &str) -> Self {
        read(error, sql)
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sqlstate, self.message)
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<SqlError> for ArrowError {
    fn from(error: SqlError) -> Self {
        Self::ExternalError(Box::new(error))
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        read(&error, "")
    }
}

impl From<ArrowError> for SqlError {
    fn from(error: ArrowError) -> Self {
        read_arrow(&error)
    }
}

impl From<tidemill_storage::Error> for SqlError {
    fn from(error: tidemill_storage::Error) -> Self {
        read_storage(&error)
    }
}
