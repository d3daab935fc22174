//! The file of a key map: whatever happened before, beside and after its writing, a start with it is the start without it, to the last entry.

use std::{cell::RefCell, fs};

use tidemill_storage::{
    table::{KeyMapFile, KeyMapUse, WrittenKeyMap},
    upsert::KEY_MAP_FILE,
};

use super::*;

const TABLE: TableId = TableId(1);

/// A machine whose segments go by retention, too.
struct Kept<'a> {
    machine: Machine<'a>,
    /// Above the ids of all segments that were ever committed.
    next: u64,
    by: &'static [ColumnId],
    amount: i64,
    statements: Statements,
}

/// What a start makes of a partition: entries of the map, rows that are not valid, and what is seen.
#[derive(Debug, PartialEq)]
struct Made {
    entries: Vec<(u64, SegmentId, u32)>,
    invalid: BTreeMap<SegmentId, Vec<u32>>,
    seen: Vec<i64>,
}

fn made(table: &Table, writer: &PartitionWriter) -> Made {
    let view = writer.partition().view();
    let invalid = |segment: &Arc<dyn Segment>| {
        let validity = view.validities().of(segment.id())?;
        Some((segment.id(), (0..segment.rows()).filter(|row| !validity.is_valid(*row)).collect()))
    };
    Made {
        entries: writer.key_map_entries(),
        invalid: view.segments().filter_map(invalid).collect(),
        seen: amounts(&table.snapshot(), IndexUse::Off),
    }
}

impl<'a> Kept<'a> {
    fn new(dir: &'a Path, random: &mut Random) -> Self {
        Self {
            machine: Machine::new(dir, spec(random)),
            next: 1,
            by: random.pick::<&[ColumnId]>(&[&[], &[AMOUNT], &[VERSION, CODE]]),
            amount: 0,
            statements: Statements::default(),
        }
    }

