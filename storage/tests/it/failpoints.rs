//! Sealing fails, or the process ends, at each of its steps: what is left is never taken for a segment, and a second try works.
//!
//! A failpoint is process-wide, so each drill runs in a child process: this binary with the name of the drill as its filter.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus},
};

use tidemill_storage::{
    Error,
    segment::{
        builder::{seal, temporary_name},
        inspect::verify,
    },
    testing::Random,
};

use crate::scan::{CONTEXT, consuming};

const POINTS: [&str; 6] =
    ["seal::create", "seal::write", "seal::sync_file", "seal::rename", "seal::sync_dir", "seal::verify"];
pub(crate) const POINT: &str = "TIDEMILL_TEST_POINT";
pub(crate) const DIR: &str = "TIDEMILL_TEST_DIR";

/// Runs a drill in a process of its own.
pub(crate) fn child(drill: &str, point: &str, dir: &Path) -> ExitStatus {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", drill])
        .env(POINT, point)
        .env(DIR, dir)
        .output()
        .unwrap();
    output.status
}

fn seal_in(dir: &Path) -> Result<(), Error> {
    let (segment, _) = consuming(&mut Random::new(8), 500);
    let file = seal(&segment, dir, "segment", &CONTEXT)?;
    assert_eq!(verify(&file.path).unwrap(), []);
    Ok(())
}

fn check_second_try(point: &str, dir: &Path) {
    // Before the rename there is nothing under the name; after it, only a whole file.
    let path = dir.join("segment");
    let renamed = matches!(point, "seal::sync_dir" | "seal::verify");
    assert_eq!(path.try_exists().unwrap(), renamed, "{point}");
    if renamed {
        assert_eq!(verify(&path).unwrap(), []);
    }
    assert_eq!(
        dir.join(temporary_name("segment")).try_exists().unwrap(),
        !renamed && point != "seal::create",
        "{point}"
    );
    seal_in(dir).unwrap();
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn every_step_may_fail() {
    if let Ok(point) = std::env::var(POINT) {
        let dir = std::env::var_os(DIR).unwrap();
        let dir = Path::new(&dir);
        fail::cfg(&point, "return(no space left)").unwrap();
        let error = seal_in(dir).unwrap_err();
        assert!(matches!(&error, Error::Io { message, .. } if message == "no space left"), "{error}");
        fail::remove(&point);
        check_second_try(&point, dir);
        return;
    }
    for point in POINTS {
        let dir = tempfile::tempdir().unwrap();
        assert!(child("failpoints::every_step_may_fail", point, dir.path()).success(), "{point}");
        assert!(dir.path().join("segment").try_exists().unwrap(), "{point}: the drill did not run");
    }
}

#[test]
fn the_process_may_end_at_every_step() {
    if let Ok(point) = std::env::var(POINT) {
        fail::cfg_callback(point, || std::process::abort()).unwrap();
        seal_in(Path::new(&std::env::var_os(DIR).unwrap())).unwrap();
        return;
    }
    for point in POINTS {
        let dir = tempfile::tempdir().unwrap();
        let status = child("failpoints::the_process_may_end_at_every_step", point, dir.path());
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{point}");
        check_second_try(point, dir.path());
    }
}
