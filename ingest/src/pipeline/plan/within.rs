//! `SELECT DISTINCT ON (key) … FROM … WITHIN INTERVAL '1 hour'`: how it is written, and what is made of it.
//!
//! WITHIN is no SQL, so it is moved to where SQL has room: `DISTINCT ON (key, dedup_within(INTERVAL '1 hour'))`.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        DataFusionError, exec_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        ColumnarValue, DistinctOn, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
    sql::sqlparser::{
        dialect::PostgreSqlDialect,
        keywords::Keyword,
        tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
    },
};

use super::{
    super::{
        expression::{Expression, definition},
        rules::Rules,
    },
    Time,
    shift::length_us,
    unsupported,
};
use crate::{Error, Result};

const WITHIN: &str = "dedup_within";

/// Rows of which one of each key is kept for a time.
#[derive(Debug)]
pub(crate) struct Dedup {
    pub(crate) keys: Vec<Expression>,
    /// The event time.
    pub(crate) time: Expression,
    /// How far its times are behind the watermark at most.
    pub(crate) delay_us: i64,
    pub(crate) within_us: i64,
    /// What is given of a row.
    pub(crate) select: Vec<Expression>,
    pub(crate) output: SchemaRef,
}

impl Dedup {
    /// Also which of its columns are event times.
    pub(super) fn compile(rules: &dyn Rules, node: &DistinctOn, times: &[Time]) -> Result<(Self, Vec<Time>)> {
        let input = node.input.schema();
        let mut within = None;
        let mut keys = Vec::new();
        for expr in &node.on_expr {
            match length_of(expr)? {
                Some(length) => {
                    let length_us = length_us(rules, &length, "WITHIN").ok().filter(|us| *us > 0);
                    within = Some(length_us.ok_or_else(|| Error::Definition {
                        message: "WITHIN takes a constant length of time above zero".into(),
                        hint: Some("write WITHIN INTERVAL '1 hour'; days and less".into()),
                    })?);
                }
                None => keys.push(Expression::of_plan(rules, input, expr.clone(), "DISTINCT ON")?),
            }
        }
        let Some(within_us) = within else {
            return Err(unsupported(
                "DISTINCT ON without WITHIN would have to know every key for ever",
                "say for how long: SELECT DISTINCT ON (key) … FROM source WITHIN INTERVAL '1 hour'",
            ));
        };
        if node.sort_expr.as_ref().is_some_and(|sort| !sort.is_empty()) {
            return Err(unsupported(
                "ORDER BY with DISTINCT ON is not supported in a pipeline",
                "the row of the earliest event time is kept",
            ));
        }
        let Some(time) = times.first() else {
            return Err(unsupported(
                "DISTINCT ON … WITHIN goes by event time, and its rows have none",
                "say WATERMARK FOR column AS column - INTERVAL '…' in CREATE SOURCE, and select that column",
            ));
        };
        let column = Expr::Column(input.qualified_field(time.column).into());
        let mut select = Vec::new();
        let mut fields = Vec::new();
        let mut kept = Vec::new();
        for (at, (expr, field)) in node.select_expr.iter().zip(node.schema.fields()).enumerate() {
            let compiled = Expression::of_plan(rules, input, expr.clone(), &format!("column \"{}\"", field.name()))?;
            let made = Field::new(field.name(), compiled.field.data_type().clone(), true);
            fields.push(made.with_metadata(field.metadata().clone()));
            select.push(compiled);
            if let Expr::Column(column) = expr.clone().unalias_nested().data
                && let Ok(from) = input.index_of_column(&column)
                && let Some(time) = times.iter().find(|time| time.column == from)
            {
                kept.push(Time { column: at, ..*time });
            }
        }
        let dedup = Self {
            keys,
            time: Expression::of_plan(rules, input, column, "the event time")?,
            delay_us: time.delay_us,
            within_us,
            select,
            output: Arc::new(Schema::new(fields)),
        };
        Ok((dedup, kept))
    }

    pub(super) fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(Expression::describe).collect();
        format!("Distinct: on [{}] within {} microseconds of {}", keys.join(", "), self.within_us, self.time.describe())
    }
}

