//! Plans that show what reaches the segments: `tests/plans/*.txt` have statements and the answers of EXPLAIN to them.
//!
//! ```text
//! # what it shows
//! SELECT …
//! ----
//! the plan
//! ```
//!
//! With `TIDEMILL_TEST_PLANS=write` the plans are written anew: read what changed before it is committed. Times, bytes and numbers that
//! go on from plan to plan are left out.

use std::{env, fmt::Write, fs, path::Path, time::Duration};

use crate::support::server::Server;

/// The plan of the last statement; settings stand before it.
fn explained(server: &Server, statements: &str) -> String {
    let (settings, last) = statements.rsplit_once("; ").unwrap_or(("", statements));
    let explain = if last.starts_with("EXPLAIN") { last.to_owned() } else { format!("EXPLAIN {last}") };
    // On a connection of its own, so that settings end with it.
    let rows = server.sql(&format!("SET TimeZone = 'UTC'; {settings}; {explain}"));
    rows.into_iter().flatten().flatten().map(|line| settled(&line) + "\n").collect()
}

/// Without what is another each time.
fn settled(line: &str) -> String {
    let mut line = line.to_owned();
    for (begin, ends) in [(" time=", ", "), (" bytes_read=", ", "), ("__datafusion_extracted_", "")] {
        let mut from = 0;
        while let Some(at) = line[from..].find(begin).map(|at| from + at) {
            let number = at + begin.len();
            let digits =
                line[number..].find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(line.len() - number);
            let mut end = number + digits;
            end += if line[end..].starts_with(" ms") { 3 } else { 0 };
            end += if !ends.is_empty() && line[end..].starts_with(ends) { ends.len() } else { 0 };
            let kept = if ends.is_empty() { number } else { at + 1 };
            line.replace_range(kept..end, "");
            from = kept;
        }
    }
    line
}

/// The text with the plans as they are now.
fn with_plans(server: &Server, text: &str) -> String {
    let mut out = String::new();
    for block in text.trim_end().split("\n\n") {
        let (asked, _) = block.split_once("\n----").expect("a statement and its plan");
        let statements: Vec<&str> = asked.lines().filter(|line| !line.starts_with('#')).collect();
        let plan = explained(server, &statements.join(" "));
        write!(out, "{asked}\n----\n{plan}\n").expect("a text takes everything");
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

#[test]
fn plans_show_what_reaches_the_segments() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let server = Server::start_with(env!("CARGO_BIN_EXE_tidemill"), &["--query-lanes", "2"]);
    let setup = fs::read_to_string(folder.join("setup.sql")).unwrap();
    for statement in setup.lines().filter(|line| !line.starts_with("--")) {
        server.sql(statement);
    }
    server.wait_for("SELECT bool_and(state = 'ready') FROM rt.indexes", "t", Duration::from_secs(120));
    let writes = env::var("TIDEMILL_TEST_PLANS").is_ok_and(|word| word == "write");
    let mut differences = Vec::new();
    for name in ["conditions", "indexes", "rows", "aggregates", "lookups"] {
        let path = folder.join(format!("{name}.txt"));
        let written = fs::read_to_string(&path).unwrap();
        let now = with_plans(&server, &written);
        if writes {
            fs::write(&path, &now).unwrap();
        } else if now != written {
            let lines = now.lines().zip(written.lines()).find(|(now, written)| now != written);
            differences.push(format!("{name}.txt: {lines:#?}\n\nall of it is now:\n{now}"));
        }
    }
    assert!(differences.is_empty(), "(now, written)\n{}", differences.join("\n"));
}

/// Types were made to fit by several partitions above the sort, and their batches written as they came: a table that was filled in the order of time was not.
#[test]
fn rows_are_written_in_the_order_they_are_given() {
    let server = Server::start(env!("CARGO_BIN_EXE_tidemill"));
    server.sql("CREATE TABLE t (i INT, ts TIMESTAMPTZ)");
    let rows = "SELECT i::bigint, now() + i * INTERVAL '1 second' FROM generate_series(1, 100000) AS s(i) ORDER BY i";
    let plan = server.sql(&format!("EXPLAIN INSERT INTO t {rows}"));
    let plan: Vec<String> = plan.into_iter().flatten().flatten().collect();
    let sort = plan.iter().position(|line| line.contains("SortPreservingMergeExec")).expect("rows are sorted");
    assert!(!plan[..sort].iter().any(|line| line.contains("RepartitionExec")), "{}", plan.join("\n"));
    server.sql(&format!("INSERT INTO t {rows}"));
    let falls = "SELECT count(*) FROM (SELECT i, lag(i) OVER () AS before FROM t) x WHERE before > i";
    assert_eq!(server.value(falls), "0");
}
