//! Ingestion over the real metadata file: crashes at random moments, every row once.

use std::sync::Arc;

use tidemill::catalog::{database::Database, metadata_log::RedbMetadataLog};
use tidemill_ingest::{commit::MetadataLog, seal::SealPolicy};
use tidemill_storage::{clock::SystemClock, ids::TableId};

#[path = "../../ingest/tests/it/harness.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the tests of ingestion, which use all of it")]
mod harness;

use harness::{Options, Rig, Rng, TABLE, Topic};

fn log(directory: &tempfile::TempDir) -> Arc<dyn MetadataLog> {
    let database = Database::open(directory.path().join("metadata.redb"), Arc::new(SystemClock::new())).unwrap();
    let log = RedbMetadataLog::open(Arc::clone(&database)).unwrap();
    database.write(|change| RedbMetadataLog::create_table(change, TABLE, 8)).unwrap();
    Arc::new(log)
}

#[test]
fn crashes_between_commits_lose_and_repeat_nothing() {
    for seed in 1..=4u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let directory = tempfile::tempdir().unwrap();
        let topic = Topic::new(3);
        let options = Options {
            policy: SealPolicy { rows: Some(200 + rng.below(2_000)), bytes: 1 << 30, after_us: 20_000 },
            ..Options::default()
        };
        for _ in 0..5 {
            let rig = Rig::open(directory.path(), log(&directory), &topic, &options);
            for _ in 0..4 {
                topic.produce(rng.below(3) as usize, rng.below(3_000));
                std::thread::sleep(std::time::Duration::from_millis(rng.below(20)));
            }
            rig.crash();
        }
        let rig = Rig::open(directory.path(), log(&directory), &topic, &options);
        rig.drain().unwrap();
        rig.verify();
        rig.wait(rig.ingest.seal()).unwrap();
        rig.crash();
        let rig = Rig::open(directory.path(), log(&directory), &topic, &options);
        rig.verify();
        assert!(rig.ingest.status().iter().all(|partition| partition.rows == 0));
        rig.crash();
    }
}

#[test]
fn a_dropped_table_keeps_its_memory_bounded_and_its_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let topic = Topic::new(1);
    let database = Database::open(directory.path().join("metadata.redb"), Arc::new(SystemClock::new())).unwrap();
    let log = Arc::new(RedbMetadataLog::open(Arc::clone(&database)).unwrap());
    database.write(|change| RedbMetadataLog::create_table(change, TABLE, 8)).unwrap();
    let rig = Rig::open(directory.path(), log.clone(), &topic, &Options::default());
    topic.produce(0, 5_000);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    topic.produce(0, 100);
    rig.drain().unwrap();
    rig.ingest.stop();
    assert_eq!((rig.runtime.budget().consuming(), rig.runtime.budget().sealing()), (0, 0));
    database.write(|change| RedbMetadataLog::drop_table(change, TABLE)).unwrap();
    rig.ingest.remove_files().unwrap();
    assert!(!directory.path().join("numbers").try_exists().unwrap());
    assert!(log.partition(TableId(TABLE.0), Default::default()).unwrap().segments.is_empty());
    rig.runtime.stop();
}
