//! Strategy: a sound file of random columns, a few bytes of its sections changed, all checksums made right again: this reaches the column
//! codecs. The input is the seed of the file (1 byte), then edits of (position u16, value u8).
#![no_main]

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use libfuzzer_sys::fuzz_target;
use tidemill_storage::{
    ids::{PartitionId, SegmentId, TableId},
    segment::{
        builder::{SealContext, seal},
        consuming::ConsumingSegment,
    },
    testing::{Random, forge::with_right_checksums, generate},
};

mod read;

thread_local! {
    static SOUND: RefCell<HashMap<u8, Vec<u8>>> = RefCell::default();
}

fn sound(seed: u8) -> Vec<u8> {
    let mut random = Random::new(seed.into());
    let (schema, shapes) = generate::schema(&mut random);
    let rows = if seed % 4 == 0 { 1500 } else { usize::from(seed) };
    let batch = generate::batch(&mut random, &schema, &shapes, 0, rows);
    let segment = ConsumingSegment::new(SegmentId(1), Arc::new(schema)).with(&batch, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let context = SealContext { table: TableId(1), partition: PartitionId(0), created_at_us: 0 };
    std::fs::read(seal(&segment, dir.path(), "sound", &context).unwrap().path).unwrap()
}

fuzz_target!(|input: &[u8]| {
    let Some((seed, edits)) = input.split_first() else { return };
    let mut file = SOUND.with_borrow_mut(|known| known.entry(*seed).or_insert_with(|| sound(*seed)).clone());
    for edit in edits.chunks_exact(3) {
        let at = 64 + usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        let length = file.len();
        file[at % length] = edit[2];
    }
    if let Some(forged) = with_right_checksums(&file) {
        read::read(&forged);
    }
});
