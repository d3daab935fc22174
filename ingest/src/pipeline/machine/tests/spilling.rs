//! Groups in files: what a machine gives that spills whatever it may, at any moment, is what one gives that never does.

use std::{collections::BTreeMap, path::PathBuf};

use parking_lot::Mutex;

use super::{
    super::spill::{Filling, Kept},
    rig::*,
    *,
};

/// Files in memory, small stretches, and few runs.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline::machine) struct MemoryStore(Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>);

struct Writing(MemoryStore, Vec<u8>);

#[derive(Debug)]
struct Whole(StateFile, Arc<Vec<u8>>);

impl MemoryStore {
    pub(in crate::pipeline::machine) fn content(&self, name: &str) -> Arc<Vec<u8>> {
        Arc::clone(&self.0.lock()[name])
    }

    pub(in crate::pipeline::machine) fn put(&self, name: &str, content: Vec<u8>) {
        self.0.lock().insert(name.to_owned(), Arc::new(content));
    }
}

impl Store for MemoryStore {
    fn create(&self) -> Result<Box<dyn Filling>> {
        Ok(Box::new(Writing(self.clone(), Vec::new())))
    }

    fn adopt(&self, file: &StateFile) -> Arc<dyn Kept> {
        Arc::new(Whole(file.clone(), Arc::clone(&self.0.lock()[&file.file])))
    }

    fn stretch_bytes(&self) -> usize {
        64
    }

    fn block_bytes(&self) -> usize {
        64
    }

    fn beside(&self, work: Box<dyn FnOnce() + Send>) -> Result<()> {
        work();
        Ok(())
    }

    fn runs_max(&self) -> usize {
        3
    }
}

impl Filling for Writing {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.1.extend(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn Kept>> {
        let mut files = self.0.0.lock();
        let (name, content) = (format!("s{}", files.len()), Arc::new(self.1));
        files.insert(name.clone(), Arc::clone(&content));
        let file = StateFile { file: name, bytes: content.len() as u64, checksum: crc32c::crc32c(&content) };
        Ok(Arc::new(Whole(file, content)))
    }
}

impl Kept for Whole {
    fn file(&self) -> &StateFile {
        &self.0
    }

