//! Windows as table functions, SQL's and Flink's other way to write them: what is made of it is the group function.
//!
//! ```text
//! SELECT window_start, window_end, city, sum(x)                        SELECT TUMBLE_START(s.ts, l), TUMBLE_END(s.ts, l), city, sum(x)
//! FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), l))                       FROM s
//! GROUP BY window_start, window_end, city                              GROUP BY TUMBLE(s.ts, l), city
//! ```
//!
//! Until the plan is made, the call is a relation whose name has all of it: `"window kind source time keys lengths…"`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{self, Expr, VisitMut, VisitorMut},
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    parser::Parser,
    tokenizer::Token,
};

use super::{super::expression::definition, PlanSource, marks::Words, unsupported};
use crate::{Error, Result};

const PREFIX: &str = "window ";
/// Between parts of a name; no text of SQL has it.
const SEPARATOR: char = '\u{1f}';
/// Between columns of PARTITION BY.
const OF_KEY: char = '\u{1e}';

/// Names of arguments behind the source and its time, as Flink has them.
const KINDS: [(&str, &[&str]); 4] =
    [("tumble", &["size"]), ("hop", &["slide", "size"]), ("cumulate", &["step", "size"]), ("session", &["gap"])];

const START: &str = "window_start";
const END: &str = "window_end";
const TIME: &str = "window_time";

/// `KIND(TABLE source [PARTITION BY (key, …)], DESCRIPTOR(time), length, …)`
#[derive(Debug)]
struct Call {
    kind: &'static str,
    source: String,
    time: String,
    keys: Vec<String>,
    lengths: Vec<String>,
}

/// A call in a text.
pub(super) struct Place {
    /// Where its name stands, which is behind the word TABLE of `TABLE(KIND(…))`.
    pub(super) name: usize,
    pub(super) last: usize,
}

impl Place {
    /// The call that begins with a word.
    pub(super) fn of(words: &Words<'_>, at: usize) -> Option<Self> {
        let is_wrapped = words.keyword(at) == Keyword::TABLE && words.token(at + 1) == Some(&Token::LParen);
        let name = if is_wrapped { at + 2 } else { at };
        kind_of(words, name)?;
        // TABLE source, or DATA => TABLE source
        let named = usize::from(words.token(name + 3) == Some(&Token::RArrow)) * 2;
        let is_call = words.token(name + 1) == Some(&Token::LParen)
            && words.keyword(name + 2 + named) == Keyword::TABLE
            && words.is_word(name + 3 + named);
        let last = is_call.then(|| closing(words, name + 1)).flatten()?;
        match is_wrapped {
            true => (words.token(last + 1) == Some(&Token::RParen)).then_some(Self { name, last: last + 1 }),
            false => Some(Self { name, last }),
        }
    }

    /// The relation that stands for it, and what its columns go by where it has no alias.
    pub(super) fn relation(&self, words: &Words<'_>) -> Result<(String, String)> {
        let call = Call::read(words, self.name)?;
        Ok((call.relation(), call.source))
    }
}

fn kind_of(words: &Words<'_>, at: usize) -> Option<(&'static str, &'static [&'static str])> {
    match words.token(at) {
        Some(Token::Word(word)) if word.quote_style.is_none() => {
            KINDS.into_iter().find(|(kind, _)| word.value.eq_ignore_ascii_case(kind))
        }
        _ => None,
    }
}

