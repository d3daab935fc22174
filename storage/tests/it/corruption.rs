//! Damaged files: whatever is flipped, inserted, removed or cut off, a segment answers rightly or says `Corrupt`, and `verify` finds every
//! single flipped byte. Nothing panics.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use tidemill_storage::{
    Error, Result,
    ids::{ColumnId, SegmentId},
    scan::ScanMetrics,
    schema::{DataType, TableSchema},
    segment::{
        builder::seal,
        committed::{Expected, open},
        inspect::{inspect, verify},
    },
    testing::{
        Random, codecs,
        forge::with_right_checksums,
        oracle::{self, Row, Written},
    },
};

use crate::scan::{CONTEXT, consuming, request};

struct Valid {
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
    expected: Expected,
    written: Written,
}

impl Valid {
    fn new(seed: u64, rows: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (segment, written) = consuming(&mut Random::new(seed), rows);
        let file = seal(&segment, dir.path(), "valid", &CONTEXT).unwrap();
        let expected = Expected { id: SegmentId(5), bytes: file.bytes, checksum: file.checksum };
        Self { bytes: fs::read(&file.path).unwrap(), dir, expected, written }
    }

    fn with(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("damaged");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Right rows or `Corrupt`, whether the reader expects the old length or the new one.
    fn check(&self, bytes: &[u8]) {
        let path = self.with(bytes);
        let as_found = Expected { bytes: bytes.len() as u64, ..self.expected };
        for expected in [self.expected, as_found] {
            match scan_all(&path, &expected, &self.written.schema) {
                Ok(rows) => assert!(rows == self.written.rows, "a damaged file gave other rows"),
                Err(Error::Corrupt { path: named, .. }) => assert_eq!(named, path),
                Err(other) => panic!("{other}"),
            }
        }
        match inspect(&path) {
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

fn scan_all(path: &Path, expected: &Expected, schema: &TableSchema) -> Result<Vec<Row>> {
    let segment = open(path, expected)?;
    let all: Vec<ColumnId> = schema.columns.iter().map(|column| column.id).collect();
    let types: Vec<DataType> = schema.columns.iter().map(|column| column.data_type.clone()).collect();
    let request = request(schema, all, None, None, 8192);
    let mut rows = Vec::new();
    for batch in Arc::clone(&segment).scan(0..segment.rows(), request, Arc::new(ScanMetrics::default()))? {
        rows.extend(oracle::rows_of(&types, &batch?));
    }
    Ok(rows)
}

#[test]
fn verify_finds_every_flipped_byte() {
    for (seed, rows) in [(1, 0), (2, 1), (8, 40)] {
        let valid = Valid::new(seed, rows);
        assert_eq!(verify(&valid.with(&valid.bytes)).unwrap(), []);
        for at in 0..valid.bytes.len() {
            let mut bytes = valid.bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            let problems = verify(&valid.with(&bytes)).unwrap();
            assert!(!problems.is_empty(), "byte {at} of {} was flipped and nobody saw it", bytes.len());
            assert!(problems.iter().all(|problem| problem.position <= at as u64 && !problem.section.is_empty()));
            if at % 7 == 0 {
                valid.check(&bytes);
            }
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let valid = Valid::new(4, 50);
    for length in 0..valid.bytes.len() {
        let bytes = &valid.bytes[..length];
        assert!(!verify(&valid.with(bytes)).unwrap().is_empty(), "cut to {length} bytes");
        valid.check(bytes);
    }
}

/// The files of the other tests are too small to hold a compressed section; this one has each kind of them.
#[test]
fn a_damaged_section_of_any_codec_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = seal(&codecs::segment(), dir.path(), "sound", &CONTEXT).unwrap();
    let sound = fs::read(&file.path).unwrap();
    let inspection = inspect(&file.path).unwrap();
    let path = dir.path().join("damaged");
    let expected = Expected { id: inspection.id, bytes: inspection.bytes, checksum: inspection.checksum };
    for column in &inspection.columns {
        let schema = TableSchema { columns: vec![column.column.clone()], ..inspection.schema.clone() };
        let mut refused = 0;
        for (index, section) in column.sections.iter().enumerate() {
            // Their beginnings, where lengths and tables stand, and places all over them.
            let beginning = section.offset..section.offset + section.length.min(40);
            let all = (section.offset..section.offset + section.length).step_by((section.length / 30 + 1) as usize);
            for at in beginning.step_by(3).chain(all) {
                let mut bytes = sound.clone();
                bytes[at as usize] ^= 1 << (at % 8);
                fs::write(&path, &bytes).unwrap();
                let Err(Error::Corrupt { path: named, what, .. }) = scan_all(&path, &expected, &schema) else {
                    panic!("nobody saw that byte {at} was flipped");
                };
                assert_eq!(named, path);
                assert!(what.starts_with(&format!("column {}, section {index} ", column.column.name)), "{what}");
                // Under right checksums: other values, or what the codec says.
                fs::write(&path, with_right_checksums(&bytes).unwrap()).unwrap();
                let forged = inspect(&path).unwrap();
                let expected = Expected { bytes: forged.bytes, checksum: forged.checksum, ..expected };
                match scan_all(&path, &expected, &schema) {
                    Ok(rows) => assert_eq!(rows.len(), inspection.rows as usize),
                    Err(Error::Corrupt { path: named, what, .. }) => {
                        assert_eq!(named, path);
                        assert!(what.starts_with(&format!("column {}", column.column.name)), "{what}");
                        refused += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
        assert!(refused > 0, "no codec refused anything of column {}", column.column.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn bytes_put_in_taken_out_and_changed(
        seed in 0u64..30,
        rows in prop_oneof![0usize..60, 1000usize..2000],
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..3, any::<u8>(), 1usize..200), 1..4),
    ) {
        let valid = Valid::new(seed, rows);
        let mut bytes = valid.bytes.clone();
        for (at, kind, value, count) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => drop(bytes.splice(at..at, std::iter::repeat_n(value, count))),
                _ => drop(bytes.drain(at..(at + count).min(bytes.len()))),
            }
            if bytes.is_empty() {
                break;
            }
        }
        if bytes != valid.bytes {
            prop_assert!(!verify(&valid.with(&bytes)).unwrap().is_empty());
        }
        valid.check(&bytes);
    }
}