    fn file(&self) -> KeyMapFile<'a> {
        KeyMapFile { directory: self.machine.dir, table: TABLE }
    }

    /// Something that happens to a table. `goes`: segments may go.
    fn step(&mut self, random: &mut Random, streams: &BTreeMap<StreamId, Vec<Event>>, goes: Goes) {
        let count = streams.values().map(Vec::len).sum();
        let machine = &mut self.machine;
        let stream = *random.pick(&streams.keys().copied().collect::<Vec<_>>());
        match random.below(12) {
            0 | 1 => machine.rotate(),
            2..=4 => machine.commit(self.by),
            5 => machine.change(random, self.by, &mut self.amount, &mut self.statements),
            6 if goes != Goes::Nothing => {
                let (by, amount, statements) = (self.by, &mut self.amount, &mut self.statements);
                machine.compact(random, by, |machine, random| match random.below(4) {
                    0 => machine.change(random, by, amount, statements),
                    1 => machine.append(stream, &streams[&stream], 1 + random.below(count)),
                    2 => machine.commit(by),
                    _ => {}
                });
            }
            7 if goes == Goes::Everything && random.one_in(2) => self.retire(random),
            _ => machine.append(stream, &streams[&stream], 1 + random.below(1 + count / 4)),
        }
        let ids = self.machine.committed.iter().map(|segment| segment.id().0 + 1);
        self.next = ids.max().unwrap_or(1).max(self.next);
    }

    /// Retention, also while rows in memory have lost against those that go.
    fn retire(&mut self, random: &mut Random) {
        let machine = &mut self.machine;
        let gone: Vec<_> = machine.committed.iter().filter(|_| random.one_in(3)).cloned().collect();
        let ids: Vec<SegmentId> = gone.iter().map(|segment| segment.id()).collect();
        let lost = machine.writer.lost_for_good(&ids).unwrap();
        let rewriting = Rewriting {
            dropped: gone.iter().map(|segment| (segment.id(), (0..segment.rows()).collect())).collect(),
            retired: ids.clone(),
            lost: lost.clone(),
            ..Default::default()
        };
        let prepared = machine.writer.prepare_rewrite(rewriting).unwrap();
        machine.writer.rewrite(prepared);
        machine.lose(&lost);
        machine.forget(&ids);
    }

    /// A start with the file or without it.
    fn open(&self, table: &Table, file: Option<KeyMapFile<'_>>) -> (PartitionWriter, KeyMapUse) {
        let (partition, machine) = (&table.partitions()[0], &self.machine);
        machine.committed.iter().for_each(|segment| partition.put(Arc::clone(segment)));
        let is_there = |id: &SegmentId| self.machine.committed.iter().any(|segment| segment.id() == *id);
        let mut deleted: BTreeMap<SegmentId, RowSet> = BTreeMap::new();
        let all = self.machine.deleted.iter().filter(|(id, _)| is_there(id));
        all.for_each(|(id, rows)| deleted.entry(*id).or_default().add(rows));
        let deleted: Vec<_> = deleted.into_iter().collect();
        let lost: Vec<_> =
            machine.lost.iter().filter(|(id, _)| is_there(id)).map(|(id, rows)| (*id, rows.clone())).collect();
        let (partition, next) = (Arc::clone(partition), SegmentId(self.next));
        PartitionWriter::open_with(partition, schema(), next, &deleted, &lost, &machine.left, file).unwrap()
    }

    fn table(&self) -> Table {
        Table::with_key(TABLE, schema(), 1, Some(self.machine.spec.clone()))
    }

    /// What a start without the file makes.
    fn rebuilt(&self) -> Made {
        let table = self.table();
        let (writer, _) = self.open(&table, None);
        made(&table, &writer)
    }

    /// A crash, and a start with what file there is.
    fn restart(&mut self, wanted: &Option<WrittenKeyMap>, why: &str) {
        let rebuilt = self.rebuilt();
        let table = self.table();
        let (writer, used) = self.open(&table, Some(self.file()));
        match (&used, wanted) {
            (KeyMapUse::Taken(file), Some(wanted)) => {
                let is_there = |id: &SegmentId| self.machine.committed.iter().any(|segment| segment.id() == *id);
                let left: Vec<SegmentId> = wanted.segments.iter().copied().filter(is_there).collect();
                assert_eq!(file.segments, left, "{why}");
            }
            (KeyMapUse::None, None) => {}
            other => panic!("{other:?}, {why}"),
        }
        assert_eq!(made(&table, &writer), rebuilt, "{why}");
        let machine = &mut self.machine;
        let waiting = machine.sealing.drain(..).map(|segment| segment.id()).min();
        machine.durable.retain(|(id, _)| waiting.is_none_or(|waiting| *id < waiting));
        machine.appended = machine.durable.last().map(|(_, appended)| appended.clone()).unwrap_or_default();
        (machine.table, machine.writer) = (table, writer);
    }
}

/// What may go while a key map is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goes {
    Nothing,
    Segments,
    Everything,
}