/// The parenthesis that closes one.
fn closing(words: &Words<'_>, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for at in open.. {
        match words.token(at)? {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(at),
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A name as it is looked up.
fn name(token: Option<&Token>) -> Option<String> {
    match token? {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    }
}

impl Call {
    /// The call whose name stands at a place.
    fn read(words: &Words<'_>, at: usize) -> Result<Self> {
        let (kind, lengths) = kind_of(words, at).ok_or_else(|| definition("not a window"))?;
        let shape = || {
            let lengths: Vec<String> = lengths.iter().map(|name| format!(", {name}")).collect();
            let keys = if kind == "session" { " PARTITION BY (key, …)" } else { "" };
            let call = format!("{}(TABLE source{keys}, DESCRIPTOR(time){})", kind.to_uppercase(), lengths.concat());
            Some(format!("it is written TABLE({call}), with lengths as INTERVAL '5' MINUTE"))
        };
        let wrong =
            |message: &str| Error::Definition { message: format!("{} {message}", kind.to_uppercase()), hint: shape() };
        let names: Vec<&str> = ["data", "timecol"].into_iter().chain(lengths.iter().copied()).collect();
        let mut arguments: Vec<Option<(usize, usize)>> = vec![None; names.len()];
        for (place, (from, to)) in arguments_of(words, at + 1).into_iter().enumerate() {
            let (place, from) = match words.token(from + 1) {
                Some(Token::RArrow) => {
                    let called = name(words.token(from)).unwrap_or_default();
                    let place = names.iter().position(|name| *name == called);
                    (place.ok_or_else(|| wrong(&format!("has no argument {called}")))?, from + 2)
                }
                _ => (place, from),
            };
            match arguments.get_mut(place) {
                Some(argument @ None) => *argument = Some((from, to)),
                Some(_) => return Err(wrong(&format!("is given {} twice", names[place]))),
                None => {
                    return Err(unsupported(
                        format!("{} takes no offset", kind.to_uppercase()),
                        "windows are aligned to 1970-01-01 00:00 UTC",
                    ));
                }
            }
        }
        let arguments: Option<Vec<(usize, usize)>> = arguments.into_iter().collect();
        let arguments = arguments.ok_or_else(|| wrong("lacks an argument"))?;
        let [(table, table_end), (time, time_end), of_lengths @ ..] = arguments.as_slice() else {
            return Err(wrong("lacks an argument"));
        };
        let source = name(words.token(table + 1)).filter(|_| words.keyword(*table) == Keyword::TABLE);
        let source = source.ok_or_else(|| wrong("takes a source as its first argument"))?;
        let keys =
            keys(words, table + 2, *table_end).ok_or_else(|| wrong("has a PARTITION BY that is no list of columns"))?;
        if !keys.is_empty() && kind != "session" {
            return Err(unsupported(
                format!("{} takes no PARTITION BY", kind.to_uppercase()),
                "its windows are the same for all keys: leave it out, and put the columns into GROUP BY",
            ));
        }
        let is_descriptor = name(words.token(*time)).as_deref() == Some("descriptor")
            && words.token(time + 1) == Some(&Token::LParen)
            && time_end - time == 4;
        let time = name(words.token(time + 2)).filter(|_| is_descriptor);
        let time = time.ok_or_else(|| wrong("takes DESCRIPTOR(time) as its second argument, with one column"))?;
        let text = |(from, to): &(usize, usize)| {
            (*from..*to).filter_map(|at| words.token(at)).map(Token::to_string).collect::<Vec<_>>().join(" ")
        };
        Ok(Self { kind, source, time, keys, lengths: of_lengths.iter().map(text).collect() })
    }

    fn relation(&self) -> String {
        let keys = self.keys.join(&OF_KEY.to_string());
        let parts = [self.kind, &self.source, &self.time, &keys].into_iter();
        let parts: Vec<&str> = parts.chain(self.lengths.iter().map(String::as_str)).collect();
        format!("{PREFIX}{}", parts.join(&SEPARATOR.to_string()))
    }

    fn of_relation(relation: &str) -> Option<Self> {
        let mut parts = relation.strip_prefix(PREFIX)?.split(SEPARATOR).map(str::to_owned);
        let kind = parts.next()?;
        let (kind, _) = KINDS.into_iter().find(|(name, _)| *name == kind)?;
        let (source, time, keys) = (parts.next()?, parts.next()?, parts.next()?);
        let keys = keys.split(OF_KEY).filter(|key| !key.is_empty()).map(str::to_owned).collect();
        Some(Self { kind, source, time, keys, lengths: parts.collect() })
    }

    /// The group function over the column of a relation, or what gives an end of its windows.
    fn function(&self, ending: &str, relation: &str) -> Result<Expr> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let lengths: Vec<String> = self.lengths.iter().map(|length| format!(", {length}")).collect();
        let time = format!("{}.{}", quoted(relation), quoted(&self.time));
        let text = format!("{}{ending}({time}{})", self.kind, lengths.concat());
        let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
        parsed.map_err(|error| definition(format!("cannot read the lengths of {}: {error}", self.kind.to_uppercase())))
    }
}

/// Where the arguments of a call stand whose parenthesis opens at a place: from, and to but without.
fn arguments_of(words: &Words<'_>, open: usize) -> Vec<(usize, usize)> {
    let Some(close) = closing(words, open) else { return Vec::new() };
    let (mut found, mut from, mut depth) = (Vec::new(), open + 1, 0usize);
    for at in open + 1..close {
        match words.token(at) {
            Some(Token::LParen) => depth += 1,
            Some(Token::RParen) => depth -= 1,
            Some(Token::Comma) if depth == 0 => {
                found.push((from, at));
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push((from, close));
    // The keys of PARTITION BY may stand without parentheses.
    let mut joined: Vec<(usize, usize)> = Vec::new();
    for (from, to) in found {
        let of_keys = joined.len() == 1 && to - from == 1 && words.is_word(from);
        match joined.last_mut() {
            Some(last) if of_keys => last.1 = to,
            _ => joined.push((from, to)),
        }
    }
    joined
}

/// `[PARTITION BY key, …]`, with parentheses or without.
fn keys(words: &Words<'_>, from: usize, to: usize) -> Option<Vec<String>> {
    if from == to {
        return Some(Vec::new());
    }
    if words.keyword(from) != Keyword::PARTITION || words.keyword(from + 1) != Keyword::BY {
        return None;
    }
    let (mut from, mut to) = (from + 2, to);
    if words.token(from) == Some(&Token::LParen) && words.token(to - 1) == Some(&Token::RParen) {
        (from, to) = (from + 1, to - 1);
    }
    let mut keys = Vec::new();
    for at in from..to {
        match (at - from) % 2 {
            0 => keys.push(name(words.token(at))?),
            _ if words.token(at) == Some(&Token::Comma) => {}
            _ => return None,
        }
    }
    (to > from && (to - from) % 2 == 1).then_some(keys)
}

/// The source of a call, if a relation is one.
pub(super) fn source_of(relation: &str) -> Option<String> {
    Call::of_relation(relation).map(|call| call.source)
}

/// Brings table functions into group functions.
pub(super) fn rewrite(query: &mut ast::Query, sources: &[PlanSource]) -> Result<()> {
    match VisitMut::visit(query, &mut Selects(sources)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Selects<'s>(&'s [PlanSource]);

impl VisitorMut for Selects<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Error> {
        match of_select(select, self.0) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    /// One that is still there after its SELECT was gone through.
    fn pre_visit_relation(&mut self, relation: &mut ast::ObjectName) -> ControlFlow<Error> {
        match call_of(relation) {
            Some(call) => ControlFlow::Break(unsupported(
                format!("{} of a TABLE stands where it cannot be grouped by", call.kind.to_uppercase()),
                "it is the first relation of FROM, and the only one with windows; streams are joined within bounds of time: JOIN … ON … AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '5 minutes'",
            )),
            None => ControlFlow::Continue(()),
        }
    }
}

fn call_of(relation: &ast::ObjectName) -> Option<Call> {
    match relation.0.as_slice() {
        [ast::ObjectNamePart::Identifier(name)] => Call::of_relation(&name.value),
        _ => None,
    }
}

fn of_select(select: &mut ast::Select, sources: &[PlanSource]) -> Result<()> {
    let first = select.from.first_mut().map(|from| &mut from.relation);
    let Some(ast::TableFactor::Table { name, alias: Some(alias), .. }) = first else { return Ok(()) };
    let Some(call) = call_of(name) else { return Ok(()) };
    *name = ast::ObjectName::from(vec![ast::Ident::with_quote('"', &call.source)]);
    let relation = alias.name.clone();
    let relation = if relation.quote_style.is_some() { relation.value } else { relation.value.to_lowercase() };
    let schema = sources.iter().find(|source| source.name == call.source).map(|source| &source.schema);
    if let Some(taken) =
        schema.and_then(|schema| [START, END].into_iter().find(|name| schema.field_with_name(name).is_ok()))
    {
        return Err(Error::Definition {
            message: format!("source \"{}\" has a column {taken}, which is what the window's is called", call.source),
            hint: Some(format!("write it with the group function: GROUP BY {}(time, …)", call.kind.to_uppercase())),
        });
    }
    let ends = Ends { call: &call, relation: &relation };
    ends.group(select)?;
    for item in &mut select.projection {
        if let ast::SelectItem::UnnamedExpr(expr) = item
            && let Some(column) = ends.column(expr)
        {
            *item = ast::SelectItem::ExprWithAlias { expr: expr.clone(), alias: ast::Ident::new(column) };
        }
    }
    ends.replace(&mut select.projection)?;
    ends.replace(&mut select.having)?;
    ends.replace(&mut select.named_window)?;
    ends.replace(&mut select.qualify)?;
    ends.refuse(&mut select.selection)?;
    select.from.iter_mut().try_for_each(|from| ends.refuse(&mut from.joins))
}

/// The columns that a call adds.
struct Ends<'c> {
    call: &'c Call,
    /// What its rows go by.
    relation: &'c str,
}

impl Ends<'_> {
    /// Which of them an expression is.
    fn column(&self, expr: &Expr) -> Option<&'static str> {
        let is = |part: &ast::Ident, name: &str| match part.quote_style {
            Some(_) => part.value == name,
            None => part.value.eq_ignore_ascii_case(name),
        };
        let last = match expr {
            Expr::Identifier(last) => last,
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [relation, last] if is(relation, self.relation) => last,
                _ => return None,
            },
            _ => return None,
        };
        [START, END, TIME].into_iter().find(|name| is(last, name))
    }

    /// What GROUP BY means by an expression: an item of the select list, by its place or its name, or the expression itself.
    fn meant<'e>(&self, expr: &'e Expr, items: &'e [ast::SelectItem]) -> &'e Expr {
        let of_item = |item: &'e ast::SelectItem| match item {
            ast::SelectItem::UnnamedExpr(expr) | ast::SelectItem::ExprWithAlias { expr, .. } => Some(expr),
            _ => None,
        };
        let found = match expr {
            Expr::Value(ast::ValueWithSpan { value: ast::Value::Number(place, _), .. }) => {
                let place = place.to_string().parse::<usize>().ok().and_then(|place| place.checked_sub(1));
                place.and_then(|place| items.get(place)).and_then(of_item)
            }
            Expr::Identifier(name) => items.iter().find_map(|item| match item {
                ast::SelectItem::ExprWithAlias { expr, alias } if alias == name && self.column(expr).is_some() => {
                    Some(expr)
                }
                _ => None,
            }),
            _ => None,
        };
        found.unwrap_or(expr)
    }

    /// Puts the group function into GROUP BY for the ends that are there.
    fn group(&self, select: &mut ast::Select) -> Result<()> {
        let ast::Select { projection, group_by: ast::GroupByExpr::Expressions(exprs, _), .. } = select else {
            return Err(unsupported(
                "GROUP BY ALL does not name the window",
                "write GROUP BY window_start, window_end",
            ));
        };
        let mut is_there = self.group_list(exprs, projection)?;
        for expr in exprs {
            let (Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets)) = expr else { continue };
            for set in sets {
                is_there |= self.group_list(set, projection)?;
            }
        }
        match is_there {
            true => Ok(()),
            false => Err(unsupported(
                format!(
                    "rows of TABLE({}(TABLE {}, …)) are grouped by their window",
                    self.call.kind.to_uppercase(),
                    self.call.source
                ),
                "GROUP BY has window_start, window_end and any columns; for the window of each row of TUMBLE there is date_bin(size, time)",
            )),
        }
    }

    fn group_list(&self, list: &mut Vec<Expr>, items: &[ast::SelectItem]) -> Result<bool> {
        let ends: Vec<Option<&str>> = list.iter().map(|expr| self.column(self.meant(expr, items))).collect();
        if ends.contains(&Some(TIME)) {
            return Err(no_time());
        }
        let Some(first) = ends.iter().position(Option::is_some) else { return Ok(false) };
        if self.call.kind == "cumulate" && !ends.contains(&Some(END)) {
            return Err(unsupported(
                "windows of CUMULATE are not told apart by window_start",
                "GROUP BY window_start, window_end",
            ));
        }
        if self.call.kind == "session" {
            self.check_keys(list.iter().map(|expr| self.meant(expr, items)))?;
        }
        list[first] = self.call.function("", self.relation)?;
        let mut ends = ends.into_iter().enumerate();
        list.retain(|_| ends.next().is_some_and(|(at, end)| at == first || end.is_none()));
        Ok(true)
    }

    /// Sessions are of the columns of GROUP BY: PARTITION BY has to say the same.
    fn check_keys<'e>(&self, list: impl Iterator<Item = &'e Expr>) -> Result<()> {
        let name = |expr: &Expr| match expr {
            Expr::Identifier(name) => Some(name.clone()),
            Expr::CompoundIdentifier(parts) => parts.last().cloned(),
            _ => None,
        };
        let name = |expr: &Expr| {
            name(expr).map(|name| if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() })
        };
        let mut found: Vec<Option<String>> = list.filter(|expr| self.column(expr).is_none()).map(name).collect();
        let mut keys: Vec<Option<String>> = self.call.keys.iter().cloned().map(Some).collect();
        found.sort();
        found.dedup();
        keys.sort();
        keys.dedup();
        if found == keys {
            return Ok(());
        }
        Err(unsupported(
            "sessions are of other columns in PARTITION BY than in GROUP BY",
            "SESSION(TABLE source PARTITION BY (key, …), …) goes with GROUP BY window_start, window_end, key, …",
        ))
    }

    /// Puts the ends of the group function where they are read.
    fn replace(&self, part: &mut impl VisitMut) -> Result<()> {
        self.each(part, |column| match column {
            START => self.call.function("_start", self.relation),
            END => self.call.function("_end", self.relation),
            _ => Err(no_time()),
        })
    }

    fn refuse(&self, part: &mut impl VisitMut) -> Result<()> {
        self.each(part, |column| {
            Err(unsupported(format!("{column} is not known before rows are grouped"), "ask it in HAVING"))
        })
    }

    fn each(&self, part: &mut impl VisitMut, by: impl Fn(&str) -> Result<Expr>) -> Result<()> {
        let visited = ast::visit_expressions_mut(part, |expr| match self.column(expr).map(&by) {
            Some(Ok(other)) => {
                *expr = other;
                ControlFlow::Continue(())
            }
            Some(Err(error)) => ControlFlow::Break(error),
            None => ControlFlow::Continue(()),
        });
        match visited {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

fn no_time() -> Error {
    unsupported(
        "window_time is not supported",
        "window_start and window_end are the ends of the window, and event times of the rows that come of it",
    )
}
