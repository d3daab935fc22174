//! COPY's own grammar: both the list in parentheses and the older bare words.

use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use crate::{
    session::{
        error::{Result, SqlError, state},
        statement::{self, Statement},
    },
    sql::tokens::{Cursor, Text},
};

/// A COPY statement.
#[derive(Clone, Debug)]
pub struct Copy {
    pub what: What,
    /// FROM STDIN; otherwise TO STDOUT.
    pub from: bool,
    pub options: Options,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A table, and the columns, empty for all. `position` in the whole text, from 1.
    Table {
        schema: Option<String>,
        name: String,
        columns: Vec<String>,
        position: u32,
    },
    Query(Box<Statement>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Csv,
    Binary,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Force {
    None,
    All,
    Columns(Vec<String>),
}

impl Force {
    pub fn covers(&self, column: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Columns(columns) => columns.iter().any(|known| known == column),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub format: Format,
    pub delimiter: u8,
    pub null: String,
    pub header: bool,
    /// HEADER MATCH: the first line must name the columns.
    pub header_match: bool,
    pub quote: u8,
    pub escape: u8,
    pub force_quote: Force,
    pub force_not_null: Force,
    pub force_null: Force,
}

impl Options {
    pub fn new(format: Format) -> Self {
        let csv = format == Format::Csv;
        Self {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_owned() },
            header: false,
            header_match: false,
            quote: b'"',
            escape: b'"',
            force_quote: Force::None,
            force_not_null: Force::None,
            force_null: Force::None,
        }
    }
}

/// The statement after the word COPY.
pub(crate) fn parse(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<Copy> {
    let mut given = Given::default();
    if cursor.keyword("BINARY") {
        given.format = Some(Format::Binary);
    }
    let what = if matches!(cursor.peek(), Some(Token::LParen)) {
        cursor.step();
        let tokens = cursor.until(|_| false);
        let query = statement::one(text, tokens)?;
        cursor.expect_symbol(&Token::RParen)?;
        What::Query(Box::new(query))
    } else {
        let position = cursor.position();
        let mut name = cursor.name("table name")?.value;
        let mut schema = None;
        while cursor.symbol(&Token::Period) {
            schema = Some(std::mem::replace(&mut name, cursor.name("table name")?.value));
        }
        let columns = if matches!(cursor.peek(), Some(Token::LParen)) { columns(cursor)? } else { Vec::new() };
        What::Table { schema, name, columns, position }
    };
    let from = cursor.keyword("FROM");
    if let What::Table { schema: Some(schema), position, .. } = &what
        && from
        && schema != "public"
    {
        return Err(SqlError::new(
            state::INSUFFICIENT_PRIVILEGE,
            format!("rows cannot be copied into the schema \"{schema}\""),
        )
        .at(*position));
    }
    if !from {
        cursor.expect_keyword("TO")?;
    }
    if from && matches!(what, What::Query(_)) {
        return Err(SqlError::syntax("COPY FROM needs a table, not a query").at(cursor.position()));
    }
    let stream = if from { "STDIN" } else { "STDOUT" };
    if cursor.is_keyword("PROGRAM") || matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        return Err(SqlError::new(state::INSUFFICIENT_PRIVILEGE, "COPY does not read or write files of the server")
            .with_hint(format!("use COPY … {stream}, or \\copy in psql, or a SOURCE with connector = 'file'"))
            .at(cursor.position()));
    }
    // STDIN and STDOUT are both taken either way, as in PostgreSQL.
    if !(cursor.keyword("STDIN") || cursor.keyword("STDOUT")) {
        return cursor.expected(stream);
    }
    let _ = cursor.keyword("WITH");
    if cursor.symbol(&Token::LParen) {
        loop {
            option(cursor, &mut given)?;
            if !cursor.symbol(&Token::Comma) {
                break;
            }
        }
        cursor.expect_symbol(&Token::RParen)?;
    } else {
        while !cursor.at_end() && !cursor.is_keyword("WHERE") {
            option(cursor, &mut given)?;
        }
    }
    if cursor.is_keyword("WHERE") {
        return Err(SqlError::unsupported("COPY FROM … WHERE is not supported").at(cursor.position()));
    }
    let options = given.finish(from)?;
    Ok(Copy { what, from, options })
}

pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[derive(Default)]
struct Given {
    format: Option<Format>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<bool>,
    header_match: bool,
    quote: Option<String>,
    escape: Option<String>,
    force_quote: Option<Force>,
    force_not_null: Option<Force>,
    force_null: Option<Force>,
}

fn columns(cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    cursor.expect_symbol(&Token::LParen)?;
    let mut columns = Vec::new();
    loop {
        columns.push(cursor.name("column name")?.value);
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    cursor.expect_symbol(&Token::RParen)?;
    Ok(columns)
}

fn force(cursor: &mut Cursor<'_>) -> Result<Force> {
    if cursor.symbol(&Token::Mul) {
        return Ok(Force::All);
    }
    if matches!(cursor.peek(), Some(Token::LParen)) {
        return Ok(Force::Columns(columns(cursor)?));
    }
    let mut columns = vec![cursor.name("column name")?.value];
    while cursor.symbol(&Token::Comma) {
        columns.push(cursor.name("column name")?.value);
    }
    Ok(Force::Columns(columns))
}

fn option(cursor: &mut Cursor<'_>, given: &mut Given) -> Result<()> {
    let position = cursor.position();
    if cursor.keyword("FORMAT") {
        let name = match cursor.peek() {
            Some(Token::Word(Word { value, .. })) => {
                let value = value.to_lowercase();
                cursor.step();
                value
            }
            _ => cursor.string("text, csv or binary")?.to_lowercase(),
        };
        given.format = Some(match name.as_str() {
            "text" => Format::Text,
            "csv" => Format::Csv,
            "binary" => Format::Binary,
            _ => {
                return Err(SqlError::new(
                    state::INVALID_PARAMETER_VALUE,
                    format!("COPY format \"{name}\" not recognized"),
                )
                .with_hint("the formats are text, csv and binary")
                .at(position));
            }
        });
    } else if cursor.keyword("CSV") {
        given.format = Some(Format::Csv);
    } else if cursor.keyword("BINARY") {
        given.format = Some(Format::Binary);
    } else if cursor.keyword("DELIMITER") || cursor.keyword("DELIMITERS") {
        let _ = cursor.keyword("AS");
        given.delimiter = Some(cursor.string("a delimiter")?);
    } else if cursor.keyword("NULL") {
        let _ = cursor.keyword("AS");
        given.null = Some(cursor.string("the text of NULL")?);
    } else if cursor.keyword("HEADER") {
        given.header = Some(true);
        if cursor.keyword("MATCH") {
            given.header_match = true;
        } else if cursor.keyword("FALSE") || cursor.keyword("OFF") || cursor.symbol(&Token::Number("0".into(), false)) {
            given.header = Some(false);
        } else {
            let _ = cursor.keyword("TRUE") || cursor.keyword("ON") || cursor.symbol(&Token::Number("1".into(), false));
        }
    } else if cursor.keyword("QUOTE") {
        let _ = cursor.keyword("AS");
        given.quote = Some(cursor.string("a quote character")?);
    } else if cursor.keyword("ESCAPE") {
        let _ = cursor.keyword("AS");
        given.escape = Some(cursor.string("an escape character")?);
    } else if cursor.keyword("ENCODING") {
        let name = cursor.string("an encoding")?;
        if !["utf8", "utf-8", "unicode", "sql_ascii"].contains(&name.to_lowercase().as_str()) {
            return Err(SqlError::unsupported(format!("encoding \"{name}\" is not supported"))
                .with_hint("send UTF8")
                .at(position));
        }
    } else if cursor.keyword("FORCE_QUOTE") || cursor.keywords(&["FORCE", "QUOTE"]) {
        given.force_quote = Some(force(cursor)?);
    } else if cursor.keyword("FORCE_NOT_NULL") || cursor.keywords(&["FORCE", "NOT", "NULL"]) {
        given.force_not_null = Some(force(cursor)?);
    } else if cursor.keyword("FORCE_NULL") || cursor.keywords(&["FORCE", "NULL"]) {
        given.force_null = Some(force(cursor)?);
    } else if cursor.keyword("FREEZE") {
        let _ = cursor.keyword("TRUE") || cursor.keyword("ON") || cursor.keyword("FALSE") || cursor.keyword("OFF");
    } else {
        return cursor.expected("an option of COPY");
    }
    Ok(())
}

impl Given {
    fn finish(self, from: bool) -> Result<Options> {
        let invalid = |message: &str| Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
        let format = self.format.unwrap_or(Format::Text);
        let mut options = Options::new(format);
        let one = |text: &str, what: &str| -> Result<u8> {
            match text.as_bytes() {
                [byte] if byte.is_ascii() => Ok(*byte),
                _ => Err(SqlError::unsupported(format!("COPY {what} must be a single one-byte character"))),
            }
        };
        if format == Format::Binary && (self.delimiter.is_some() || self.null.is_some() || self.header.is_some()) {
            return Err(SqlError::syntax("cannot specify DELIMITER, NULL or HEADER in BINARY mode"));
        }
        if format != Format::Csv
            && (self.quote.is_some()
                || self.escape.is_some()
                || self.force_quote.is_some()
                || self.force_not_null.is_some()
                || self.force_null.is_some())
        {
            return Err(SqlError::unsupported("COPY QUOTE, ESCAPE and FORCE options are available only in CSV mode"));
        }
        if let Some(delimiter) = &self.delimiter {
            options.delimiter = one(delimiter, "delimiter")?;
            let forbidden: &[u8] =
                if format == Format::Text { b"\\.abcdefghijklmnopqrstuvwxyz0123456789" } else { b"" };
            if forbidden.contains(&options.delimiter) || matches!(options.delimiter, b'\n' | b'\r') {
                return invalid(&format!("COPY delimiter cannot be \"{}\"", delimiter.escape_default()));
            }
        }
        if let Some(null) = self.null {
            if null.contains(['\r', '\n']) {
                return invalid("COPY null representation cannot use newline or carriage return");
            }
            options.null = null;
        }
        if let Some(quote) = &self.quote {
            options.quote = one(quote, "quote")?;
            options.escape = options.quote;
        }
        if let Some(escape) = &self.escape {
            options.escape = one(escape, "escape")?;
        }
        if format == Format::Csv && options.quote == options.delimiter {
            return invalid("COPY delimiter and quote must be different");
        }
        if format != Format::Binary && options.null.as_bytes().contains(&options.delimiter) {
            return invalid("COPY delimiter must not appear in the NULL specification");
        }
        if self.header_match && !from {
            return invalid("cannot use \"match\" with HEADER in COPY TO");
        }
        if (from && self.force_quote.is_some())
            || (!from && (self.force_not_null.is_some() || self.force_null.is_some()))
        {
            return Err(SqlError::unsupported(
                "FORCE_QUOTE is for COPY TO, FORCE_NOT_NULL and FORCE_NULL are for COPY FROM",
            ));
        }
        options.header = self.header.unwrap_or(false);
        options.header_match = self.header_match;
        options.force_quote = self.force_quote.unwrap_or(Force::None);
        options.force_not_null = self.force_not_null.unwrap_or(Force::None);
        options.force_null = self.force_null.unwrap_or(Force::None);
        Ok(options)
    }
}
