//! CREATE SINK and ALTER SINK.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{AlterSink, AlterSinkAction, CreateSink, Ddl},
    create::{columns_only, options},
    tokens::Cursor,
};
use crate::session::error::{Result, SqlError, state};

/// After CREATE SINK.
pub(super) fn create_sink(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_not_exists = cursor.keywords(&["IF", "NOT", "EXISTS"]);
    let name = cursor.object_name("the name of the sink")?;
    let columns = if cursor.peek() == Some(&Token::LParen) { columns_only(cursor, "sink")? } else { Vec::new() };
    cursor.expect_keyword("WITH")?;
    let options = options(cursor)?;
    Ok(Ddl::CreateSink(CreateSink { name, if_not_exists, columns, options }))
}

/// After ALTER SINK.
pub(super) fn alter_sink(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    let if_exists = cursor.keywords(&["IF", "EXISTS"]);
    let name = cursor.object_name("the name of the sink")?;
    let position = cursor.position();
    let action = if cursor.keyword("SET") {
        AlterSinkAction::Set(options(cursor)?)
    } else if cursor.keywords(&["RENAME", "TO"]) {
        AlterSinkAction::Rename(cursor.name("the new name of the sink")?)
    } else {
        let message = "ALTER SINK takes SET (…) or RENAME TO";
        return Err(SqlError::new(state::SYNTAX_ERROR, message).at(position));
    };
    Ok(Ddl::AlterSink(AlterSink { name, if_exists, action }))
}
