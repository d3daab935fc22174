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
