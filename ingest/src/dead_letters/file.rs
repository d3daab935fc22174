//! A committed file of dead letters, as long as anybody may want to read it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::commit::DeadLetterRecord;

/// One file that a commit named. After a replay has put its letters elsewhere it is deleted by the last one who holds it: a query of `rt.dlq`
/// that listed it before still reads it.
#[derive(Debug)]
pub(crate) struct DeadLetterFile {
    pub(crate) record: DeadLetterRecord,
    path: PathBuf,
    replaced: AtomicBool,
}

impl DeadLetterFile {
    pub(crate) fn new(directory: &Path, record: DeadLetterRecord) -> Self {
        Self { path: directory.join(&record.file), record, replaced: AtomicBool::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata log names it no more.
    pub(crate) fn replaced(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }
}

impl Drop for DeadLetterFile {
    fn drop(&mut self) {
        if *self.replaced.get_mut()
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = ?self.path, %error, "a file of replayed dead letters stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_replaced_file_goes_with_its_last_holder() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            fs::write(directory.path().join(name), b"x").unwrap();
            let record = DeadLetterRecord { file: name.into(), bytes: 1, checksum: 0, rows: 0 };
            Arc::new(DeadLetterFile::new(directory.path(), record))
        };
        let (kept, replaced) = (file("kept"), file("replaced"));
        replaced.replaced();
        let reader = Arc::clone(&replaced);
        drop((kept, replaced));
        assert!(fs::exists(reader.path()).unwrap());
        drop(reader);
        assert!(!fs::exists(directory.path().join("replaced")).unwrap());
        assert!(fs::exists(directory.path().join("kept")).unwrap());
    }
}
