//! SQL as Tidemill reads it: sqlparser's PostgreSQL dialect, and productions of our own for sources, tables and views.
//!
//! The text is cut into tokens once, the tokens into statements at their semicolons. A statement that begins like one of ours is
//! read here; every other one goes to sqlparser. What always holds: no input panics or overflows the stack; every
//! error has a SQLSTATE and, where the text is at fault, a position in characters of the whole text.

pub mod ast;
pub mod options;

mod alter;
mod create;
mod function;
mod index;
mod pipeline;
mod rule;
mod sink;
mod spelling;
mod star_tree;
mod subject;
pub(crate) mod tokens;
mod truncate;
mod types;
mod view;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use self::tokens::{Cursor, Text, too_complex};
pub use ast::{Ddl, Statement, StatementKind};
pub(crate) use pipeline::parse_insert;

use crate::session::error::{Result, SqlError};

/// Bytes of one text.
const TEXT_BYTES_MAX: usize = 64 << 20;
/// Operators of one chain (`a OR b OR …`, `x UNION ALL y …`), which is a tree as deep as it is long.
const CHAIN_MAX: usize = 4_000;

/// The statements of `sql`; empty ones are left out.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    if sql.len() > TEXT_BYTES_MAX {
        return Err(
            too_complex().with_hint(format!("a statement may have {TEXT_BYTES_MAX} bytes; load rows with COPY"))
        );
    }
    let text = Text::new(sql)?;
    text.tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|tokens| tokens.iter().any(|token| !matches!(token.token, Token::Whitespace(_))))
        .map(|tokens| parse_one(&text, tokens))
        .collect()
}

/// The one statement that `tokens`, a part of `text`, are.
pub(crate) fn parse_one(text: &Text<'_>, tokens: &[TokenWithSpan]) -> Result<Statement> {
    check_chains(text, tokens)?;
    Ok(Statement { kind: statement(text, tokens)?, span: text.span(tokens) })
}

fn statement(text: &Text<'_>, tokens: &[TokenWithSpan]) -> Result<StatementKind> {
    let mut cursor = Cursor::new(text, tokens);
    let start = cursor.position();
    let explained = cursor.clone();
    let ddl = if pipeline::begins_pipeline(&cursor) {
        Some(pipeline::insert(&mut cursor)?)
    } else if cursor.keywords(&["EXPLAIN", "CREATE", "PIPELINE"]) {
        cursor = explained;
        cursor.step();
        cursor.step();
        match create::create(&mut cursor)? {
            Some(Ddl::CreatePipeline(statement)) => {
                Some(Ddl::CreatePipeline(ast::CreatePipeline { explain: true, ..statement }))
            }
            other => other,
        }
    } else if cursor.keyword("CREATE") {
        create::create(&mut cursor)?
    } else if cursor.keyword("ALTER") {
        alter::alter(&mut cursor)?
    } else if cursor.keyword("DROP") {
        alter::drop(&mut cursor)?
    } else if cursor.keyword("TRUNCATE") {
        Some(truncate::truncate(&mut cursor)?)
    } else {
        None
    };
    if let Some(ddl) = ddl {
        return match cursor.at_end() {
            true => Ok(StatementKind::Ddl(Box::new(ddl))),
            false => cursor.expected("end of statement"),
        };
    }
    let mut tokens = tokens.to_vec();
    let is_copy = Cursor::new(text, &tokens).is_keyword("COPY");
    if let Some(last) = tokens.last().filter(|_| is_copy) {
        // sqlparser wants COPY … FROM STDIN ended by a semicolon, with the data behind it.
        let end = TokenWithSpan { token: Token::SemiColon, span: last.span };
        tokens.push(end);
    }
    let parsed = text.parse_with(&tokens, |parser| parser.parse_statement());
    parsed.map(|statement| StatementKind::Other(Box::new(statement))).map_err(|error| match error.position {
        Some(_) => error,
        None => error.at(start),
    })
}

/// An object that later versions have: a clear refusal instead of a syntax error.
fn not_yet(cursor: &Cursor<'_>, verb: &str) -> Result<()> {
    for object in ["CONSUMER", "REPLICATION", "ALERT"] {
        if cursor.is_keyword(object) {
            return Err(SqlError::unsupported(format!("{verb} {object} is not supported yet")).at(cursor.position()));
        }
    }
    Ok(())
}

/// sqlparser reads a chain of operators in a loop and makes a tree out of it that later steps walk, and drop, by recursion.
fn check_chains(text: &Text<'_>, tokens: &[TokenWithSpan]) -> Result<()> {
    let mut outer = Vec::new();
    let mut operators = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => outer.push(std::mem::take(&mut operators)),
            Token::RParen | Token::RBracket => operators += outer.pop().unwrap_or(0),
            Token::Comma => operators = 0,
            Token::DoubleColon => operators += 8,
            Token::Word(Word { value, quote_style: None, .. }) => {
                let is_one_of = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
                // How much deeper plans get by it than by an operator.
                operators += match () {
                    () if is_one_of(&["AND", "OR", "NOT", "IS", "LIKE", "ILIKE", "COLLATE"]) => 1,
                    () if is_one_of(&["UNION", "EXCEPT", "INTERSECT", "JOIN"]) => 2,
                    () if is_one_of(&["AT"]) => 8,
                    () => 0,
                };
            }
            Token::Whitespace(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::Period => {}
            _ => operators += 1,
        }
        if operators > CHAIN_MAX {
            return Err(too_complex()
                .at(text.position(token.span.start))
                .with_detail(format!("a chain of more than {CHAIN_MAX} operators")));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../tests/fuzz/src/ddl.rs"]
mod fuzz;
#[cfg(test)]
mod tests;
