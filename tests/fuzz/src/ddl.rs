//! Any text as statements.
#![allow(unreachable_pub, reason = "public for the fuzz target; a part of the tests elsewhere")]

use crate::sql::parse;

/// Panics where the parser breaks its rules: a SQLSTATE always, a position within the text, the same answer when asked again.
pub fn ddl(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match parse(text) {
        Ok(statements) => {
            for statement in statements {
                let span = statement.span;
                let part = text.get(span.clone()).unwrap_or_else(|| panic!("{span:?} of {} bytes", text.len()));
                assert_eq!(parse(part).map(|again| again.len()), Ok(1), "{part}");
            }
        }
        Err(error) => {
            assert_eq!(error.state.len(), 5);
            assert!(!error.message.is_empty());
            let characters = text.chars().count() as u32;
            assert!(error.position.is_none_or(|at| at > 0 && at <= characters + 1), "{error:?}");
        }
    }
}
