//! Errors as SQL clients see them: a SQLSTATE, a message, and where known a detail, a hint and a position; and what the errors of other
//! packages become.

mod sql_error;

use datafusion::error::DataFusionError;

pub use self::sql_error::{Result, SqlError, state};

impl From<tidemill_query::SqlError> for SqlError {
    fn from(error: tidemill_query::SqlError) -> Self {
        Self {
            state: error.sqlstate,
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: error.position.and_then(|position| u32::try_from(position).ok()),
            context: None,
        }
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        Self::from(tidemill_query::SqlError::from(error))
    }
}

impl From<arrow::error::ArrowError> for SqlError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::from(tidemill_query::SqlError::from(error))
    }
}

impl From<tidemill_storage::Error> for SqlError {
    fn from(error: tidemill_storage::Error) -> Self {
        Self::from(tidemill_query::SqlError::from(error))
    }
}

impl From<tidemill_ingest::Error> for SqlError {
    fn from(error: tidemill_ingest::Error) -> Self {
        use tidemill_ingest::Error as E;
        match error {
            E::Definition { message, hint } => Self { hint, ..Self::new(state::INVALID_PARAMETER_VALUE, message) },
            E::Mismatch { message, hint } => Self { hint, ..Self::new(state::DATATYPE_MISMATCH, message) },
            E::Expression { state, message } => Self::new(state, message),
            E::Unsupported { message, hint } => Self { hint, ..Self::unsupported(message) },
            E::Unavailable(message) | E::Missing(message) => Self::new(state::CONNECTION_FAILURE, message),
            E::Storage(error) => Self::from(error),
            E::DataFusion(error) => Self::from(tidemill_query::SqlError::from_datafusion(&error, "")),
            error => Self::internal(error.to_string()),
        }
    }
}
