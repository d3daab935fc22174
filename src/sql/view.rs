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
    let mut columns = Vec::new();
    if cursor.symbol(&Token::LParen) {
        loop {
            columns.push(cursor.name("the name of a column")?);
            if !cursor.symbol(&Token::Comma) {
                break;
            }
        }
        cursor.expect_symbol(&Token::RParen)?;
    }
    if cursor.is_keyword("WITH") {
        return Err(SqlError::unsupported("options of views are not supported").at(cursor.position()));
    }
    cursor.expect_keyword("AS")?;
    let query_position = cursor.position();
    let tokens = cursor.rest();
    let query = cursor.text.parse_with(tokens, |parser| parser.parse_query())?;
    Ok(Ddl::CreateView(CreateView { name, or_replace, columns, query, query_position }))
}
