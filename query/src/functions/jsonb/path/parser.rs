//! From a path's text to its tree, by PostgreSQL's grammar.
//!
//! Brackets, operators and steps count as levels, of which there are few: what walks the tree does so by recursion.

use regex::RegexBuilder;

use super::{
    ast::{Arithmetic, Comparison, Head, Method, Node, Path, Pattern, Predicate, Step},
    lexer::{self, Placed, Token, wrong},
};
use crate::{SqlError, functions::jsonb::number};

/// Levels of one path, in the text and in the tree.
pub(super) const LEVELS_MAX: usize = 100;
const PATH_BYTES_MAX: usize = 1 << 20;
/// Regular expressions of one path, and bytes of one of them compiled.
const REGEXES_MAX: usize = 100;
const REGEX_BYTES_MAX: usize = 1 << 20;

pub(super) fn parse(text: &str) -> Result<Path, SqlError> {
    if text.len() > PATH_BYTES_MAX {
        return Err(SqlError::new("54000", "the JSON path is too long")
            .with_detail(format!("It has more than {PATH_BYTES_MAX} bytes.")));
    }
    let tokens = lexer::tokens(text)?;
    if tokens.is_empty() {
        return Err(SqlError::new("22P02", format!("invalid input syntax for type jsonpath: \"{text}\"")));
    }
    let mut parser = Parser { text, tokens, at: 0, open: 0, filters: 0, subscripts: 0, regexes: 0 };
    let is_strict = parser.eat_word("strict");
    if !is_strict {
        parser.eat_word("lax");
    }
    let root = parser.either()?;
    if parser.at < parser.tokens.len() {
        return Err(parser.unexpected());
    }
    Ok(Path { is_strict, root })
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    /// Brackets and signs that are open here; those that are of filters; those of subscripts.
    open: usize,
    filters: usize,
    subscripts: usize,
    regexes: usize,
}

fn too_deep() -> SqlError {
    SqlError::new("54001", "the JSON path is nested too deeply")
        .with_detail(format!("Brackets, operators and steps of a path have {LEVELS_MAX} levels at most."))
}

