//! Against a map that has everything in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::{flow::InFile, packing::Packing, tests::spilling::MemoryStore},
    *,
};

/// What is done: a key is written or asked for, memory goes to a file, a picture is taken and read back.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Change(u8, u8),
    Spill,
    Settle,
    Restore,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Text(Vec<u8>);

impl Value for Text {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.to_vec()))
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u8..40, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (0u8..40, any::<u8>()).prop_map(|(key, value)| Step::Change(key, value)),
        2 => Just(Step::Spill),
        1 => Just(Step::Settle),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 0..200)
}

/// Keys of many lengths, none as well.
fn key(key: u8) -> Vec<u8> {
    vec![key; usize::from(key) % 7 * usize::from(key > 0)].into_iter().chain((key > 0).then_some(key)).collect()
}

fn lives(_: &[u8]) -> bool {
    true
}

fn restored(keyed: &Keyed<Text>, store: &Arc<dyn Store>) -> Keyed<Text> {
    let mut other = Keyed::new(Arc::clone(store));
    for part in keyed.dump("known") {
        let Some(InFile::Table(table)) = part.in_file else { panic!() };
        let head = serde_json::to_vec(table.head()).unwrap();
        other.adopt(Table::of(serde_json::from_slice(&head).unwrap()).unwrap()).unwrap();
    }
    keyed.in_memory().for_each(|(key, value)| other.put(key, value.clone()));
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_in_files_is_found_as_if_it_were_in_memory(steps in steps()) {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let mut keyed: Keyed<Text> = Keyed::new(Arc::clone(&store));
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(at, value) => {
                    let value = vec![value; usize::from(value) % 50];
                    keyed.put(&key(at), Text(value.clone()));
                    model.insert(key(at), value);
                }
                Step::Change(at, more) => {
                    keyed.change(&key(at), |text| text.0.push(more)).unwrap();
                    model.entry(key(at)).or_default().push(more);
                }
                Step::Spill => {
                    keyed.spill(|| Box::new(lives)).unwrap();
                    prop_assert_eq!(keyed.spillable(), 0);
                }
                Step::Settle => keyed.settle().unwrap(),
                Step::Restore => keyed = restored(&keyed, &store),
            }
            let held: usize = keyed.in_memory().map(|(key, value)| key.len() + value.bytes() + ENTRY_BYTES).sum();
            prop_assert_eq!(keyed.spillable(), held);
            prop_assert!(keyed.entries() >= model.len());
        }
        for at in 0..40 {
            let found = keyed.get(&key(at)).unwrap().map(|text| text.0.clone());
            prop_assert_eq!(found.as_ref(), model.get(&key(at)));
        }
    }
}

fn many(store: &Arc<dyn Store>, rounds: u32) -> Keyed<Text> {
    let mut keyed: Keyed<Text> = Keyed::new(Arc::clone(store));
    for round in 0..rounds {
        for key in 0..50u32 {
            keyed.put(&(key * (round + 1)).to_le_bytes(), Text(round.to_le_bytes().to_vec()));
        }
        keyed.spill(|| Box::new(|value| value[0] > 3)).unwrap();
    }
    keyed
}

/// As many of a level as the store says become one, a key is in it once, and what does not live is not in it.
#[test]
fn tables_become_one() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let mut keyed = many(&store, 9);
    keyed.settle().unwrap();
    keyed.settle().unwrap();
    let levels: Vec<u8> = keyed.tables.tables.iter().map(Table::level).collect();
    assert!(levels.is_sorted_by(|older, newer| older >= newer) && levels.len() < 6 && levels[0] > 0, "{levels:?}");
    let merged: u64 = keyed.tables.tables.iter().filter(|table| table.level() > 0).map(Table::entries).sum();
    assert!(merged < 6 * 50, "{merged}");
    assert_eq!(keyed.get(&1u32.to_le_bytes()).unwrap(), None);
    assert_eq!(keyed.get(&(9u32 * 49).to_le_bytes()).unwrap().unwrap().0, [8, 0, 0, 0]);
    keyed.settle().unwrap();
    assert!(keyed.bytes() > 0 && keyed.spilled() > 0);
}

