//! The machine as a whole, over a topic and a log in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidemill_ingest::{
    consumer::{OnGap, partition_directory},
    dead_letters::OnError,
    seal::SealPolicy,
    source::Start,
};
use tidemill_storage::{clock::ManualClock, ids::PartitionId, segment::SegmentState};

use crate::harness::{Fault, MemoryLog, Options, Rig, Rng, SOURCE, Topic, no_failpoints, schema, transform};

#[test]
fn rows_are_visible_sealed_and_there_after_a_restart() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(3));
    let options = Options::default();
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    for partition in 0..3 {
        topic.produce(partition, 5_000);
    }
    rig.drain().unwrap();
    rig.verify();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.verify();
    let status = rig.ingest.status();
    assert_eq!(status.len(), 3);
    for partition in status {
        assert_eq!((partition.position, partition.committed), (5_000, 5_000));
        assert_eq!(partition.rows + partition.dead_letters, 4_000);
        assert_eq!(partition.state, "running");
    }
    assert_eq!(*topic.committed.lock(), BTreeMap::from([(0, 5_000), (1, 5_000), (2, 5_000)]));
    let states: Vec<_> = rig.table.snapshot().views.iter().flat_map(|v| v.segments()).map(|s| s.state()).collect();
    assert!(states.len() >= 6 && states.iter().all(|state| *state == SegmentState::Committed), "{states:?}");
    assert_eq!((rig.runtime.budget().consuming(), rig.runtime.budget().sealing()), (0, 0));
    rig.crash();

    let rig = Rig::open(directory.path(), log, &topic, &options);
    rig.verify();
    topic.produce(0, 77);
    rig.drain().unwrap();
    rig.verify();
    rig.crash();
}

#[test]
fn any_order_of_crashes_seals_and_failing_commits_keeps_every_row_once() {
    let _guard = no_failpoints();
    for seed in 1..=12u64 {
        let mut rng = Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let directory = tempfile::tempdir().unwrap();
        let partitions = 1 + rng.below(4) as usize;
        let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(partitions));
        let options = Options {
            partitions: 1 + rng.below(3) as u32,
            policy: SealPolicy {
                rows: (rng.below(4) > 0).then(|| 1 + rng.below(2_000)),
                bytes: 1 << 30,
                after_us: 1_000 + rng.below(50_000) as i64,
            },
            memory_bytes: 20_000 + rng.below(1 << 22),
            ..Options::default()
        };
        let mut rig = Rig::open(directory.path(), log.clone(), &topic, &options);
        for _ in 0..15 {
            match rng.below(6) {
                0..=2 => topic.produce(rng.below(partitions as u64) as usize, rng.below(3_000)),
                3 => {
                    let fault = if rng.below(2) == 0 { Fault::Before } else { Fault::After };
                    log.faults.lock().push(fault);
                }
                4 => topic.refuse_polls.store(rng.below(3) as u32, Ordering::SeqCst),
                _ => {
                    rig.crash();
                    rig = Rig::open(directory.path(), log.clone(), &topic, &options);
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(rng.below(15)));
        }
        rig.drain().unwrap_or_else(|error| panic!("seed {seed}: {error}; {:?}", rig.events.recent()));
        rig.verify();
        rig.crash();
        log.faults.lock().clear();
        let rig = Rig::open(directory.path(), log, &topic, &options);
        rig.drain().unwrap();
        rig.verify();
        rig.crash();
    }
}

#[test]
fn memory_stays_bounded_while_seals_fail() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    let options = Options { memory_bytes: 4 << 20, ..Options::default() };
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    rig.wait(rig.ingest.connected(SOURCE)).unwrap();
    log.faults.lock().extend([Fault::Before; 1000]);
    topic.produce(0, 2_000_000);
    rig.wait_until("the budget is full", |rig| {
        let budget = rig.runtime.budget();
        budget.consuming() + budget.sealing() >= budget.bytes_max()
    });
    rig.wait_until("a failed seal is an event", |rig| rig.has_event("seal_failed"));
    let position = rig.ingest.status()[0].position;
    std::thread::sleep(std::time::Duration::from_millis(300));
    // One poll's rows at most.
    let budget = rig.runtime.budget();
    assert!(budget.consuming() + budget.sealing() < budget.bytes_max() + (2 << 20), "{budget:?}");
    assert_eq!(rig.ingest.status()[0].position, position, "consumption goes on past the bound");
    assert!(position < 2_000_000);
    let rows: usize = rig.rows().values().map(Vec::len).sum();
    assert_eq!(rows as u64, (0..position).filter(|offset| offset % 5 != 4).count() as u64);
    log.faults.lock().clear();
    rig.drain().unwrap();
    rig.verify();
    assert!(rig.has_event("seal_recovered"));
    rig.crash();
}

