//! TRUNCATE.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{Ddl, Truncate},
    tokens::Cursor,
};
use crate::session::error::Result;

/// After TRUNCATE: `[TABLE] [ONLY] name [*], … [RESTART IDENTITY | CONTINUE IDENTITY] [CASCADE | RESTRICT]`.
pub(crate) fn truncate(cursor: &mut Cursor<'_>) -> Result<Ddl> {
    cursor.keyword("TABLE");
    let mut names = Vec::new();
    loop {
        cursor.keyword("ONLY");
        let is_nested = cursor.symbol(&Token::LParen);
        names.push(cursor.object_name("the name of the table")?);
        if is_nested {
            cursor.expect_symbol(&Token::RParen)?;
        }
        cursor.symbol(&Token::Mul);
        if !cursor.symbol(&Token::Comma) {
            break;
        }
    }
    if cursor.keyword("RESTART") || cursor.keyword("CONTINUE") {
        cursor.expect_keyword("IDENTITY")?;
    }
    if !cursor.keyword("CASCADE") {
        cursor.keyword("RESTRICT");
    }
    Ok(Ddl::Truncate(Truncate { names }))
}