impl Parser<'_> {
    fn token(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn unexpected(&self) -> SqlError {
        wrong(self.text, self.tokens.get(self.at).map_or(self.text.len(), |placed| placed.at), "syntax error")
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token(), Some(Token::Sign(found)) if *found == sign)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), SqlError> {
        if self.eat(sign) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Key words have no case but `null`, `true` and `false`, which are lower.
    fn eat_word(&mut self, word: &str) -> bool {
        let found = matches!(self.token(), Some(Token::Name(name)) if is_word(name, word));
        self.at += usize::from(found);
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<(), SqlError> {
        if self.eat_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Runs `parse` one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        if self.open >= LEVELS_MAX {
            return Err(too_deep());
        }
        self.open += 1;
        let parsed = parse(self)?;
        self.open -= 1;
        Ok(parsed)
    }

    fn checked(&self, node: Node) -> Result<Node, SqlError> {
        if node.levels() > LEVELS_MAX { Err(too_deep()) } else { Ok(node) }
    }

    /// An expression or a predicate, which is a node without steps.
    fn either(&mut self) -> Result<Node, SqlError> {
        self.terms("||", |parser| parser.terms("&&", Self::comparison, Predicate::And), Predicate::Or)
    }

    fn expression(&mut self) -> Result<Node, SqlError> {
        let start = self.at;
        let node = self.sum()?;
        self.no_predicate(node, start)
    }

    fn predicate(&mut self) -> Result<(Predicate, usize), SqlError> {
        let node = self.either()?;
        self.only_predicate(node)
    }

    fn only_predicate(&self, node: Node) -> Result<(Predicate, usize), SqlError> {
        let levels = node.levels();
        match node {
            Node { head: Head::Predicate(predicate), steps, .. } if steps.is_empty() => Ok((*predicate, levels)),
            _ => Err(self.unexpected()),
        }
    }

    fn no_predicate(&self, node: Node, start: usize) -> Result<Node, SqlError> {
        match &node {
            Node { head: Head::Predicate(_), steps, .. } if steps.is_empty() => {
                let at = self.tokens.get(self.at.max(start)).map_or(self.text.len(), |placed| placed.at);
                Err(wrong(self.text, at, "syntax error"))
            }
            _ => Ok(node),
        }
    }

    fn made(&self, predicate: Predicate, inner: usize) -> Result<Node, SqlError> {
        self.checked(Node::new(Head::Predicate(Box::new(predicate)), inner))
    }

    fn terms(
        &mut self,
        sign: &str,
        term: impl Fn(&mut Self) -> Result<Node, SqlError>,
        of: fn(Vec<Predicate>) -> Predicate,
    ) -> Result<Node, SqlError> {
        let first = term(self)?;
        if !self.is_sign(sign) {
            return Ok(first);
        }
        let (predicate, mut inner) = self.only_predicate(first)?;
        let mut terms = vec![predicate];
        while self.eat(sign) {
            let next = term(self)?;
            let (predicate, levels) = self.only_predicate(next)?;
            terms.push(predicate);
            inner = inner.max(levels);
        }
        self.made(of(terms), inner)
    }

    fn comparison(&mut self) -> Result<Node, SqlError> {
        if self.eat("!") {
            let (inner, levels) = self.delimited()?;
            return self.made(Predicate::Not(Box::new(inner)), levels);
        }
        let start = self.at;
        let left = self.sum()?;
        let op = match self.token() {
            Some(Token::Sign("==")) => Comparison::Equal,
            Some(Token::Sign("!=" | "<>")) => Comparison::NotEqual,
            Some(Token::Sign("<")) => Comparison::Less,
            Some(Token::Sign("<=")) => Comparison::LessOrEqual,
            Some(Token::Sign(">")) => Comparison::Greater,
            Some(Token::Sign(">=")) => Comparison::GreaterOrEqual,
            Some(Token::Name(name)) if is_word(name, "starts") => {
                let left = self.no_predicate(left, start)?;
                self.at += 1;
                self.expect_word("with")?;
                let head = match self.token() {
                    Some(Token::Text(text)) => Head::Text(text.clone()),
                    Some(Token::Variable(name)) => Head::Variable(name.clone()),
                    _ => return Err(self.unexpected()),
                };
                self.at += 1;
                let inner = left.levels();
                return self.made(Predicate::StartsWith(left, Node::new(head, 0)), inner);
            }
            Some(Token::Name(name)) if is_word(name, "like_regex") => {
                let left = self.no_predicate(left, start)?;
                self.at += 1;
                let inner = left.levels();
                let pattern = self.pattern()?;
                return self.made(Predicate::LikeRegex(left, pattern), inner);
            }
            _ => return Ok(left),
        };
        let left = self.no_predicate(left, start)?;
        self.at += 1;
        let right = self.expression()?;
        let inner = left.levels().max(right.levels());
        self.made(Predicate::Compare(op, left, right), inner)
    }

    /// `(predicate)` or `exists (expression)`.
    fn delimited(&mut self) -> Result<(Predicate, usize), SqlError> {
        if self.eat_word("exists") {
            let node = self.exists()?;
            return self.only_predicate(node);
        }
        self.expect("(")?;
        let predicate = self.deeper(Self::predicate)?;
        self.expect(")")?;
        Ok(predicate)
    }

    /// Behind `exists`.
    fn exists(&mut self) -> Result<Node, SqlError> {
        self.expect("(")?;
        let node = self.deeper(Self::expression)?;
        self.expect(")")?;
        let inner = node.levels();
        self.made(Predicate::Exists(node), inner)
    }

    fn pattern(&mut self) -> Result<Pattern, SqlError> {
        let Some(Token::Text(text)) = self.token().cloned() else { return Err(self.unexpected()) };
        self.at += 1;
        let mut given = String::new();
        if self.eat_word("flag") {
            let Some(Token::Text(flags)) = self.token().cloned() else { return Err(self.unexpected()) };
            self.at += 1;
            given = flags;
        }
        if let Some(unknown) = given.chars().find(|flag| !"ismxq".contains(*flag)) {
            return Err(SqlError::new("42601", "invalid input syntax for type jsonpath")
                .with_detail(format!("Unrecognized flag character \"{unknown}\" in LIKE_REGEX predicate.")));
        }
        let has = |flag: char| given.contains(flag);
        if has('x') && !has('q') {
            return Err(SqlError::not_supported("the flag \"x\" (expanded regular expressions) of like_regex"));
        }
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            return Err(SqlError::new("54000", format!("a JSON path has more than {REGEXES_MAX} regular expressions")));
        }
        let written = if has('q') { regex::escape(&text) } else { text.clone() };
        let regex = RegexBuilder::new(&written)
            .case_insensitive(has('i'))
            .dot_matches_new_line(has('s') && !has('q'))
            .multi_line(has('m') && !has('q'))
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                SqlError::new("2201B", format!("invalid regular expression: {reason}"))
            })?;
        Ok(Pattern { text, flags: "ismxq".chars().filter(|flag| has(*flag)).collect(), regex })
    }

    fn sum(&mut self) -> Result<Node, SqlError> {
        self.operators(Self::product, &[("+", Arithmetic::Add), ("-", Arithmetic::Subtract)])
    }

    fn product(&mut self) -> Result<Node, SqlError> {
        let signs = [("*", Arithmetic::Multiply), ("/", Arithmetic::Divide), ("%", Arithmetic::Remainder)];
        self.operators(Self::signed, &signs)
    }

    fn operators(
        &mut self,
        operand: fn(&mut Self) -> Result<Node, SqlError>,
        signs: &[(&str, Arithmetic)],
    ) -> Result<Node, SqlError> {
        let start = self.at;
        let mut left = operand(self)?;
        while let Some((_, op)) = signs.iter().find(|(sign, _)| self.is_sign(sign)) {
            left = self.no_predicate(left, start)?;
            self.at += 1;
            let start = self.at;
            let right = operand(self)?;
            let right = self.no_predicate(right, start)?;
            let inner = left.levels().max(right.levels());
            left = self.checked(Node::new(Head::Arithmetic(*op, Box::new(left), Box::new(right)), inner))?;
        }
        Ok(left)
    }

    fn signed(&mut self) -> Result<Node, SqlError> {
        let is_minus = self.is_sign("-");
        if !is_minus && !self.is_sign("+") {
            return self.accessors();
        }
        self.at += 1;
        let start = self.at;
        let operand = self.deeper(Self::signed)?;
        let operand = self.no_predicate(operand, start)?;
        match operand {
            Node { head: Head::Number(digits), steps, .. } if steps.is_empty() => {
                let digits = match digits.strip_prefix('-') {
                    Some(positive) if is_minus => positive.to_owned(),
                    None if is_minus => number::plain(&format!("-{digits}"))?,
                    _ => digits,
                };
                Ok(Node::new(Head::Number(digits), 0))
            }
            operand => {
                let inner = operand.levels();
                self.checked(Node::new(Head::Sign(is_minus, Box::new(operand)), inner))
            }
        }
    }

    fn accessors(&mut self) -> Result<Node, SqlError> {
        let (mut node, goes_on) = self.primary()?;
        while goes_on && let Some((step, inner)) = self.step()? {
            node.inner = node.inner.max(inner);
            node.steps.push(step);
            node = self.checked(node)?;
        }
        Ok(node)
    }

    /// With whether steps may follow, which they do behind no `exists (…)` and no `is unknown` that is not in brackets.
    fn primary(&mut self) -> Result<(Node, bool), SqlError> {
        let Some(token) = self.token().cloned() else { return Err(self.unexpected()) };
        let start = self.at;
        self.at += 1;
        let head = match token {
            Token::Text(text) => Head::Text(text),
            Token::Variable(name) => Head::Variable(name),
            Token::Integer(digits) | Token::Number(digits) => Head::Number(number::plain(&digits)?),
            Token::Sign("$") => Head::Root,
            Token::Sign("@") if self.filters > 0 => Head::Current,
            Token::Sign("@") => return Err(SqlError::new("42601", "@ is not allowed in root expressions")),
            Token::Sign("(") => {
                let inner = self.deeper(Self::either)?;
                self.expect(")")?;
                if let Node { head: Head::Predicate(_), steps, .. } = &inner
                    && steps.is_empty()
                    && matches!(self.token(), Some(Token::Name(name)) if is_word(name, "is"))
                {
                    self.at += 1;
                    self.expect_word("unknown")?;
                    let (predicate, levels) = self.only_predicate(inner)?;
                    return Ok((self.made(Predicate::IsUnknown(Box::new(predicate)), levels)?, false));
                }
                return Ok((inner, true));
            }
            Token::Name(name) => match name.as_str() {
                "null" => Head::Null,
                "true" => Head::Bool(true),
                "false" => Head::Bool(false),
                word if is_word(word, "exists") => return Ok((self.exists()?, false)),
                word if is_word(word, "last") => match self.subscripts {
                    0 => return Err(SqlError::new("42601", "LAST is allowed only in array subscripts")),
                    _ => Head::Last,
                },
                _ => {
                    self.at = start;
                    return Err(self.unexpected());
                }
            },
            Token::Sign(_) => {
                self.at = start;
                return Err(self.unexpected());
            }
        };
        Ok((Node::new(head, 0), true))
    }

    /// A step and the levels of what stands in it.
    fn step(&mut self) -> Result<Option<(Step, usize)>, SqlError> {
        if self.eat("[") {
            return self.items().map(Some);
        }
        if self.eat("?") {
            self.expect("(")?;
            self.filters += 1;
            let (predicate, levels) = self.deeper(Self::predicate)?;
            self.filters -= 1;
            self.expect(")")?;
            return Ok(Some((Step::Filter(predicate), levels)));
        }
        if !self.eat(".") {
            return Ok(None);
        }
        if self.eat("*") {
            return Ok(Some((Step::AnyKey, 0)));
        }
        if self.eat("**") {
            return Ok(Some((self.any_level()?, 0)));
        }
        let step = match self.token().cloned() {
            Some(Token::Text(key)) => {
                self.at += 1;
                Step::Key(key)
            }
            Some(Token::Name(name)) => {
                self.at += 1;
                if self.is_sign("(") { Step::Method(self.method(&name)?) } else { Step::Key(name) }
            }
            _ => return Err(self.unexpected()),
        };
        Ok(Some((step, 0)))
    }

    /// Behind `[`.
    fn items(&mut self) -> Result<(Step, usize), SqlError> {
        if self.eat("*") {
            self.expect("]")?;
            return Ok((Step::AnyItem, 0));
        }
        self.subscripts += 1;
        let (mut ranges, mut levels) = (Vec::new(), 0);
        loop {
            let from = self.deeper(Self::expression)?;
            levels = levels.max(from.levels());
            let to = if self.eat_word("to") { Some(self.deeper(Self::expression)?) } else { None };
            levels = levels.max(to.as_ref().map_or(0, Node::levels));
            ranges.push((from, to));
            if !self.eat(",") {
                break;
            }
        }
        self.expect("]")?;
        self.subscripts -= 1;
        Ok((Step::Items(ranges), levels))
    }

    /// Behind `**`.
    fn any_level(&mut self) -> Result<Step, SqlError> {
        if !self.eat("{") {
            return Ok(Step::AnyLevel(Some(0), None));
        }
        let from = self.level()?;
        let to = if self.eat_word("to") { self.level()? } else { from };
        self.expect("}")?;
        Ok(Step::AnyLevel(from, to))
    }

    fn level(&mut self) -> Result<Option<u32>, SqlError> {
        if self.eat_word("last") {
            return Ok(None);
        }
        let Some(Token::Integer(digits)) = self.token().cloned() else { return Err(self.unexpected()) };
        self.at += 1;
        match digits.parse::<i32>() {
            Ok(level) => Ok(u32::try_from(level).ok()),
            Err(_) => Err(SqlError::new("22003", format!("value \"{digits}\" is out of range for type integer"))),
        }
    }

    /// At the bracket behind its name.
    fn method(&mut self, name: &str) -> Result<Method, SqlError> {
        let bracket = self.at;
        self.at += 1;
        let plain = [
            Method::Abs,
            Method::Bigint,
            Method::Boolean,
            Method::Ceiling,
            Method::Date,
            Method::Double,
            Method::Floor,
            Method::Integer,
            Method::KeyValue,
            Method::Number,
            Method::Size,
            Method::Text,
            Method::Type,
        ];
        if let Some(method) = plain.into_iter().find(|method| is_word(name, method.name())) {
            self.expect(")")?;
            return Ok(method);
        }
        let method = match name.to_ascii_lowercase().as_str() {
            "datetime" => {
                if matches!(self.token(), Some(Token::Text(_))) {
                    return Err(SqlError::not_supported("the template of .datetime() in a JSON path")
                        .with_hint("Without one it reads the ISO forms of dates and times."));
                }
                Method::Datetime
            }
            "decimal" => Method::Decimal(self.whole_numbers()?),
            "time" => Method::Time(self.precision()),
            "time_tz" => Method::TimeTz(self.precision()),
            "timestamp" => Method::Timestamp(self.precision()),
            "timestamp_tz" => Method::TimestampTz(self.precision()),
            _ => {
                self.at = bracket;
                return Err(self.unexpected());
            }
        };
        self.expect(")")?;
        Ok(method)
    }

    fn precision(&mut self) -> Option<String> {
        let Some(Token::Integer(digits)) = self.token().cloned() else { return None };
        self.at += 1;
        Some(digits)
    }

    /// Arguments of `.decimal()`.
    fn whole_numbers(&mut self) -> Result<Vec<String>, SqlError> {
        let mut numbers = Vec::new();
        if self.is_sign(")") {
            return Ok(numbers);
        }
        loop {
            let is_minus = self.eat("-");
            if !is_minus {
                self.eat("+");
            }
            let Some(Token::Integer(digits)) = self.token().cloned() else { return Err(self.unexpected()) };
            self.at += 1;
            numbers.push(if is_minus && digits != "0" { format!("-{digits}") } else { digits });
            if !self.eat(",") {
                break;
            }
        }
        if numbers.len() > 2 {
            return Err(SqlError::new("42601", "invalid input syntax for type jsonpath")
                .with_detail(".decimal() can only have an optional precision[,scale]."));
        }
        Ok(numbers)
    }
}

fn is_word(name: &str, word: &str) -> bool {
    name.eq_ignore_ascii_case(word)
}
