//! A path as a tree, and the one text that PostgreSQL prints for it: `$.a[*] ? (@.b > 1)` is `$."a"[*]?(@."b" > 1)`.

use std::fmt::{self, Write};

use regex::Regex;

use super::super::tree::quoted;

/// Terms of one `||` or `&&` that are printed in PostgreSQL's nested brackets; longer chains are printed flat, so that what is printed can be read.
const NESTED_TERMS_MAX: usize = 50;

#[derive(Debug)]
pub(crate) struct Path {
    pub(super) is_strict: bool,
    pub(super) root: Node,
}

/// Something that items come from, and what is done with each of them, step by step.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) head: Head,
    pub(super) steps: Vec<Step>,
    /// Levels of what stands inside of the head and the steps.
    pub(super) inner: usize,
}

#[derive(Debug)]
pub(super) enum Head {
    Null,
    Bool(bool),
    /// As numeric prints it.
    Number(String),
    Text(String),
    Variable(String),
    Root,
    Current,
    Last,
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    /// Whether it is a minus.
    Sign(bool, Box<Node>),
    Predicate(Box<Predicate>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug)]
pub(super) enum Predicate {
    /// Two or more, from the left.
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    IsUnknown(Box<Predicate>),
    Exists(Node),
    Compare(Comparison, Node, Node),
    StartsWith(Node, Node),
    LikeRegex(Node, Pattern),
}

#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    /// In the order that they are printed in.
    pub(super) flags: String,
    pub(super) regex: Regex,
}

#[derive(Debug)]
pub(super) enum Step {
    Key(String),
    AnyKey,
    AnyItem,
    /// Levels from and to; `None` is `last`.
    AnyLevel(Option<u32>, Option<u32>),
    Items(Vec<(Node, Option<Node>)>),
    Filter(Predicate),
    Method(Method),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    Abs,
    Bigint,
    Boolean,
    Ceiling,
    Date,
    Datetime,
    /// Precision and scale as they are written.
    Decimal(Vec<String>),
    Double,
    Floor,
    Integer,
    KeyValue,
    Number,
    Size,
    Text,
    /// With digits of a second.
    Time(Option<String>),
    TimeTz(Option<String>),
    Timestamp(Option<String>),
    TimestampTz(Option<String>),
    Type,
}

impl Method {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Abs => "abs",
            Self::Bigint => "bigint",
            Self::Boolean => "boolean",
            Self::Ceiling => "ceiling",
            Self::Date => "date",
            Self::Datetime => "datetime",
            Self::Decimal(_) => "decimal",
            Self::Double => "double",
            Self::Floor => "floor",
            Self::Integer => "integer",
            Self::KeyValue => "keyvalue",
            Self::Number => "number",
            Self::Size => "size",
            Self::Text => "string",
            Self::Time(_) => "time",
            Self::TimeTz(_) => "time_tz",
            Self::Timestamp(_) => "timestamp",
            Self::TimestampTz(_) => "timestamp_tz",
            Self::Type => "type",
        }
    }
}

impl Arithmetic {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    fn priority(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 3,
            Self::Multiply | Self::Divide | Self::Remainder => 4,
        }
    }
}

impl Comparison {
    /// With its sides changed.
    pub(super) fn swapped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// Of everything that is no operator.
const PRIORITY_MAX: u8 = 6;
const SIGN_PRIORITY: u8 = 5;
const COMPARISON_PRIORITY: u8 = 2;

impl Node {
    pub(super) fn new(head: Head, inner: usize) -> Self {
        Self { head, steps: Vec::new(), inner }
    }

    /// How deep evaluating it recurs.
    pub(super) fn levels(&self) -> usize {
        self.inner + self.steps.len() + 1
    }

    fn priority(&self) -> u8 {
        match &self.head {
            Head::Arithmetic(op, ..) => op.priority(),
            Head::Sign(..) => SIGN_PRIORITY,
            Head::Predicate(predicate) => predicate.priority(),
            _ => PRIORITY_MAX,
        }
    }

