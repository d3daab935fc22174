//! What the fuzz targets of segment files once found or started from, again.

use std::fs;

use tidemill_storage::testing::fuzz;

fn replay(target: &str, run: impl Fn(&[u8], &std::path::Path)) {
    let folder = tempfile::tempdir().unwrap();
    let corpus = format!("{}/../tests/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap(), folder.path());
        files += 1;
    }
    assert!(files > 0, "the corpus of {target} is empty");
}

#[test]
fn the_corpus_of_any_bytes() {
    replay("segment", fuzz::segment);
    let folder = tempfile::tempdir().unwrap();
    for version in [1, 2, 3] {
        let file = format!("{}/tests/golden/v{version}.segment", env!("CARGO_MANIFEST_DIR"));
        fuzz::segment(&fs::read(file).unwrap(), folder.path());
    }
}

#[test]
fn the_corpus_of_forged_files() {
    replay("forged_segment", fuzz::forged_segment);
}
