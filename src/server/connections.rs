//! The connectors of sources: one for all tables that read a source, so that they share its fetch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tidemill_ingest::{
    decode::Format,
    source::{Connected, Connector},
};
use tidemill_storage::{clock::Clock, ids::SourceId};

use super::live;
use crate::catalog::definition::SourceDefinition;

/// Connectors that are in use, by source. A source's definition never changes, so that its connector does not either.
#[derive(Debug, Default)]
pub struct Connections {
    known: Mutex<BTreeMap<SourceId, Known>>,
}

/// A connector and how its messages are decoded.
type Known = (Weak<dyn Connector>, Option<Format>);

impl Connections {
    /// The connector of a source; a new one when nobody holds one. Waits for no broker.
    pub fn get(&self, source: &SourceDefinition, clock: &Arc<dyn Clock>) -> Result<Connected, tidemill_ingest::Error> {
        let mut known = self.known.lock();
        if let Some((connector, format)) = known.get(&source.id)
            && let Some(connector) = connector.upgrade()
        {
            return Ok(Connected { connector, format: format.clone() });
        }
        known.retain(|_, (connector, _)| connector.strong_count() > 0);
        let connected = live::connect(source, clock)?;
        known.insert(source.id, (Arc::downgrade(&connected.connector), connected.format.clone()));
        Ok(connected)
    }
}
