//! `SUBSCRIBE [TO] query [WITH (option [= value], …)]`, with a table's or view's name for its rows, as Materialize has it.

use datafusion::sql::sqlparser::{
    ast,
    tokenizer::{Token, TokenWithSpan, Word},
};
use tidemill_query::SubscribeOptions;

use super::{Kind, Statement, one, parse};
use crate::{
    session::error::{Result, SqlError, state},
    sql::tokens::{Cursor, Text},
    suggest,
};

/// The statement.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// A SELECT, VALUES or TABLE.
    pub query: Statement,
    /// It is made of a name: positions in it are none that the client knows.
    pub is_name: bool,
    pub options: SubscribeOptions,
}

const OPTIONS: [&str; 2] = ["snapshot", "progress"];

/// The statement after its first word.
pub(super) fn subscribe(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<Kind> {
    let _ = cursor.keyword("TO");
    let position = cursor.position();
    let (tokens, given) = split(cursor.rest());
    if !tokens.iter().any(is_solid) {
        return Err(SqlError::syntax("SUBSCRIBE needs a query, or the name of a table or view").at(position));
    }
    let options = match given {
        Some(given) => options(&mut Cursor::new(text, given))?,
        None => SubscribeOptions::default(),
    };
    let is_name = is_name(tokens);
    let query = if is_name {
        let made = parse(&format!("SELECT * FROM {}", text.slice(tokens)));
        let made = made.map_err(|error| SqlError { position: Some(position), ..error })?;
        made.into_iter().next().ok_or_else(|| SqlError::internal("SUBSCRIBE made no query"))?
    } else {
        one(text, tokens)?
    };
    match &query.kind {
        Kind::Query(statement) if matches!(statement.as_ref(), ast::Statement::Query(_)) => {}
        _ => return Err(SqlError::syntax("SUBSCRIBE takes a SELECT, VALUES or TABLE").at(position)),
    }
    Ok(Kind::Subscribe(Box::new(Subscribe { query, is_name, options })))
}

fn is_solid(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

/// The query, and what stands in the `WITH (…)` at its end, which no query has there.
fn split(tokens: &[TokenWithSpan]) -> (&[TokenWithSpan], Option<&[TokenWithSpan]>) {
    let mut depth = 0;
    let mut open = None;
    for (at, token) in tokens.iter().enumerate().rev().filter(|(_, token)| is_solid(token)) {
        match (&token.token, open) {
            (Token::RParen, None) => depth += 1,
            (Token::LParen, None) => {
                depth -= 1;
                open = (depth == 0).then_some(at);
            }
            (Token::Word(Word { value, quote_style: None, .. }), Some(open)) if value.eq_ignore_ascii_case("with") => {
                return (&tokens[..at], Some(&tokens[open..]));
            }
            (_, Some(_)) => break,
            _ if depth == 0 => break,
            _ => {}
        }
    }
    (tokens, None)
}

/// `t`, `schema.t`
fn is_name(tokens: &[TokenWithSpan]) -> bool {
    let solid: Vec<&Token> = tokens.iter().filter(|token| is_solid(token)).map(|token| &token.token).collect();
    solid.len() % 2 == 1
        && solid.iter().enumerate().all(|(at, token)| match at % 2 {
            0 => matches!(token, Token::Word(_)),
            _ => matches!(token, Token::Period),
        })
}

fn options(cursor: &mut Cursor<'_>) -> Result<SubscribeOptions> {
    let mut options = SubscribeOptions::default();
    cursor.expect_symbol(&Token::LParen)?;
    loop {
        let position = cursor.position();
        let name = cursor.name("an option of SUBSCRIBE")?.value.to_lowercase();
        let is_alone = matches!(cursor.peek(), Some(Token::Comma | Token::RParen));
        let _ = cursor.symbol(&Token::Eq);
        let value = is_alone || boolean(cursor)?;
        match name.as_str() {
            "snapshot" => options.snapshot = value,
            "progress" => options.progress = value,
            _ => {
                let error =
                    SqlError::new(state::INVALID_PARAMETER_VALUE, format!("SUBSCRIBE has no option \"{name}\""));
                let hint =
                    suggest::hint(&name, OPTIONS).unwrap_or_else(|| "its options are snapshot and progress".into());
                return Err(error.with_hint(hint).at(position));
            }
        }
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    cursor.expect_symbol(&Token::RParen)?;
    if cursor.at_end() { Ok(options) } else { cursor.expected("end of statement") }
}

fn boolean(cursor: &mut Cursor<'_>) -> Result<bool> {
    for (word, value) in [("TRUE", true), ("ON", true), ("FALSE", false), ("OFF", false)] {
        if cursor.keyword(word) {
            return Ok(value);
        }
    }
    if !matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        return cursor.expected("true or false");
    }
    match cursor.string("true or false")?.to_lowercase().as_str() {
        "true" | "on" => Ok(true),
        "false" | "off" => Ok(false),
        _ => cursor.expected("true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Result<(String, SubscribeOptions)> {
        match parse(sql)?.remove(0).kind {
            Kind::Subscribe(read) => Ok((read.query.text.to_string(), read.options)),
            other => panic!("{sql} was read as {other:?}"),
        }
    }

    #[test]
    fn queries_names_and_options() {
        let options = |snapshot, progress| SubscribeOptions { snapshot, progress };
        for (sql, query, wanted) in [
            ("SUBSCRIBE SELECT 1", "SELECT 1", options(true, false)),
            ("subscribe to (SELECT a FROM t)", "(SELECT a FROM t)", options(true, false)),
            ("SUBSCRIBE TO t", "SELECT * FROM t", options(true, false)),
            ("SUBSCRIBE public.\"T t\" WITH (progress)", "SELECT * FROM public.\"T t\"", options(true, true)),
            (
                "SUBSCRIBE WITH x AS (SELECT 1) SELECT * FROM x WITH (SNAPSHOT = false, PROGRESS = 'on')",
                "WITH x AS (SELECT 1) SELECT * FROM x",
                options(false, true),
            ),
            ("SUBSCRIBE (SELECT f(a) FROM t) WITH (snapshot off)", "(SELECT f(a) FROM t)", options(false, false)),
            ("SUBSCRIBE SELECT (1)", "SELECT (1)", options(true, false)),
            ("SUBSCRIBE VALUES (1), (2)", "VALUES (1), (2)", options(true, false)),
        ] {
            assert_eq!(read(sql).unwrap(), (query.to_owned(), wanted), "{sql}");
        }
        for (sql, state) in [
            ("SUBSCRIBE", "42601"),
            ("SUBSCRIBE TO WITH (progress)", "42601"),
            ("SUBSCRIBE SELECT 1 WITH (progres)", "22023"),
            ("SUBSCRIBE SELECT 1 WITH (progress = 3)", "42601"),
            ("SUBSCRIBE INSERT INTO t VALUES (1)", "42601"),
            ("SUBSCRIBE SELECT 1 SELECT 2", "42601"),
        ] {
            assert_eq!(read(sql).unwrap_err().state, state, "{sql}");
        }
    }

    /// What docs/sql.md shows of statements that are read here.
    #[test]
    fn the_page_about_sql_is_true() {
        let page = include_str!("../../../docs/sql.md");
        let blocks = page.split("```postgresql").skip(1).filter_map(|block| block.split("```").next());
        let statements: usize =
            blocks.map(|sql| parse(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}")).len()).sum();
        assert!(statements >= 11, "{statements}");
    }
}
