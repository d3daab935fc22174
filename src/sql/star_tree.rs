//! What stands after `USING star_tree`: dimensions (or AUTO), then AGGREGATE.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ast::{StarAggregate, StarDimension, StarTreeClause},
    tokens::Cursor,
};
use crate::session::error::Result;

/// `AUTO` or `(a, date_trunc('hour', b))`, then `[AGGREGATE (count(*), sum(c))]`.
pub(super) fn clause(cursor: &mut Cursor<'_>) -> Result<StarTreeClause> {
    let position = cursor.position();
    let dimensions = match cursor.keyword("AUTO") {
        true => None,
        false => Some(cursor.list(dimension)?),
    };
    let aggregates = match cursor.keyword("AGGREGATE") {
        true => Some(cursor.list(aggregate)?),
        false => None,
    };
    Ok(StarTreeClause { position, dimensions, aggregates })
}

/// `column`, or `function('argument', column)`.
fn dimension(cursor: &mut Cursor<'_>) -> Result<StarDimension> {
    let name = cursor.name("a column or date_trunc")?;
    if !cursor.symbol(&Token::LParen) {
        return Ok(StarDimension { column: name, function: None });
    }
    let position = cursor.position();
    let unit = match cursor.peek() {
        Some(Token::SingleQuotedString(_)) => {
            let unit = cursor.string("a unit of time")?;
            cursor.expect_symbol(&Token::Comma)?;
            unit
        }
        _ => String::new(),
    };
    let column = cursor.name("a column")?;
    cursor.expect_symbol(&Token::RParen)?;
    Ok(StarDimension { column, function: Some((name, unit, position)) })
}

/// `count(*)` or `function(column)`.
fn aggregate(cursor: &mut Cursor<'_>) -> Result<StarAggregate> {
    let function = cursor.name("an aggregate")?;
    cursor.expect_symbol(&Token::LParen)?;
    let column = if cursor.symbol(&Token::Mul) { None } else { Some(cursor.name("a column")?) };
    cursor.expect_symbol(&Token::RParen)?;
    Ok(StarAggregate { function, column })
}