    fn path(&self) -> PathBuf {
        self.0.file.clone().into()
    }

    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>> {
        Ok(self.1[at as usize..at as usize + bytes].to_vec())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Key and values of a row that was given.
type Answer = ((i64, i64, i64), (i64, Option<i64>, i64, i64));

fn answers(outcome: &Outcome) -> Vec<Answer> {
    let mut found = Vec::new();
    each(outcome, &mut |key, value| found.push((key, value)));
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Arrival by arrival, with late rows and corrections, restored from files and from arrivals since: the same rows, and the same ones are late.
    #[test]
    fn what_is_spilled_is_given_as_if_it_were_not(
        window in windows(),
        rows in rows(40),
        allowed_s in prop::option::of(1i64..40),
        cuts in prop::collection::vec((1usize..20, 0u8..4, any::<bool>(), 1usize..4000), 1..40),
    ) {
        let late = match allowed_s {
            Some(allowed_s) => Late { policy: LatePolicy::Update, allowed_us: allowed_s * SECOND },
            None => Late::default(),
        };
        let bench = Bench::with(window, late);
        let (mut machine, mut plain) = (bench.machine(1), bench.machine(1));
        let (mut base, mut diary): (Option<Picture>, Vec<Arrival>) = (None, Vec::new());
        let (mut at, mut cut) = (0, cuts.iter().cycle());
        while at < rows.len() {
            let (count, crashes, is_spilled, bytes) = *cut.next().unwrap();
            let end = (at + count).min(rows.len());
            let arrival = batch(0, at as u64, &rows[at..end]);
            let (found, expected) = (machine.apply(&arrival).unwrap(), plain.apply(&arrival).unwrap());
            prop_assert_eq!(answers(&found), answers(&expected));
            diary.push(arrival);
            at = end;
            if is_spilled && let Some(arrival) = machine.spilling(bytes) {
                let (bytes, groups) = machine.size();
                prop_assert!(machine.apply(&arrival).unwrap().rows.is_empty());
                prop_assert!(machine.size().0 < bytes && machine.size().1 <= groups && machine.spilled() > 0);
                diary.push(arrival);
            }
            match crashes {
                0 => {
                    machine = bench.restored(&mut machine);
                    base = Some(machine.picture().unwrap());
                    diary.clear();
                }
                1 if base.is_some() => {
                    machine = bench.restored_from(base.clone().unwrap());
                    for arrival in &diary {
                        machine.apply(arrival).unwrap();
                    }
                }
                _ => {}
            }
            prop_assert_eq!(machine.counts(), plain.counts());
        }
    }

    /// Whatever stands over the windows, and whatever keys and aggregates are.
    #[test]
    fn queries_over_windows_that_are_spilled(
        query in 0usize..7,
        events in events(4, 4, 5),
        cuts in cuts(),
        streams in 1u32..3,
        lanes in 0usize..6,
    ) {
        let tumble = "TUMBLE(ts, INTERVAL '10 seconds')";
        let end = "TUMBLE_END(ts, INTERVAL '10 seconds')";
        let query = [
            format!("SELECT id, {end}, array_agg(v), min(v), avg(v) FROM s GROUP BY id, {tumble}"),
            format!("SELECT (v % 3)::float8 / 2, id, {end}, count(*) FROM s GROUP BY (v % 3)::float8 / 2, id, {tumble}"),
            "SELECT id, HOP_END(ts, INTERVAL '5 seconds', INTERVAL '20 seconds'), sum(v) FROM s GROUP BY id, HOP(ts, INTERVAL '5 seconds', INTERVAL '20 seconds') HAVING count(*) > 1".into(),
            format!("SELECT id, v, {end}, count(*), grouping(id) FROM s GROUP BY GROUPING SETS ((id, {tumble}), (v, {tumble}), (id, v, {tumble}))"),
            format!("SELECT id, w, n FROM (SELECT id, w, n, row_number() OVER (PARTITION BY w ORDER BY n DESC, id) AS place FROM (SELECT id, {end} AS w, count(*) AS n FROM s GROUP BY id, {tumble}) a) b WHERE place <= 2"),
            format!("SELECT w, count(*), sum(n) FROM (SELECT id, {end} AS w, count(*) AS n FROM s GROUP BY id, {tumble}) a GROUP BY w"),
            format!("SELECT {end}, count(*) FROM s GROUP BY {tumble}"),
        ][query].clone();
        let source = [RigSource { name: "s", delay_s: 5 }];
        let plain = Rig::new(&source, &query, Late::default());
        let spilling = Rig::new(&source, &query, Late::default()).spilling().in_lanes(lanes);
        let events = [events];
        let ((mut found, counts), (mut expected, of_plain)) =
            (spilling.run(&events, streams, &cuts), plain.run(&events, streams, &cuts));
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(counts, of_plain);
    }
}

/// Bytes of a file that are others than they were are found when they are read, and nothing is given of them.
#[test]
fn a_damaged_stretch_is_found() {
    let mut bench = Bench::new(Window::Tumble { size: 10 * SECOND });
    let store = MemoryStore::default();
    bench.settings.store = Arc::new(store.clone());
    let mut machine = bench.machine(1);
    let rows: Vec<Row> = (0..40).map(|n| (n, Some(n), 100)).collect();
    machine.apply(&batch(0, 0, &rows)).unwrap();
    let arrival = machine.spilling(1).unwrap();
    machine.apply(&arrival).unwrap();
    assert_eq!((machine.size(), store.0.lock().len()), ((0, 40), 1));
    let picture = machine.picture().unwrap();
    let sound = Arc::clone(&store.0.lock()["s0"]);
    let closes = batch(0, 40, &[(0, None, 200), (0, None, 200)]);
    for at in (0..sound.len()).step_by(11) {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 0x20;
        store.0.lock().insert("s0".into(), Arc::new(bytes));
        let error = bench.restored_from(picture.clone()).apply(&closes).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Storage(_)) && text.contains("s0") && text.contains("spilled state"), "{text}");
    }
    store.0.lock().insert("s0".into(), sound);
    let given = bench.restored_from(picture).apply(&closes).unwrap();
    assert_eq!(given.rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 40);
}

/// Each stretch has the texts of its own groups: once each had those of all, and files were as many times as large.
#[test]
fn files_are_as_large_as_what_is_in_them() {
    let source = [RigSource { name: "s", delay_s: 5 }];
    let key = "arrow_cast(id, 'Utf8View')";
    let query = format!("SELECT {key}, count(DISTINCT {key}) FROM s GROUP BY {key}, TUMBLE(ts, INTERVAL '10 seconds')");
    let rig = Rig::new(&source, &query, Late::default());
    let mut machine = rig.machine(1);
    // Texts that do not become less when they are compressed.
    let text = |n: u64| {
        (0..6u64).map(|at| format!("{:016x}", (n * 6 + at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect::<String>()
    };
    let rows: Vec<Event> = (0..3000).map(|n| (Some(text(n)), Some(1), 100)).collect();
    machine.apply(&rig.arrival(0, 0, 0, &rows)).unwrap();
    let arrival = machine.spilling(1).unwrap();
    machine.apply(&arrival).unwrap();
    assert_eq!(machine.size(), (0, 3000));
    // Twice 96 bytes of text, and what every small stretch has beside them.
    assert!(machine.spilled() < 3000 * 192 + 256 * 2000, "{}", machine.spilled());
}
