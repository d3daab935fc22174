//! Bytes that a text must have to be worth reading word by word.
//!
//! Looking for bytes is ten times as fast as cutting a text into words or parsing a document, and mostly it is enough to say no
//! (Palkar, Abuzaid, Bailis, Zaharia, *Filter Before You Parse*, VLDB 2018).

use memchr::{memchr2_iter, memmem::Finder};

/// Letters and digits from common to rare, in English and in logs.
const COMMON_FIRST: &[u8] = b"etaoinsr0123hdlucm456789fywgpbvkxqjz";

/// A word that texts have in letters of either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WordNeedle {
    lower: Box<[u8]>,
    /// Where its rarest byte is.
    rarest: usize,
}

impl WordNeedle {
    /// For a word in lower case; `None` for one that is not all ASCII letters and digits, or has none.
    pub(super) fn new(word: &str) -> Option<Self> {
        let rank = |byte: &u8| COMMON_FIRST.iter().position(|known| known == byte);
        let ranks = word.as_bytes().iter().map(rank).collect::<Option<Vec<_>>>()?;
        let (rarest, _) = ranks.iter().enumerate().max_by_key(|(_, rank)| **rank)?;
        Some(Self { lower: word.as_bytes().into(), rarest })
    }

    pub(super) fn len(&self) -> usize {
        self.lower.len()
    }

    /// Whether the word may be in an ASCII text, as one or within another.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        let (lower, rarest) = (&*self.lower, self.rarest);
        let Some(starts) = (text.len() + 1).checked_sub(lower.len()) else { return false };
        let byte = lower[rarest];
        memchr2_iter(byte, byte.to_ascii_uppercase(), &text[rarest..rarest + starts])
            .any(|start| text[start..start + lower.len()].eq_ignore_ascii_case(lower))
    }
}

/// What the text of a document must have, byte for byte.
#[derive(Clone, Debug)]
pub(crate) enum Needles {
    Bytes(Box<Finder<'static>>),
    All(Vec<Needles>),
    Any(Vec<Needles>),
}

impl Needles {
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self::Bytes(Box::new(Finder::new(bytes).into_owned()))
    }

    pub(crate) fn are_in(&self, text: &[u8]) -> bool {
        match self {
            Self::Bytes(finder) => finder.find(text).is_some(),
            Self::All(needles) => needles.iter().all(|needles| needles.are_in(text)),
            Self::Any(needles) => needles.iter().any(|needles| needles.are_in(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_found_wherever_they_stand(word in "[a-c0-1]{1,4}", text in "[a-cA-C0-1 .]{0,30}") {
            let needle = WordNeedle::new(&word).unwrap();
            prop_assert_eq!(needle.is_in(text.as_bytes()), text.to_ascii_lowercase().contains(&word));
        }
    }

    #[test]
    fn other_words_have_no_needle() {
        for word in ["", "größe", "a b", "Upper"] {
            assert_eq!(WordNeedle::new(word), None, "{word:?}");
        }
    }
}
