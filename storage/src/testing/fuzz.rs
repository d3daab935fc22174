//! What the fuzz targets of segment files do with their input, and what replaying their corpora does again.

use std::{cell::RefCell, collections::HashMap, fs, path::Path, sync::Arc};

use super::{
    Random, codecs,
    forge::{with_right_checksums, with_right_footer_checksum},
    generate,
};
use crate::{
    ids::{PartitionId, SegmentId, TableId},
    scan::{ScanHints, ScanMetrics, ScanRequest},
    segment::{
        builder::{SealContext, seal},
        committed::{Expected, open},
        consuming::ConsumingSegment,
        inspect::{inspect, verify},
    },
};

/// Any bytes as a file: once as they are, once with the footer's checksum made right, so that mutations get past it. Whatever opens is
/// verified and read. Files are written to `folder`.
pub fn segment(bytes: &[u8], folder: &Path) {
    read(bytes, folder);
    if let Some(forged) = with_right_footer_checksum(bytes) {
        read(&forged, folder);
    }
}

/// A sound file of random columns, or of every codec (seed 255), a few bytes of its sections changed, all checksums made right again: this reaches the column codecs. The
/// input is the seed of the file (1 byte), then edits of (position u16, value u8).
pub fn forged_segment(input: &[u8], folder: &Path) {
    thread_local! {
        static SOUND: RefCell<HashMap<u8, Vec<u8>>> = RefCell::default();
    }
    let Some((seed, edits)) = input.split_first() else { return };
    let mut file = SOUND.with_borrow_mut(|known| known.entry(*seed).or_insert_with(|| sound(*seed, folder)).clone());
    let length = file.len();
    for edit in edits.chunks_exact(3) {
        let at = 64 + usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        file[at % length] = edit[2];
    }
    if let Some(forged) = with_right_checksums(&file) {
        read(&forged, folder);
    }
}

fn sound(seed: u8, folder: &Path) -> Vec<u8> {
    let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
    if seed == u8::MAX {
        return fs::read(seal(&codecs::segment(), folder, "sound", &context).unwrap().path).unwrap();
    }
    let mut random = Random::new(seed.into());
    let (schema, shapes) = generate::schema(&mut random);
    let rows = if seed.is_multiple_of(4) { 1500 } else { usize::from(seed) };
    let batch = generate::batch(&mut random, &schema, &shapes, 0, rows);
    let segment = ConsumingSegment::new(SegmentId(1), Arc::new(schema)).with(&batch, &[]).unwrap();
    fs::read(seal(&segment, folder, "sound", &context).unwrap().path).unwrap()
}

/// Everything a server does with a segment file.
fn read(bytes: &[u8], folder: &Path) {
    let path = &folder.join("any");
    fs::write(path, bytes).unwrap();
    let _ = verify(path);
    let Ok(inspection) = inspect(path) else { return };
    // A forged row count costs time, not safety.
    if inspection.rows > 100_000 {
        return;
    }
    let expected = Expected { id: inspection.id, bytes: inspection.bytes, checksum: inspection.checksum };
    let segment = open(path, &expected).unwrap();
    let mut random = Random::new(bytes.len() as u64);
    for column in &inspection.schema.columns {
        for predicate in [None, Some(generate::predicate(&mut random, &inspection.schema, 1))] {
            let request = Arc::new(ScanRequest {
                schema: Arc::clone(segment.schema()),
                projection: vec![column.id],
                predicate,
                limit: None,
                batch_rows: 8192,
                hints: ScanHints::default(),
            });
            let metrics = Arc::new(ScanMetrics::default());
            if let Ok(batches) = Arc::clone(&segment).scan(0..segment.rows(), request, metrics) {
                batches.for_each(drop);
            }
        }
    }
}
