//! A topic that is deleted and made anew under its old name: its offsets are not those that were read, and nothing of it may be read by them.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_ingest::{
    commit::MetadataLog,
    consumer::{PartitionStatus, reset},
    source::Start,
};
use tidemill_storage::{clock::ManualClock, ids::PartitionId};

use crate::harness::{MemoryLog, Options, Rig, SOURCE, Topic, no_failpoints};

fn state_of(rig: &Rig, partition: u32) -> Option<PartitionStatus> {
    rig.ingest.status().into_iter().find(|status| status.source_partition == partition)
}

fn count(rig: &Rig) -> usize {
    rig.rows().values().map(Vec::len).sum()
}

fn reset_to(rig: &Rig, start: &Start) -> tidemill_ingest::Result<BTreeMap<u32, u64>> {
    rig.wait(reset(&[Arc::clone(&rig.ingest)], SOURCE, start))
}

fn opened(directory: &tempfile::TempDir, log: &Arc<MemoryLog>, topic: &Arc<Topic>) -> Rig {
    Rig::open(directory.path(), Arc::clone(log) as _, topic, &Options::default())
}

/// It used to be read on at the old offset, in silence, when it had grown past it while the server was down.
#[test]
fn a_topic_made_anew_while_we_were_down_is_not_read_until_somebody_says_so() {
    let _no = no_failpoints();
    let (directory, log, topic) = (tempfile::tempdir().unwrap(), Arc::new(MemoryLog::default()), Topic::new(2));
    topic.all_good.store(true, Ordering::Relaxed);
    topic.produce(0, 10);
    topic.produce(1, 7);
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    let before = rig.rows();
    rig.crash();

    topic.remake(100);
    let rig = opened(&directory, &log, &topic);
    for _ in 0..2 {
        rig.wait_until("both partitions stop", |rig| {
            (0..2).all(|partition| state_of(rig, partition).is_some_and(|status| status.state == "stopped"))
        });
        let error = state_of(&rig, 0).unwrap().error.unwrap();
        assert!(error.contains("offset 8 is not the one") && error.contains("RESET OFFSETS TO 'earliest'"), "{error}");
        assert!(rig.has_event("topic_remade"));
        assert_eq!(rig.rows(), before, "no row of the new topic");
        // To go on as if nothing had happened is no way round.
        rig.ingest.resume(SOURCE).unwrap();
    }
    reset_to(&rig, &Start::Offsets(BTreeMap::from([(2, 0)]))).unwrap_err();
    reset_to(&rig, &Start::Offsets(BTreeMap::from([(0, 101)]))).unwrap_err();
    assert_eq!(rig.rows(), before);

    assert_eq!(reset_to(&rig, &Start::Earliest).unwrap(), BTreeMap::from([(0, 0), (1, 0)]));
    rig.drain().unwrap();
    // The rows that were there stay: of ten offsets eight have messages.
    assert_eq!(count(&rig), 8 + 6 + 2 * 80);
    assert!(rig.has_event("source_reset"));
    rig.crash();
    let rig = opened(&directory, &log, &topic);
    topic.produce(0, 5);
    rig.drain().unwrap();
    assert_eq!(count(&rig), 8 + 6 + 2 * 80 + 4);
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    assert_eq!(count(&rig), 8 + 6 + 2 * 80 + 4);
    rig.crash();
}

