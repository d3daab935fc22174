//! Segment files: any bytes, and sound files with changed ones.

use tidemill_storage::testing::fuzz;

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder");
}

pub fn segment(bytes: &[u8]) {
    FOLDER.with(|folder| fuzz::segment(bytes, folder.path()));
}

pub fn forged_segment(bytes: &[u8]) {
    FOLDER.with(|folder| fuzz::forged_segment(bytes, folder.path()));
}