/// The argument of the mark, which may be wrapped in what rules of queries put around expressions.
fn length_of(expr: &Expr) -> Result<Option<Expr>> {
    let mut found = None;
    expr.apply(|expr| {
        if let Expr::ScalarFunction(function) = expr
            && function.func.name() == WITHIN
        {
            found = function.args.first().cloned();
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Moves WITHIN to where it can be read.
pub(super) fn rewrite(text: &str) -> Result<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
    // What cannot be read is said by the one who parses.
    let Ok(tokens) = tokens else { return Ok(text.to_owned()) };
    let tokens: Vec<&TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let keyword = |at: usize| match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let mut depth = 0usize;
    // Of each DISTINCT ON that has no WITHIN yet: its depth, and the token that closes its list.
    let mut open: Vec<(usize, Option<usize>)> = Vec::new();
    // Place, and what is to be put there; or a stretch to be taken away.
    let mut edits: Vec<(usize, usize, String)> = Vec::new();
    let offset = |location: Location| offset(text, location);
    for (at, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => {
                if at >= 2 && keyword(at - 1) == Keyword::ON && keyword(at - 2) == Keyword::DISTINCT {
                    open.push((depth, None));
                }
                depth += 1;
            }
            Token::RParen => {
                depth = depth.saturating_sub(1);
                open.retain(|(of, _)| *of <= depth);
                if let Some((of, list)) = open.last_mut()
                    && *of == depth
                    && list.is_none()
                {
                    *list = Some(at);
                }
            }
            _ if keyword(at) == Keyword::WITHIN && keyword(at + 1) == Keyword::INTERVAL => {
                let Some((_, Some(list))) = open.pop_if(|(of, list)| *of == depth && list.is_some()) else {
                    return Err(Error::Definition {
                        message: "WITHIN INTERVAL stands where nothing is told apart".into(),
                        hint: Some("it goes with SELECT DISTINCT ON (key) … FROM source".into()),
                    });
                };
                let end = last_of(&keyword, at);
                let Some(last) = tokens.get(end) else { return Err(definition("WITHIN INTERVAL has no length")) };
                let (from, to) = (offset(token.span.start), offset(last.span.end));
                let length = text.get(offset(tokens[at + 1].span.start)..to).unwrap_or_default();
                let list = offset(tokens[list].span.start);
                edits.push((list, list, format!(", {WITHIN}({length})")));
                edits.push((from, to, String::new()));
            }
            _ => {}
        }
    }
    let mut text = text.to_owned();
    edits.sort_by_key(|(from, ..)| std::cmp::Reverse(*from));
    for (from, to, with) in edits {
        text.replace_range(from..to, &with);
    }
    Ok(text)
}

/// The last token of `WITHIN INTERVAL '…' [unit]` that begins at a token.
fn last_of(keyword: &dyn Fn(usize) -> Keyword, at: usize) -> usize {
    use Keyword as K;
    let units = [
        K::DAY,
        K::DAYS,
        K::HOUR,
        K::HOURS,
        K::MINUTE,
        K::MINUTES,
        K::SECOND,
        K::SECONDS,
        K::WEEK,
        K::WEEKS,
        K::MONTH,
        K::MONTHS,
        K::YEAR,
        K::YEARS,
        K::MILLISECOND,
        K::MILLISECONDS,
    ];
    if units.contains(&keyword(at + 3)) { at + 3 } else { at + 2 }
}

/// A query without WITHIN, which only [`super::parse`] can read.
pub fn without_within(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let words: Vec<usize> = (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_))).collect();
    let keyword = |at: usize| match words.get(at).map(|at| &tokens[*at].token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let mut gone = vec![false; tokens.len()];
    for at in 0..words.len() {
        if keyword(at) == Keyword::WITHIN && keyword(at + 1) == Keyword::INTERVAL {
            let end = words.get(last_of(&keyword, at)).copied().unwrap_or(tokens.len() - 1);
            gone[words[at]..=end].fill(true);
        }
    }
    tokens.iter().zip(gone).filter(|(_, gone)| !gone).map(|(token, _)| token.clone()).collect()
}

/// Lines and columns count from 1, columns in characters.
fn offset(text: &str, location: Location) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take((location.line as usize).saturating_sub(1)).map(str::len).sum();
    let line = &text[line_start..];
    let within: usize = line.chars().take((location.column as usize).saturating_sub(1)).map(char::len_utf8).sum();
    line_start + within
}

pub(super) fn function() -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Within { signature }))
}

/// A mark; nobody computes it.
#[derive(Debug, PartialEq, Eq)]
struct Within {
    signature: Signature,
}

impl Hash for Within {
    fn hash<H: Hasher>(&self, state: &mut H) {
        WITHIN.hash(state);
    }
}

impl ScalarUDFImpl for Within {
    fn name(&self) -> &str {
        WITHIN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        Ok(ArrowType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        exec_err!("WITHIN goes with DISTINCT ON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_moves_into_the_list() {
        for (text, expected) in [
            ("SELECT 1 FROM s", "SELECT 1 FROM s"),
            (
                "SELECT DISTINCT ON (id) id, ts FROM s WITHIN INTERVAL '1 hour'",
                "SELECT DISTINCT ON (id, dedup_within(INTERVAL '1 hour')) id, ts FROM s ",
            ),
            (
                "SELECT a FROM (SELECT distinct on (lower(id), b)\n  'é)' || id, ts FROM s WHERE (x > 1)\n within interval '3' DAY) o WHERE a = 'WITHIN INTERVAL'",
                "SELECT a FROM (SELECT distinct on (lower(id), b, dedup_within(interval '3' DAY))\n  'é)' || id, ts FROM s WHERE (x > 1)\n ) o WHERE a = 'WITHIN INTERVAL'",
            ),
            (
                "SELECT DISTINCT ON (x) x FROM (SELECT DISTINCT ON (y) y FROM s WITHIN INTERVAL '1 s') t WITHIN INTERVAL '2 s'",
                "SELECT DISTINCT ON (x, dedup_within(INTERVAL '2 s')) x FROM (SELECT DISTINCT ON (y, dedup_within(INTERVAL '1 s')) y FROM s ) t ",
            ),
            (
                "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM s",
                "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM s",
            ),
        ] {
            assert_eq!(rewrite(text).unwrap(), expected);
        }
        rewrite("SELECT a FROM s WITHIN INTERVAL '1 hour'").unwrap_err();
        rewrite("SELECT DISTINCT ON (a) a FROM s WITHIN INTERVAL").unwrap_err();
    }
}