#[test]
fn offsets_without_rows_are_committed_by_age() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    // Offsets 0 to 3 are rows, 3 is bad, 4 has no message.
    let options = Options {
        policy: SealPolicy { rows: Some(1_000), bytes: 1 << 30, after_us: 1 },
        start: Start::Latest,
        ..Options::default()
    };
    topic.produce(0, 4);
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    rig.wait(rig.ingest.connected(SOURCE)).unwrap();
    topic.produce(0, 1);
    rig.wait_until("the offset is committed", |rig| rig.ingest.status().iter().any(|s| s.committed == 5));
    assert!(rig.rows().is_empty());
    assert_eq!(rig.table.snapshot().views[0].segments().count(), 0);
    rig.crash();
    // Latest was settled once: what came while the server was down is read.
    topic.produce(0, 2);
    let rig = Rig::open(directory.path(), log, &topic, &options);
    rig.drain().unwrap();
    assert_eq!(rig.rows(), BTreeMap::from([(0, vec![5, 6])]));
    rig.crash();
}

#[test]
fn a_gap_stops_the_partition_with_a_page_or_is_skipped_with_an_event() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(2));
    topic.produce(0, 10);
    topic.produce(1, 10);
    let mut options = Options::default();
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();

    topic.produce(0, 20);
    topic.lose_below(0, 15);
    topic.produce(1, 5);
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    let error = rig.drain().unwrap_err().to_string();
    assert!(error.contains("offsets 10 to 15 (excluded) of partition 0 of source 'topic'"), "{error}");
    rig.wait_until("the other partition goes on", |rig| rig.ingest.status()[1].position == 15);
    let page = rig.events.recent().into_iter().find(|event| event.kind == "gap").unwrap();
    assert_eq!(page.severity.name(), "page");
    assert_eq!((page.stream, rig.ingest.status()[0].state), (Some(Rig::stream(0)), "stopped"));
    rig.crash();

    options.on_gap = OnGap::Skip;
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    rig.drain().unwrap();
    assert!(rig.has_event("gap"));
    let expected = |range: std::ops::Range<u64>| range.filter(|n| n % 5 != 4 && n % 7 != 3);
    assert_eq!(rig.rows()[&0], expected(0..10).chain(expected(15..30)).collect::<Vec<_>>());
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();
    let rig = Rig::open(directory.path(), log, &topic, &options);
    rig.drain().unwrap();
    assert_eq!(rig.rows()[&0], expected(0..10).chain(expected(15..30)).collect::<Vec<_>>());
    assert!(!rig.has_event("gap"));
    rig.crash();
}

#[test]
fn on_error_stop_takes_all_before_the_bad_message_and_none_after() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    topic.produce(0, 30);
    let mut options = Options { on_error: OnError::Stop, ..Options::default() };
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    let error = rig.drain().unwrap_err().to_string();
    assert!(error.contains("offset 3"), "{error}");
    assert_eq!(rig.rows(), BTreeMap::from([(0, vec![0, 1, 2])]));
    assert!(rig.ingest.status()[0].error.as_ref().unwrap().contains("not a number"));
    rig.ingest.resume(SOURCE).unwrap();
    assert!(rig.drain().is_err());
    assert_eq!(rig.ingest.dead_letters().count(), 0);
    rig.crash();
    options.on_error = OnError::Skip;
    let rig = Rig::open(directory.path(), log, &topic, &options);
    rig.drain().unwrap();
    let status = rig.ingest.status().remove(0);
    assert_eq!((status.rows, status.skipped, status.dead_letters), (21, 3, 0));
    assert_eq!(rig.ingest.dead_letters().count(), 0);
    rig.crash();
}

