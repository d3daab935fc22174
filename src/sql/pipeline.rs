//! CREATE PIPELINE, ALTER PIPELINE, and INSERT … SELECT that begins a pipeline.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use tidemill_ingest::pipeline::plan::without_marks;

use super::{
    ast::{AlterPipeline, AlterPipelineAction, CreatePipeline, Ddl, PipelineTarget},
    create::options,
    tokens::{Cursor, Text},
};
use crate::session::error::{Result, SqlError, state};

/// After CREATE [OR REPLACE] PIPELINE.
pub(super) fn create_pipeline(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Ddl> {
    let position = cursor.position();
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    if or_replace && if_not_exists {
        return Err(SqlError::syntax("OR REPLACE and IF NOT EXISTS exclude each other").at(position));
    }
    let name = cursor.object_name("the name of the pipeline")?;
    cursor.expect_keyword("INTO")?;
    let mut targets = Vec::new();
    loop {
        targets.push(target(cursor)?);
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    let pairs = if cursor.keyword("WITH") { options(cursor)? } else { Vec::new() };
    cursor.expect_keyword("AS")?;
    let (query, query_position) = query(cursor)?;
    Ok(Ddl::CreatePipeline(CreatePipeline {
        name: Some(name),
        or_replace,
        if_not_exists,
        targets,
        by_name: false,
        options: pairs,
        query,
        query_position,
        explain: false,
    }))
}

/// `[SINK] name [(column, …)]`
fn target(cursor: &mut Cursor<'_>) -> Result<PipelineTarget> {
    // A table may be called that, too.
    let mut ahead = cursor.clone();
    let is_sink = ahead.keyword("SINK")
        && !["WITH", "AS", "SELECT", "BY"].iter().any(|word| ahead.is_keyword(word))
        && matches!(ahead.peek(), Some(Token::Word(_)));
    if is_sink {
        cursor.step();
    }
    let table = cursor.object_name("the name of a table or a sink")?;
    let columns = match cursor.peek() {
        Some(Token::LParen) => cursor.list(|cursor| cursor.name("the name of a column"))?,
        _ => Vec::new(),
    };
    Ok(PipelineTarget { table, is_sink, columns })
}

/// The rest, which is a query.
fn query(cursor: &mut Cursor<'_>) -> Result<(String, u32)> {
    let position = cursor.position();
    let tokens = cursor.rest();
    cursor.text.parse_with(&without_marks(tokens), |parser| parser.parse_query())?;
    Ok((cursor.text.slice(tokens).to_owned(), position))
}

/// `INSERT INTO table [(column, …)] [BY NAME] query`, as a pipeline without a name.
pub(super) fn insert(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    cursor.expect_keyword("INSERT")?;
    cursor.expect_keyword("INTO")?;
    let target = target(cursor)?;
    let by_name = cursor.keywords(&["BY", "NAME"]);
    if by_name && !target.columns.is_empty() {
        return Err(SqlError::syntax("BY NAME and a list of columns exclude each other").at(target.columns[0].position));
    }
    let (query, query_position) = query(cursor)?;
    Ok(Ddl::CreatePipeline(CreatePipeline {
        name: None,
        or_replace: false,
        if_not_exists: false,
        targets: vec![target],
        by_name,
        options: Vec::new(),
        query,
        query_position,
        explain: false,
    }))
}

/// Whether a statement is INSERT with words that only pipelines have: BY NAME, WITHIN, JOIN LATEST, FOR SYSTEM_TIME AS OF.
pub(super) fn begins_pipeline(cursor: &Cursor<'_>) -> bool {
    let mut ahead = cursor.clone();
    if !ahead.keywords(&["INSERT", "INTO"]) || target(&mut ahead).is_err() {
        return false;
    }
    let rest = ahead.clone().rest();
    ahead.keywords(&["BY", "NAME"]) || without_marks(rest).len() < rest.len()
}

/// Reads an INSERT that reads from a source.
pub(crate) fn parse_insert(sql: &str) -> Result<Ddl> {
    let text = Text::new(sql)?;
    let statements: Vec<&[TokenWithSpan]> = text
        .tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|tokens| tokens.iter().any(|token| !matches!(token.token, Token::Whitespace(_))))
        .collect();
    match statements.as_slice() {
        [tokens] => insert(&mut Cursor::new(&text, tokens)),
        _ => Err(SqlError::syntax("one statement at a time")),
    }
}

/// After ALTER PIPELINE.
pub(super) fn alter_pipeline(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let name = cursor.object_name("the name of the pipeline")?;
    let position = cursor.position();
    let action = if cursor.keyword("PAUSE") {
        AlterPipelineAction::Pause
    } else if cursor.keyword("RESUME") {
        AlterPipelineAction::Resume
    } else if cursor.keyword("SET") {
        AlterPipelineAction::Set(options(cursor)?)
    } else if cursor.keyword("RESTART") {
        let position = cursor.position();
        let checkpoint = match cursor.keywords(&["FROM", "CHECKPOINT"]) {
            true => Some(cursor.number("the number of a checkpoint")?),
            false => None,
        };
        AlterPipelineAction::Restart { checkpoint, position }
    } else if cursor.keyword("RENAME") {
        cursor.expect_keyword("TO")?;
        AlterPipelineAction::Rename(cursor.name("the new name of the pipeline")?)
    } else {
        return Err(SqlError::new(
            state::SYNTAX_ERROR,
            "ALTER PIPELINE takes PAUSE, RESUME, RESTART, RESTART FROM CHECKPOINT, SET (…) or RENAME TO",
        )
        .at(position));
    };
    Ok(Ddl::AlterPipeline(AlterPipeline { name, if_exists, action }))
}
