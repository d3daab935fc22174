//! SQL text into statements, in PostgreSQL's dialect.

use datafusion::{
    error::DataFusionError,
    sql::sqlparser::{
        ast::Statement,
        dialect::PostgreSqlDialect,
        parser::Parser,
        tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer},
    },
};

use crate::SqlError;

/// How deeply expressions and subqueries may nest.
const NESTING_MAX: usize = 50;

/// The statements of `sql`, which may be none. Tidemill's own statements are parsed by the server before it comes here.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    let dialect = PostgreSqlDialect {};
    Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(Into::into)
        .and_then(|tokens| {
            Parser::new(&dialect)
                .with_recursion_limit(NESTING_MAX)
                .with_tokens_with_locations(tokens.into_iter().flat_map(without_sign).collect())
                .parse_statements()
        })
        .map_err(|error| SqlError::from_datafusion(&DataFusionError::SQL(Box::new(error), None), sql))
}

/// `a>-1` is a comparison with -1: an operator ends in a sign only if it has one of `~ ! @ # % ^ & | ` ?`.
fn without_sign(token: TokenWithSpan) -> Vec<TokenWithSpan> {
    let Token::CustomBinaryOperator(operator) = &token.token else { return vec![token] };
    let known = [(">", Token::Gt), (">=", Token::GtEq), ("<", Token::Lt), ("<=", Token::LtEq), ("<>", Token::Neq)];
    let (rest, sign) = match (operator.strip_suffix('-'), operator.strip_suffix('+')) {
        (Some(rest), _) => (rest, Token::Minus),
        (_, Some(rest)) => (rest, Token::Plus),
        _ => return vec![token],
    };
    let Some((_, comparison)) = known.into_iter().find(|(name, _)| *name == rest) else { return vec![token] };
    let Span { start, end } = token.span;
    let between = Location::new(end.line, end.column.saturating_sub(1).max(start.column));
    vec![TokenWithSpan::new(comparison, Span::new(start, between)), TokenWithSpan::new(sign, Span::new(between, end))]
}
