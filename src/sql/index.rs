//! CREATE INDEX.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{CreateIndex, Ddl, Name},
    create::options,
    tokens::Cursor,
};
use crate::session::error::{Result, SqlError, state};

/// After CREATE INDEX.
pub(super) fn create_index(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    // Building never keeps anybody from reading or writing, so the word changes nothing.
    cursor.keyword("CONCURRENTLY");
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = if cursor.is_keyword("ON") { None } else { Some(cursor.object_name("the name of the index")?) };
    if if_not_exists && name.is_none() {
        return cursor.expected("the name of the index, which IF NOT EXISTS needs");
    }
    cursor.expect_keyword("ON")?;
    cursor.keyword("ONLY");
    let table = cursor.object_name("the name of the table")?;
    let method = if cursor.keyword("USING") { Some(cursor.name("the kind of the index")?) } else { None };
    let mut pairs = if cursor.keyword("WITH") { options(cursor)? } else { Vec::new() };
    let star_tree = match &method {
        Some(method) if method.value == "star_tree" => Some(super::star_tree::clause(cursor)?),
        _ => None,
    };
    let columns = if star_tree.is_some() { Vec::new() } else { columns(cursor, method.as_ref())? };
    for refused in ["INCLUDE", "NULLS", "TABLESPACE", "WHERE"] {
        if cursor.is_keyword(refused) {
            return Err(
                SqlError::unsupported(format!("{refused} is not supported in CREATE INDEX")).at(cursor.position())
            );
        }
    }
    if cursor.keyword("WITH") {
        pairs.extend(options(cursor)?);
        if cursor.is_keyword("WHERE") {
            return Err(SqlError::unsupported("WHERE is not supported in CREATE INDEX").at(cursor.position()));
        }
    }
    Ok(Ddl::CreateIndex(CreateIndex { name, if_not_exists, table, method, columns, star_tree, options: pairs }))
}

/// Kinds that are made of the words of a column where PostgreSQL is given them as `to_tsvector('simple', column)`.
const OF_WORDS: &[&str] = &["gin", "gist", "text"];

/// After `to_tsvector(`.
fn words(cursor: &mut Cursor<'_>) -> Result<Name> {
    if matches!(cursor.peek(), Some(Token::SingleQuotedString(_))) {
        let position = cursor.position();
        let configuration = cursor.string("a text search configuration")?;
        if !["simple", "pg_catalog.simple"].contains(&configuration.as_str()) {
            let message = format!("text search configuration \"{configuration}\" does not exist");
            return Err(SqlError::new(state::UNDEFINED_OBJECT, message)
                .at(position)
                .with_hint("the only one is \"simple\""));
        }
        if cursor.symbol(&Token::DoubleColon) {
            cursor.name("regconfig")?;
        }
        cursor.expect_symbol(&Token::Comma)?;
    }
    let column = cursor.name("a column")?;
    cursor.expect_symbol(&Token::RParen)?;
    Ok(column)
}

fn columns(cursor: &mut Cursor<'_>, method: Option<&Name>) -> Result<Vec<Name>> {
    let mut columns = Vec::new();
    cursor.expect_symbol(&Token::LParen)?;
    loop {
        if cursor.peek() == Some(&Token::LParen) {
            return Err(SqlError::unsupported("indexes of expressions are not supported").at(cursor.position()));
        }
        let name = cursor.name("a column")?;
        if name.value == "to_tsvector"
            && method.is_some_and(|method| OF_WORDS.contains(&method.value.as_str()))
            && cursor.symbol(&Token::LParen)
        {
            columns.push(words(cursor)?);
        } else {
            columns.push(name);
        }
        if cursor.peek() == Some(&Token::LParen) {
            return Err(SqlError::unsupported("indexes of expressions are not supported").at(cursor.position()));
        }
        // The order of an index of PostgreSQL; ours answer either way.
        if !cursor.keyword("ASC") {
            cursor.keyword("DESC");
        }
        if !cursor.keywords(&["NULLS", "FIRST"]) {
            cursor.keywords(&["NULLS", "LAST"]);
        }
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    cursor.expect_symbol(&Token::RParen)?;
    Ok(columns)
}
