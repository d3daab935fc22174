//! From texts to questions: `to_tsquery`, `plainto_tsquery`, `phraseto_tsquery`, `websearch_to_tsquery`, `'…'::tsquery`.

use tidemill_storage::search::{Node, TextQuery, Word, each_word};

use crate::SqlError;

/// Brackets and negations in each other.
const DEPTH_MAX: usize = 200;
/// Words of one question.
const WORDS_MAX: usize = 10_000;
const DISTANCE_MAX: u64 = 16_384;

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Words between operators, as they are written: `'…'::tsquery`.
    Written,
    /// The same, words normalized: `to_tsquery`.
    Operators,
    /// All of the words: `plainto_tsquery`.
    All,
    /// The words one after the other: `phraseto_tsquery`.
    Phrase,
    /// As search engines have it: `websearch_to_tsquery`.
    Web,
}

impl Form {
    /// The form that a function reads.
    pub(crate) fn of_function(name: &str) -> Option<Self> {
        Some(match name {
            "to_tsquery" => Self::Operators,
            "plainto_tsquery" => Self::All,
            "phraseto_tsquery" => Self::Phrase,
            "websearch_to_tsquery" => Self::Web,
            _ => return None,
        })
    }
}

/// Errors: 42601 for what is no question, 54000 for one that is too large, 54001 for one that is too deep.
pub(crate) fn query(text: &str, form: Form) -> Result<TextQuery, SqlError> {
    let mut words = Words::default();
    let root = match form {
        Form::All => and(words.each(text, false)?),
        Form::Phrase => phrase(words.each(text, false)?),
        Form::Web => web(text, &mut words)?,
        Form::Written | Form::Operators => {
            let mut parser = Parser { text, at: 0, depth: 0, words: &mut words, is_written: form == Form::Written };
            parser.blanks();
            if parser.rest().is_empty() {
                None
            } else {
                let root = parser.or()?;
                parser.blanks();
                if !parser.rest().is_empty() {
                    return Err(parser.syntax());
                }
                root
            }
        }
    };
    Ok(TextQuery::new(words.known, root))
}

/// The words of a question, each once.
#[derive(Default)]
struct Words {
    known: Vec<Word>,
    nodes: usize,
}

impl Words {
    fn node(&mut self, text: &str, is_prefix: bool) -> Result<Node, SqlError> {
        self.nodes += 1;
        if self.nodes > WORDS_MAX {
            return Err(SqlError::new("54000", "tsquery is too large")
                .with_detail(format!("It has more than {WORDS_MAX} words.")));
        }
        let known = self.known.iter().position(|word| word.text == text && word.is_prefix == is_prefix);
        Ok(Node::Word(known.unwrap_or_else(|| {
            self.known.push(Word { text: text.to_owned(), is_prefix });
            self.known.len() - 1
        })))
    }

    fn each(&mut self, text: &str, is_prefix: bool) -> Result<Vec<Node>, SqlError> {
        let (mut nodes, mut failed) = (Vec::new(), None);
        each_word(text, |word, _| {
            if failed.is_none() {
                match self.node(word, is_prefix) {
                    Ok(node) => nodes.push(node),
                    Err(error) => failed = Some(error),
                }
            }
        });
        failed.map_or(Ok(nodes), Err)
    }
}

fn and(parts: Vec<Node>) -> Option<Node> {
    several(parts, Node::And, |node| match node {
        Node::And(parts) => Ok(parts),
        other => Err(other),
    })
}

fn or(parts: Vec<Node>) -> Option<Node> {
    several(parts, Node::Or, |node| match node {
        Node::Or(parts) => Ok(parts),
        other => Err(other),
    })
}

/// One node of these, those of its kind opened.
fn several(
    parts: Vec<Node>,
    join: impl Fn(Vec<Node>) -> Node,
    open: impl Fn(Node) -> Result<Vec<Node>, Node>,
) -> Option<Node> {
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        match open(part) {
            Ok(inner) => all.extend(inner),
            Err(part) => all.push(part),
        }
    }
    if all.len() > 1 { Some(join(all)) } else { all.pop() }
}

