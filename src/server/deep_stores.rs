//! The deep stores of the server, a role each, and what in them no definition names.

use std::{collections::BTreeSet, sync::Arc};

use tidemill_ingest::deep_store::DeepStore;
use tidemill_storage::ids::TableId;

use super::{Error, instance::Instance};
use crate::{catalog::Definitions, config::Config, runtime};

/// Where copies go to; `None` where there are none.
#[derive(Debug)]
pub struct DeepStores {
    /// Of tables.
    pub segments: Option<DeepStore>,
    /// Of pipelines.
    pub checkpoints: Option<DeepStore>,
}

impl DeepStores {
    /// `server`: what no other one is called. Asks nothing of the stores yet.
    pub fn open(config: &Config, server: u64, tokio: &tokio::runtime::Handle) -> Result<Self, Error> {
        let open = |url: &Option<String>, setting: &str, part: &str| -> Result<Option<DeepStore>, Error> {
            let Some(url) = url else { return Ok(None) };
            let store = DeepStore::open(url, tokio.clone()).map_err(|error| Error(format!("{setting}: {error}")))?;
            Ok(Some(store.folder(format!("{server:016x}")).folder(part)))
        };
        Ok(Self {
            segments: open(&config.segments_url, "storage.segments_url", "tables")?,
            checkpoints: open(&config.checkpoints_url, "storage.checkpoints_url", "pipelines")?,
        })
    }

    /// Where the checkpoints of a pipeline go to.
    pub fn pipeline(&self, id: TableId) -> Option<DeepStore> {
        self.checkpoints.as_ref().map(|store| store.folder(id))
    }
}

/// Deletes in the background what no definition names: what was dropped, also before a crash. A store that does not answer keeps it until the next time.
pub fn clean(instance: &Arc<Instance>) {
    let instance = Arc::clone(instance);
    runtime::spawn(runtime::blocking(move || {
        let (segments, checkpoints) = (&instance.deep_stores.segments, &instance.deep_stores.checkpoints);
        clean_store(&instance, segments.as_ref(), |definitions| definitions.tables.keys().copied().collect());
        clean_store(&instance, checkpoints.as_ref(), |definitions| definitions.pipelines.keys().copied().collect());
    }));
}

fn clean_store(instance: &Instance, store: Option<&DeepStore>, ids: fn(&Definitions) -> BTreeSet<TableId>) {
    let Some(store) = store else { return };
    let cleaned = store.list().and_then(|found| {
        // After the list: what has a definition by now may have had none when something of it was there.
        let ids = ids(&instance.catalog.definitions());
        let is_unnamed = |name: &String| {
            let id = name.split_once('/').and_then(|(id, _)| id.parse().ok()).map(TableId);
            id.is_some_and(|id| !ids.contains(&id))
        };
        let unnamed: Vec<String> = found.into_iter().map(|(name, _)| name).filter(is_unnamed).collect();
        if unnamed.is_empty() { Ok(()) } else { store.delete(&unnamed) }
    });
    if let Err(error) = cleaned {
        tracing::warn!(%error, "what dropped tables and pipelines have in the deep store stays until the next start");
    }
}
