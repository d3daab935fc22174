//! The tokens of one statement, and the steps that the productions take through them.

use std::ops::Range;

use datafusion::sql::sqlparser::{
    ast,
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word},
};

use super::{ast::Name, spelling::respelled};
use crate::session::error::{Result, SqlError, state};

/// Nesting of parentheses and subqueries that sqlparser is allowed, in its own count.
const DEPTH_MAX: usize = 64;

/// A string of SQL, cut into tokens.
pub(crate) struct Text<'a> {
    pub(crate) sql: &'a str,
    is_ascii: bool,
    /// Byte and character index of the start of each line.
    lines: Vec<(usize, usize)>,
    pub(crate) tokens: Vec<TokenWithSpan>,
}

impl<'a> Text<'a> {
    pub(crate) fn new(sql: &'a str) -> Result<Self> {
        let mut lines = vec![(0, 0)];
        for (characters, (bytes, character)) in sql.char_indices().enumerate() {
            if character == '\n' {
                lines.push((bytes + 1, characters + 1));
            }
        }
        let mut text = Self { sql, is_ascii: sql.is_ascii(), lines, tokens: Vec::new() };
        text.tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
            .tokenize_with_location()
            .map_err(|error| SqlError::syntax(lower_first(&error.message)).at(text.position(error.location)))?;
        Ok(text)
    }

    /// Characters from 1.
    pub(crate) fn position(&self, location: Location) -> u32 {
        let line = self.lines.get((location.line.max(1) - 1) as usize).map_or(0, |(_, characters)| *characters);
        u32::try_from(line as u64 + location.column.max(1)).unwrap_or(u32::MAX)
    }

    /// Bytes from 0.
    pub(crate) fn byte(&self, location: Location) -> usize {
        let Some((start, _)) = self.lines.get((location.line.max(1) - 1) as usize).copied() else {
            return self.sql.len();
        };
        let column = (location.column.max(1) - 1) as usize;
        if self.is_ascii {
            return (start + column).min(self.sql.len());
        }
        self.sql[start..].char_indices().nth(column).map_or(self.sql.len(), |(bytes, _)| start + bytes)
    }

    /// The source text of some tokens.
    pub(crate) fn span(&self, tokens: &[TokenWithSpan]) -> Range<usize> {
        let mut solid = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let Some(first) = solid.next() else { return 0..0 };
        let last = solid.next_back().unwrap_or(first);
        self.byte(first.span.start)..self.byte(last.span.end)
    }

    pub(crate) fn slice(&self, tokens: &[TokenWithSpan]) -> &'a str {
        &self.sql[self.span(tokens)]
    }

    /// Parses some tokens with sqlparser; all of them must be used.
    pub(crate) fn parse_with<T>(
        &self,
        tokens: &[TokenWithSpan],
        parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<T> {
        let mut parser = Parser::new(&PostgreSqlDialect {})
            .with_recursion_limit(DEPTH_MAX)
            .with_tokens_with_locations(respelled(tokens.to_vec()));
        let parsed = parse(&mut parser).and_then(|parsed| {
            let _ = parser.consume_token(&Token::SemiColon);
            match parser.peek_token() {
                TokenWithSpan { token: Token::EOF, .. } => Ok(parsed),
                found => parser.expected("end of statement", found),
            }
        });
        parsed.map_err(|error| self.error(&error, tokens))
    }

    fn error(&self, error: &ParserError, tokens: &[TokenWithSpan]) -> SqlError {
        let message = match error {
            ParserError::RecursionLimitExceeded => return too_complex(),
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        };
        let (message, location) = split_location(message);
        let mut solid = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let found = location.and_then(|location| solid.clone().find(|token| token.span.start == location));
        let expected = message.strip_prefix("Expected: ").and_then(|rest| rest.split(", found: ").next());
        let Some(expected) = expected else {
            // A rule of the parser's own, said in its own words.
            let at = found.or_else(|| solid.next()).map(|token| self.position(token.span.start));
            let error = SqlError::syntax(lower_first(message));
            return match at {
                Some(at) => error.at(at),
                None => error,
            };
        };
        let is_exclusion =
            |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.keyword == Keyword::EXCLUDE);
        let error = match found {
            Some(found) if expected == ")" && is_exclusion(found) => {
                return SqlError::unsupported("EXCLUDE in the frame of a window is not supported")
                    .at(self.position(found.span.start));
            }
            Some(found) => SqlError::syntax(format!("syntax error at or near \"{}\"", self.excerpt(found)))
                .at(self.position(found.span.start)),
            None => {
                let end = solid.next_back().map_or(1, |token| self.position(token.span.end));
                SqlError::syntax("syntax error at end of input").at(end)
            }
        };
        error.with_detail(format!("expected {expected}"))
    }

    /// A token as the user wrote it, shortened.
    pub(crate) fn excerpt(&self, token: &TokenWithSpan) -> String {
        let text = &self.sql[self.byte(token.span.start)..self.byte(token.span.end)];
        if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(57).chain("...".chars()).collect() }
    }
}

