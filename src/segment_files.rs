//! `tidemill segment inspect | verify`: what a segment file holds, and whether its bytes are what they were.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tidemill_storage::segment::inspect;

/// Inspects or verifies a file, or all segment files under a directory. Exits 1 when something is wrong with one.
pub fn run(verify: bool, path: &Path, out: &mut impl Write) -> ExitCode {
    let mut files = Vec::new();
    if let Err(error) = find(path, &mut files) {
        let _ = writeln!(out, "{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    if files.is_empty() {
        let _ = writeln!(out, "{}: no segment files", path.display());
        return ExitCode::FAILURE;
    }
    let mut sound = true;
    for file in &files {
        let result = if verify { verify_file(file, out) } else { inspect_file(file, out) };
        // Whoever closed the pipe does not want to know.
        sound &= result.unwrap_or(true);
    }
    if verify && files.len() > 1 {
        let _ = writeln!(out, "{} files, {}", files.len(), if sound { "all sound" } else { "not all sound" });
    }
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn find(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if !path.metadata()?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries =
        std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() || entry.extension().is_some_and(|extension| extension == "seg") {
            find(&entry, files)?;
        }
    }
    Ok(())
}

fn verify_file(path: &Path, out: &mut impl Write) -> std::io::Result<bool> {
    match inspect::verify(path) {
        Ok(problems) if problems.is_empty() => {
            writeln!(out, "{}: sound", path.display())?;
            Ok(true)
        }
        Ok(problems) => {
            for problem in problems {
                let (section, position) = (problem.section, problem.position);
                writeln!(
                    out,
                    "{}: {section} at byte {position}: expected {}, found {}",
                    path.display(),
                    problem.expected,
                    problem.found
                )?;
            }
            Ok(false)
        }
        Err(error) => {
            writeln!(out, "{}: {error}", path.display())?;
            Ok(false)
        }
    }
}

fn inspect_file(path: &Path, out: &mut impl Write) -> std::io::Result<bool> {
    let found = match inspect::inspect(path) {
        Ok(found) => found,
        Err(error) => {
            writeln!(out, "{}: {error}", path.display())?;
            return Ok(false);
        }
    };
    writeln!(out, "{}", path.display())?;
    writeln!(
        out,
        "  format {}, {} bytes, checksum {:08x}; table {}, partition {}, segment {}, {} rows, schema version {}",
        found.version,
        found.bytes,
        found.checksum,
        found.table,
        found.partition,
        found.id,
        found.rows,
        found.schema.version
    )?;
    if let Some((first, last)) = found.time_range {
        writeln!(out, "  time {first} to {last}")?;
    }
    for range in &found.offsets {
        writeln!(
            out,
            "  source {} partition {}: offsets {} to {}",
            range.stream.source, range.stream.partition, range.from, range.to
        )?;
    }
    writeln!(out, "  {:<24} {:<28} {:<24} {:>12} {:>10}", "column", "type", "encoding", "bytes", "nulls")?;
    for column in &found.columns {
        let (name, data_type) = (&column.column.name, column.column.data_type.to_string());
        writeln!(
            out,
            "  {name:<24} {data_type:<28} {:<24} {:>12} {:>10}",
            column.encoding, column.bytes, column.stats.nulls
        )?;
    }
    Ok(true)
}
