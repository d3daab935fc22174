//! Tables that do not know keys for ever, against a model that looks at all pairs of rows: keys leave the map, tombstones are forgotten, segments are put
//! together, and starts come with a file of the key map or without. What is seen stays what the model sees, and where no row comes late it is the same for every
//! order of arrival.

use tidemill_storage::{
    table::{KeyMapFile, PartitionKeys},
    upsert::{KeyAges, segment_newest_us},
};

use super::*;

/// Rows that were appended, in this order: stream, place in it, whether the row came late.
type Arrivals = Vec<(StreamId, usize, bool)>;

struct Aged<'a> {
    machine: Machine<'a>,
    model: Model,
    streams: &'a BTreeMap<StreamId, Vec<Event>>,
    arrivals: Arrivals,
    newest: Option<i64>,
}

fn key_us(spec: &KeySpec) -> i64 {
    spec.ages.and_then(|ages| ages.key_us).unwrap_or(i64::MAX)
}

/// As [`events`], with times: as versions are, where the last row of a key stays; in bursts that are far from each other, where the first one does.
fn aged_events(random: &mut Random, spec: &KeySpec, count: usize) -> BTreeMap<StreamId, Vec<Event>> {
    let mut streams = events(random, count);
    let span = 1 + random.below(200) as i64;
    // How far a row may be behind those before it in its stream.
    let disorder = 1 + random.below(1 + span as usize) as i64;
    for events in streams.values_mut() {
        let count = events.len().max(1) as i64;
        for (place, event) in (0..).zip(events) {
            let at = place * span / count - random.below(disorder as usize) as i64;
            event.at = Some(match spec.keep {
                Keep::Last => at,
                Keep::First => at.div_euclid(20) * 20 * key_us(spec) + random.below(key_us(spec) as usize) as i64,
            });
            event.version = event.at;
        }
    }
    streams
}

impl Aged<'_> {
    fn append(&mut self, stream: StreamId, wanted: usize) {
        let from = self.machine.appended.get(&stream).copied().unwrap_or(0);
        self.machine.append(stream, &self.streams[&stream], wanted);
        for place in from..self.machine.appended[&stream] {
            let at = self.streams[&stream][place].at.unwrap();
            let late = self.newest.is_some_and(|newest| at < newest - key_us(&self.model.spec));
            self.newest = self.newest.max(Some(at));
            self.arrivals.push((stream, place, late));
        }
    }

    /// Keys leave as the log would have it; how many segments they left.
    fn leave(&mut self) -> usize {
        let old = self.machine.writer.may_leave();
        for id in &old {
            let Machine { writer, left, committed, .. } = &mut self.machine;
            let segment = committed.iter().find(|segment| segment.id() == *id).unwrap();
            let fingerprints = writer.partition().key_fingerprints(segment.as_ref()).unwrap();
            let prepared = writer.prepare_leaving(*id, &fingerprints).unwrap().expect("rows in memory came on time");
            left.push((*id, prepared.newest_us()));
            writer.leave(&prepared);
            self.machine.lose(prepared.lost());
        }
        old.len()
    }

    fn restart(&mut self, with_file: bool) {
        let machine = &mut self.machine;
        machine.restart();
        if with_file {
            let next = machine.writer.take_id();
            let file = KeyMapFile { directory: machine.dir, table: TableId(1) };
            machine.table = Table::with_key(TableId(1), schema(), 1, Some(machine.spec.clone()));
            let partition = Arc::clone(&machine.table.partitions()[0]);
            machine.committed.iter().for_each(|segment| partition.put(Arc::clone(segment)));
            let mut deleted: BTreeMap<SegmentId, RowSet> = BTreeMap::new();
            machine.deleted.iter().for_each(|(id, rows)| deleted.entry(*id).or_default().add(rows));
            let deleted: Vec<_> = deleted.into_iter().collect();
            let lost: Vec<_> = machine.lost.iter().map(|(id, rows)| (*id, rows.clone())).collect();
            let opened =
                PartitionWriter::open_with(partition, schema(), next, &deleted, &lost, &machine.left, Some(file));
            machine.writer = opened.unwrap().0;
        }
        let machine = &self.machine;
        self.arrivals.retain(|(stream, place, _)| machine.appended.get(stream).is_some_and(|count| place < count));
        // Rows that were not stored are forgotten.
        let times = machine.committed.iter().filter_map(|segment| segment_newest_us(segment.as_ref(), AT));
        self.newest = times.chain(machine.left.iter().map(|(_, newest)| *newest)).max();
    }

    /// The amounts that are seen: those of rows on time that no row of their key that is near to them beats.
    fn expected(&self) -> Vec<i64> {
        let on_time: Vec<&Event> = (self.arrivals.iter().filter(|(.., late)| !late))
            .map(|(stream, place, _)| &self.streams[stream][*place])
            .collect();
        let mut of_keys: HashMap<Key, Vec<&Event>> = HashMap::new();
        on_time.iter().for_each(|event| of_keys.entry(self.model.key(event)).or_default().push(event));
        let mut seen = Vec::new();
        for events in of_keys.values() {
            for (place, event) in events.iter().enumerate() {
                let is_near =
                    |other: &Event| other.at.unwrap().abs_diff(event.at.unwrap()) <= key_us(&self.model.spec) as u64;
                let beats = |(at, other): (usize, &&Event)| {
                    at != place
                        && is_near(other)
                        && match at > place {
                            true => self.model.beats(other, event),
                            false => !self.model.beats(event, other),
                        }
                };
                let is_deleted = self.model.spec.delete.is_some() && event.deleted == Some(true);
                if !is_deleted && !events.iter().enumerate().any(beats) {
                    seen.push(event.amount);
                }
            }
        }
        seen.sort_unstable();
        seen
    }
}