#[test]
fn new_partitions_are_found_and_read_from_their_beginning() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    let options = Options { start: Start::Latest, ..Options::default() };
    let rig = Rig::open(directory.path(), log, &topic, &options);
    rig.wait(rig.ingest.connected(SOURCE)).unwrap();
    topic.produce(0, 100);
    for partition in 1..6 {
        topic.add_partition();
        topic.produce(partition, 100);
    }
    rig.drain().unwrap();
    rig.verify();
    assert!(rig.has_event("new_partitions"));
    rig.crash();
}

#[test]
fn a_pause_holds_consumption_and_drain_says_so() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    let rig = Rig::open(directory.path(), log, &topic, &Options::default());
    rig.wait(rig.ingest.connected(SOURCE)).unwrap();
    rig.ingest.pause(SOURCE).unwrap();
    topic.produce(0, 100);
    rig.wait_until("it shows as paused", |rig| rig.ingest.status()[0].state == "paused");
    assert!(rig.drain().unwrap_err().to_string().contains("is paused"));
    rig.ingest.resume(SOURCE).unwrap();
    rig.drain().unwrap();
    rig.verify();
    rig.crash();
}

#[test]
fn columns_change_while_rows_arrive() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(3));
    let rig = Rig::open(directory.path(), log, &topic, &Options::default());
    rig.wait(rig.ingest.connected(SOURCE)).unwrap();
    for round in 0..20 {
        for partition in 0..3 {
            topic.produce(partition, 400);
        }
        if round == 10 {
            rig.ingest.set_schema(&schema(2), &BTreeMap::from([(SOURCE, transform(2))])).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    rig.drain().unwrap();
    rig.verify();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.verify();
    let snapshot = rig.table.snapshot();
    let versions: Vec<u32> =
        snapshot.views.iter().flat_map(|view| view.segments()).map(|s| s.schema().version.0).collect();
    assert!(versions.contains(&2), "{versions:?}");
    rig.crash();
}

#[test]
fn a_damaged_or_missing_file_is_quarantined_and_others_go_on() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(2));
    topic.produce(0, 500);
    topic.produce(1, 500);
    let options = Options::default();
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    rig.crash();
    let folder = partition_directory(&directory.path().join("numbers"), PartitionId(0));
    let file = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(folder.join("s00000000000000000099.seg"), b"left by a crash").unwrap();

    let rig = Rig::open(directory.path(), log, &topic, &options);
    assert!(rig.has_event("quarantined"));
    assert!(!folder.join("s00000000000000000099.seg").try_exists().unwrap());
    let snapshot = rig.table.snapshot();
    let states: Vec<_> = snapshot.views[0].segments().map(|segment| segment.state()).collect();
    assert_eq!(states, [SegmentState::Quarantined]);
    topic.produce(0, 10);
    rig.drain().unwrap();
    rig.crash();
}

#[test]
fn retention_removes_old_segments_and_their_files() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    // Row n is of second n.
    let clock = Arc::new(ManualClock::at(0));
    let options =
        Options { partitions: 1, clock: clock.clone(), retention_us: Some(1_000_000_000), ..Options::default() };
    let rig = Rig::open(directory.path(), log, &topic, &options);
    for _ in 0..3 {
        topic.produce(0, 500);
        rig.drain().unwrap();
        rig.wait(rig.ingest.seal()).unwrap();
    }
    let folder = partition_directory(&directory.path().join("numbers"), PartitionId(0));
    let files = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".seg")).count()
    };
    assert_eq!(files(), 3);
    let held = rig.table.snapshot();
    clock.advance_us(1_600_000_000);
    rig.wait_until("the oldest segment is gone", |rig| rig.table.snapshot().views[0].segments().count() == 2);
    rig.wait_until("its file is gone", |_| files() == 2);
    assert_eq!(held.rows(), 1_200);
    assert_eq!(rig.rows()[&0][0], 500);
    rig.crash();
}

