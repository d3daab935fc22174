//! The connectors of sources: one for all tables that read a source, so that they share its fetch.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tidemill_ingest::{
    decode::Format,
    source::{
        Connected, Connector,
        rate::{Limits, Rates},
    },
};
use tidemill_storage::{clock::Clock, ids::SourceId};

use super::live;
use crate::catalog::definition::SourceDefinition;

/// Connectors that are in use, by source. What of a source's definition makes its connector never changes.
#[derive(Debug, Default)]
pub struct Connections {
    known: Mutex<BTreeMap<SourceId, Known>>,
    /// How fast sources are read; ALTER SOURCE changes it while they are.
    limits: Mutex<BTreeMap<SourceId, Weak<Limits>>>,
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

    /// How fast a source is read, the same for all who read it. Errors: options that are no rates.
    pub fn limits(&self, source: &SourceDefinition) -> Result<Arc<Limits>, tidemill_ingest::Error> {
        let rates = Rates::take(&mut source.options.clone())?;
        let mut all = self.limits.lock();
        all.retain(|_, limits| limits.strong_count() > 0);
        let known = all.get(&source.id).and_then(Weak::upgrade);
        let limits = known.unwrap_or_default();
        limits.set(rates);
        all.insert(source.id, Arc::downgrade(&limits));
        Ok(limits)
    }
}