#[derive(Debug, Default)]
struct Happened {
    left: usize,
    late: usize,
    forgotten: usize,
}

fn check(seed: u64, count: usize) -> Happened {
    let mut random = Random::new(seed);
    let random = &mut random;
    let key_us = 2 + random.below(60) as i64;
    let ages = KeyAges { column: AT, key_us: Some(key_us), tombstone_us: random.one_in(2).then_some(key_us) };
    let spec = KeySpec { late: None, version: Some(VERSION), ages: Some(ages), ..spec(random) };
    let streams = aged_events(random, &spec, count);
    let mut happened = Happened::default();
    let mut expected = None;
    for arrival in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let by: &[ColumnId] = random.pick::<&[ColumnId]>(&[&[], &[AMOUNT], &[VERSION, CODE]]);
        let mut aged = Aged {
            machine: Machine::new(dir.path(), spec.clone()),
            model: Model { spec: spec.clone() },
            streams: &streams,
            arrivals: Vec::new(),
            newest: None,
        };
        let (size, mut restarts, mut has_file) = (1 + random.below(count), 4, false);
        loop {
            let is_left = |(id, events): &(&StreamId, &Vec<Event>)| {
                aged.machine.appended.get(id).is_none_or(|at| *at < events.len())
            };
            let left: Vec<StreamId> = streams.iter().filter(is_left).map(|(id, _)| *id).collect();
            if left.is_empty() {
                break;
            }
            match random.below(14) {
                0 | 1 => aged.machine.rotate(),
                2..=4 => aged.machine.commit(by),
                5 => happened.left += aged.leave(),
                6 => {
                    let before = aged.machine.writer.keys().keys;
                    aged.machine.compact(random, by, |_, _| {});
                    happened.forgotten += (before - aged.machine.writer.keys().keys) as usize;
                }
                7 => {
                    let file = KeyMapFile { directory: dir.path(), table: TableId(1) };
                    let with = |work: &mut dyn FnMut(&mut PartitionWriter)| {
                        work(&mut aged.machine.writer);
                        true
                    };
                    has_file |= file.write(&schema(), with).unwrap().is_some();
                }
                8 if restarts > 0 => {
                    restarts -= 1;
                    aged.restart(has_file && random.one_in(2));
                }
                _ => {
                    let stream = *random.pick(&left);
                    aged.append(stream, 1 + random.below(size));
                }
            }
            let seen = amounts(&aged.machine.table.snapshot(), IndexUse::WhereFaster);
            assert_eq!(seen, aged.expected(), "seed {seed}, count {count}, arrival {arrival}");
        }
        for with_file in [false, has_file] {
            aged.machine.rotate();
            while !aged.machine.sealing.is_empty() {
                aged.machine.commit(by);
            }
            happened.left += aged.leave();
            let seen = amounts(&aged.machine.table.snapshot(), IndexUse::Off);
            assert_eq!(seen, aged.expected(), "seed {seed}, count {count}, arrival {arrival}, at the end");
            if aged.arrivals.iter().all(|(.., late)| !late) {
                let expected = expected.get_or_insert_with(|| seen.clone());
                assert_eq!(*expected, seen, "seed {seed}, count {count}: another order, another table");
            }
            aged.restart(with_file);
        }
        happened.late += aged.arrivals.iter().filter(|(.., late)| *late).count();
    }
    happened
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn keys_that_are_not_known_for_ever_are_those_of_the_model(
        seed: u64,
        count in prop_oneof![1usize..12, 1usize..200, 300usize..800],
    ) {
        check(seed, count);
    }
}

