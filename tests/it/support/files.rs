//! What the files of a server hold.

use std::{fs, path::Path};

/// The files below a folder that have these bytes.
pub(crate) fn files_with(folder: &Path, marker: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(marker)) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
