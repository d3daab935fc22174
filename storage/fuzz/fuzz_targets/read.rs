//! Everything a server does with a segment file.

use std::{io::Write, sync::Arc};

use tidemill_storage::{
    scan::{ScanMetrics, ScanRequest},
    segment::{
        committed::{Expected, open},
        inspect::{inspect, verify},
    },
    testing::{Random, generate},
};

pub fn read(bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let path = file.path();
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
            });
            let metrics = Arc::new(ScanMetrics::default());
            if let Ok(batches) = Arc::clone(&segment).scan(0..segment.rows(), request, metrics) {
                batches.for_each(drop);
            }
        }
    }
}
