//! Asking an index of words.

use std::{
    ops::{Bound, Range},
    sync::Arc,
};

use arrow::buffer::Buffer;

use super::super::{
    Found, Part,
    lexicon::{Lexicon, TermRange, after, only},
};
use crate::{
    Result,
    bitpack::Bitmask,
    predicate::Predicate,
    search::{Node, TextQuery, Word},
};

#[derive(Debug)]
pub(crate) struct TextIndex {
    rows: u32,
    /// None of texts that have too many words.
    lexicon: Option<Lexicon>,
}

/// A question put to the lexicon, about rows from `base` on.
struct Asked<'a> {
    lexicon: &'a Lexicon,
    words: &'a [Word],
    rows: &'a Range<u32>,
    base: u32,
}

impl TextIndex {
    pub(in crate::index) fn open(sections: &[Buffer], rows: u32) -> Result<Self> {
        Ok(Self { rows, lexicon: Lexicon::open(sections, rows)? })
    }

    /// The rows that may pass `leaf`; `None` when the index has nothing to say.
    pub(crate) fn find(&self, leaf: &Predicate) -> Result<Option<Found>> {
        let (Predicate::Matches { query, negated, .. }, Some(lexicon)) = (leaf, &self.lexicon) else { return Ok(None) };
        let exact = query.root().is_none_or(is_exact);
        if *negated && !exact {
            return Ok(None);
        }
        let all = u64::from(self.rows);
        let rows = match query.root() {
            _ if *negated => all,
            Some(root) => count(lexicon, query.words(), root, all)?,
            None => 0,
        };
        let parts = vec![Part::Words { query: Arc::clone(query), negated: *negated }];
        Ok(Some(Found { parts, rows, exact, ..Found::default() }))
    }

    /// Adds the rows whose words answer the question, or do not, as far as they lie in `rows`, to `out`, whose bit 0 is row `base`.
    pub(crate) fn add(
        &self,
        query: &TextQuery,
        negated: bool,
        rows: &Range<u32>,
        base: u32,
        out: &mut Bitmask,
    ) -> Result<()> {
        let Some(lexicon) = &self.lexicon else {
            out.set_in((rows.start - base) as usize..(rows.end - base) as usize);
            return Ok(());
        };
        let asked = Asked { lexicon, words: query.words(), rows, base };
        let found = match query.root() {
            Some(root) => asked.list(root, false)?,
            None => Some(asked.none()),
        };
        out.or(&match (found, negated) {
            (Some(found), false) => found,
            (Some(found), true) => asked.without(&found)?,
            (None, false) => asked.texts()?,
            (None, true) => asked.none(),
        });
        Ok(())
    }
}

/// Whether the rows alone say what holds.
fn is_exact(node: &Node) -> bool {
    match node {
        Node::Word(_) => true,
        Node::Not(inner) => is_exact(inner),
        Node::And(parts) | Node::Or(parts) => parts.iter().all(is_exact),
        Node::Phrase(_) => false,
    }
}

fn range(word: &Word) -> TermRange {
    let bytes = word.text.as_bytes().to_vec();
    match (word.is_prefix, bytes.is_empty()) {
        (true, false) => {
            let end = after(&bytes);
            (bytes, end)
        }
        (false, false) => only(bytes),
        // Any word, or one that there is not; the empty term has rows without a text.
        (true, true) => (vec![0], Bound::Unbounded),
        (false, true) => (vec![0xff], Bound::Unbounded),
    }
}

/// Rows that would be listed, at most.
fn count(lexicon: &Lexicon, words: &[Word], node: &Node, all: u64) -> Result<u64> {
    let least = |mut parts: &mut dyn Iterator<Item = &Node>| -> Result<u64> {
        let mut least = all;
        for part in &mut parts {
            least = least.min(count(lexicon, words, part, all)?);
        }
        Ok(least)
    };
    Ok(match node {
        Node::Word(word) => match words.get(*word) {
            Some(word) => lexicon.count(&range(word))?,
            None => 0,
        },
        Node::Not(_) => all,
        Node::And(parts) => least(&mut parts.iter())?,
        Node::Phrase(parts) => least(&mut parts.iter().map(|(_, part)| part))?,
        Node::Or(parts) => {
            let mut sum = 0u64;
            for part in parts {
                sum += count(lexicon, words, part, all)?;
            }
            sum
        }
    })
}

impl Asked<'_> {
    /// The rows where a node may hold, and where it does if it is exact; `None`: any with a text. Within a phrase, NOT is about places and leaves no row out.
    fn list(&self, node: &Node, in_phrase: bool) -> Result<Option<Bitmask>> {
        Ok(match node {
            Node::Word(word) => {
                let mut found = self.none();
                if let Some(word) = self.words.get(*word) {
                    self.lexicon.add(&range(word), self.rows, self.base, &mut found)?;
                }
                Some(found)
            }
            Node::Not(inner) => {
                if in_phrase || !is_exact(inner) {
                    return Ok(None);
                }
                match self.list(inner, false)? {
                    Some(found) => Some(self.without(&found)?),
                    None => Some(self.none()),
                }
            }
            Node::And(parts) => self.all_of(parts.iter(), in_phrase)?,
            Node::Phrase(parts) => self.all_of(parts.iter().map(|(_, part)| part), true)?,
            Node::Or(parts) => {
                let mut any = self.none();
                for part in parts {
                    match self.list(part, in_phrase)? {
                        Some(found) => any.or(&found),
                        None => return Ok(None),
                    }
                }
                Some(any)
            }
        })
    }

    fn all_of<'a>(&self, parts: impl Iterator<Item = &'a Node>, in_phrase: bool) -> Result<Option<Bitmask>> {
        let mut all: Option<Bitmask> = None;
        for part in parts {
            let Some(found) = self.list(part, in_phrase)? else { continue };
            match &mut all {
                None => all = Some(found),
                Some(all) => all.and(&found),
            }
            if all.as_ref().is_some_and(Bitmask::is_none) {
                break;
            }
        }
        Ok(all)
    }

    fn none(&self) -> Bitmask {
        Bitmask::none((self.rows.end - self.base) as usize)
    }

    /// The rows that have a text.
    fn texts(&self) -> Result<Bitmask> {
        self.without(&self.none())
    }

    /// The rows that have a text, without these.
    fn without(&self, found: &Bitmask) -> Result<Bitmask> {
        let mut texts = self.none();
        texts.set_in((self.rows.start - self.base) as usize..(self.rows.end - self.base) as usize);
        texts.and_not(found);
        let mut nulls = self.none();
        self.lexicon.add(&only(Vec::new()), self.rows, self.base, &mut nulls)?;
        texts.and_not(&nulls);
        Ok(texts)
    }
}
