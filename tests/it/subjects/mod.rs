//! Subjects in SQL: statements and their errors, and verdicts on schemas, which are true.

mod matrix;
mod proof;

use crate::support::server::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

/// Rows of PROPOSE: object, kind, verdict, reason.
fn verdicts(server: &Server, subject: &str, schema: &str) -> Vec<Vec<String>> {
    let rows = server.sql(&format!("ALTER SUBJECT {subject} PROPOSE '{}'", schema.replace('\'', "''")));
    rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect()
}

/// Names of what breaks, sorted; the subject itself is called that.
fn broken(rows: &[Vec<String>]) -> Vec<String> {
    let mut names: Vec<String> = rows
        .iter()
        .filter(|row| row[2] == "breaks")
        .map(|row| if row[1] == "subject" { "subject".to_owned() } else { row[0].clone() })
        .collect();
    names.sort();
    names
}
