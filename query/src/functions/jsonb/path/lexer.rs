//! The tokens of a path.

use crate::SqlError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or a key word, with its escapes read.
    Name(String),
    Text(String),
    Variable(String),
    /// Digits only, once hexadecimal, octal and binary ones are decimal.
    Integer(String),
    /// In JSON's grammar.
    Number(String),
    /// One of `SIGNS`.
    Sign(&'static str),
}

/// Longer ones first.
const SIGNS: [&str; 30] = [
    "&&", "||", "**", "<=", "==", "<>", "!=", ">=", "<", ">", "!", "?", "%", "$", ".", "[", "]", "{", "}", "(", ")",
    "@", ",", "*", "-", "+", "/", "#", ":", "=",
];

/// A token and where it begins.
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
}

pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, SqlError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut found = Vec::new();
    while let Some(placed) = lexer.next()? {
        found.push(placed);
    }
    Ok(found)
}

/// PostgreSQL's words for a path that is none.
pub(super) fn wrong(text: &str, at: usize, message: &str) -> SqlError {
    let near = text.get(at..).unwrap_or_default();
    let end = near.char_indices().nth(30).map_or(near.len(), |(end, _)| end);
    SqlError::new(
        "42601",
        match near.is_empty() {
            true => format!("{message} at end of jsonpath input"),
            false => format!("{message} at or near \"{}\" of jsonpath input", &near[..end]),
        },
    )
}

