//! What can go wrong on the way in. Bad rows are not errors: they are dead letters.

use std::sync::Arc;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The definition cannot work: an unknown option, a wrong value, a column that fits nothing. The user's to fix.
    #[error("{message}")]
    Definition { message: String, hint: Option<String> },

    /// An SQL expression of a definition that means nothing, with the SQLSTATE of a query that has it. The user's to fix.
    #[error("{message}")]
    Expression { state: &'static str, message: String },

    /// A value of one type is to go where another one is. The user's to fix.
    #[error("{message}")]
    Mismatch { message: String, hint: Option<String> },

    /// What is asked for exists elsewhere and not here.
    #[error("{message}")]
    Unsupported { message: String, hint: Option<String> },

    /// The outside world does not answer as it should right now: a broker that is down, a topic that is not there, a full disk.
    /// Tried again with growing pauses.
    #[error("{0}")]
    Unavailable(String),

    /// What is read does not exist right now: a topic that was deleted. Tried again as above; when it is there again, it may be another one.
    #[error("{0}")]
    Missing(String),

    #[error(transparent)]
    Storage(#[from] tidemill_storage::Error),

    #[error("metadata log: {0}")]
    Commit(String),

    #[error(transparent)]
    DataFusion(Arc<datafusion::error::DataFusionError>),
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        match error {
            // What of ours went through operators of theirs.
            datafusion::error::DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(inner) => Self::DataFusion(Arc::new(datafusion::error::DataFusionError::External(inner))),
            },
            error => Self::DataFusion(Arc::new(error)),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Storage(error.into())
    }
}