/// Whatever byte of a file is another one is found when it is read, and the file is named.
#[test]
fn every_damaged_byte_of_a_table_is_found() {
    let files = MemoryStore::default();
    let store: Arc<dyn Store> = Arc::new(files.clone());
    let keyed = many(&store, 1);
    let sound = files.content("s0");
    for at in 0..sound.len() {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 0x10;
        files.put("s0", bytes);
        let head = keyed.tables.tables[0].head().clone();
        let mut other: Keyed<Text> = Keyed::new(Arc::clone(&store));
        let read = other
            .adopt(Table::of(head).unwrap())
            .and_then(|()| (0..50u32).try_for_each(|key| other.get(&key.to_le_bytes()).map(|_| ())));
        let text = read.unwrap_err().to_string();
        assert!(text.contains("s0") && text.contains("spilled state"), "{text}");
    }
    files.put("s0", sound.to_vec());
    let read = restored(&keyed, &store);
    assert_eq!(read.get(&7u32.to_le_bytes()).unwrap().unwrap().0, [0; 4]);
}

/// Rows with times: whatever byte of one of their two files is another one is found by who reads them all.
#[test]
fn every_damaged_byte_of_timed_rows_is_found() {
    let files = MemoryStore::default();
    let store: Arc<dyn Store> = Arc::new(files.clone());
    let mut timed = Timed::new("timed", Arc::clone(&store));
    let keys: Vec<Vec<u8>> = (1..6u8).map(key).collect();
    let row = |at: usize| TimedRow { time: at as i64 * 37 % 30, mark: 0, key: &keys[at % 5], bytes: &keys[at % 4] };
    timed.put(&(0..30).map(row).collect::<Vec<_>>()).unwrap();
    let parts = timed.dump();
    let read = || {
        let mut other = Timed::new("timed", Arc::clone(&store));
        parts.iter().try_for_each(|part| other.restore(part))?;
        let mut found = 0;
        for key in &keys {
            found += other.of_key(key)?.iter().filter(|found| found.time >= 20).count();
        }
        let due = other.due(20)?;
        let rows = other.read(&due.iter().collect::<Vec<_>>())?;
        other.forget(20);
        Ok::<_, DataFusionError>((found, rows, due.iter().map(|due| due.time).collect::<Vec<_>>(), other.waiting()))
    };
    let (found, rows, times, waiting) = read().unwrap();
    assert_eq!((found, rows.len(), waiting), (10, 20, 10));
    assert!(times.is_sorted() && rows.iter().all(|row| keys.iter().any(|key| **key == **row)));
    for file in ["s0", "s1"] {
        let sound = files.content(file);
        for at in 0..sound.len() {
            let mut bytes = sound.to_vec();
            bytes[at] ^= 0x10;
            files.put(file, bytes);
            // Of the times nobody reads those that are not near.
            if let Err(error) = read() {
                let text = error.to_string();
                assert!(text.contains(file) && text.contains("spilled state"), "{text}");
            } else {
                assert_eq!(file, "s1", "byte {at}");
                let mut other = Timed::new("timed", Arc::clone(&store));
                parts.iter().for_each(|part| other.restore(part).unwrap());
                assert!(other.due(i64::MAX).is_err(), "byte {at} of {file}");
            }
        }
        files.put(file, sound.to_vec());
    }
}

#[test]
fn a_table_of_other_rows_is_not_read() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let mut head = many(&store, 1).tables.tables[0].head().clone();
    head.rows += 1;
    let error = Table::of(head).unwrap_err();
    assert!(error.contains("format 2") && error.contains("has 1"), "{error}");
}

/// Files have rows of Arrow's. When this fails, these have other bytes than the files that are there: [`table::ROWS`] is to be raised, and files of the number before are to be read, or
/// refused.
#[test]
fn rows_have_the_bytes_that_files_have() {
    use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray};
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(-2), None])),
        Arc::new(StringArray::from(vec![Some("tide"), Some("")])),
        Arc::new(Float64Array::from(vec![0.5, -1.0])),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Decimal128Array::from(vec![12_345, -1]).with_precision_and_scale(12, 2).unwrap()),
    ];
    let packed = Packing::new(columns.iter().map(|column| column.data_type().clone()).collect()).unwrap();
    let packed = packed.pack(&columns).unwrap();
    let hex = |at: usize| packed.row(at).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        (hex(0).as_str(), hex(1).as_str()),
        (
            "017ffffffffffffffe0274696465000000000401bfe000000000000001010180000000000000000000000000003039",
            "0000000000000000000101400fffffffffffff0000017fffffffffffffffffffffffffffffff"
        )
    );
}
