//! Words of streams that SQL does not have, and the functions that stand for them until the plan is taken apart.
//!
//! ```text
//! SELECT DISTINCT ON (key) … FROM s WITHIN INTERVAL '1 hour'     DISTINCT ON (key, dedup_within(INTERVAL '1 hour'))
//! JOIN LATEST t ON condition                                     JOIN t ON join_latest(TRUE) AND condition
//! JOIN r FOR SYSTEM_TIME AS OF s.ts ON condition                 JOIN r ON join_as_of(s.ts) AND condition
//! transform(TABLE s, …), TABLE(TUMBLE(TABLE s, …))               a relation with a name that has it all
//! ```

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::DataType as ArrowType;
use datafusion::{
    common::{
        DataFusionError, exec_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    sql::sqlparser::{
        dialect::PostgreSqlDialect,
        keywords::Keyword,
        tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
    },
};

use super::{super::expression::definition, transformed, window_tables};
use crate::{Error, Result};

pub(super) const WITHIN: &str = "dedup_within";
pub(super) const LATEST: &str = "join_latest";
pub(super) const AS_OF: &str = "join_as_of";

/// The argument of a mark in an expression, which may be wrapped in what rules of queries put around expressions.
pub(super) fn argument(expr: &Expr, mark: &str) -> Result<Option<Expr>> {
    let mut found = None;
    expr.apply(|expr| {
        if let Expr::ScalarFunction(function) = expr
            && function.func.name() == mark
        {
            found = function.args.first().cloned();
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// The words of a text, without what is between them.
pub(super) struct Words<'t>(Vec<&'t TokenWithSpan>);

impl<'t> Words<'t> {
    fn of(tokens: &'t [TokenWithSpan]) -> Self {
        Self(tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect())
    }

    pub(super) fn token(&self, at: usize) -> Option<&Token> {
        self.0.get(at).map(|token| &token.token)
    }

    pub(super) fn keyword(&self, at: usize) -> Keyword {
        match self.token(at) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
            _ => Keyword::NoKeyword,
        }
    }

    pub(super) fn is_word(&self, at: usize) -> bool {
        matches!(self.token(at), Some(Token::Word(_)))
    }

    /// Whether an alias of a relation stands here, without AS.
    fn is_alias(&self, at: usize) -> bool {
        matches!(self.token(at), Some(Token::Word(word)) if word.quote_style.is_some() || word.keyword == Keyword::NoKeyword)
    }

    /// Whether WITHIN INTERVAL stands here.
    fn is_within(&self, at: usize) -> bool {
        self.keyword(at) == Keyword::WITHIN && self.keyword(at + 1) == Keyword::INTERVAL
    }

    /// The last token of `WITHIN INTERVAL '…' [unit]` that begins here.
    fn end_of_within(&self, at: usize) -> usize {
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
        if units.contains(&self.keyword(at + 3)) { at + 3 } else { at + 2 }
    }

    /// Whether LATEST stands here, behind JOIN and before the name of a relation.
    fn is_latest(&self, at: usize) -> bool {
        let is_latest = matches!(self.token(at), Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("latest"));
        // Behind a relation of that name stands its alias, AS, ON or USING.
        let is_name =
            self.is_word(at + 1) && !matches!(self.keyword(at + 1), Keyword::AS | Keyword::ON | Keyword::USING);
        at > 0 && self.keyword(at - 1) == Keyword::JOIN && is_latest && is_name
    }

    /// The last token of `FOR SYSTEM_TIME AS OF column` that begins here; the column is from the fifth on.
    fn end_of_as_of(&self, at: usize) -> Option<usize> {
        let is = |at: usize, text: &str| matches!(self.token(at), Some(Token::Word(word)) if word.value.eq_ignore_ascii_case(text));
        if !(self.keyword(at) == Keyword::FOR && is(at + 1, "system_time") && is(at + 2, "as") && is(at + 3, "of")) {
            return None;
        }
        let mut end = at + 4;
        while self.token(end + 1) == Some(&Token::Period) && self.is_word(end + 2) {
            end += 2;
        }
        self.is_word(at + 4).then_some(end)
    }

    /// The last token of `name(TABLE source [PARTITION BY (key, …)] [, argument …])` that begins here, with its parts.
    fn transform(&self, at: usize) -> Option<(usize, String, transformed::Input, Vec<String>)> {
        let name = |at: usize| match self.token(at)? {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
            Token::Word(word) => Some(word.value.clone()),
            _ => None,
        };
        let begins = self.token(at + 1) == Some(&Token::LParen) && self.keyword(at + 2) == Keyword::TABLE;
        let (transform, source) = begins.then(|| Some((name(at)?, name(at + 3)?))).flatten()?;
        let (mut end, mut arguments, mut keys) = (at + 4, Vec::new(), Vec::new());
        if self.keyword(end) == Keyword::PARTITION && self.keyword(end + 1) == Keyword::BY {
            end += 2;
            if self.token(end) == Some(&Token::LParen) {
                loop {
                    keys.push(name(end + 1)?);
                    end += 2;
                    match self.token(end)? {
                        Token::Comma => {}
                        Token::RParen => break,
                        _ => return None,
                    }
                }
            } else {
                keys.push(name(end)?);
            }
            end += 1;
        }
        while self.token(end) == Some(&Token::Comma) {
            let is_negative = self.token(end + 1) == Some(&Token::Minus);
            let at = end + 1 + usize::from(is_negative);
            arguments.push(transformed::argument(self.token(at)?, is_negative)?);
            end = at + 1;
        }
        (self.token(end) == Some(&Token::RParen)).then_some((
            end,
            transform,
            transformed::Input { source, keys },
            arguments,
        ))
    }

    /// The ON that belongs to a join whose relation stands here.
    fn on_after(&self, at: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in at..self.0.len() {
            match self.token(at)? {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.checked_sub(1)?,
                _ if depth > 0 => {}
                _ if self.keyword(at) == Keyword::ON => return Some(at),
                _ if matches!(self.keyword(at), Keyword::JOIN | Keyword::WHERE | Keyword::USING | Keyword::GROUP) => {
                    return None;
                }
                _ => {}
            }
        }
        None
    }
}

/// Moves the words to where they can be read.
pub(super) fn rewrite(text: &str) -> Result<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
    // What cannot be read is said by the one who parses.
    let Ok(tokens) = tokens else { return Ok(text.to_owned()) };
    let words = Words::of(&tokens);
    let mut depth = 0usize;
    // Of each DISTINCT ON that has no WITHIN yet: its depth, and the token that closes its list.
    let mut open: Vec<(usize, Option<usize>)> = Vec::new();
    // Place, and what is to be put there; or a stretch to be taken away.
    let mut edits: Vec<(usize, usize, String)> = Vec::new();
    let offset = |location: Location| offset(text, location);
    let start = |at: usize| words.0.get(at).map_or(text.len(), |token| offset(token.span.start));
    let end = |at: usize| words.0.get(at).map_or(text.len(), |token| offset(token.span.end));
    let mut done = 0;
    for at in 0..words.0.len() {
        if at < done {
            continue;
        }
        match &words.0[at].token {
            Token::LParen => {
                if at >= 2 && words.keyword(at - 1) == Keyword::ON && words.keyword(at - 2) == Keyword::DISTINCT {
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
            _ if words.is_within(at) => {
                let Some((_, Some(list))) = open.pop_if(|(of, list)| *of == depth && list.is_some()) else {
                    return Err(Error::Definition {
                        message: "WITHIN INTERVAL stands where nothing is told apart".into(),
                        hint: Some("it goes with SELECT DISTINCT ON (key) … FROM source".into()),
                    });
                };
                let last = words.end_of_within(at);
                if last >= words.0.len() {
                    return Err(definition("WITHIN INTERVAL has no length"));
                }
                let length = text.get(start(at + 1)..end(last)).unwrap_or_default();
                edits.push((start(list), start(list), format!(", {WITHIN}({length})")));
                edits.push((start(at), end(last), String::new()));
            }
            _ if words.is_latest(at) => {
                edits.push((start(at), start(at + 1), String::new()));
                let on = words.on_after(at + 1).ok_or_else(|| needs_on("JOIN LATEST"))?;
                edits.push((end(on), end(on), format!(" {LATEST}(TRUE) AND")));
            }
            _ => {
                let window = window_tables::Place::of(&words, at);
                let window = match window {
                    Some(place) => Some((place.last, place.relation(&words)?)),
                    None => None,
                };
                let call = window.or_else(|| {
                    let (last, name, input, arguments) = words.transform(at)?;
                    Some((last, (transformed::relation(&name, &input, &arguments), name)))
                });
                if let Some((last, (relation, name))) = call {
                    // Without an alias its columns are those of the name that it goes by.
                    let has_alias = words.keyword(last + 1) == Keyword::AS || words.is_alias(last + 1);
                    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
                    let alias = if has_alias { String::new() } else { format!(" AS {}", quoted(&name)) };
                    edits.push((start(at), end(last), format!("{}{alias}", quoted(&relation))));
                    done = last + 1;
                } else if let Some(last) = words.end_of_as_of(at) {
                    let column = text.get(start(at + 4)..end(last)).unwrap_or_default();
                    edits.push((start(at), end(last), String::new()));
                    let on = words.on_after(last + 1).ok_or_else(|| needs_on("FOR SYSTEM_TIME AS OF"))?;
                    edits.push((end(on), end(on), format!(" {AS_OF}({column}) AND")));
                }
            }
        }
    }
    let mut text = text.to_owned();
    edits.sort_by_key(|(from, ..)| std::cmp::Reverse(*from));
    for (from, to, with) in edits {
        text.replace_range(from..to, &with);
    }
    Ok(text)
}

fn needs_on(what: &str) -> Error {
    Error::Definition {
        message: format!("{what} needs a condition"),
        hint: Some("write it with ON: JOIN … ON relation.key = source.column".into()),
    }
}

/// A query without these words, which only [`super::parse`] can read.
pub fn without_marks(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let words = Words::of(tokens);
    let places: Vec<usize> =
        (0..tokens.len()).filter(|at| !matches!(tokens[*at].token, Token::Whitespace(_))).collect();
    let mut gone = vec![false; tokens.len()];
    let mut done = 0;
    for at in 0..words.0.len() {
        if at < done {
            continue;
        }
        let window = window_tables::Place::of(&words, at).map(|place| (place.name, place.last));
        if let Some((name, last)) = window.or_else(|| words.transform(at).map(|(last, ..)| (at, last))) {
            // The name stays, as that of a relation.
            gone[places[at]..places[name]].fill(true);
            gone[places[name] + 1..=places[last]].fill(true);
            done = last + 1;
            continue;
        }
        let end = match words.is_within(at) {
            true => Some(words.end_of_within(at)),
            false if words.is_latest(at) => Some(at),
            false => words.end_of_as_of(at),
        };
        if let Some(end) = end {
            let end = places.get(end).copied().unwrap_or(tokens.len() - 1);
            gone[places[at]..=end].fill(true);
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

/// The functions that [`rewrite`] leaves in a query.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let mark = |name| Mark { name, signature: Signature::any(1, Volatility::Immutable) };
    [WITHIN, LATEST, AS_OF].map(|name| Arc::new(ScalarUDF::new_from_impl(mark(name)))).to_vec()
}

/// Nobody computes it.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    name: &'static str,
    signature: Signature,
}

impl Hash for Mark {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> Result<ArrowType, DataFusionError> {
        Ok(ArrowType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        match self.name {
            WITHIN => exec_err!("WITHIN goes with DISTINCT ON"),
            LATEST => exec_err!("LATEST goes with JOIN of a table"),
            _ => exec_err!("FOR SYSTEM_TIME AS OF goes with JOIN of a source"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_move_to_where_they_can_be_read() {
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
            (
                "SELECT 1 FROM o JOIN LATEST clicks c ON c.id = o.id LEFT JOIN latest t on (t.a = o.a)",
                "SELECT 1 FROM o JOIN clicks c ON join_latest(TRUE) AND c.id = o.id LEFT JOIN t on join_latest(TRUE) AND (t.a = o.a)",
            ),
            (
                "SELECT 1 FROM s JOIN latest ON latest.a = s.a JOIN latest AS l ON l.a = s.a",
                "SELECT 1 FROM s JOIN latest ON latest.a = s.a JOIN latest AS l ON l.a = s.a",
            ),
            (
                "SELECT 1 FROM o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON r.k = o.k WHERE true",
                "SELECT 1 FROM o LEFT JOIN rates  AS r ON join_as_of(o.ts) AND r.k = o.k WHERE true",
            ),
        ] {
            assert_eq!(rewrite(text).unwrap(), expected);
            let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().unwrap();
            let left: String = without_marks(&tokens).iter().map(|token| token.token.to_string()).collect();
            let left = left.replace("'WITHIN INTERVAL'", "");
            for word in ["WITHIN INTERVAL", "JOIN LATEST", "SYSTEM_TIME"] {
                assert!(!left.contains(word), "{left}");
            }
        }
        rewrite("SELECT a FROM s WITHIN INTERVAL '1 hour'").unwrap_err();
        rewrite("SELECT DISTINCT ON (a) a FROM s WITHIN INTERVAL").unwrap_err();
        rewrite("SELECT a FROM s JOIN LATEST t USING (id)").unwrap_err();
        rewrite("SELECT a FROM s JOIN r FOR SYSTEM_TIME AS OF s.ts USING (id)").unwrap_err();
    }
}
