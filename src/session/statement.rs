//! A string of SQL taken apart into statements that a session can run.
//!
//! What PostgreSQL calls utility statements (SET, BEGIN, FETCH, COPY, …) is read here; definitions and queries by [`crate::sql`]. The whole
//! string is read before anything runs, so that a syntax error in the last statement keeps the first from running, as in PostgreSQL.

mod cursors;
mod subscribe;

use std::sync::Arc;

use datafusion::sql::sqlparser::{
    ast,
    tokenizer::{Token, TokenWithSpan, Word},
};

pub use self::{
    cursors::{Fetch, Step},
    subscribe::Subscribe,
};
use self::{
    cursors::{declare, fetch},
    subscribe::subscribe,
};
use super::{
    copy::options::{self, Copy},
    error::{Result, SqlError, state},
    value::{PgType, Scalar},
};
use crate::sql::{
    self, StatementKind,
    tokens::{Cursor, Text},
};

/// One statement of a string.
#[derive(Clone, Debug)]
pub struct Statement {
    pub kind: Kind,
    /// Its own text, without the semicolon.
    pub text: Arc<str>,
    /// Characters of the string before the text: what positions in it are shifted by.
    pub offset: u32,
}

impl Statement {
    /// The query that is planned for it, and its text.
    pub fn planned(&self) -> Option<(&ast::Statement, &Arc<str>)> {
        match &self.kind {
            Kind::Query(ast) => Some((ast.as_ref(), &self.text)),
            Kind::Subscribe(subscribe) => subscribe.query.planned(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// What the engine plans: SELECT, VALUES, INSERT, UPDATE, DELETE, EXPLAIN.
    Query(Box<ast::Statement>),
    Subscribe(Box<Subscribe>),
    /// Ours: CREATE, ALTER, DROP, TRUNCATE; the tag.
    Definition(&'static str),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    Reset(Option<String>),
    Show(String),
    ShowAll,
    Begin {
        settings: Vec<(String, String)>,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// SET TRANSACTION, SET SESSION CHARACTERISTICS.
    SetTransaction {
        settings: Vec<(String, String)>,
    },
    Discard(Discard),
    Prepare {
        name: String,
        types: Vec<PgType>,
        statement: Box<Statement>,
    },
    Execute {
        name: String,
        arguments: Vec<String>,
    },
    /// EXPLAIN … EXECUTE: the text before EXECUTE.
    ExplainExecute {
        explain: String,
        name: String,
        arguments: Vec<String>,
    },
    Deallocate(Option<String>),
    Declare {
        name: String,
        hold: bool,
        binary: bool,
        scroll: bool,
        query: Box<Statement>,
    },
    Fetch(Fetch),
    CloseCursor(Option<String>),
    Listen(String),
    /// `None`: all channels.
    Unlisten(Option<String>),
    Notify {
        channel: String,
        payload: String,
    },
    Copy(Box<Copy>),
    /// CALL: the procedure's name as it is written, and the texts of its arguments.
    Call {
        name: String,
        arguments: Vec<String>,
        position: u32,
    },
    /// A statement that has nothing to do here and says so by its tag alone (CHECKPOINT, VACUUM, ANALYZE).
    Nothing(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    All,
    Plans,
    Temp,
    Sequences,
}

/// The statements of `sql`, in order; empty ones are left out.
pub fn parse(sql: &str) -> Result<Vec<Statement>> {
    let text = Text::new(sql)?;
    text.tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|tokens| tokens.iter().any(|token| !matches!(token.token, Token::Whitespace(_))))
        .map(|tokens| one(&text, tokens))
        .collect()
}

pub(super) fn one(text: &Text<'_>, tokens: &[TokenWithSpan]) -> Result<Statement> {
    let mut cursor = Cursor::new(text, tokens);
    let offset = cursor.position().saturating_sub(1);
    let source: Arc<str> = text.slice(tokens).into();
    if let Some(kind) = utility(text, &mut cursor)? {
        if !cursor.at_end() {
            return cursor.expected("end of statement");
        }
        return Ok(Statement { kind, text: source, offset });
    }
    let parsed = if offset == 0 {
        sql::parse_one(text, tokens)?
    } else {
        // Positions in what is planned count from the start of the statement, so it is read on its own.
        let own = Text::new(&source)?;
        sql::parse_one(&own, &own.tokens).map_err(|error| error.shifted(offset))?
    };
    let kind = match parsed.kind {
        StatementKind::Ddl(ddl) => Kind::Definition(ddl.tag()),
        StatementKind::Other(statement) => other(statement).map_err(|error| error.at(offset + 1))?,
    };
    Ok(Statement { kind, text: source, offset })
}

/// What sqlparser read and is neither ours nor a utility.
fn other(statement: Box<ast::Statement>) -> Result<Kind> {
    use ast::Statement as S;
    Ok(match statement.as_ref() {
        S::Query(_) | S::Insert(_) | S::Update(_) | S::Delete(_) | S::Explain { .. } => Kind::Query(statement),
        S::Merge { .. } => return Err(not_yet("MERGE", "use INSERT")),
        _ => {
            let text = statement.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            return Err(SqlError::unsupported(format!("{} is not supported", words.join(" ").to_uppercase())));
        }
    })
}

fn not_yet(what: &str, hint: &str) -> SqlError {
    SqlError::unsupported(format!("{what} is not supported yet")).with_hint(hint)
}

fn utility(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<Option<Kind>> {
    let Some(Token::Word(Word { value, quote_style: None, .. })) = cursor.peek() else { return Ok(None) };
    Ok(Some(match value.to_ascii_uppercase().as_str() {
        "SET" => {
            cursor.step();
            set(cursor)?
        }
        "RESET" => {
            cursor.step();
            match cursor.keyword("ALL") {
                true => Kind::Reset(None),
                false => Kind::Reset(Some(setting_name(cursor)?)),
            }
        }
        "SHOW" => {
            cursor.step();
            match cursor.keyword("ALL") {
                true => Kind::ShowAll,
                false => Kind::Show(setting_name(cursor)?),
            }
        }
        "BEGIN" => {
            cursor.step();
            transaction_word(cursor);
            Kind::Begin { settings: transaction_modes(cursor)? }
        }
        "START" => {
            cursor.step();
            cursor.expect_keyword("TRANSACTION")?;
            Kind::Begin { settings: transaction_modes(cursor)? }
        }
        "COMMIT" | "END" => {
            cursor.step();
            if cursor.is_keyword("PREPARED") {
                return Err(SqlError::unsupported("two-phase commit is not supported").at(cursor.position()));
            }
            transaction_word(cursor);
            Kind::Commit { chain: chain(cursor)? }
        }
        "ROLLBACK" | "ABORT" => {
            cursor.step();
            transaction_word(cursor);
            if cursor.keyword("TO") {
                let _ = cursor.keyword("SAVEPOINT");
                Kind::RollbackTo(cursor.name("savepoint name")?.value)
            } else {
                Kind::Rollback { chain: chain(cursor)? }
            }
        }
        "SAVEPOINT" => {
            cursor.step();
            Kind::Savepoint(cursor.name("savepoint name")?.value)
        }
        "RELEASE" => {
            cursor.step();
            let _ = cursor.keyword("SAVEPOINT");
            Kind::Release(cursor.name("savepoint name")?.value)
        }
        "DISCARD" => {
            cursor.step();
            Kind::Discard(if cursor.keyword("ALL") {
                Discard::All
            } else if cursor.keyword("PLANS") {
                Discard::Plans
            } else if cursor.keyword("SEQUENCES") {
                Discard::Sequences
            } else if cursor.keyword("TEMP") || cursor.keyword("TEMPORARY") {
                Discard::Temp
            } else {
                return cursor.expected("ALL, PLANS, SEQUENCES or TEMP");
            })
        }
        "PREPARE" => {
            cursor.step();
            prepare(text, cursor)?
        }
        "EXECUTE" => {
            cursor.step();
            let name = cursor.name("name of a prepared statement")?.value;
            Kind::Execute { name, arguments: arguments(text, cursor)? }
        }
        "EXPLAIN" => {
            let mut ahead = cursor.clone();
            let explain = ahead.until(|cursor| cursor.is_keyword("EXECUTE"));
            if ahead.at_end() {
                return Ok(None);
            }
            let explain = text.slice(explain).to_owned();
            ahead.step();
            let name = ahead.name("name of a prepared statement")?.value;
            let arguments = arguments(text, &mut ahead)?;
            *cursor = ahead;
            Kind::ExplainExecute { explain, name, arguments }
        }
        "DEALLOCATE" => {
            cursor.step();
            let _ = cursor.keyword("PREPARE");
            match cursor.keyword("ALL") {
                true => Kind::Deallocate(None),
                false => Kind::Deallocate(Some(cursor.name("name of a prepared statement")?.value)),
            }
        }
        "DECLARE" => {
            cursor.step();
            declare(text, cursor)?
        }
        "SUBSCRIBE" => {
            cursor.step();
            subscribe(text, cursor)?
        }
        "FETCH" | "MOVE" => {
            let moves = cursor.is_keyword("MOVE");
            cursor.step();
            Kind::Fetch(fetch(cursor, moves)?)
        }
        "CLOSE" => {
            cursor.step();
            match cursor.keyword("ALL") {
                true => Kind::CloseCursor(None),
                false => Kind::CloseCursor(Some(cursor.name("cursor name")?.value)),
            }
        }
        "LISTEN" => {
            cursor.step();
            Kind::Listen(cursor.name("channel")?.value)
        }
        "NOTIFY" => {
            cursor.step();
            let channel = cursor.name("channel")?.value;
            let payload = match cursor.symbol(&Token::Comma) {
                true => cursor.string("a payload")?,
                false => String::new(),
            };
            Kind::Notify { channel, payload }
        }
        "UNLISTEN" => {
            cursor.step();
            match cursor.symbol(&Token::Mul) {
                true => Kind::Unlisten(None),
                false => Kind::Unlisten(Some(cursor.name("channel")?.value)),
            }
        }
        "CALL" => {
            cursor.step();
            let position = cursor.position();
            let mut name = cursor.name("the name of a procedure")?.value;
            while cursor.symbol(&Token::Period) {
                name = format!("{name}.{}", cursor.name("the name of a procedure")?.value);
            }
            if !matches!(cursor.peek(), Some(Token::LParen)) {
                return cursor.expected("(");
            }
            Kind::Call { name, arguments: arguments(text, cursor)?, position }
        }
        "COPY" => {
            cursor.step();
            Kind::Copy(Box::new(options::parse(text, cursor)?))
        }
        "CHECKPOINT" => {
            cursor.step();
            Kind::Nothing("CHECKPOINT")
        }
        "VACUUM" => {
            cursor.rest();
            Kind::Nothing("VACUUM")
        }
        "ANALYZE" | "ANALYSE" => {
            cursor.rest();
            Kind::Nothing("ANALYZE")
        }
        _ => return Ok(None),
    }))
}

fn transaction_word(cursor: &mut Cursor<'_>) {
    let _ = cursor.keyword("TRANSACTION") || cursor.keyword("WORK");
}

fn chain(cursor: &mut Cursor<'_>) -> Result<bool> {
    if !cursor.keyword("AND") {
        return Ok(false);
    }
    let chain = !cursor.keyword("NO");
    cursor.expect_keyword("CHAIN")?;
    Ok(chain)
}

/// `ISOLATION LEVEL …`, `READ ONLY`, `DEFERRABLE`: as settings of the transaction.
fn transaction_modes(cursor: &mut Cursor<'_>) -> Result<Vec<(String, String)>> {
    let mut settings = Vec::new();
    while !cursor.at_end() {
        let mut set = |name: &str, value: &str| settings.push((name.to_owned(), value.to_owned()));
        if cursor.keywords(&["ISOLATION", "LEVEL"]) {
            let level = if cursor.keyword("SERIALIZABLE") {
                "serializable"
            } else if cursor.keywords(&["REPEATABLE", "READ"]) {
                "repeatable read"
            } else if cursor.keywords(&["READ", "COMMITTED"]) {
                "read committed"
            } else if cursor.keywords(&["READ", "UNCOMMITTED"]) {
                "read uncommitted"
            } else {
                return cursor.expected("an isolation level");
            };
            set("transaction_isolation", level);
        } else if cursor.keywords(&["READ", "ONLY"]) {
            set("transaction_read_only", "on");
        } else if cursor.keywords(&["READ", "WRITE"]) {
            set("transaction_read_only", "off");
        } else if !(cursor.keyword("DEFERRABLE") || cursor.keywords(&["NOT", "DEFERRABLE"])) {
            return cursor.expected("a transaction mode");
        }
        let _ = cursor.symbol(&Token::Comma);
    }
    Ok(settings)
}

fn set(cursor: &mut Cursor<'_>) -> Result<Kind> {
    if cursor.keywords(&["SESSION", "CHARACTERISTICS", "AS", "TRANSACTION"]) {
        let settings =
            transaction_modes(cursor)?.into_iter().map(|(name, value)| (format!("default_{name}"), value)).collect();
        return Ok(Kind::SetTransaction { settings });
    }
    if cursor.keyword("TRANSACTION") {
        return Ok(Kind::SetTransaction { settings: transaction_modes(cursor)? });
    }
    if cursor.keywords(&["SESSION", "AUTHORIZATION"]) || cursor.keyword("ROLE") {
        return Err(SqlError::unsupported("roles are not supported"));
    }
    let local = cursor.keyword("LOCAL");
    if !local {
        let _ = cursor.keyword("SESSION");
    }
    let name = if cursor.keywords(&["TIME", "ZONE"]) {
        "TimeZone".to_owned()
    } else if cursor.keyword("NAMES") {
        "client_encoding".to_owned()
    } else {
        let name = setting_name(cursor)?;
        if !(cursor.symbol(&Token::Eq) || cursor.keyword("TO")) {
            return cursor.expected("TO or =");
        }
        name
    };
    if cursor.keyword("DEFAULT") {
        return Ok(Kind::Set { name, value: None, local });
    }
    let mut value = String::new();
    loop {
        if cursor.keyword("INTERVAL") {
            value.push_str(cursor.string("an interval")?.trim());
            let _ = cursor.rest();
            break;
        }
        value.push_str(&setting_value(cursor)?);
        if !cursor.symbol(&Token::Comma) {
            break;
        }
        value.push_str(", ");
    }
    Ok(Kind::Set { name, value: Some(value), local })
}

/// A value of SET: a word, a string or a number.
fn setting_value(cursor: &mut Cursor<'_>) -> Result<String> {
    match cursor.peek() {
        Some(Token::Word(word)) => {
            let value = word.value.clone();
            cursor.step();
            Ok(value)
        }
        Some(Token::Minus | Token::Plus) => {
            let sign = if cursor.symbol(&Token::Minus) { "-" } else { "" };
            let _ = cursor.symbol(&Token::Plus);
            Ok(format!("{sign}{}", setting_value(cursor)?))
        }
        Some(Token::Number(digits, _)) => {
            let digits = digits.clone();
            cursor.step();
            Ok(digits)
        }
        _ => cursor.string("a value"),
    }
}

/// `name`, `family.name`
fn setting_name(cursor: &mut Cursor<'_>) -> Result<String> {
    if cursor.keywords(&["TIME", "ZONE"]) {
        return Ok("TimeZone".to_owned());
    }
    if cursor.keywords(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        return Ok("transaction_isolation".to_owned());
    }
    let mut name = setting_value(cursor)?;
    while cursor.symbol(&Token::Period) {
        name = format!("{name}.{}", setting_value(cursor)?);
    }
    Ok(name)
}

fn prepare(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<Kind> {
    if cursor.keyword("TRANSACTION") {
        return Err(SqlError::unsupported("two-phase commit is not supported"));
    }
    let name = cursor.name("statement name")?.value;
    let mut types = Vec::new();
    if cursor.symbol(&Token::LParen) {
        loop {
            types.push(type_name(text, cursor)?);
            if !cursor.symbol(&Token::Comma) {
                break;
            }
        }
        cursor.expect_symbol(&Token::RParen)?;
    }
    cursor.expect_keyword("AS")?;
    let statement = Box::new(one(text, cursor.rest())?);
    if !matches!(statement.kind, Kind::Query(_)) {
        return Err(
            SqlError::syntax("only SELECT, INSERT, UPDATE, DELETE and VALUES can be prepared").at(statement.offset + 1)
        );
    }
    Ok(Kind::Prepare { name, types, statement })
}

/// The name of a type, as far as parameters have them.
fn type_name(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<PgType> {
    let position = cursor.position();
    let tokens = cursor.until(|cursor| matches!(cursor.peek(), Some(Token::Comma | Token::RParen)));
    let written = text.slice(tokens).to_lowercase();
    type_of_name(&written).ok_or_else(|| {
        SqlError::new(state::UNDEFINED_OBJECT, format!("type \"{written}\" does not exist")).at(position)
    })
}

/// `integer`, `numeric(10,2)`, `text[]`, `pg_catalog.int4`.
pub fn type_of_name(written: &str) -> Option<PgType> {
    let words: Vec<&str> = written.split_whitespace().collect();
    let mut name = words.join(" ");
    let array = name.ends_with("[]") || name.ends_with(" array");
    if array {
        name = name.trim_end_matches(" array").trim_end_matches("[]").trim().to_owned();
    }
    let name = name.strip_prefix("pg_catalog.").map(str::to_owned).unwrap_or(name);
    let name = match (name.find('('), name.find(')')) {
        (Some(open), Some(close)) if open < close => format!("{}{}", name[..open].trim(), &name[close + 1..]),
        _ => name,
    };
    let scalar = match name.trim() {
        "boolean" => Scalar::Bool,
        "smallint" => Scalar::Int2,
        "int" | "integer" => Scalar::Int4,
        "bigint" => Scalar::Int8,
        "real" => Scalar::Float4,
        "float" | "double precision" | "double" => Scalar::Float8,
        "decimal" => Scalar::Numeric,
        "string" => Scalar::Text,
        "character varying" => Scalar::Varchar,
        "character" | "char" => Scalar::Bpchar,
        "timestamp without time zone" => Scalar::Timestamp,
        "timestamp with time zone" => Scalar::TimestampTz,
        "time without time zone" => Scalar::Time,
        other => *Scalar::ALL.iter().find(|scalar| scalar.name() == other)?,
    };
    Some(PgType { scalar, array })
}

/// `(1, 'a')`: the texts of the arguments.
fn arguments(text: &Text<'_>, cursor: &mut Cursor<'_>) -> Result<Vec<String>> {
    let mut arguments = Vec::new();
    if !cursor.symbol(&Token::LParen) {
        return Ok(arguments);
    }
    while !cursor.symbol(&Token::RParen) {
        let tokens = cursor.until(|cursor| matches!(cursor.peek(), Some(Token::Comma | Token::RParen)));
        if tokens.is_empty() {
            return cursor.expected("an argument");
        }
        arguments.push(text.slice(tokens).to_owned());
        let _ = cursor.symbol(&Token::Comma);
    }
    Ok(arguments)
}
