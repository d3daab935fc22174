//! PostgreSQL's functions where DataFusion has none, or one that answers otherwise.

pub mod session;
pub mod system;

use std::sync::Arc;

use crate::{Engine, SqlError};

/// Puts our functions into every session of `engine`; ours replace DataFusion's of the same name.
pub(crate) fn register(engine: &Arc<Engine>) -> Result<(), SqlError> {
    for udf in session::udfs() {
        engine.register_function(udf)?;
    }
    Ok(())
}
