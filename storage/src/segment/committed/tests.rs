use std::{fs, fs::OpenOptions, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{PartitionId, TableId},
    scan::ScanHints,
    segment::{
        builder::{SealContext, seal},
        consuming::ConsumingSegment,
        inspect::{inspect, verify},
    },
    testing::{Random, forge, generate},
};

struct Sealed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    expected: Expected,
    schema: TableSchema,
    rows: u32,
}

fn sealed(seed: u64, rows: usize) -> Sealed {
    let mut random = Random::new(seed);
    let (schema, shapes) = generate::schema(&mut random);
    let batch = generate::batch(&mut random, &schema, &shapes, 0, rows);
    let segment = ConsumingSegment::new(SegmentId(1), Arc::new(schema.clone())).with(&batch, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 5 };
    let file = seal(&segment, dir.path(), "s", &context).unwrap();
    let expected = Expected { id: SegmentId(1), bytes: file.bytes, checksum: file.checksum };
    Sealed { _dir: dir, path: file.path, expected, schema, rows: rows as u32 }
}

fn request(schema: &TableSchema, columns: &[ColumnId]) -> Arc<ScanRequest> {
    Arc::new(ScanRequest {
        schema: Arc::new(schema.clone()),
        projection: columns.to_vec(),
        predicate: None,
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    })
}

fn all_columns(schema: &TableSchema) -> Vec<ColumnId> {
    schema.columns.iter().map(|column| column.id).collect()
}

fn read(
    segment: &Arc<dyn Segment>,
    columns: &[ColumnId],
    schema: &TableSchema,
) -> Result<Vec<arrow::array::RecordBatch>> {
    Arc::clone(segment).scan(0..segment.rows(), request(schema, columns), Arc::default())?.collect()
}

#[test]
fn opening_the_wrong_file_names_what_differs() {
    let sealed = sealed(1, 100);
    type Change = fn(&mut Expected);
    let changes: [(&str, Change); 3] = [
        ("file length", |e| e.bytes += 1),
        ("CRC-32C in the commit record", |e| e.checksum ^= 1),
        ("segment id", |e| e.id = SegmentId(2)),
    ];
    for (what, change) in changes {
        let mut expected = sealed.expected;
        change(&mut expected);
        let error = open(&sealed.path, &expected).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    assert!(matches!(open(&sealed.path.with_extension("no"), &sealed.expected), Err(Error::Io { .. })));
}

/// A damaged column fails whoever reads it, each time, and only them; the segment is quarantined.
#[test]
fn a_damaged_section_is_found_when_it_is_first_used() {
    let sealed = (0..).map(|seed| sealed(seed, 2000)).find(|sealed| sealed.schema.columns.len() > 2).unwrap();
    let section = inspect(&sealed.path).unwrap().columns[1].sections[0];
    let mut bytes = fs::read(&sealed.path).unwrap();
    bytes[section.offset as usize] ^= 0x10;
    fs::write(&sealed.path, bytes).unwrap();

    let segment = open(&sealed.path, &sealed.expected).unwrap();
    let ids = all_columns(&sealed.schema);
    assert!(read(&segment, &[ids[0], ids[2]], &sealed.schema).is_ok());
    assert_eq!(segment.state(), SegmentState::Committed);
    for _ in 0..2 {
        let error = read(&segment, &[ids[1]], &sealed.schema).unwrap_err();
        let expected = format!("column {}, section 0", sealed.schema.columns[1].name);
        assert!(
            matches!(&error, Error::Corrupt { path, what, .. } if *path == sealed.path && what.contains(&expected)),
            "{error}"
        );
        assert_eq!(segment.state(), SegmentState::Quarantined);
    }
    let problems = verify(&sealed.path).unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].position, section.offset);
    assert!(read(&segment, &[ids[0]], &sealed.schema).is_ok());
}

/// The file shrinks under a segment, before or while it is read: the error says so, other segments go on, nothing wrong is returned.
#[test]
fn a_file_that_shrinks_fails_its_readers_and_nobody_else() {
    for verified in [false, true] {
        let victim = (0..).map(|seed| sealed(seed, 60_000)).find(|s| s.expected.bytes > 600_000).unwrap();
        let other = sealed(77, 1000);
        let segment = open(&victim.path, &victim.expected).unwrap();
        let bystander = open(&other.path, &other.expected).unwrap();
        let ids = all_columns(&victim.schema);
        let before = if verified { read(&segment, &ids, &victim.schema).unwrap() } else { Vec::new() };
        let kept = format!("{:?}", before.last());

        OpenOptions::new().write(true).open(&victim.path).unwrap().set_len(8192).unwrap();
        let error = read(&segment, &ids, &victim.schema).unwrap_err();
        assert!(matches!(&error, Error::Poisoned { path } if *path == victim.path), "{error}");
        assert_eq!(segment.state(), SegmentState::Quarantined);
        assert!(read(&segment, &ids, &victim.schema).is_err());
        // What was handed out before does not live in the file.
        assert_eq!(format!("{:?}", before.last()), kept);
        assert!(read(&bystander, &all_columns(&other.schema), &other.schema).is_ok());
        assert_eq!(bystander.state(), SegmentState::Committed);
    }
}

#[test]
fn a_scan_without_columns_and_predicate_reads_nothing() {
    let sealed = sealed(3, 30_000);
    // Every section is damaged; none is looked at.
    let mut bytes = fs::read(&sealed.path).unwrap();
    for column in inspect(&sealed.path).unwrap().columns {
        for section in column.sections.iter().filter(|section| section.length > 0) {
            bytes[section.offset as usize] ^= 1;
        }
    }
    fs::write(&sealed.path, bytes).unwrap();
    let segment = open(&sealed.path, &sealed.expected).unwrap();
    let batches = read(&segment, &[], &sealed.schema).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), sealed.rows as usize);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Sections that lie under a right checksum: any error, any rows, but no panic and no read out of bounds.
    #[test]
    fn forged_sections_do_not_panic(
        seed in 0u64..40,
        rows in prop_oneof![1usize..50, 1000usize..1500],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let sealed = sealed(seed, rows);
        let mut bytes = fs::read(&sealed.path).unwrap();
        let data: Vec<usize> = inspect(&sealed.path)
            .unwrap()
            .columns
            .iter()
            .flat_map(|column| &column.sections)
            .flat_map(|section| section.offset as usize..(section.offset + section.length.min(400)) as usize)
            .collect();
        for (at, value) in changes {
            bytes[data[at.index(data.len())]] = value;
        }
        let bytes = forge::with_right_checksums(&bytes).unwrap();
        fs::write(&sealed.path, bytes).unwrap();
        let expected = Expected { checksum: inspect(&sealed.path).unwrap().checksum, ..sealed.expected };
        let segment = open(&sealed.path, &expected).unwrap();
        for id in all_columns(&sealed.schema) {
            let _ = read(&segment, &[id], &sealed.schema);
        }
        let mut random = Random::new(seed);
        for _ in 0..4 {
            let predicate = generate::predicate(&mut random, &sealed.schema, 1);
            let request = ScanRequest { predicate: Some(predicate), ..request(&sealed.schema, &all_columns(&sealed.schema)).as_ref().clone() };
            if let Ok(batches) = Arc::clone(&segment).scan(0..segment.rows(), Arc::new(request), Arc::default()) {
                batches.for_each(drop);
            }
        }
        verify(&sealed.path).unwrap();
    }
}
