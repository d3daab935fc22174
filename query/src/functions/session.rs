//! Functions that tell of, or change, the session: `version()`, `current_setting`, `set_config`, `pg_backend_pid`, …

use std::{any::Any, sync::Arc};

use datafusion::{
    common::config::{ConfigEntry, ConfigExtension, ExtensionOptions},
    error::DataFusionError,
    logical_expr::ScalarUDF,
};

use crate::session::SessionShared;

/// The PostgreSQL whose behaviour is followed.
pub const SERVER_VERSION: &str = "15.0";

/// The session, for functions: it travels in the configuration that every function call is given.
#[derive(Clone, Debug)]
pub(crate) struct SessionFacts {
    pub(crate) shared: Arc<SessionShared>,
}

impl ConfigExtension for SessionFacts {
    const PREFIX: &'static str = "tidemill";
}

impl ExtensionOptions for SessionFacts {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<(), DataFusionError> {
        Err(DataFusionError::Configuration(format!("unrecognized configuration parameter \"{key}\"")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    Vec::new()
}