#[test]
fn a_topic_that_vanishes_and_comes_back_as_another_one_stops_while_it_is_read() {
    let _no = no_failpoints();
    let (directory, log, topic) = (tempfile::tempdir().unwrap(), Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    topic.produce(0, 10);
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    topic.missing.store(true, Ordering::SeqCst);
    rig.wait_until("it is missed", |rig| rig.has_event("source_unavailable"));
    // The same topic after all.
    topic.missing.store(false, Ordering::SeqCst);
    topic.produce(0, 10);
    rig.drain().unwrap();
    assert_eq!(count(&rig), 16);

    topic.missing.store(true, Ordering::SeqCst);
    let missed = |rig: &Rig| rig.events.recent().iter().filter(|event| event.kind == "source_unavailable").count() == 2;
    rig.wait_until("it is missed again", missed);
    topic.remake(1000);
    topic.missing.store(false, Ordering::SeqCst);
    rig.wait_until("it stops", |rig| state_of(rig, 0).is_some_and(|status| status.state == "stopped"));
    assert!(rig.has_event("topic_remade"));
    assert_eq!(count(&rig), 16, "no row of the new topic");
    rig.crash();
}

/// Shorter first, longer than what was read at the next look: it once passed for the old one.
#[test]
fn a_short_topic_that_grows_is_still_another_one() {
    let _no = no_failpoints();
    let (directory, log, topic) = (tempfile::tempdir().unwrap(), Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    topic.produce(0, 10);
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();
    topic.remake(3);
    let rig = opened(&directory, &log, &topic);
    rig.wait_until("it is connected", |rig| state_of(rig, 0).is_some_and(|status| status.state == "running"));
    topic.produce(0, 100);
    rig.wait_until("it stops", |rig| state_of(rig, 0).is_some_and(|status| status.state == "stopped"));
    assert_eq!(count(&rig), 8);
    // To the end of the new one: nothing of it so far.
    assert_eq!(reset_to(&rig, &Start::Latest).unwrap(), BTreeMap::from([(0, 103)]));
    topic.produce(0, 10);
    rig.drain().unwrap();
    assert_eq!(count(&rig), 16);
    rig.crash();
}

/// Within one look: nothing was missing and nothing got shorter.
#[test]
fn a_topic_replaced_at_once_while_it_is_read_is_told_late_with_the_offsets() {
    let _no = no_failpoints();
    let (directory, log, topic) = (tempfile::tempdir().unwrap(), Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    topic.produce(0, 10);
    let clock = Arc::new(ManualClock::at(0));
    let options = Options { clock: clock.clone(), ..Options::default() };
    let rig = Rig::open(directory.path(), Arc::clone(&log) as _, &topic, &options);
    rig.drain().unwrap();
    // The next look takes what was read for where the next question begins.
    std::thread::sleep(Duration::from_secs(7));
    topic.remake(1000);
    rig.drain().unwrap();
    clock.advance_us(31_000_000);
    rig.wait_until("it stops", |rig| state_of(rig, 0).is_some_and(|status| status.state == "stopped"));
    let error = state_of(&rig, 0).unwrap().error.unwrap();
    assert!(error.contains("rows of offsets 10 to 1000 (excluded) may be of the new one"), "{error}");
    rig.crash();
}

#[test]
fn what_retention_or_compaction_took_proves_nothing() {
    let _no = no_failpoints();
    let (directory, log, topic) = (tempfile::tempdir().unwrap(), Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    topic.produce(0, 10);
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();
    // Offset 9 never had a message; 8, the last one that was read, is gone.
    topic.produce(0, 10);
    topic.lose_below(0, 10);
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    assert_eq!(count(&rig), 16);
    rig.crash();
    assert_eq!(log.partition(crate::harness::TABLE, PartitionId(0)).unwrap().landmarks[0].1.offset, 8);
}

#[test]
fn partitions_are_shown_with_their_offsets_before_the_source_answers() {
    let _no = no_failpoints();
    let (directory, log, topic) = (tempfile::tempdir().unwrap(), Arc::new(MemoryLog::default()), Topic::new(2));
    topic.all_good.store(true, Ordering::Relaxed);
    topic.produce(0, 10);
    let rig = opened(&directory, &log, &topic);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();
    topic.missing.store(true, Ordering::SeqCst);
    let rig = opened(&directory, &log, &topic);
    rig.wait_until("the error shows", |rig| state_of(rig, 0).is_some_and(|status| status.error.is_some()));
    let status = state_of(&rig, 0).unwrap();
    assert_eq!((status.state, status.position, status.committed, status.high), ("waiting", 10, 10, None));
    assert_eq!(state_of(&rig, 1).unwrap().state, "waiting");
    topic.missing.store(false, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(1));
    rig.drain().unwrap();
    assert_eq!((state_of(&rig, 0).unwrap().state, count(&rig)), ("running", 8));
    rig.crash();
}
