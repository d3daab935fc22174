//! PostgreSQL's spellings that sqlparser does not read, in ones that it does.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// One statement's tokens without the spellings that sqlparser does not read:
///
/// | written | read as |
/// |---|---|
/// | `TABLE t` where a query begins | `SELECT * FROM t` |
/// | `ORDER BY x USING <`, `USING >` | `ORDER BY x ASC`, `DESC` |
/// | `a BETWEEN SYMMETRIC b AND c` | `a BETWEEN !! b AND c`: the rules of the planner know what is meant |
/// | `a BETWEEN ASYMMETRIC b AND c` | `a BETWEEN b AND c` |
/// | `FROM ONLY t`, `UPDATE ONLY (t)`, `JOIN ONLY t` | without ONLY: no table is below another |
/// | `a>-1`, `a<>+b` | `a > -1`, `a <> +b`: an operator ends in a sign only where it has one of ``~!@#%^&|`?`` |
/// | `U&'d\0061ta'`, `U&'d!0061ta' UESCAPE '!'` | `'data'` |
pub(super) fn respelled(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let concerned = ["TABLE", "USING", "SYMMETRIC", "ASYMMETRIC", "ONLY"];
    let is_concerned = |token: &Token| {
        matches!(token, Token::UnicodeStringLiteral(_) | Token::CustomBinaryOperator(_))
            || concerned.iter().any(|word| is_word(token, word))
    };
    if !tokens.iter().any(|token| is_concerned(&token.token)) {
        return tokens;
    }
    let is_insert = tokens.iter().find(|token| is_solid(token)).is_some_and(|token| is_word(&token.token, "INSERT"));
    let mut respelled: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len() + 8);
    let mut before: Option<Token> = None;
    // Of `ONLY (t)`: the parentheses that are still to go.
    let mut parentheses = 0;
    for (index, token) in tokens.iter().enumerate() {
        if !is_solid(token) {
            respelled.push(token.clone());
            continue;
        }
        let next = tokens[index + 1..].iter().find(|token| is_solid(token)).map(|token| &token.token);
        let mut put = |token_in_place: Token| {
            respelled.push(TokenWithSpan { token: token_in_place, span: token.span });
        };
        let follows =
            |words: &[&str]| before.as_ref().is_some_and(|before| words.iter().any(|word| is_word(before, word)));
        match &token.token {
            Token::CustomBinaryOperator(operator) => match without_sign(operator) {
                Some((comparison, sign)) => {
                    put(comparison);
                    put(sign);
                }
                None => put(token.token.clone()),
            },
            here if is_word(here, "TABLE") && matches!(next, Some(Token::Word(_))) => {
                let begins = match &before {
                    None | Some(Token::LParen | Token::RParen) => true,
                    Some(_) => {
                        is_insert
                            || follows(&["UNION", "EXCEPT", "INTERSECT", "ALL", "DISTINCT", "AS"])
                            || follows(&["EXPLAIN", "ANALYZE", "VERBOSE"])
                    }
                };
                if begins {
                    put(Token::make_keyword("SELECT"));
                    put(Token::Mul);
                    put(Token::make_keyword("FROM"));
                } else {
                    put(here.clone());
                }
            }
            here if is_word(here, "ONLY")
                && follows(&["FROM", "UPDATE", "JOIN"])
                && matches!(next, Some(Token::Word(_) | Token::LParen))
                && !next.is_some_and(|next| is_word(next, "SET")) =>
            {
                parentheses = if matches!(next, Some(Token::LParen)) { 2 } else { 0 };
            }
            Token::LParen if parentheses == 2 => parentheses = 1,
            Token::RParen if parentheses == 1 => parentheses = 0,
            here if is_word(here, "SYMMETRIC") && follows(&["BETWEEN"]) => put(Token::DoubleExclamationMark),
            here if is_word(here, "ASYMMETRIC") && follows(&["BETWEEN"]) => {}
            here if is_word(here, "USING") => match next {
                Some(Token::Lt) => put(Token::make_keyword("ASC")),
                Some(Token::Gt) => put(Token::make_keyword("DESC")),
                _ => put(here.clone()),
            },
            Token::Lt | Token::Gt if follows(&["USING"]) => {}
            // With a NUL in it, it is refused when it is planned.
            Token::UnicodeStringLiteral(text) if !text.contains('\0') => {
                let mut following =
                    tokens[index + 1..].iter().filter(|token| is_solid(token)).map(|token| &token.token);
                let escape = match (following.next(), following.next()) {
                    (Some(word), Some(Token::SingleQuotedString(escape))) if is_word(word, "UESCAPE") => {
                        escape.chars().next()
                    }
                    _ => None,
                };
                let read = escape.and_then(|escape| unescaped(text, escape));
                put(Token::SingleQuotedString(read.unwrap_or_else(|| text.clone())));
            }
            here if is_word(here, "UESCAPE") && matches!(before, Some(Token::UnicodeStringLiteral(_))) => {}
            Token::SingleQuotedString(_) if follows(&["UESCAPE"]) => {}
            here => put(here.clone()),
        }
        before = Some(token.token.clone());
    }
    respelled
}

/// `text` with `!0061`, `!+000061` and `!!` read, where `!` is the escape; `None` when one of them is no character.
fn unescaped(text: &str, escape: char) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(escape) {
        out.push_str(&rest[..at]);
        rest = &rest[at + escape.len_utf8()..];
        if let Some(after) = rest.strip_prefix(escape) {
            out.push(escape);
            rest = after;
            continue;
        }
        let (digits, after) = match rest.strip_prefix('+') {
            Some(long) => long.split_at_checked(6)?,
            None => rest.split_at_checked(4)?,
        };
        out.push(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).filter(|c| *c != '\0')?);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// A comparison and the sign behind it.
fn without_sign(operator: &str) -> Option<(Token, Token)> {
    let (comparison, sign) = match operator.strip_suffix('-') {
        Some(comparison) => (comparison, Token::Minus),
        None => (operator.strip_suffix('+')?, Token::Plus),
    };
    let comparison = match comparison {
        ">" => Token::Gt,
        ">=" => Token::GtEq,
        "<" => Token::Lt,
        "<=" => Token::LtEq,
        "<>" => Token::Neq,
        _ => return None,
    };
    Some((comparison, sign))
}

fn is_solid(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word))
}