/// They stayed until the segment was full or old, which may be never.
#[test]
fn retention_removes_old_rows_that_are_not_sealed_yet() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(1));
    topic.all_good.store(true, Ordering::Relaxed);
    let clock = Arc::new(ManualClock::at(0));
    let options =
        Options { partitions: 1, clock: clock.clone(), retention_us: Some(1_000_000_000), ..Options::default() };
    let rig = Rig::open(directory.path(), log, &topic, &options);
    topic.produce(0, 500);
    rig.drain().unwrap();
    // The newest row is of second 498.
    clock.advance_us(1_400_000_000);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.table.snapshot().rows(), 400);
    for _ in 0..2 {
        clock.advance_us(100_000_000);
        std::thread::sleep(Duration::from_millis(300));
    }
    rig.wait_until("all rows are gone", |rig| {
        clock.advance_us(1_000_000);
        rig.table.snapshot().rows() == 0
    });
    topic.produce(0, 2_000);
    rig.drain().unwrap();
    assert_eq!(rig.table.snapshot().rows(), 1_600);
    rig.crash();
}

/// A watermark was NULL after a restart until the first row arrived, so that whoever waited for it waited for nothing.
#[test]
fn a_watermark_survives_a_restart_as_far_as_it_is_committed() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(2));
    let options = Options { partitions: 1, watermark: Some("at - INTERVAL '2 seconds'"), ..Options::default() };
    let watermarks = |rig: &Rig| rig.ingest.status().iter().map(|status| status.watermark_us).collect::<Vec<_>>();
    let rig = Rig::open(directory.path(), log.clone(), &topic, &options);
    topic.produce(0, 500);
    rig.drain().unwrap();
    // Offset 499 has no message; `at` of message n is n seconds.
    assert_eq!(watermarks(&rig), [Some(496_000_000), None]);
    rig.wait(rig.ingest.seal()).unwrap();
    topic.produce(0, 2);
    topic.produce(1, 101);
    rig.drain().unwrap();
    assert_eq!(watermarks(&rig), [Some(499_000_000), Some(98_000_000)]);
    rig.crash();

    // The topic does not answer: what is known comes from the log alone.
    topic.refuse_polls.store(u32::MAX, Ordering::SeqCst);
    let rig = Rig::open(directory.path(), log, &topic, &options);
    rig.wait(rig.ingest.connected(SOURCE)).unwrap();
    assert_eq!(watermarks(&rig), [Some(496_000_000), None]);
    topic.refuse_polls.store(0, Ordering::SeqCst);
    rig.drain().unwrap();
    assert_eq!(watermarks(&rig), [Some(499_000_000), Some(98_000_000)]);
    rig.crash();
}

/// `rt.dlq` failed when a replay deleted a file that it had listed and not opened yet.
#[test]
fn letters_that_are_being_listed_stay_readable_while_a_replay_resolves_them() {
    let _guard = no_failpoints();
    let directory = tempfile::tempdir().unwrap();
    let (log, topic) = (Arc::new(MemoryLog::default()), Topic::new(2));
    let rig = Rig::open(directory.path(), log, &topic, &Options::default());
    for _ in 0..3 {
        topic.produce(0, 700);
        topic.produce(1, 700);
        rig.drain().unwrap();
        rig.wait(rig.ingest.seal()).unwrap();
    }
    let files = || {
        let partitions = (0..2).map(|n| partition_directory(&directory.path().join("numbers"), PartitionId(n)));
        let all = partitions.flat_map(|partition| std::fs::read_dir(partition).unwrap());
        all.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "dead")).count()
    };
    let letters = rig.ingest.dead_letters().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((letters.len(), files()), (480, 6));
    let mut listed = rig.ingest.dead_letters();
    let first = listed.next().unwrap().unwrap();
    topic.forgiving.store(true, Ordering::Relaxed);
    assert_eq!(rig.wait(rig.ingest.replay_dead_letters(SOURCE)).unwrap(), 480);
    assert_eq!(rig.ingest.dead_letters().count(), 0);
    // Who listed them before the replay sees all of them, and then they are gone from the disk as well.
    let all: Vec<_> = std::iter::once(first).chain(listed.by_ref().map(Result::unwrap)).collect();
    assert!(all == letters);
    drop(listed);
    assert_eq!(files(), 0);
    // A table that is dropped in the middle of it has none.
    topic.forgiving.store(false, Ordering::Relaxed);
    topic.produce(0, 700);
    rig.drain().unwrap();
    rig.wait(rig.ingest.seal()).unwrap();
    let listed = rig.ingest.dead_letters();
    rig.ingest.stop();
    rig.ingest.remove_files().unwrap();
    assert_eq!(listed.map(Result::unwrap).count(), 0);
    rig.crash();
}