/// The test above would say nothing if nothing of this happened.
#[test]
fn keys_leave_rows_come_late_and_tombstones_are_forgotten() {
    let mut all = Happened::default();
    for seed in 0..40 {
        let Happened { left, late, forgotten } = check(seed, 150);
        (all.left, all.late, all.forgotten) = (all.left + left, all.late + late, all.forgotten + forgotten);
    }
    assert!(all.left > 20 && all.late > 20 && all.forgotten > 5, "{all:?}");
}

/// A row of each of many keys, one after the other in time: the map has those of two ttl, and what is left of its memory follows.
#[test]
fn the_map_shrinks_when_keys_leave() {
    let dir = tempfile::tempdir().unwrap();
    let ages = KeyAges { column: AT, key_us: Some(10_000), tombstone_us: None };
    let spec = KeySpec {
        late: None,
        columns: vec![CODE],
        version: None,
        delete: None,
        keep: Keep::First,
        keeps_losers: false,
        merges: false,
        ages: Some(ages),
    };
    let stream = StreamId { source: SourceId(1), partition: 0 };
    let event = |at: i64| Event {
        stream,
        offset: at as u64,
        code: format!("key {at}"),
        place: 0.0,
        version: None,
        deleted: None,
        amount: at,
        at: Some(at),
    };
    let streams = BTreeMap::from([(stream, (0..100_000).map(event).collect())]);
    let model = Model { spec: spec.clone() };
    let machine = Machine::new(dir.path(), spec);
    let mut aged = Aged { machine, model, streams: &streams, arrivals: Vec::new(), newest: None };
    let mut most = 0;
    for _ in 0..100 {
        aged.append(stream, 1000);
        aged.machine.rotate();
        aged.machine.commit(&[]);
        aged.leave();
        most = aged.machine.writer.keys().keys.max(most);
    }
    assert_eq!(aged.machine.table.snapshot().rows(), 100_000);
    let PartitionKeys { keys, bytes, .. } = aged.machine.writer.keys();
    assert!((20_000..=21_000).contains(&keys) && most <= 22_000, "{keys} keys, {most} at most");
    assert!(bytes < keys * 24 + 16_384, "{bytes} bytes");
    // Twice is late, and not stored.
    aged.arrivals.clear();
    let again: Vec<Event> = (0..100_000).map(event).collect();
    aged.machine.append(StreamId { partition: 1, ..stream }, &again, 1000);
    assert_eq!((aged.machine.table.snapshot().rows(), aged.machine.writer.late_rows()), (100_000, 1000));
}