fn phrase(parts: Vec<Node>) -> Option<Node> {
    joined(parts.into_iter().map(|part| (1, Some(part))))
}

/// A phrase of those parts that say something; the distances over the others add up.
fn joined(parts: impl Iterator<Item = (u16, Option<Node>)>) -> Option<Node> {
    let (mut all, mut distance) = (Vec::new(), 0u16);
    for (at, (after, part)) in parts.enumerate() {
        distance = if at == 0 { 0 } else { distance.saturating_add(after) };
        let Some(part) = part else { continue };
        match (part, all.is_empty()) {
            // The first part may be a phrase itself: a <-> b <-> c.
            (Node::Phrase(inner), true) => all = inner,
            (part, true) => all.push((0, part)),
            (part, false) => all.push((distance, part)),
        }
        distance = 0;
    }
    if all.len() > 1 { Some(Node::Phrase(all)) } else { all.pop().map(|(_, part)| part) }
}

/// Words that all must be there, "phrases", -exclusions, or.
fn web(text: &str, words: &mut Words) -> Result<Option<Node>, SqlError> {
    let (mut alternatives, mut all) = (Vec::new(), Vec::new());
    let (mut rest, mut negations, mut after_operand) = (text, 0usize, false);
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { break };
        let written = match first {
            '-' => {
                negations += 1;
                rest = &rest[1..];
                continue;
            }
            '"' => {
                let inside = &rest[1..];
                let end = inside.find('"').unwrap_or(inside.len());
                rest = inside.get(end + 1..).unwrap_or_default();
                &inside[..end]
            }
            _ if after_operand && negations == 0 && is_or(rest) => {
                alternatives.extend(and(std::mem::take(&mut all)));
                rest = &rest[2..];
                after_operand = false;
                continue;
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
                let written = &rest[..end];
                rest = &rest[end..];
                written
            }
        };
        if let Some(mut node) = phrase(words.each(written, false)?) {
            check_depth(negations)?;
            for _ in 0..negations {
                node = Node::Not(Box::new(node));
            }
            all.push(node);
            after_operand = true;
        }
        negations = 0;
    }
    alternatives.extend(and(all));
    Ok(or(alternatives))
}

/// Whether the word `or` comes, and something after it.
fn is_or(rest: &str) -> bool {
    let Some((word, after)) = rest.split_at_checked(2) else { return false };
    word.eq_ignore_ascii_case("or")
        && after.chars().next().is_some_and(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_'))
        && !after.trim_start().is_empty()
}

fn check_depth(depth: usize) -> Result<(), SqlError> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    Err(SqlError::new("54001", "tsquery is nested too deeply")
        .with_detail(format!("At most {DEPTH_MAX} levels are read.")))
}

/// Of `a & b | !c`, what binds more first: `!`, `<->`, `&`, `|`. `None` is what has no word in it.
struct Parser<'a, 'w> {
    text: &'a str,
    at: usize,
    depth: usize,
    words: &'w mut Words,
    is_written: bool,
}

