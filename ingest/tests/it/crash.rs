//! A crash, a failure and a panic at every step of the commit.

use std::sync::Arc;

use fail::FailScenario;

use crate::harness::{FAILPOINTS, MemoryLog, Options, Rig, Topic};

/// Every named step, in order.
const STEPS: [&str; 10] = [
    "commit::begin",
    "seal::create",
    "seal::write",
    "seal::sync_file",
    "seal::rename",
    "seal::sync_dir",
    "seal::verify",
    "commit::segment_written",
    "commit::before_log",
    "commit::after_log",
];

fn at_every_step(action: &str) {
    let _guard = FAILPOINTS.write();
    let scenario = FailScenario::setup();
    for step in STEPS {
        let directory = tempfile::tempdir().unwrap();
        let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(2));
        let options = Options::default();
        let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
        topic.produce(0, 300);
        topic.produce(1, 300);
        rig.drain().unwrap();
        rig.wait(rig.ingest.seal()).unwrap();
        topic.produce(0, 300);
        topic.produce(1, 300);
        rig.drain().unwrap();

        fail::cfg(step, action).unwrap();
        let error = rig.wait(rig.ingest.seal()).expect_err(step);
        assert!(error.to_string().contains("is tried again"), "{step}: {error}");
        rig.verify();
        assert!(rig.has_event("seal_failed"), "{step}");
        rig.crash();

        // The failure goes on: a second life under it loses nothing either.
        let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
        rig.drain().unwrap();
        rig.verify();
        topic.produce(0, 300);
        rig.drain().unwrap();
        let _ = rig.wait(rig.ingest.seal());
        rig.verify();

        // And when it passes, the same life commits what it holds.
        fail::remove(step);
        rig.wait_until("all is committed", |rig| {
            let _ = rig.wait(rig.ingest.seal());
            rig.ingest.status().iter().all(|partition| partition.committed == topic.high(partition.source_partition))
        });
        rig.verify();
        rig.crash();
        let rig = Rig::open(directory.path(), log, &topic, &options);
        rig.verify();
        assert_eq!(rig.table.snapshot().rows(), rig.rows().values().map(|rows| rows.len() as u64).sum::<u64>());
        rig.crash();
    }
    scenario.teardown();
}

#[test]
fn a_failure_at_any_step_loses_and_repeats_nothing() {
    at_every_step("return");
}

#[test]
fn a_panic_at_any_step_loses_and_repeats_nothing() {
    at_every_step("panic");
}
