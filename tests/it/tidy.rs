//! The house rules that no compiler checks: which way dependencies point, where the heavy crates live, where `unsafe` may stand,
//! how long a file may grow.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder` (relative to the repository), with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no Rust file");
    found
}

fn all_sources() -> Vec<(PathBuf, String)> {
    ["src", "storage/src", "query/src", "ingest/src"].into_iter().flat_map(sources).collect()
}

/// The lines of a file that are code: no comments, no tests.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn dependencies_point_one_way() {
    let storage = dependencies("storage/Cargo.toml");
    for above in ["tidemill-ingest", "tidemill-query", "tidemill", "datafusion", "tokio", "rdkafka", "pgwire"] {
        assert!(!storage.iter().any(|name| name == above), "storage must not depend on {above}");
    }
    let ingest = dependencies("ingest/Cargo.toml");
    assert!(!ingest.iter().any(|name| name == "tidemill-query" || name == "tidemill"), "ingest must not know query");
    let query = dependencies("query/Cargo.toml");
    assert!(!query.iter().any(|name| name == "tidemill-ingest" || name == "tidemill"), "query must not know ingest");
}

#[test]
fn heavy_crates_stay_at_home() {
    let homes: &[(&str, &[&str])] = &[
        ("rdkafka::", &["ingest/src/source/kafka", "ingest/src/sink/kafka"]),
        ("pgwire::", &["src/pgwire"]),
        ("redb::", &["src/catalog"]),
        ("axum::", &["src/http"]),
        ("memmap2::", &["storage/src/mmap.rs"]),
        ("tract_onnx::", &["query/src/functions/model"]),
        ("wasmtime::", &["query/src/functions/wasm"]),
    ];
    let mut strays = Vec::new();
    for (path, text) in all_sources() {
        for (needle, homes) in homes {
            if homes.iter().any(|home| path.starts_with(home)) {
                continue;
            }
            for (line, code) in code_lines(&text) {
                // `crate::pgwire::` and `tidemill::pgwire::` are ours.
                let own = code
                    .replace("crate::pgwire::", "")
                    .replace("super::pgwire::", "")
                    .replace("tidemill::pgwire::", "");
                if own.contains(needle) {
                    strays.push(format!("{}:{line}: {needle} belongs into {homes:?}", path.display()));
                }
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn unsafe_has_two_homes() {
    let mut strays = Vec::new();
    for (path, text) in all_sources() {
        if path.starts_with("storage/src/bitpack") || path == Path::new("storage/src/mmap.rs") {
            continue;
        }
        for (line, code) in code_lines(&text) {
            if ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"]
                .iter()
                .any(|form| code.contains(form))
            {
                strays.push(format!("{}:{line}: {}", path.display(), code.trim()));
            }
        }
    }
    assert!(strays.is_empty(), "{}", strays.join("\n"));
}

#[test]
fn threads_begin_in_runtime_files() {
    let mut strays = Vec::new();
    for (path, text) in all_sources() {
        if path.file_name().is_some_and(|name| name == "runtime.rs")
            || path.iter().any(|part| part == "tests" || part == "tests.rs")
        {
            continue;
        }
        for (line, code) in code_lines(&text) {
            if ["thread::spawn(", "thread::Builder::new(", "tokio::spawn("].iter().any(|call| code.contains(call)) {
                strays.push(format!("{}:{line}: {}", path.display(), code.trim()));
            }
        }
    }
    assert!(strays.is_empty(), "threads and tasks are begun in the package's runtime.rs:\n{}", strays.join("\n"));
}

#[test]
fn files_stay_small_and_say_what_they_are() {
    let mut faults = Vec::new();
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        if lines > 900 {
            faults.push(format!("{}: {lines} lines, split it by responsibility", path.display()));
        }
        if !path.iter().any(|part| part == "tests")
            && !path.ends_with("tests.rs")
            && !text.contains("//! ")
            && !text.contains("#![doc")
        {
            faults.push(format!("{}: no //! that says what the module is", path.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_undone_in_code() {
    let words = [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("FIX", "ME"), concat!("#[ig", "nore]")];
    let mut faults = Vec::new();
    for (path, text) in all_sources().into_iter().chain(sources("tests")) {
        for (index, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                faults.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn one_arrow_and_one_datafusion_in_the_tree() {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    for name in ["arrow", "arrow-schema", "datafusion", "parquet", "object_store", "rustls"] {
        let versions: Vec<_> = lock["package"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .map(|package| package["version"].as_str().unwrap())
            .collect();
        assert_eq!(versions.len(), 1, "{name} is in the tree in versions {versions:?}");
    }
}