fn not_unicode(detail: &str) -> SqlError {
    SqlError::new("22P02", "invalid input syntax for type jsonpath").with_detail(detail)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

/// What names are made of.
fn is_name(c: char) -> bool {
    !is_blank(c) && !"?%$.[]{}()|&!=<>@#,*:-+/\\\"".contains(c)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        self.at += if found { prefix.len() } else { 0 };
        found
    }

    /// What fits from here on, which is left behind.
    fn run(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let run = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
        self.at += run.len();
        run
    }

    fn next(&mut self) -> Result<Option<Placed>, SqlError> {
        loop {
            self.run(is_blank);
            if !self.eat("/*") {
                break;
            }
            match self.rest().find("*/") {
                Some(end) => self.at += end + 2,
                None => return Err(wrong(self.text, self.text.len(), "unexpected end of comment")),
            }
        }
        let at = self.at;
        let Some(first) = self.peek() else { return Ok(None) };
        let second = self.rest().chars().nth(1);
        let token = match first {
            '"' => {
                self.at += 1;
                Token::Text(self.string()?)
            }
            '$' if second == Some('"') => {
                self.at += 2;
                Token::Variable(self.string()?)
            }
            '$' if second.is_some_and(is_name) => {
                self.at += 1;
                Token::Variable(self.run(is_name).to_owned())
            }
            '0'..='9' => self.number()?,
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number()?,
            '\\' => self.name()?,
            c if is_name(c) => self.name()?,
            _ => match SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
                Some(sign) => {
                    self.at += sign.len();
                    Token::Sign(sign)
                }
                None => return Err(wrong(self.text, at, "syntax error")),
            },
        };
        Ok(Some(Placed { token, at }))
    }

    fn name(&mut self) -> Result<Token, SqlError> {
        let mut name = String::new();
        loop {
            name.push_str(self.run(is_name));
            match self.peek() {
                Some('\\') => self.escape(&mut name)?,
                _ => return Ok(Token::Name(name)),
            }
        }
    }

    /// Behind its opening quote.
    fn string(&mut self) -> Result<String, SqlError> {
        let mut out = String::new();
        loop {
            out.push_str(self.run(|c| c != '"' && c != '\\'));
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(_) => self.escape(&mut out)?,
                None => return Err(wrong(self.text, self.at, "unterminated quoted string")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SqlError> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.take() else { return Err(wrong(self.text, self.at, "unexpected end after backslash")) };
        out.push(match c {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => {
                let invalid = || wrong(self.text, start, "invalid hexadecimal character sequence");
                let digits = self.text.get(self.at..self.at + 2).ok_or_else(invalid)?;
                let code = hexadecimal(digits).ok_or_else(invalid)?;
                self.at += 2;
                character(code)?
            }
            'u' => self.unicode(start)?,
            other => other,
        });
        Ok(())
    }

    /// Behind `\u`, with the second half of a surrogate pair.
    fn unicode(&mut self, start: usize) -> Result<char, SqlError> {
        let first = self.code(start)?;
        match first {
            0xd800..=0xdbff => {
                let second = if self.eat("\\u") { self.code(start)? } else { 0 };
                match second {
                    0xdc00..=0xdfff => character(0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff)),
                    0xd800..=0xdbff => Err(not_unicode("Unicode high surrogate must not follow a high surrogate.")),
                    _ => Err(not_unicode("Unicode low surrogate must follow a high surrogate.")),
                }
            }
            0xdc00..=0xdfff => Err(not_unicode("Unicode low surrogate must follow a high surrogate.")),
            code => character(code),
        }
    }

    /// Four digits, or up to six in braces.
    fn code(&mut self, start: usize) -> Result<u32, SqlError> {
        let invalid = || wrong(self.text, start, "invalid Unicode escape sequence");
        let digits = if self.eat("{") {
            let digits = self.run(|c| c.is_ascii_hexdigit());
            if !self.eat("}") || digits.len() > 6 {
                return Err(invalid());
            }
            digits
        } else {
            let digits = self.text.get(self.at..self.at + 4).ok_or_else(invalid)?;
            self.at += 4;
            digits
        };
        hexadecimal(digits).ok_or_else(invalid)
    }

    fn number(&mut self) -> Result<Token, SqlError> {
        let start = self.at;
        let junk = |text| Err(wrong(text, start, "trailing junk after numeric literal"));
        for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
            if self.eat(prefix) {
                let digits = self.run(|c| c == '_' || c.is_digit(radix));
                let fits = is_grouped(digits) && !self.peek().is_some_and(is_name);
                let digits = digits.replace('_', "");
                return match num_bigint::BigUint::parse_bytes(digits.as_bytes(), radix) {
                    Some(number) if fits => Ok(Token::Integer(number.to_string())),
                    _ => junk(self.text),
                };
            }
        }
        let digits = |lexer: &mut Self| lexer.run(|c| c == '_' || c.is_ascii_digit());
        let whole = digits(self);
        let mut fits = whole.is_empty() || is_grouped(whole) && (whole == "0" || !whole.starts_with('0'));
        let mut is_integer = true;
        let mut fraction = "";
        // `1.` is a number, too.
        if self.rest().starts_with('.') {
            is_integer = false;
            self.at += 1;
            fraction = digits(self);
            fits &= fraction.is_empty() || is_grouped(fraction);
        }
        let mut exponent = String::new();
        if self.rest().starts_with(['e', 'E']) {
            is_integer = false;
            self.at += 1;
            if self.eat("-") {
                exponent.push('-');
            } else {
                self.eat("+");
            }
            let power = digits(self);
            if power.is_empty() {
                return Err(wrong(self.text, start, "invalid numeric literal"));
            }
            fits &= is_grouped(power);
            exponent.push_str(power);
        }
        if !fits || self.peek().is_some_and(is_name) {
            return junk(self.text);
        }
        let mut number = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
        if !fraction.is_empty() {
            number.push('.');
            number.push_str(fraction);
        }
        if !exponent.is_empty() {
            number.push('e');
            number.push_str(&exponent);
        }
        let number = number.replace('_', "");
        Ok(if is_integer { Token::Integer(number) } else { Token::Number(number) })
    }
}

/// Digits with single underscores between them.
fn is_grouped(digits: &str) -> bool {
    !digits.is_empty() && digits.split('_').all(|group| !group.is_empty())
}

fn hexadecimal(digits: &str) -> Option<u32> {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

fn character(code: u32) -> Result<char, SqlError> {
    match char::from_u32(code) {
        Some('\0') => Err(SqlError::new("22P05", "unsupported Unicode escape sequence")
            .with_detail("\\u0000 cannot be converted to text.")),
        Some(c) => Ok(c),
        None => Err(not_unicode("Unicode escape value out of range.")),
    }
}
