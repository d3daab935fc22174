//! A number by its pattern, character by character as PostgreSQL's `NUM_processor` goes: what a pattern gives where its parts get into each
//! other's way is written down nowhere else.

use super::{Node, NumberPattern};

/// A number made ready for a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digits {
    pub(crate) is_negative: bool,
    /// Without a sign, with a point where the pattern has one: `12.50`; `##.##` when it does not fit.
    text: String,
    /// Places of the pattern before the first digit.
    blanks: usize,
    /// Digits after the point: those of the pattern, or fewer where a float has no more.
    decimals: usize,
}

impl NumberPattern {
    /// `text` is the number's magnitude, multiplied by the power of ten that V asks for and rounded to the pattern's decimals.
    pub(crate) fn digits(&self, is_negative: bool, text: String) -> Digits {
        let length = text.find('.').unwrap_or(text.len());
        let decimals = text.len().saturating_sub(length + 1);
        if length <= self.places() {
            return Digits { is_negative, text, blanks: self.places() - length, decimals };
        }
        let mut overflow = "#".repeat(self.places() + decimals + 1);
        overflow.replace_range(self.places()..=self.places(), ".");
        Digits { is_negative, text: overflow, blanks: 0, decimals }
    }

    pub(crate) fn write(&self, digits: &Digits) -> String {
        Writer::new(self, digits).write()
    }

    /// The Roman number in fifteen places, `#` for what has none.
    pub(crate) fn roman(&self, number: Option<i64>) -> String {
        const LETTERS: [(i64, &str); 13] = [
            (1000, "M"),
            (900, "CM"),
            (500, "D"),
            (400, "CD"),
            (100, "C"),
            (90, "XC"),
            (50, "L"),
            (40, "XL"),
            (10, "X"),
            (9, "IX"),
            (5, "V"),
            (4, "IV"),
            (1, "I"),
        ];
        let mut text = String::new();
        match number.filter(|number| (1..4000).contains(number)) {
            None => text.push_str(&"#".repeat(15)),
            Some(mut rest) => {
                for (value, letters) in LETTERS {
                    while rest >= value {
                        text.push_str(letters);
                        rest -= value;
                    }
                }
            }
        }
        let mut out = String::new();
        for node in &self.nodes {
            match node {
                Node::Roman { is_small } => {
                    let text = if *is_small { text.to_lowercase() } else { text.clone() };
                    out.push_str(&if self.is_bare { text } else { format!("{text:>15}") });
                }
                Node::Text(c) => out.push(*c),
                Node::Currency => out.push(' '),
                Node::Group | Node::Minus | Node::Plus if !self.is_bare => out.push(' '),
                _ => {}
            }
        }
        out
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SignAt {
    Nowhere,
    Before,
    After,
}

struct Writer<'a> {
    pattern: &'a NumberPattern,
    digits: &'a Digits,
    out: String,
    /// S stands before the number or after it.
    anchored: SignAt,
    is_bracket: bool,
    sign_done: bool,
    /// Where digits begin that a 0 asks for.
    zero_start: Option<usize>,
    /// Under FM: the last character that is shown.
    last: Option<usize>,
    count: usize,
    /// The next place of the pattern, and the next character of the number.
    place: usize,
    at: usize,
    in_number: bool,
    is_over: bool,
}

impl<'a> Writer<'a> {
    fn new(pattern: &'a NumberPattern, digits: &'a Digits) -> Self {
        let (places, decimals) = (pattern.places(), digits.decimals);
        let has = |node: Node| pattern.nodes.contains(&node);
        let (is_plus, is_minus) = (has(Node::Plus) || has(Node::Either), has(Node::Minus) || has(Node::Either));
        let mut anchored = match pattern.nodes.iter().position(|node| *node == Node::Sign) {
            None => SignAt::Nowhere,
            Some(at) if at < pattern.point() => SignAt::Before,
            Some(_) => SignAt::After,
        };
        let mut is_bracket = has(Node::Bracket);
        let sign_done = if is_plus || is_minus {
            is_minus
        } else {
            if !digits.is_negative && pattern.is_bare {
                is_bracket = false;
            }
            let done = !digits.is_negative && pattern.is_bare && anchored == SignAt::Nowhere;
            // An S after all digits before the point.
            if anchored == SignAt::Before {
                let sign = pattern.nodes.iter().position(|node| *node == Node::Sign).unwrap_or(0);
                let before = pattern.nodes[..sign].iter().filter(|node| matches!(node, Node::Digit { .. })).count();
                if before == places {
                    anchored = SignAt::After;
                }
            }
            done
        };
        let mut count = (places + decimals).saturating_sub(1);
        if !sign_done && digits.blanks == 0 {
            count += 1;
        }
        Self {
            pattern,
            digits,
            out: String::new(),
            anchored,
            is_bracket,
            sign_done,
            zero_start: pattern.zero_start(),
            last: pattern.last_shown(digits),
            count,
            place: 0,
            at: 0,
            in_number: false,
            is_over: false,
        }
    }