fn check(seed: u64, count: usize, goes: Goes) {
    let mut random = Random::new(seed);
    let random = &mut random;
    let dir = tempfile::tempdir().unwrap();
    let kept = RefCell::new(Kept::new(dir.path(), random));
    let model = Model { spec: kept.borrow().machine.spec.clone() };
    let streams = events(random, count);
    let mut written = None;
    for step in 0..50 {
        let why = format!("seed {seed}, count {count}, {goes:?}, step {step}");
        match random.below(12) {
            0 => {
                let within = RefCell::new(&mut *random);
                let one_in = 1 + within.borrow_mut().below(300);
                let file = kept.borrow().file();
                let now = file.write(&schema(), |work| {
                    let mut kept = kept.borrow_mut();
                    if within.borrow_mut().one_in(one_in) {
                        let goes = if within.borrow_mut().one_in(10) { goes } else { Goes::Nothing };
                        kept.step(&mut within.borrow_mut(), &streams, goes);
                    }
                    work(&mut kept.machine.writer);
                    true
                });
                // Where segments went meanwhile the file of before stays.
                written = now.unwrap().or(written);
                assert!(!dir.path().join(format!("{KEY_MAP_FILE}.tmp")).try_exists().unwrap());
            }
            1 => kept.borrow_mut().restart(&written, &why),
            _ => kept.borrow_mut().step(random, &streams, goes),
        }
        let kept = kept.borrow();
        if goes != Goes::Everything {
            let appended = kept.machine.appended.iter().flat_map(|(stream, count)| &streams[stream][..*count]);
            let seen = amounts(&kept.machine.table.snapshot(), IndexUse::Off);
            assert_eq!(seen, model.seen_after(appended, &kept.statements), "{why}");
        }
    }
    kept.borrow_mut().restart(&written, &format!("seed {seed}, count {count}, {goes:?}, at the end"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_start_with_the_file_is_one_without_it(
        seed: u64,
        count in prop_oneof![1usize..12, 1usize..200, 200usize..600],
        goes in prop_oneof![Just(Goes::Nothing), Just(Goes::Segments), Just(Goes::Everything)],
    ) {
        check(seed, count, goes);
    }
}

type Streams = BTreeMap<StreamId, Vec<Event>>;

/// A partition with a file that says something of everything: tombstones, losers, undecided rows, a segment that it does not know.
fn with_file<'a>(dir: &'a Path, random: &mut Random) -> (Kept<'a>, WrittenKeyMap, Streams) {
    loop {
        let mut kept = Kept::new(dir, random);
        let streams = events(random, 40);
        for _ in 0..25 {
            kept.step(random, &streams, Goes::Segments);
        }
        let wrote = kept.file().write(&schema(), |work| {
            work(&mut kept.machine.writer);
            true
        });
        let written = wrote.unwrap().unwrap();
        if written.segments.len() > 1 && written.keys > 5 {
            return (kept, written, streams);
        }
    }
}

#[test]
fn a_damaged_file_is_made_again() {
    let random = &mut Random::new(11);
    let dir = tempfile::tempdir().unwrap();
    let (kept, written, _) = with_file(dir.path(), random);
    let path = dir.path().join(KEY_MAP_FILE);
    let whole = fs::read(&path).unwrap();
    let rebuilt = kept.rebuilt();
    let opened = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let table = kept.table();
        let (writer, used) = kept.open(&table, Some(kept.file()));
        assert_eq!(made(&table, &writer), rebuilt);
        used
    };
    assert!(matches!(opened(&whole), KeyMapUse::Taken(file) if file == written));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(matches!(opened(&bytes), KeyMapUse::Refused(_)), "byte {at} of {} was flipped", whole.len());
    }
    for length in (0..whole.len()).step_by(7) {
        assert!(matches!(opened(&whole[..length]), KeyMapUse::Refused(_)), "cut to {length} bytes");
    }
    for _ in 0..200 {
        let (at, count) = (random.below(whole.len()), 1 + random.below(100));
        let mut bytes = whole.clone();
        match random.below(3) {
            0 => drop(bytes.splice(at..at, std::iter::repeat_n(random.next() as u8, count))),
            1 => drop(bytes.drain(at..(at + count).min(whole.len()))),
            _ => bytes.extend_from_slice(&whole[..count]),
        }
        assert!(matches!(opened(&bytes), KeyMapUse::Refused(_)), "at {at} {count} bytes more or less");
    }
    assert!(matches!(opened(&whole), KeyMapUse::Taken(_)));
}

