//! Questions about the words of a text.

use std::fmt::{self, Write};

use super::{needle::WordNeedle, phrase, words::each_word};

/// What is asked of a text: PostgreSQL's `tsquery`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextQuery {
    words: Vec<Word>,
    /// None finds nothing.
    root: Option<Node>,
    /// Of words without which nothing is found.
    needles: Vec<WordNeedle>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    /// Any word that begins like this.
    pub is_prefix: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// The word of this number is there.
    Word(usize),
    Not(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// One after the other, each ending so many places after the one before; the first number says nothing.
    Phrase(Vec<(u16, Node)>),
}

/// Where a word of a question stands in a text.
#[derive(Clone, Debug, Default)]
pub struct WordPlaces {
    pub is_there: bool,
    /// Ascending; none, of a word that is there, where places are not known.
    pub places: Vec<u32>,
}

impl TextQuery {
    /// The nodes name words by their places in `words`.
    pub fn new(words: Vec<Word>, root: Option<Node>) -> Self {
        let mut needed = Vec::new();
        root.iter().for_each(|root| needed_words(root, &mut needed));
        needed.sort_unstable();
        needed.dedup();
        let words_needed = needed.iter().filter_map(|word| words.get(*word));
        let mut needles: Vec<_> = words_needed.filter_map(|word| WordNeedle::new(&word.text)).collect();
        // Long words are rare.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self { words, root, needles }
    }

    pub fn words(&self) -> &[Word] {
        &self.words
    }

    pub fn root(&self) -> Option<&Node> {
        self.root.as_ref()
    }

    /// Whether a text has what is asked for. `places` is room that may be used again.
    pub fn finds(&self, text: &str, places: &mut Vec<WordPlaces>) -> bool {
        if !self.needles.is_empty() && text.is_ascii() {
            let text = text.as_bytes();
            if !self.needles.iter().all(|needle| needle.is_in(text)) {
                return false;
            }
        }
        places.resize_with(self.words.len(), WordPlaces::default);
        for word in places.iter_mut() {
            word.is_there = false;
            word.places.clear();
        }
        each_word(text, |found, place| {
            for (word, places) in self.words.iter().zip(places.iter_mut()) {
                if word.fits(found) {
                    places.is_there = true;
                    places.places.push(place);
                }
            }
        });
        self.holds(places)
    }

    /// Whether a text with its words at these places has what is asked for.
    pub fn holds(&self, places: &[WordPlaces]) -> bool {
        self.root.as_ref().is_some_and(|root| holds(root, places))
    }
}

impl Word {
    pub fn fits(&self, word: &str) -> bool {
        if self.is_prefix { word.starts_with(&self.text) } else { word == self.text }
    }
}

/// Adds the words that a text must have for the node to hold.
fn needed_words(node: &Node, out: &mut Vec<usize>) {
    match node {
        Node::Word(word) => out.push(*word),
        Node::Not(_) | Node::Or(_) => {}
        Node::And(parts) => parts.iter().for_each(|part| needed_words(part, out)),
        Node::Phrase(parts) => parts.iter().for_each(|(_, part)| needed_words(part, out)),
    }
}

fn holds(node: &Node, places: &[WordPlaces]) -> bool {
    match node {
        Node::Word(word) => places.get(*word).is_some_and(|word| word.is_there),
        Node::Not(inner) => !holds(inner, places),
        Node::And(parts) => parts.iter().all(|part| holds(part, places)),
        Node::Or(parts) => parts.iter().any(|part| holds(part, places)),
        Node::Phrase(_) => phrase::is_there(node, places),
    }
}

/// As PostgreSQL prints it.
impl fmt::Display for TextQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.root {
            Some(root) => self.show(root, 0, false, f),
            None => Ok(()),
        }
    }
}

impl TextQuery {
    fn show(&self, node: &Node, above: u8, is_right_of_phrase: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binds = match node {
            Node::Or(_) => 1,
            Node::And(_) => 2,
            Node::Phrase(_) => 3,
            Node::Not(_) => 4,
            Node::Word(_) => 5,
        };
        let in_brackets = binds < above || (binds == 3 && is_right_of_phrase);
        if in_brackets {
            f.write_str("( ")?;
        }
        match node {
            Node::Word(word) => match self.words.get(*word) {
                Some(Word { text, is_prefix }) => {
                    f.write_char('\'')?;
                    for character in text.chars() {
                        if matches!(character, '\'' | '\\') {
                            f.write_char(character)?;
                        }
                        f.write_char(character)?;
                    }
                    f.write_str(if *is_prefix { "':*" } else { "'" })?;
                }
                None => f.write_str("''")?,
            },
            Node::Not(inner) => {
                f.write_char('!')?;
                self.show(inner, binds, false, f)?;
            }
            Node::And(parts) | Node::Or(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        f.write_str(if binds == 2 { " & " } else { " | " })?;
                    }
                    self.show(part, binds, false, f)?;
                }
            }
            Node::Phrase(parts) => {
                for (at, (distance, part)) in parts.iter().enumerate() {
                    match (at, distance) {
                        (0, _) => {}
                        (_, 1) => f.write_str(" <-> ")?,
                        (_, distance) => write!(f, " <{distance}> ")?,
                    }
                    self.show(part, binds, at > 0, f)?;
                }
            }
        }
        if in_brackets { f.write_str(" )") } else { Ok(()) }
    }
}