pub(crate) fn too_complex() -> SqlError {
    SqlError::new(state::STATEMENT_TOO_COMPLEX, "the statement is nested too deeply")
        .with_hint("break it up, for instance with WITH queries or fewer nested parentheses")
}

/// "message at Line: 1, Column: 5" → its parts.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((text, location)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = location.split_once(", Column: ") else { return (message, None) };
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (text, Some(Location { line, column })),
        _ => (message, None),
    }
}

fn lower_first(message: &str) -> String {
    let mut characters = message.chars();
    match (characters.next(), characters.clone().next()) {
        // "SQL …" stays as it is.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(characters).collect(),
        _ => message.to_owned(),
    }
}

/// A place in the tokens of one statement. Blanks and comments are stepped over.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a Text<'a>,
    tokens: &'a [TokenWithSpan],
    index: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(text: &'a Text<'a>, tokens: &'a [TokenWithSpan]) -> Self {
        let mut cursor = Self { text, tokens, index: 0 };
        cursor.skip_blanks();
        cursor
    }

    fn skip_blanks(&mut self) {
        while matches!(self.tokens.get(self.index), Some(TokenWithSpan { token: Token::Whitespace(_), .. })) {
            self.index += 1;
        }
    }

    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.index).map(|token| &token.token)
    }

    pub(crate) fn step(&mut self) -> Option<&'a TokenWithSpan> {
        let token = self.tokens.get(self.index)?;
        self.index += 1;
        self.skip_blanks();
        Some(token)
    }

    pub(crate) fn at_end(&self) -> bool {
        self.index >= self.tokens.len()
    }

    /// Of the next token, or of the end.
    pub(crate) fn position(&self) -> u32 {
        match self.tokens.get(self.index) {
            Some(token) => self.text.position(token.span.start),
            None => self.tokens.last().map_or(1, |token| self.text.position(token.span.end)),
        }
    }

    /// The tokens from here to the end.
    pub(crate) fn rest(&mut self) -> &'a [TokenWithSpan] {
        let rest = &self.tokens[self.index..];
        self.index = self.tokens.len();
        rest
    }

    pub(crate) fn expected<T>(&self, what: &str) -> Result<T> {
        let error = match self.tokens.get(self.index) {
            Some(token) => SqlError::syntax(format!("syntax error at or near \"{}\"", self.text.excerpt(token))),
            None => SqlError::syntax("syntax error at end of input"),
        };
        Err(error.at(self.position()).with_detail(format!("expected {what}")))
    }

    pub(crate) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(Word { value, quote_style: None, .. })) if value.eq_ignore_ascii_case(keyword))
    }

    /// Steps over the keyword if it is next.
    pub(crate) fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        if found {
            self.step();
        }
        found
    }

    /// Steps over all of them, or none.
    pub(crate) fn keywords(&mut self, keywords: &[&str]) -> bool {
        let start = self.index;
        if keywords.iter().all(|keyword| self.keyword(keyword)) {
            return true;
        }
        self.index = start;
        false
    }

    pub(crate) fn expect_keyword(&mut self, keyword: &str) -> Result<()> {
        if self.keyword(keyword) { Ok(()) } else { self.expected(keyword) }
    }

    pub(crate) fn symbol(&mut self, symbol: &Token) -> bool {
        let found = self.peek() == Some(symbol);
        if found {
            self.step();
        }
        found
    }

    pub(crate) fn expect_symbol(&mut self, symbol: &Token) -> Result<()> {
        if self.symbol(symbol) { Ok(()) } else { self.expected(&format!("\"{symbol}\"")) }
    }

    /// `(item, …)`
    pub(crate) fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        self.expect_symbol(&Token::LParen)?;
        let mut items = vec![item(self)?];
        while self.symbol(&Token::Comma) {
            items.push(item(self)?);
        }
        self.expect_symbol(&Token::RParen)?;
        Ok(items)
    }

    /// An identifier by Postgres' rules: lower case unless it is quoted.
    pub(crate) fn name(&mut self, what: &str) -> Result<Name> {
        let position = self.position();
        match self.peek() {
            Some(Token::Word(word)) => {
                let value = match word.quote_style {
                    Some(_) => word.value.clone(),
                    None if is_reserved(word.keyword) => return self.expected(what),
                    None => word.value.to_lowercase(),
                };
                if value.is_empty() {
                    return Err(SqlError::syntax("zero-length delimited identifier").at(position));
                }
                if value.len() > NAME_BYTES_MAX {
                    return Err(SqlError::new(
                        state::PROGRAM_LIMIT_EXCEEDED,
                        format!("{what} is longer than {NAME_BYTES_MAX} bytes"),
                    )
                    .at(position));
                }
                self.step();
                Ok(Name { value, position })
            }
            _ => self.expected(what),
        }
    }

    /// A name of a table or source: all of them live in the schema `public`.
    pub(crate) fn object_name(&mut self, what: &str) -> Result<Name> {
        let mut name = self.name(what)?;
        let mut parts = vec![name.value.clone()];
        while self.symbol(&Token::Period) {
            parts.push(name.value);
            name = Name { position: name.position, value: self.name(what)?.value };
        }
        parts.remove(0);
        match parts.last().map(String::as_str) {
            None | Some("public") => Ok(name),
            Some(schema @ ("rt" | "pg_catalog" | "information_schema")) => Err(SqlError::new(
                state::INSUFFICIENT_PRIVILEGE,
                format!("the schema \"{schema}\" belongs to the system"),
            )
            .at(name.position)),
            Some(schema) => {
                Err(SqlError::new(state::INVALID_SCHEMA_NAME, format!("schema \"{schema}\" does not exist"))
                    .at(name.position)
                    .with_hint("tables and sources live in the schema \"public\""))
            }
        }
    }

    pub(crate) fn string(&mut self, what: &str) -> Result<String> {
        match self.peek() {
            Some(
                Token::SingleQuotedString(value)
                | Token::EscapedStringLiteral(value)
                | Token::UnicodeStringLiteral(value),
            ) => {
                self.step();
                Ok(value.clone())
            }
            Some(Token::DollarQuotedString(value)) => {
                self.step();
                Ok(value.value.clone())
            }
            _ => self.expected(what),
        }
    }

    pub(crate) fn number(&mut self, what: &str) -> Result<u64> {
        match self.peek() {
            Some(Token::Number(digits, _)) => match digits.parse() {
                Ok(number) => {
                    self.step();
                    Ok(number)
                }
                Err(_) => self.expected(what),
            },
            _ => self.expected(what),
        }
    }

    /// The tokens up to the first that `stop` says yes to, outside of any parentheses, or to an unmatched closing one.
    pub(crate) fn until(&mut self, stop: impl Fn(&Self) -> bool) -> &'a [TokenWithSpan] {
        let start = self.index;
        let mut depth = 0_u32;
        while let Some(token) = self.peek() {
            match token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket if depth == 0 => break,
                Token::RParen | Token::RBracket => depth -= 1,
                _ if depth == 0 && stop(self) => break,
                _ => {}
            }
            self.step();
        }
        &self.tokens[start..self.index]
    }

    /// `( … )`: what is inside.
    pub(crate) fn parenthesised(&mut self) -> Result<&'a [TokenWithSpan]> {
        self.expect_symbol(&Token::LParen)?;
        let inside = self.until(|_| false);
        self.expect_symbol(&Token::RParen)?;
        Ok(inside)
    }

    /// Checks that the tokens are one expression.
    pub(crate) fn expression(&self, tokens: &[TokenWithSpan]) -> Result<ast::Expr> {
        if tokens.iter().all(|token| matches!(token.token, Token::Whitespace(_))) {
            return self.expected("an expression");
        }
        self.text.parse_with(tokens, |parser| parser.parse_expr())
    }
}