#[test]
fn a_file_of_another_table_partition_or_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, ..) = with_file(dir.path(), &mut Random::new(5));
    let table = kept.table();
    let (_, used) = kept.open(&table, Some(KeyMapFile { table: TableId(2), ..kept.file() }));
    assert!(matches!(used, KeyMapUse::Refused(_)));
    let spec = kept.machine.spec.clone();
    let keep = if spec.keep == Keep::Last { Keep::First } else { Keep::Last };
    let version = if spec.version.is_some() { None } else { Some(VERSION) };
    let columns = if spec.columns.len() == 1 { vec![CODE, PLACE] } else { vec![CODE] };
    for other in
        [KeySpec { keep, ..spec.clone() }, KeySpec { version, ..spec.clone() }, KeySpec { columns, ..spec.clone() }]
    {
        let table = Table::with_key(TABLE, schema(), 1, Some(other));
        let (_, used) = kept.open(&table, Some(kept.file()));
        assert!(matches!(used, KeyMapUse::Refused(_)), "{used:?}");
    }
    // Of a later time than the log.
    let mut kept = kept;
    let next =
        std::mem::replace(&mut kept.next, kept.machine.committed.iter().map(|known| known.id().0).max().unwrap());
    assert!(matches!(kept.open(&kept.table(), Some(kept.file())).1, KeyMapUse::Refused(_)));
    kept.next = next;
    let table = Table::with_key(TABLE, schema(), 2, Some(spec));
    let (_, used) = PartitionWriter::open_with(
        Arc::clone(&table.partitions()[1]),
        schema(),
        SegmentId(1),
        &[],
        &[],
        &[],
        Some(kept.file()),
    )
    .unwrap();
    assert!(matches!(used, KeyMapUse::Refused(_)));
    // Another segment under an id that the file knows.
    let first = kept.machine.committed[0].id();
    let rows = ConsumingSegment::new(first, kept.machine.writer.written(schema()));
    let other = events(&mut Random::new(1), 3);
    let (stream, events) = other.first_key_value().unwrap();
    let mut columns = batch(&events.iter().collect::<Vec<_>>()).columns().to_vec();
    let offsets: Vec<u64> = events.iter().map(|event| event.offset).collect();
    columns.extend(Provenance::of(*stream, &offsets).columns().iter().cloned());
    let rows = rows.with(&RecordBatch::try_new(rows.schema().arrow(), columns).unwrap(), &[]).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let context = SealContext { table: TABLE, partition: PartitionId(0), created_at_us: 0 };
    let file = seal_sorted(&rows, elsewhere.path(), "other", &context, &[]).unwrap();
    let expected = Expected { id: first, bytes: file.bytes, checksum: file.checksum };
    kept.machine.committed[0] = open(&file.path, &expected).unwrap();
    kept.machine.deleted.clear();
    let table = kept.table();
    let (_, used) = kept.open(&table, Some(kept.file()));
    assert!(matches!(used, KeyMapUse::Refused(_)), "{used:?}");
}

/// Rows in memory had taken the places of committed ones when the file was written: without them these are there again.
#[test]
fn rows_in_memory_leave_nothing_in_the_file() {
    let random = &mut Random::new(3);
    let dir = tempfile::tempdir().unwrap();
    let mut kept = Kept::new(dir.path(), random);
    let mut spec = kept.machine.spec.clone();
    (spec.columns, spec.version, spec.delete) = (vec![CODE], None, Some(DELETED));
    (spec.keep, spec.keeps_losers) = (Keep::Last, true);
    kept.machine = Machine::new(dir.path(), spec);
    let stream = StreamId { source: SourceId(1), partition: 0 };
    let event = |at: usize| Event {
        stream,
        offset: at as u64,
        code: format!("key {}", at % 10),
        place: 0.0,
        version: None,
        deleted: Some(at >= 25),
        amount: at as i64,
        at: None,
    };
    let events: Vec<Event> = (0..30).map(event).collect();
    kept.machine.append(stream, &events, 10);
    kept.machine.rotate();
    kept.machine.commit(&[]);
    kept.next = 3;
    kept.machine.append(stream, &events, 10);
    kept.machine.rotate();
    kept.machine.append(stream, &events, 10);
    let file = kept.file();
    let written = file.write(&schema(), |work| {
        work(&mut kept.machine.writer);
        true
    });
    let written = written.unwrap();
    assert_eq!(written.as_ref().map(|file| file.keys), Some(0), "they are in the map with rows in memory alone");
    assert_eq!(amounts(&kept.machine.table.snapshot(), IndexUse::Off), (20..25).collect::<Vec<i64>>());
    kept.restart(&written, "without the rows in memory");
    assert_eq!(amounts(&kept.machine.table.snapshot(), IndexUse::Off), (0..10).collect::<Vec<i64>>());
}

