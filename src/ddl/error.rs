//! What goes wrong below DDL, as SQL clients are told it.

use crate::{
    catalog::database::DatabaseError,
    session::error::{SqlError, state},
    sql::ast::OptionPair,
};

impl From<DatabaseError> for SqlError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Refused(message) => Self::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message),
            error => Self::new(state::IO_ERROR, error.to_string()),
        }
    }
}

impl From<tidemill_ingest::Error> for SqlError {
    fn from(error: tidemill_ingest::Error) -> Self {
        use tidemill_ingest::Error;
        match error {
            Error::Definition { message, hint } => {
                let error = Self::new(state::INVALID_PARAMETER_VALUE, message);
                match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
            Error::Unavailable(message) => Self::new(state::CANNOT_ESTABLISH_CONNECTION, message),
            Error::Storage(error) => error.into(),
            Error::DataFusion(error) => tidemill_query::SqlError::from_datafusion(&error, "").into(),
            error => Self::new(state::IO_ERROR, error.to_string()),
        }
    }
}

impl From<tidemill_storage::Error> for SqlError {
    fn from(error: tidemill_storage::Error) -> Self {
        use tidemill_storage::Error;
        let code = match &error {
            Error::Corrupt { .. } | Error::Poisoned { .. } => state::DATA_CORRUPTED,
            Error::Io { kind: std::io::ErrorKind::StorageFull, .. } => state::DISK_FULL,
            Error::Io { .. } => state::IO_ERROR,
            _ => state::INTERNAL_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

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

/// Gives an error the place of the option that its message names.
pub(super) fn locate(error: SqlError, options: &[OptionPair]) -> SqlError {
    if error.position.is_some() {
        return error;
    }
    let named = |pair: &&OptionPair| {
        error.message.contains(&format!("'{}'", pair.key.value))
            || error.message.contains(&format!("\"{}\"", pair.key.value))
    };
    // An option's key may be the value of another one; the message names the key first.
    let place = options.iter().filter(named).min_by_key(|pair| error.message.find(&pair.key.value));
    match place {
        Some(pair) => {
            let about_value = !error.message.starts_with("unknown option");
            let position = if about_value { pair.value_position } else { pair.key.position };
            error.at(position)
        }
        None => error,
    }
}