/// As Postgres' NAMEDATALEN, but not cut in silence.
const NAME_BYTES_MAX: usize = 63;

/// Words that cannot name anything without quotes.
pub(crate) fn is_reserved(keyword: Keyword) -> bool {
    use Keyword as K;
    matches!(
        keyword,
        K::ALL
            | K::AND
            | K::ANY
            | K::AS
            | K::ASC
            | K::BOTH
            | K::CASE
            | K::CAST
            | K::CHECK
            | K::COLLATE
            | K::COLUMN
            | K::CONSTRAINT
            | K::CREATE
            | K::DEFAULT
            | K::DESC
            | K::DISTINCT
            | K::DO
            | K::ELSE
            | K::END
            | K::EXCEPT
            | K::FALSE
            | K::FETCH
            | K::FOR
            | K::FOREIGN
            | K::FROM
            | K::GRANT
            | K::GROUP
            | K::HAVING
            | K::IN
            | K::INTERSECT
            | K::INTO
            | K::LATERAL
            | K::LEADING
            | K::LIMIT
            | K::NOT
            | K::NULL
            | K::OFFSET
            | K::ON
            | K::ONLY
            | K::OR
            | K::ORDER
            | K::PRIMARY
            | K::REFERENCES
            | K::RETURNING
            | K::SELECT
            | K::SOME
            | K::SYMMETRIC
            | K::TABLE
            | K::THEN
            | K::TO
            | K::TRAILING
            | K::TRUE
            | K::UNION
            | K::UNIQUE
            | K::USER
            | K::USING
            | K::WHEN
            | K::WHERE
            | K::WINDOW
            | K::WITH
    )
}