#[cfg(feature = "failpoints")]
mod failpoints {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::failpoints::{DIR, POINT, child};

    const POINTS: [&str; 5] =
        ["key_map::create", "key_map::write", "key_map::sync_file", "key_map::rename", "key_map::sync_dir"];

    /// Writes a file, and another one of more rows at the point.
    fn write_twice(dir: &Path, arm: impl Fn()) -> (tidemill_storage::Result<Option<WrittenKeyMap>>, Kept<'_>) {
        let random = &mut Random::new(8);
        let (mut kept, _, streams) = with_file(dir, random);
        for _ in 0..20 {
            kept.step(random, &streams, Goes::Segments);
        }
        arm();
        let written = kept.file().write(&schema(), |work| {
            work(&mut kept.machine.writer);
            true
        });
        (written, kept)
    }

    /// Whatever file there is, it is whole.
    fn check(kept: &Kept<'_>, point: &str) {
        let table = kept.table();
        let (writer, used) = kept.open(&table, Some(kept.file()));
        assert!(matches!(used, KeyMapUse::Taken(_)), "{point}: {used:?}");
        assert_eq!(made(&table, &writer), kept.rebuilt(), "{point}");
    }

    #[test]
    fn every_step_of_writing_may_fail() {
        if let Ok(point) = std::env::var(POINT) {
            let dir = std::env::var_os(DIR).unwrap();
            let dir = Path::new(&dir);
            let (written, mut kept) = write_twice(dir, || fail::cfg(&point, "return(no space left)").unwrap());
            let error = written.unwrap_err();
            assert!(error.to_string().contains("no space left"), "{error}");
            assert!(!dir.join(format!("{KEY_MAP_FILE}.tmp")).try_exists().unwrap(), "{point}");
            check(&kept, &point);
            fail::remove(&point);
            let written = kept.file().write(&schema(), |work| {
                work(&mut kept.machine.writer);
                true
            });
            assert!(written.unwrap().is_some());
            check(&kept, &point);
            fs::write(dir.join("done"), "").unwrap();
            return;
        }
        for point in POINTS {
            let dir = tempfile::tempdir().unwrap();
            assert!(child("upsert::key_map::failpoints::every_step_of_writing_may_fail", point, dir.path()).success());
            assert!(dir.path().join("done").try_exists().unwrap(), "{point}: the drill did not run");
        }
    }

    #[test]
    fn the_process_may_end_at_every_step_of_writing() {
        if let Ok(point) = std::env::var(POINT) {
            let dir = std::env::var_os(DIR).unwrap();
            let (_, _) = write_twice(Path::new(&dir), || fail::cfg_callback(&point, || std::process::abort()).unwrap());
            return;
        }
        for point in POINTS {
            let dir = tempfile::tempdir().unwrap();
            let drill = "upsert::key_map::failpoints::the_process_may_end_at_every_step_of_writing";
            assert_eq!(child(drill, point, dir.path()).signal(), Some(libc::SIGABRT), "{point}");
            let left = fs::read(dir.path().join(KEY_MAP_FILE)).unwrap();
            // The same steps again, up to the point.
            let again = tempfile::tempdir().unwrap();
            let (_, kept) = write_twice(again.path(), || {});
            fs::write(again.path().join(KEY_MAP_FILE), left).unwrap();
            check(&kept, point);
        }
    }
}
