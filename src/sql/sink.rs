//! CREATE SINK.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{CreateSink, Ddl},
    create::{columns_only, options},
    tokens::Cursor,
};
use crate::session::error::Result;

/// After CREATE SINK.
pub(super) fn create_sink(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = cursor.object_name("the name of the sink")?;
    let columns = if cursor.peek() == Some(&Token::LParen) { columns_only(cursor, "sink")? } else { Vec::new() };
    cursor.expect_keyword("WITH")?;
    let options = options(cursor)?;
    Ok(Ddl::CreateSink(CreateSink { name, if_not_exists, columns, options }))
}
