//! CREATE VIEW.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{CreateView, Ddl},
    tokens::Cursor,
};
use crate::session::error::{Result, SqlError};

/// After CREATE [OR REPLACE] VIEW.
pub(super) fn create_view(cursor: &mut Cursor<'_>, or_replace: bool) -> Result<Ddl> {
    let name = cursor.object_name("the name of the view")?;
    let columns = match cursor.peek() {
        Some(Token::LParen) => cursor.list(|cursor| cursor.name("the name of a column"))?,
        _ => Vec::new(),
    };
    if cursor.is_keyword("WITH") {
        return Err(SqlError::unsupported("options of views are not supported").at(cursor.position()));
    }
    cursor.expect_keyword("AS")?;
    let query_position = cursor.position();
    let tokens = cursor.rest();
    let query = cursor.text.parse_with(tokens, |parser| parser.parse_query())?;
    Ok(Ddl::CreateView(CreateView { name, or_replace, columns, query, query_position }))
}
