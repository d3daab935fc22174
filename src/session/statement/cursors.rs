//! DECLARE, FETCH and MOVE.

use std::time::Duration;

use datafusion::sql::sqlparser::{ast, tokenizer::Token};

use super::{Kind, one};
use crate::{
    config::duration,
    session::error::{Result, SqlError, state},
    sql::tokens::{Cursor, Text},
};

/// FETCH or MOVE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub cursor: String,
    pub step: Step,
    pub moves: bool,
    /// How long FETCH waits for the first row of a subscription; `None`: until there is one.
    pub timeout: Option<Duration>,
}

/// Where a cursor goes, and which rows it gives on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many rows further on, all of them given; `None` is ALL.
    Forward(Option<u64>),
    Backward(Option<u64>),
    /// To one row, which alone is given: counted from the first, or with a sign from the last; 0 is before the first.
    Absolute(i64),
    /// The same, counted from the present row.
    Relative(i64),
}

pub(super) fn declare(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<Kind> {
    let name = cursor.name("cursor name")?.value;
    let (mut binary, mut scroll) = (false, false);
    loop {
        if cursor.keyword("BINARY") {
            binary = true;
        } else if cursor.keyword("SCROLL") {
            scroll = true;
        } else if !(cursor.keyword("INSENSITIVE") || cursor.keyword("ASENSITIVE") || cursor.keywords(&["NO", "SCROLL"]))
        {
            break;
        }
    }
    cursor.expect_keyword("CURSOR")?;
    let hold = cursor.keywords(&["WITH", "HOLD"]);
    let _ = !hold && cursor.keywords(&["WITHOUT", "HOLD"]);
    cursor.expect_keyword("FOR")?;
    let query = Box::new(one(text, cursor.rest())?);
    match &query.kind {
        Kind::Query(statement) if matches!(statement.as_ref(), ast::Statement::Query(_)) => {}
        Kind::Subscribe(_) if scroll => {
            return Err(SqlError::unsupported("a SCROLL cursor for SUBSCRIBE is not supported")
                .with_hint("declare it without SCROLL")
                .at(query.offset + 1));
        }
        Kind::Subscribe(_) => {}
        _ => {
            return Err(SqlError::syntax("a cursor is declared for a SELECT, VALUES or SUBSCRIBE").at(query.offset + 1));
        }
    }
    Ok(Kind::Declare { name, hold, binary, scroll, query })
}

pub(super) fn fetch(cursor: &mut Cursor<'_>, moves: bool) -> Result<Fetch> {
    let step = step(cursor)?;
    let _ = cursor.keyword("FROM") || cursor.keyword("IN");
    let name = cursor.name("cursor name")?.value;
    Ok(Fetch { cursor: name, step, moves, timeout: timeout(cursor)? })
}

/// `WITH (timeout = '1 second')`
fn timeout(cursor: &mut Cursor<'_>) -> Result<Option<Duration>> {
    if !cursor.keyword("WITH") {
        return Ok(None);
    }
    cursor.expect_symbol(&Token::LParen)?;
    cursor.expect_keyword("TIMEOUT")?;
    let _ = cursor.symbol(&Token::Eq);
    let position = cursor.position();
    let written = cursor.string("a duration such as '1s'")?;
    cursor.expect_symbol(&Token::RParen)?;
    match duration(&written) {
        Ok(duration) => Ok(Some(duration)),
        Err(message) => Err(SqlError::new(state::INVALID_PARAMETER_VALUE, format!("timeout: {message}")).at(position)),
    }
}

fn step(cursor: &mut Cursor<'_>) -> Result<Step> {
    let counted = |cursor: &Cursor<'_>| matches!(cursor.peek(), Some(Token::Number(..) | Token::Minus | Token::Plus));
    for (word, step) in [
        ("NEXT", Step::Forward(Some(1))),
        ("PRIOR", Step::Backward(Some(1))),
        ("FIRST", Step::Absolute(1)),
        ("LAST", Step::Absolute(-1)),
        ("ALL", Step::Forward(None)),
    ] {
        if cursor.keyword(word) {
            return Ok(step);
        }
    }
    if cursor.keyword("ABSOLUTE") {
        return Ok(Step::Absolute(count(cursor)?));
    }
    if cursor.keyword("RELATIVE") {
        return Ok(Step::Relative(count(cursor)?));
    }
    let is_backward = cursor.keyword("BACKWARD");
    if !is_backward {
        cursor.keyword("FORWARD");
    }
    let rows = if cursor.keyword("ALL") {
        None
    } else if counted(cursor) {
        Some(count(cursor)?)
    } else {
        Some(1)
    };
    // A negative count goes the other way.
    Ok(match (rows, is_backward) {
        (None, false) => Step::Forward(None),
        (None, true) => Step::Backward(None),
        (Some(rows), is_backward) => match (rows < 0) == is_backward || rows == 0 {
            true => Step::Forward(Some(rows.unsigned_abs())),
            false => Step::Backward(Some(rows.unsigned_abs())),
        },
    })
}

fn count(cursor: &mut Cursor<'_>) -> Result<i64> {
    let negative = cursor.symbol(&Token::Minus);
    if !negative {
        cursor.symbol(&Token::Plus);
    }
    let position = cursor.position();
    let number = i64::try_from(cursor.number("count")?)
        .map_err(|_| SqlError::syntax("a count of rows is out of range").at(position))?;
    Ok(if negative { -number } else { number })
}
