//! A real full disk: statements say so, ingestion waits, nothing is lost, and it goes on by itself when there is room again.

use std::{fs, io::Write, path::PathBuf, process::Command, time::Duration};

use super::{BINARY, create, send, topic};
use crate::support::{
    kafka::{Feed, brokers, create_topic},
    server::{Server, describe},
};

/// A file system of a few megabytes, in memory.
struct SmallDisk {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl SmallDisk {
    /// `None`, said aloud, where mounting is not allowed.
    fn mount(test: &str, mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::create_dir(&path).unwrap();
        let options = format!("size={mebibytes}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self { folder, path });
        }
        println!("SKIPPED {test}: no file system can be mounted here (it takes root)");
        None
    }

    /// Takes all the room that is left; deleting the file gives it back.
    fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        let mut block = vec![7; 1 << 16];
        while !block.is_empty() {
            if file.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.path).status().ok();
        let _ = &self.folder;
    }
}

#[test]
fn a_full_disk_stops_writers_and_loses_nothing() {
    let test = "exactly_once::full_disk::a_full_disk_stops_writers_and_loses_nothing";
    let Some(brokers) = brokers(test) else { return };
    let Some(disk) = SmallDisk::mount(test, 32) else { return };
    let topic = topic("full-disk");
    create_topic(&brokers, &topic, 1, &[]);
    let feed = Feed::new(&brokers, &topic);
    let mut server = Server::start_in(BINARY, &disk.path);
    create(&server, &brokers, &topic, "", "partitions = 1, seal_rows = 2000");
    server.sql("CREATE TABLE notes (id BIGINT, note TEXT)");
    let insert = |server: &Server, first: u64| {
        let rows: Vec<_> = (first..first + 200).map(|id| format!("({id}, '{}')", "n".repeat(500))).collect();
        server.try_sql(&format!("INSERT INTO notes VALUES {}", rows.join(", ")))
    };
    insert(&server, 0).unwrap();
    let mut inserted = 200;

    let filler = disk.fill();
    // The file's last page may have room for some more.
    let refused = loop {
        match insert(&server, inserted) {
            Ok(_) => inserted += 200,
            Err(error) => break describe(&error),
        }
        assert!(inserted < 100_000, "the disk does not get full");
    };
    assert!(refused.starts_with("53100"), "{refused}");
    assert_eq!(server.value("SELECT count(*) FROM notes"), inserted.to_string());
    send(&feed, 0, 0..20_000);
    feed.flush();
    server.wait_for("SELECT count(*) FROM t", "20000", Duration::from_secs(30));
    server.wait_for("SELECT count(*) > 0 FROM rt.events WHERE kind = 'seal_failed'", "t", Duration::from_secs(30));
    assert_eq!(server.value("SELECT sum(committed_offset) FROM rt.partitions WHERE source = 'raw'"), "0");

    fs::remove_file(filler).unwrap();
    // By itself; what is less than a full segment stays in memory until it is asked for.
    server.wait_for(
        "SELECT sum(committed_offset) > 0 FROM rt.partitions WHERE source = 'raw'",
        "t",
        Duration::from_secs(60),
    );
    server.sql("SELECT rt.seal('t')");
    assert_eq!(server.value("SELECT sum(committed_offset) FROM rt.partitions WHERE source = 'raw'"), "20000");
    insert(&server, inserted).unwrap();
    inserted += 200;
    for _ in 0..2 {
        let sum = |rows: u64| (rows * (rows - 1) / 2).to_string();
        let both = |rows: u64| vec![vec![Some(rows.to_string()), Some(rows.to_string()), Some(sum(rows))]];
        assert_eq!(server.sql("SELECT count(*), count(DISTINCT seq), sum(seq) FROM t"), both(20_000));
        assert_eq!(server.sql("SELECT count(*), count(DISTINCT id), sum(id) FROM notes"), both(inserted));
        server.kill_and_restart();
        server.sql("SELECT rt.drain('notes'), rt.drain('t')");
    }
}
