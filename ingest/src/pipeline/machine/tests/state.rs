//! Pictures in files: what is damaged, of another version or of another query is refused.

use super::{rig::*, *};

/// A file that is not what the checkpoint says is refused, whatever byte is another one.
#[test]
fn a_damaged_state_is_refused() {
    let bench = Bench::new(Window::Tumble { size: 10 * SECOND });
    let mut machine = bench.machine(1);
    machine.apply(&batch(0, 0, &[(1, Some(2), 100), (2, None, 101)])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let picture = machine.picture().unwrap();
    let file = state_file::write(directory.path(), "s", &picture).unwrap();
    assert_eq!(state_file::read(directory.path(), &file).unwrap(), picture);
    let path = directory.path().join("s");
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, &damaged).unwrap();
        let error = state_file::read(directory.path(), &file).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    state_file::read(directory.path(), &file).unwrap_err();
}

/// A state of another query is refused by name, not taken for what it is not.
#[test]
fn a_state_of_another_query_is_refused() {
    let source = || [RigSource { name: "s", delay_s: 5 }];
    let text = |selected: &str, grouped: &str| format!("SELECT {selected} FROM s GROUP BY {grouped}");
    let tumble = "TUMBLE(ts, INTERVAL '10 seconds')";
    let queries = [
        text("id, count(*)", &format!("id, {tumble}")),
        text("v, count(*)", &format!("v, {tumble}")),
        text("id, count(DISTINCT v)", &format!("id, {tumble}")),
        text("id, count(*), sum(v)", &format!("id, {tumble}")),
        text("id, count(*)", "id"),
        text("id, count(*)", "id, SESSION(ts, INTERVAL '5 seconds')"),
        "SELECT DISTINCT ON (id) id, v, ts FROM s WITHIN INTERVAL '1 hour'".into(),
        "SELECT a.id FROM s a JOIN s b ON a.id = b.id AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '1 hour'".into(),
        "SELECT id, v FROM s".into(),
    ];
    let rigs: Vec<Rig> = queries.iter().map(|text| Rig::new(&source(), text, Late::default())).collect();
    let rows: Vec<Event> = (0..5).map(|n| (Some(format!("k{n}")), Some(n), 100)).collect();
    for (of, made) in rigs.iter().enumerate().take(queries.len() - 1) {
        let mut machine = made.machine(1);
        machine.apply(&made.arrival(0, 0, 0, &rows)).unwrap();
        let picture = machine.picture().unwrap();
        made.restore(picture.clone()).unwrap();
        for (at, other) in rigs.iter().enumerate().filter(|(at, _)| *at != of) {
            let Err(error) = other.restore(picture.clone()) else { panic!("{} taken by {}", queries[of], queries[at]) };
            assert!(error.to_string().contains("the state"), "{error}");
        }
    }
}

/// What the first version of the server wrote is read, and what a later one writes is refused as that.
#[test]
fn files_of_other_versions() {
    let bench = Bench::new(Window::Tumble { size: 10 * SECOND });
    let mut machine = bench.machine(1);
    let rows: Vec<Row> = (0..8).map(|n| (n % 3, Some(n), 100 + n)).collect();
    machine.apply(&batch(0, 0, &rows)).unwrap();
    let picture = machine.picture().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let name = "first.state";
    let bytes = state_file::encode_first(&picture).unwrap();
    std::fs::write(directory.path().join(name), &bytes).unwrap();
    let file = |bytes: &[u8]| state_file::StateFile {
        file: name.into(),
        bytes: bytes.len() as u64,
        checksum: crc32c::crc32c(bytes),
    };
    assert_eq!(state_file::read(directory.path(), &file(&bytes)).unwrap(), picture);
    let mut later = bytes;
    later[7] = b'9';
    std::fs::write(directory.path().join(name), &later).unwrap();
    let error = state_file::read(directory.path(), &file(&later)).unwrap_err().to_string();
    assert!(error.contains("later version") && error.contains(name), "{error}");
}