impl<'a> Parser<'a, '_> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, symbol: char) -> bool {
        self.blanks();
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len_utf8() } else { 0 };
        found
    }

    fn syntax(&self) -> SqlError {
        SqlError::syntax(format!("syntax error in tsquery: \"{}\"", self.text))
    }

    fn or(&mut self) -> Result<Option<Node>, SqlError> {
        let mut parts: Vec<Node> = self.and()?.into_iter().collect();
        while self.take('|') {
            parts.extend(self.and()?);
        }
        Ok(or(parts))
    }

    fn and(&mut self) -> Result<Option<Node>, SqlError> {
        let mut parts: Vec<Node> = self.phrase()?.into_iter().collect();
        while self.take('&') {
            parts.extend(self.phrase()?);
        }
        Ok(and(parts))
    }

    fn phrase(&mut self) -> Result<Option<Node>, SqlError> {
        let mut parts = vec![(0, self.operand()?)];
        while let Some(distance) = self.distance()? {
            parts.push((distance, self.operand()?));
        }
        Ok(joined(parts.into_iter()))
    }

    /// `<->` or `<2>`.
    fn distance(&mut self) -> Result<Option<u16>, SqlError> {
        if !self.take('<') {
            return Ok(None);
        }
        let Some((inside, _)) = self.rest().split_once('>') else { return Err(self.syntax()) };
        let distance = match inside {
            "-" => 1,
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                match digits.parse::<u64>() {
                    Ok(distance) if distance <= DISTANCE_MAX => distance as u16,
                    _ => {
                        return Err(SqlError::invalid_parameter(format!(
                            "distance in phrase operator must be an integer value between zero and {DISTANCE_MAX} inclusive"
                        )));
                    }
                }
            }
            _ => return Err(self.syntax()),
        };
        self.at += inside.len() + 1;
        Ok(Some(distance))
    }

    fn operand(&mut self) -> Result<Option<Node>, SqlError> {
        self.depth += 1;
        check_depth(self.depth)?;
        let node = if self.take('!') {
            self.operand()?.map(|node| Node::Not(Box::new(node)))
        } else if self.take('(') {
            let inner = self.or()?;
            if !self.take(')') {
                return Err(self.syntax());
            }
            inner
        } else {
            self.word()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn word(&mut self) -> Result<Option<Node>, SqlError> {
        self.blanks();
        if self.rest().is_empty() {
            return Err(SqlError::syntax(format!("no operand in tsquery: \"{}\"", self.text)));
        }
        let word = match lexeme(self.rest(), |c| matches!(c, '!' | '&' | '|' | '(' | ')' | '<')) {
            Some((word, length)) if length > 0 => {
                self.at += length;
                word
            }
            _ => return Err(self.syntax()),
        };
        let mut is_prefix = false;
        if let Some(flags) = self.rest().strip_prefix(':') {
            let length = flags.find(|c: char| !matches!(c, '*' | 'a'..='d' | 'A'..='D')).unwrap_or(flags.len());
            if length == 0 {
                return Err(self.syntax());
            }
            if flags[..length].contains(|c| c != '*') {
                return Err(SqlError::not_supported("a weight in a tsquery"));
            }
            is_prefix = true;
            self.at += 1 + length;
        }
        if !self.is_written {
            return Ok(phrase(self.words.each(&word, is_prefix)?));
        }
        if word.is_empty() {
            return Err(self.syntax());
        }
        self.words.node(&word, is_prefix).map(Some)
    }
}

/// A word, in quotes or up to where it ends, and the bytes it takes. `None`: the closing quote is missing.
pub(super) fn lexeme(text: &str, ends: impl Fn(char) -> bool) -> Option<(String, usize)> {
    let mut word = String::new();
    let is_quoted = text.starts_with('\'');
    let mut characters = text.char_indices().skip(usize::from(is_quoted)).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => word.push(characters.next()?.1),
            '\'' if is_quoted => match characters.peek() {
                Some((_, '\'')) => {
                    characters.next();
                    word.push('\'');
                }
                _ => return Some((word, at + 1)),
            },
            other if !is_quoted && (other.is_whitespace() || other == ':' || ends(other)) => return Some((word, at)),
            other => word.push(other),
        }
    }
    (!is_quoted).then_some((word, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, form: Form) -> String {
        match query(text, form) {
            Ok(query) => query.to_string(),
            Err(error) => format!("{}: {}", error.sqlstate, error.message),
        }
    }

    /// As PostgreSQL 15 prints them, in the configuration `simple`.
    #[test]
    fn questions_are_read_as_postgres_reads_them() {
        for (text, wanted) in [
            ("a & b | !c", "'a' & 'b' | !'c'"),
            ("(a|b)&!(c|d)", "( 'a' | 'b' ) & !( 'c' | 'd' )"),
            ("a <-> (b <-> c)", "'a' <-> ( 'b' <-> 'c' )"),
            ("a <-> b <2> c", "'a' <-> 'b' <2> 'c'"),
            ("a <-> (b & b:*)", "'a' <-> ( 'b' & 'b':* )"),
            ("!!a", "!!'a'"),
            ("'foo bar':* & Fat", "'foo':* <-> 'bar':* & 'fat'"),
            ("a_b & c", "'a' <-> 'b' & 'c'"),
            ("a & (b | '--') <-> c", "'a' & 'b' <-> 'c'"),
            ("a <-> '--' <-> c", "'a' <2> 'c'"),
            ("!'--' & x", "'x'"),
            ("", ""),
            ("  ", ""),
            ("'it''s':*", "'it':* <-> 's':*"),
            ("a &", "42601: no operand in tsquery: \"a &\""),
            ("a b", "42601: syntax error in tsquery: \"a b\""),
            ("& b", "42601: syntax error in tsquery: \"& b\""),
            ("(a", "42601: syntax error in tsquery: \"(a\""),
            ("a ! b", "42601: syntax error in tsquery: \"a ! b\""),
            ("a:*:b", "42601: syntax error in tsquery: \"a:*:b\""),
            ("a:x", "42601: syntax error in tsquery: \"a:x\""),
            (":*", "42601: syntax error in tsquery: \":*\""),
            ("'a", "42601: syntax error in tsquery: \"'a\""),
            ("a <-1> b", "42601: syntax error in tsquery: \"a <-1> b\""),
            (
                "a <99999> b",
                "22023: distance in phrase operator must be an integer value between zero and 16384 inclusive",
            ),
        ] {
            assert_eq!(read(text, Form::Operators), wanted, "{text}");
        }
        for (text, wanted) in [
            ("\"fat rat\" or cat -dog", "'fat' <-> 'rat' | 'cat' & !'dog'"),
            ("cat or", "'cat' & 'or'"),
            ("or cat", "'or' & 'cat'"),
            ("cat -\"a b\" orx", "'cat' & !( 'a' <-> 'b' ) & 'orx'"),
            ("\"unclosed a b", "'unclosed' <-> 'a' <-> 'b'"),
            ("a or or b", "'a' | 'or' & 'b'"),
            ("-", ""),
            ("a --b", "'a' & !!'b'"),
            ("a OR -b", "'a' | !'b'"),
            (":a & | !b (c)", "'a' & 'b' & 'c'"),
        ] {
            assert_eq!(read(text, Form::Web), wanted, "{text}");
        }
        assert_eq!(read("The Fat & Rats:C", Form::All), "'the' & 'fat' & 'rats' & 'c'");
        assert_eq!(read("The Fat Rats", Form::Phrase), "'the' <-> 'fat' <-> 'rats'");
        for (text, wanted) in [("Fat & rat", "'Fat' & 'rat'"), ("a<->b", "'a' <-> 'b'"), ("'it''s':*", "'it''s':*")] {
            assert_eq!(read(text, Form::Written), wanted, "{text}");
        }
        assert_eq!(read(&"!".repeat(500), Form::Operators).split(':').next(), Some("54001"));
        assert_eq!(read(&"(".repeat(5000), Form::Operators).split(':').next(), Some("54001"));
        assert_eq!(read(&"a ".repeat(20_000), Form::All).split(':').next(), Some("54000"));
    }

    /// What is printed is read as the same again.
    #[test]
    fn what_is_printed_is_read() {
        for text in [
            "a & b | !c",
            "a <-> (b | c <-> d:*) <3> !e",
            "!(a & b)",
            "(a <-> b) & c",
            "'x''y \\\\z'",
            "a <-> (b <-> c) <-> d",
        ] {
            let once = query(text, Form::Written).unwrap();
            let again = query(&once.to_string(), Form::Written).unwrap();
            assert_eq!(again, once, "{text}");
        }
    }
}
