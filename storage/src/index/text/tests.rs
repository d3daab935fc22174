//! What the index finds of random texts, against reading each.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringViewArray},
    buffer::Buffer,
};
use proptest::prelude::*;

use super::{TextIndex, build};
use crate::{
    bitpack::Bitmask,
    forward::{ColumnReader, EncodeOptions, encode_column},
    ids::ColumnId,
    index::{Part, source::Source},
    predicate::Predicate,
    schema::DataType,
    search::{Node, TextQuery, Word},
};

const WORDS: [&str; 9] = ["a", "ab", "abc", "b", "error", "err", "é", "ß", "東京"];

fn text() -> impl Strategy<Value = String> {
    let word = prop::sample::select(WORDS.to_vec());
    let between = prop::sample::select(vec![" ", ", ", "-", "…", "\u{0}"]);
    prop::collection::vec((word, between), 0..6).prop_map(|words| {
        words.into_iter().map(|(word, between)| format!("{}{between}", word.to_uppercase())).collect()
    })
}

fn query() -> impl Strategy<Value = TextQuery> {
    let word = (prop::sample::select(WORDS.to_vec()), any::<bool>())
        .prop_map(|(text, is_prefix)| Word { text: text.to_lowercase(), is_prefix });
    let leaf = (0usize..4).prop_map(Node::Word);
    let root = leaf.prop_recursive(3, 12, 3, |inner| {
        let some = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            some().prop_map(Node::And),
            some().prop_map(Node::Or),
            inner.clone().prop_map(|inner| Node::Not(Box::new(inner))),
            prop::collection::vec((0u16..3, inner.clone()), 2..4).prop_map(Node::Phrase),
        ]
    });
    (prop::collection::vec(word, 4), prop::option::weighted(0.95, root))
        .prop_map(|(words, root)| TextQuery::new(words, root))
}

fn sections(texts: &[Option<String>]) -> Vec<Vec<u8>> {
    let array: ArrayRef = Arc::new(StringViewArray::from_iter(texts.iter().map(Option::as_deref)));
    let encoded = encode_column(&DataType::Text, &[array], &EncodeOptions::default()).unwrap();
    let buffers = encoded.sections.into_iter().map(Buffer::from_vec).collect();
    let rows = texts.len() as u32;
    let column = ColumnReader::open(&DataType::Text, encoded.encoding as u8, rows, buffers).unwrap();
    build(&Source::encoded(rows, &column)).unwrap()
}

fn opened(sections: Vec<Vec<u8>>, rows: usize) -> crate::Result<TextIndex> {
    TextIndex::open(&sections.into_iter().map(Buffer::from_vec).collect::<Vec<_>>(), rows as u32)
}

/// The rows found, how many were said, and whether they are all that pass.
type Answer = Option<(Vec<usize>, u64, bool)>;

fn found(index: &TextIndex, query: &TextQuery, negated: bool, from: u32, to: u32) -> crate::Result<Answer> {
    let leaf = Predicate::Matches { column: ColumnId(1), query: Arc::new(query.clone()), negated };
    let Some(found) = index.find(&leaf)? else { return Ok(None) };
    let base = from & !63;
    let mut out = Bitmask::none((to - base) as usize);
    for part in &found.parts {
        let Part::Words { query, negated } = part else { panic!("rows of another index") };
        index.add(query, *negated, &(from..to), base, &mut out)?;
    }
    Ok(Some((out.iter().map(|row| row + base as usize).collect(), found.rows, found.exact)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_is_what_reading_finds(
        texts in prop::collection::vec(prop::option::weighted(0.9, text()), 0..150),
        queries in prop::collection::vec((query(), any::<bool>()), 1..12),
        from in 0u32..150,
    ) {
        let index = opened(sections(&texts), texts.len()).unwrap();
        let mut room = Vec::new();
        for (query, negated) in queries {
            let from = from.min(texts.len() as u32);
            let expected: Vec<usize> = (from as usize..texts.len())
                .filter(|row| texts[*row].as_ref().is_some_and(|text| query.finds(text, &mut room) != negated))
                .collect();
            let Some((rows, said, exact)) = found(&index, &query, negated, from, texts.len() as u32).unwrap() else {
                prop_assert!(negated && query.to_string().contains('<'), "{query}");
                continue;
            };
            prop_assert!(said >= rows.len() as u64, "{said} {rows:?} {query}");
            prop_assert!(rows.iter().all(|row| texts[*row].is_some()));
            if exact {
                prop_assert_eq!(rows, expected, "{}", query);
            } else {
                prop_assert!(expected.iter().all(|row| rows.contains(row)), "{rows:?} {expected:?} {query}");
            }
        }
    }

    #[test]
    fn damaged_sections_never_panic(at in 0usize..4000, bit in 0u8..8, query in query()) {
        let texts: Vec<Option<String>> = (0..50).map(|row| Some(format!("a{row} error {} b", row % 3))).collect();
        let mut sections = sections(&texts);
        let total: usize = sections.iter().map(Vec::len).sum();
        let mut at = at % total;
        for section in &mut sections {
            match section.get_mut(at) {
                Some(byte) => {
                    *byte ^= 1 << bit;
                    break;
                }
                None => at -= section.len(),
            }
        }
        if let Ok(index) = opened(sections, texts.len()) {
            let _ = found(&index, &query, false, 0, 50);
        }
    }
}
