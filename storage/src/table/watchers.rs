//! Who is told when the snapshots of a table become others.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering, fence},
    },
};

use parking_lot::Mutex;

/// Is told, after the fact, that a snapshot taken now may be another one than before. Called by whoever publishes, perhaps under its locks: must be quick,
/// must not fail, and takes no snapshot itself.
pub trait TableWatcher: Send + Sync + fmt::Debug {
    fn changed(&self);
}

/// What always holds: who has been added before a snapshot is taken is told of everything that this snapshot does not show.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// Spares those who publish the lock as long as nobody watches.
    are_there: AtomicBool,
    all: Mutex<Vec<Weak<dyn TableWatcher>>>,
}

impl Watchers {
    /// As long as the watcher is held elsewhere.
    pub(super) fn add(&self, watcher: &Arc<dyn TableWatcher>) {
        let mut all = self.all.lock();
        // Of a table that never changes nobody else forgets those that are gone.
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(watcher));
        self.are_there.store(true, Ordering::SeqCst);
        drop(all);
        // Either the snapshot that follows shows what is being published, or `tell` sees the flag.
        fence(Ordering::SeqCst);
    }

    pub(super) fn tell(&self) {
        fence(Ordering::SeqCst);
        if !self.are_there.load(Ordering::SeqCst) {
            return;
        }
        let mut all = self.all.lock();
        all.retain(|watcher| {
            let watcher = watcher.upgrade();
            watcher.inspect(|watcher| watcher.changed()).is_some()
        });
        if all.is_empty() {
            // Under the lock, so that who comes now raises it after this.
            self.are_there.store(false, Ordering::SeqCst);
        }
    }
}