    /// `brackets`: whether an operator stands in brackets.
    fn write(&self, out: &mut fmt::Formatter<'_>, brackets: bool) -> fmt::Result {
        let brackets = brackets || !self.steps.is_empty();
        match &self.head {
            Head::Null => out.write_str("null")?,
            Head::Bool(value) => write!(out, "{value}")?,
            Head::Number(digits) if self.steps.is_empty() => out.write_str(digits)?,
            Head::Number(digits) => write!(out, "({digits})")?,
            Head::Text(text) => out.write_str(&quoted(text))?,
            Head::Variable(name) => write!(out, "${}", quoted(name))?,
            Head::Root => out.write_char('$')?,
            Head::Current => out.write_char('@')?,
            Head::Last => out.write_str("last")?,
            Head::Arithmetic(op, left, right) => in_brackets(out, brackets, |out| {
                left.write(out, left.priority() <= op.priority())?;
                write!(out, " {} ", op.sign())?;
                right.write(out, right.priority() <= op.priority())
            })?,
            Head::Sign(is_minus, operand) => in_brackets(out, brackets, |out| {
                out.write_char(if *is_minus { '-' } else { '+' })?;
                operand.write(out, operand.priority() <= SIGN_PRIORITY)
            })?,
            Head::Predicate(predicate) => {
                // A path goes on behind a predicate's brackets alone.
                let open = !self.steps.is_empty() && predicate.has_own_ends();
                in_brackets(out, open, |out| predicate.write(out, brackets))?;
            }
        }
        self.steps.iter().try_for_each(|step| step.write(out))
    }
}

fn in_brackets(
    out: &mut fmt::Formatter<'_>,
    brackets: bool,
    write: impl FnOnce(&mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    if !brackets {
        return write(out);
    }
    out.write_char('(')?;
    write(out)?;
    out.write_char(')')
}

impl Predicate {
    fn priority(&self) -> u8 {
        match self {
            Self::Or(_) => 0,
            Self::And(_) => 1,
            Self::Compare(..) | Self::StartsWith(..) => COMPARISON_PRIORITY,
            _ => PRIORITY_MAX,
        }
    }

    /// Those that are printed alike with and without brackets.
    fn has_own_ends(&self) -> bool {
        matches!(self, Self::Not(_) | Self::IsUnknown(_) | Self::Exists(_))
    }

    fn write(&self, out: &mut fmt::Formatter<'_>, brackets: bool) -> fmt::Result {
        let binary = |out: &mut fmt::Formatter<'_>, left: &Node, sign: &str, right: &Node| {
            in_brackets(out, brackets, |out| {
                left.write(out, left.priority() <= COMPARISON_PRIORITY)?;
                write!(out, " {sign} ")?;
                right.write(out, right.priority() <= COMPARISON_PRIORITY)
            })
        };
        match self {
            Self::And(terms) => self.write_terms(out, terms, "&&", brackets),
            Self::Or(terms) => self.write_terms(out, terms, "||", brackets),
            Self::Not(inner) => {
                out.write_str("!(")?;
                inner.write(out, false)?;
                out.write_char(')')
            }
            Self::IsUnknown(inner) => {
                out.write_char('(')?;
                inner.write(out, false)?;
                out.write_str(") is unknown")
            }
            Self::Exists(node) => {
                out.write_str("exists (")?;
                node.write(out, false)?;
                out.write_char(')')
            }
            Self::Compare(op, left, right) => binary(out, left, op.sign(), right),
            Self::StartsWith(left, right) => binary(out, left, "starts with", right),
            Self::LikeRegex(node, pattern) => in_brackets(out, brackets, |out| {
                node.write(out, true)?;
                write!(out, " like_regex {}", quoted(&pattern.text))?;
                match pattern.flags.as_str() {
                    "" => Ok(()),
                    flags => write!(out, " flag \"{flags}\""),
                }
            }),
        }
    }

    fn write_terms(&self, out: &mut fmt::Formatter<'_>, terms: &[Self], sign: &str, brackets: bool) -> fmt::Result {
        let is_nested = terms.len() <= NESTED_TERMS_MAX;
        in_brackets(out, brackets, |out| {
            if is_nested {
                (2..terms.len()).try_for_each(|_| out.write_char('('))?;
            }
            for (index, term) in terms.iter().enumerate() {
                if index > 0 {
                    write!(out, " {sign} ")?;
                }
                term.write(out, term.priority() <= self.priority())?;
                if is_nested && index > 0 && index + 1 < terms.len() {
                    out.write_char(')')?;
                }
            }
            Ok(())
        })
    }
}

impl Step {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = |level: &Option<u32>| level.map_or_else(|| "last".to_owned(), |level| level.to_string());
        match self {
            Self::Key(key) => write!(out, ".{}", quoted(key)),
            Self::AnyKey => out.write_str(".*"),
            Self::AnyItem => out.write_str("[*]"),
            Self::AnyLevel(Some(0), None) => out.write_str(".**"),
            Self::AnyLevel(from, to) if from == to => write!(out, ".**{{{}}}", level(from)),
            Self::AnyLevel(from, to) => write!(out, ".**{{{} to {}}}", level(from), level(to)),
            Self::Items(ranges) => {
                out.write_char('[')?;
                for (index, (from, to)) in ranges.iter().enumerate() {
                    if index > 0 {
                        out.write_char(',')?;
                    }
                    from.write(out, false)?;
                    if let Some(to) = to {
                        out.write_str(" to ")?;
                        to.write(out, false)?;
                    }
                }
                out.write_char(']')
            }
            Self::Filter(predicate) => {
                out.write_str("?(")?;
                predicate.write(out, false)?;
                out.write_char(')')
            }
            Self::Method(method) => {
                write!(out, ".{}(", method.name())?;
                match method {
                    Method::Decimal(arguments) => out.write_str(&arguments.join(","))?,
                    Method::Time(Some(digits))
                    | Method::TimeTz(Some(digits))
                    | Method::Timestamp(Some(digits))
                    | Method::TimestampTz(Some(digits)) => out.write_str(digits)?,
                    _ => {}
                }
                out.write_char(')')
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_strict {
            out.write_str("strict ")?;
        }
        self.root.write(out, true)
    }
}
