//! Expressions and what PostgreSQL 15.18 gives for them, session time zone Europe/Berlin.
//!
//! Each result was read from PostgreSQL; `tests/tools` of the repository has none of it, because it needs a server: run
//! `psql -At -c "SET TimeZone='Europe/Berlin'; SELECT (<expression>)::text"` to compare anew.

use crate::support::{World, rows};

fn berlin(world: &World) -> tidemill_query::Session {
    let session = world.session();
    session.settings().set("TimeZone", "Europe/Berlin", false).unwrap();
    session
}

/// Lines `expression => text` or `expression !! SQLSTATE`.
const CASES: &str = include_str!("postgres_cases.txt");

#[test]
fn expressions_give_what_postgresql_gives() {
    let world = World::new();
    let session = berlin(&world);
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with("--")) {
        count += 1;
        let (expression, wanted) = line.rsplit_once(" => ").map(|(e, w)| (e, Ok(w))).unwrap_or_else(|| {
            let (e, w) = line.split_once(" !! ").expect("a case has => or !!");
            (e, Err(w))
        });
        let found = rows(&session, &format!("SELECT ({expression})::text"));
        let matches = match (&found, wanted) {
            (Ok(rows), Ok(wanted)) => rows == &[[wanted.trim_start_matches("∅").to_owned()]],
            (Err(error), Err(state)) => error.sqlstate == state,
            _ => false,
        };
        if !matches {
            wrong.push(format!("{expression}: wanted {wanted:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
