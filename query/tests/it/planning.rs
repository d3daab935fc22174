//! Where statements are planned: on the engine's own threads, however long it takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidemill_query::{Engine, EngineConfig, SessionOptions, TableCatalog, TableHandle, parse::parse};
use tidemill_storage::clock::SystemClock;
use tokio::runtime::Builder;

use crate::support::block_on;

/// A catalog in which every look-up takes long, as the planning of a huge statement does.
#[derive(Debug, Default)]
struct Slow {
    asked_on: Mutex<Vec<String>>,
}

impl TableCatalog for Slow {
    fn table(&self, _: &str) -> Option<TableHandle> {
        self.asked_on.lock().push(std::thread::current().name().unwrap_or_default().to_owned());
        std::thread::sleep(Duration::from_millis(300));
        None
    }

    fn tables(&self) -> Vec<TableHandle> {
        Vec::new()
    }
}

#[test]
fn a_slow_plan_holds_up_nothing_else() {
    let cpu = Builder::new_multi_thread().worker_threads(1).thread_name("planning-cpu").enable_all().build().unwrap();
    let spill = tempfile::tempdir().unwrap();
    let tables = Arc::new(Slow::default());
    let catalog = Arc::clone(&tables) as Arc<dyn TableCatalog>;
    let config = EngineConfig::new(spill.path());
    let engine = Engine::new(config, catalog, Arc::new(SystemClock::new()), cpu.handle().clone()).unwrap();
    let session = engine.session(SessionOptions::default());
    let beats = AtomicU32::new(0);
    block_on(async {
        let sql = "SELECT * FROM nowhere";
        let statements = parse(sql).unwrap();
        // On one thread: what blocks it stops the beats.
        let beating = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                beats.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::select! {
            planned = session.plan(&statements[0], sql) => assert_eq!(planned.unwrap_err().sqlstate, "42P01"),
            () = beating => {}
        }
    });
    assert!(beats.into_inner() >= 10, "the caller's thread stood still while the statement was planned");
    let asked_on = tables.asked_on.lock();
    assert!(!asked_on.is_empty() && asked_on.iter().all(|name| name == "planning-cpu"), "{asked_on:?}");
}
