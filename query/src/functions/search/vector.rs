//! `tsvector`: the words of a text with their places, as a value: `'cat':3 'fat':1,2`.

use std::{collections::BTreeMap, fmt::Write};

use tidemill_storage::search::{TextQuery, WordPlaces, each_word};

use super::parse::lexeme;
use crate::SqlError;

/// Words, each with its places, ascending; none where they are not known.
type Vector = BTreeMap<String, Vec<u32>>;

pub(super) fn of_text(text: &str) -> String {
    let mut vector = Vector::new();
    each_word(text, |word, place| match vector.get_mut(word) {
        Some(places) => places.push(place),
        None => {
            vector.insert(word.to_owned(), vec![place]);
        }
    });
    show(&vector)
}

/// Without the places.
pub(super) fn stripped(text: &str) -> Result<String, SqlError> {
    let mut vector = read(text)?;
    vector.values_mut().for_each(Vec::clear);
    Ok(show(&vector))
}

pub(super) fn length(text: &str) -> Result<usize, SqlError> {
    Ok(read(text)?.len())
}

/// As it is printed.
pub(crate) fn canonical(text: &str) -> Result<String, SqlError> {
    Ok(show(&read(text)?))
}

/// Whether the words of a vector answer the question.
pub(super) fn answers(vector: &str, query: &TextQuery) -> Result<bool, SqlError> {
    let vector = read(vector)?;
    let places = query.words().iter().map(|word| {
        let mut found = WordPlaces::default();
        for (text, places) in vector.range(word.text.clone()..).take_while(|(text, _)| text.starts_with(&word.text)) {
            if word.fits(text) {
                found.is_there = true;
                found.places.extend_from_slice(places);
            }
        }
        found.places.sort_unstable();
        found.places.dedup();
        found
    });
    Ok(query.holds(&places.collect::<Vec<_>>()))
}

fn show(vector: &Vector) -> String {
    let mut out = String::new();
    for (word, places) in vector {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push('\'');
        for character in word.chars() {
            if matches!(character, '\'' | '\\') {
                out.push(character);
            }
            out.push(character);
        }
        out.push('\'');
        for (at, place) in places.iter().enumerate() {
            let _ = write!(out, "{}{place}", if at == 0 { ':' } else { ',' });
        }
    }
    out
}

fn read(text: &str) -> Result<Vector, SqlError> {
    let syntax = || SqlError::syntax(format!("syntax error in tsvector: \"{text}\""));
    let mut vector = Vector::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, length) = lexeme(rest, |_| false).ok_or_else(syntax)?;
        if word.is_empty() {
            return Err(syntax());
        }
        rest = &rest[length..];
        let places = vector.entry(word).or_default();
        if let Some(listed) = rest.strip_prefix(':') {
            let end = listed.find(char::is_whitespace).unwrap_or(listed.len());
            for place in listed[..end].split(',') {
                if place.len() > 1 && place.ends_with(|c: char| matches!(c, 'a'..='d' | 'A'..='D')) {
                    return Err(SqlError::not_supported("a weight in a tsvector"));
                }
                match place.parse::<u32>() {
                    Ok(place) if place > 0 => places.push(place),
                    _ => return Err(syntax()),
                }
            }
            places.sort_unstable();
            places.dedup();
            rest = &listed[end..];
        }
        let after = rest.trim_start();
        if after.len() == rest.len() && !rest.is_empty() {
            return Err(syntax());
        }
        rest = after;
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::search::parse::{Form, query};

    #[test]
    fn vectors_are_words_with_places() {
        assert_eq!(of_text("A fat cat, a rat"), "'a':1,4 'cat':3 'fat':2 'rat':5");
        assert_eq!(of_text(""), "");
        assert_eq!(canonical("b a:2,1  'x y':3 'it''s'").unwrap(), "'a':1,2 'b' 'it''s' 'x y':3");
        assert_eq!(stripped("'a':1,4 'cat':3").unwrap(), "'a' 'cat'");
        assert_eq!(length("'a':1,4 'cat':3").unwrap(), 2);
        for broken in ["'a", "a:x", "a:0", "'a'b", "a:1:2", ":1", "a:"] {
            assert!(canonical(broken).is_err(), "{broken}");
        }
        let answers = |vector: &str, text: &str| answers(vector, &query(text, Form::Operators).unwrap()).unwrap();
        assert!(answers("'cat':3 'fat':2", "fat <-> cat"));
        assert!(!answers("'cat' 'fat'", "fat <-> cat"), "what has no place is beside nothing");
        assert!(answers("'cat' 'catalog':2", "cat:* & !dog"));
        assert!(answers("'ab':1 'abc':2 'b':3", "ab:* <-> b"));
    }
}