    fn write(mut self) -> String {
        for node in &self.pattern.nodes {
            if self.is_over {
                break;
            }
            match node {
                Node::Digit { is_zero } => self.part(*is_zero),
                Node::Point => self.part(false),
                Node::Group if self.in_number => self.out.push(','),
                Node::Group => self.blank(),
                Node::Currency => self.out.push(' '),
                Node::Ordinal { is_small } => self.ordinal(*is_small),
                Node::Minus if self.digits.is_negative => self.out.push('-'),
                Node::Plus if !self.digits.is_negative => self.out.push('+'),
                Node::Minus | Node::Plus => self.blank(),
                Node::Either => self.out.push(if self.digits.is_negative { '-' } else { '+' }),
                Node::Text(c) => self.out.push(*c),
                Node::Sign | Node::Bracket | Node::Shift | Node::Blank | Node::Roman { .. } => {}
            }
        }
        self.out
    }

    /// Nothing under FM.
    fn blank(&mut self) {
        if !self.pattern.is_bare {
            self.out.push(' ');
        }
    }

    fn ordinal(&mut self, is_small: bool) {
        let text = &self.digits.text;
        if text.starts_with('#') || self.digits.is_negative || self.pattern.has_point() {
            return;
        }
        let mut last = text.bytes().rev();
        let ending = match (last.next(), last.next()) {
            (_, Some(b'1')) => "TH",
            (Some(b'1'), _) => "ST",
            (Some(b'2'), _) => "ND",
            (Some(b'3'), _) => "RD",
            _ => "TH",
        };
        self.out.push_str(&if is_small { ending.to_lowercase() } else { ending.to_owned() });
    }

    fn character(&self) -> Option<u8> {
        self.digits.text.as_bytes().get(self.at).copied()
    }

    fn last_is_point(&self) -> bool {
        self.last.is_some_and(|last| self.digits.text.as_bytes()[last] == b'.')
    }

    /// 0.1 by 9.9 has a blank for its 0.
    fn is_zero_before_point(&self) -> bool {
        self.zero_start.is_none() && self.at == 0 && self.digits.text.starts_with('0') && self.digits.decimals != 0
    }

    /// A digit or the point.
    fn part(&mut self, is_zero: bool) {
        self.in_number = false;
        let zeros = self.zero_start.is_some_and(|start| start <= self.place);
        if !self.sign_done
            && (self.place >= self.digits.blanks || self.zero_start == Some(self.place))
            && (!self.is_zero_before_point() || self.last_is_point())
        {
            self.sign();
        }
        if self.place < self.digits.blanks {
            if zeros {
                self.out.push('0');
                self.in_number = true;
            } else {
                self.blank();
            }
        } else {
            match self.character() {
                Some(b'.') => self.out.push('.'),
                Some(_) if self.last.is_some_and(|last| self.at > last) && !is_zero => {}
                Some(_) if self.is_zero_before_point() => {
                    if !self.pattern.is_bare {
                        self.out.push(' ');
                    } else if self.last_is_point() {
                        self.out.push('0');
                    }
                }
                Some(digit) => {
                    self.out.push(char::from(digit));
                    self.in_number = true;
                }
                // A number without decimals ends PostgreSQL's text here, whatever the pattern has behind its point.
                None => self.is_over = true,
            }
            if self.at < self.digits.text.len() {
                self.at += 1;
            }
        }
        if self.is_over {
            return;
        }
        let end = match self.last {
            Some(last) if last == self.at => self.place,
            _ => self.count + usize::from(self.digits.blanks > 0) + usize::from(self.pattern.has_point()),
        };
        if self.place + 1 == end {
            if self.sign_done && self.is_bracket {
                self.out.push(if self.digits.is_negative { '>' } else { ' ' });
            } else if self.anchored == SignAt::After {
                self.out.push(if self.digits.is_negative { '-' } else { '+' });
            }
        }
        self.place += 1;
    }

    fn sign(&mut self) {
        let is_negative = self.digits.is_negative;
        match self.anchored {
            SignAt::Before => self.out.push(if is_negative { '-' } else { '+' }),
            SignAt::After => return,
            SignAt::Nowhere if self.is_bracket => self.out.push(if is_negative { '<' } else { ' ' }),
            SignAt::Nowhere if is_negative => self.out.push('-'),
            SignAt::Nowhere => self.blank(),
        }
        self.sign_done = true;
    }
}

impl NumberPattern {
    /// The last character of the number that FM shows: zeros that only 9s stand for are dropped.
    fn last_shown(&self, digits: &Digits) -> Option<usize> {
        if !self.is_bare || !self.has_point() {
            return None;
        }
        let text = digits.text.as_bytes();
        let point = digits.text.find('.')?;
        let mut last = point;
        for (index, digit) in text.iter().enumerate().skip(point + 1) {
            if *digit != b'0' {
                last = index;
            }
        }
        let zero_end = self.zero_end();
        if zero_end > digits.blanks {
            last = last.max((text.len() - 1).min(zero_end - digits.blanks));
        }
        Some(last)
    }
}
