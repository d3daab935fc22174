use super::*;

fn words(text: &str) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    each_word(text, |word, place| found.push((word.to_owned(), place)));
    found
}

fn plain(text: &str) -> Vec<String> {
    words(text).into_iter().map(|(word, _)| word).collect()
}

#[test]
fn words_are_letters_and_digits_of_any_script() {
    assert_eq!(
        words("The timeout: 30 s"),
        [("the".into(), 1), ("timeout".into(), 2), ("30".into(), 3), ("s".into(), 4)]
    );
    assert_eq!(plain("foo_bar-baz/qux.html?a=1&b=2"), ["foo", "bar", "baz", "qux", "html", "a", "1", "b", "2"]);
    assert_eq!(
        plain("ÄRGER über ΣΊΣΥΦΟΣ, 東京タワー; e\u{301}tude"),
        ["ärger", "über", "σίσυφοσ", "東京タワー", "e\u{301}tude"]
    );
    assert_eq!(plain("don't"), ["don", "t"]);
    assert!(plain("").is_empty());
    assert!(plain(" -- … \u{0} ").is_empty());
    let long = "x".repeat(WORD_BYTES_MAX + 1);
    assert_eq!(words(&format!("a {long} {}", &long[1..])), [("a".into(), 1), (long[1..].to_owned(), 2)]);
}

fn asked(words: &[&str], root: Node) -> TextQuery {
    let word = |text: &&str| match text.strip_suffix('*') {
        Some(prefix) => Word { text: prefix.into(), is_prefix: true },
        None => Word { text: (*text).into(), is_prefix: false },
    };
    TextQuery::new(words.iter().map(word).collect(), Some(root))
}

/// What PostgreSQL 15 answers to the same questions.
#[test]
fn phrases_are_about_places() {
    use Node::{And, Not, Or, Phrase, Word as W};
    let not = |node| Not(Box::new(node));
    let query = |root| asked(&["a", "b", "c", "d", "b*"], root);
    let cases = [
        (
            Phrase(vec![(0, W(0)), (1, W(1))]),
            "'a' <-> 'b'",
            vec![("a b", true), ("b a", false), ("a x b", false), ("a a b", true)],
        ),
        (Phrase(vec![(0, W(0)), (2, W(1))]), "'a' <2> 'b'", vec![("a b", false), ("a x b", true), ("a b b", true)]),
        (Phrase(vec![(0, W(0)), (0, W(4))]), "'a' <0> 'b':*", vec![("a bc", false), ("a", false)]),
        (
            Phrase(vec![(0, W(0)), (1, W(1)), (1, W(2))]),
            "'a' <-> 'b' <-> 'c'",
            vec![("a b c", true), ("a b x c", false)],
        ),
        (
            Phrase(vec![(0, W(0)), (1, Phrase(vec![(0, W(1)), (1, W(2))]))]),
            "'a' <-> ( 'b' <-> 'c' )",
            vec![("a b c", true), ("a x b c", false)],
        ),
        (
            Phrase(vec![(0, W(0)), (1, Or(vec![W(1), Phrase(vec![(0, W(2)), (1, W(3))])]))]),
            "'a' <-> ( 'b' | 'c' <-> 'd' )",
            vec![("a c d", true), ("a b", true), ("a x b", false), ("a d", false)],
        ),
        (
            Phrase(vec![(0, not(W(0))), (1, W(1))]),
            "!'a' <-> 'b'",
            vec![("b", true), ("a b", false), ("a b x b", true), ("a", false)],
        ),
        (Phrase(vec![(0, W(0)), (1, not(W(1)))]), "'a' <-> !'b'", vec![("a", true), ("a b", false), ("a b a", true)]),
        (Phrase(vec![(0, not(W(0))), (1, not(W(1)))]), "!'a' <-> !'b'", vec![("", true), ("a b", true)]),
        (
            Phrase(vec![(0, W(0)), (1, And(vec![W(1), W(4)]))]),
            "'a' <-> ( 'b' & 'b':* )",
            vec![("a b", true), ("a bc", false), ("b a", false)],
        ),
        (
            And(vec![Or(vec![W(0), W(1)]), not(Or(vec![W(2), W(3)]))]),
            "( 'a' | 'b' ) & !( 'c' | 'd' )",
            vec![("a", true), ("b c", false), ("x", false)],
        ),
        (not(not(W(0))), "!!'a'", vec![("a", true), ("b", false)]),
    ];
    let mut room = Vec::new();
    for (root, shown, texts) in cases {
        let query = query(root);
        assert_eq!(query.to_string(), shown);
        for (text, found) in texts {
            assert_eq!(query.finds(text, &mut room), found, "{shown} in {text:?}");
        }
    }
    assert!(!TextQuery::default().finds("a", &mut room));
    assert_eq!(TextQuery::default().to_string(), "");
    assert_eq!(asked(&["it's \\"], W(0)).to_string(), "'it''s \\\\'");
}

proptest::proptest! {
    /// An ASCII text is cut on a way of its own, and what it cannot have is told from its bytes.
    #[test]
    fn ascii_texts_are_cut_and_searched_as_all_others(text in "[a-bA-B0 .-]{0,40}", asked_words in proptest::collection::vec("[a-b0]{1,3}", 1..4)) {
        let words = |text: &str| {
            let mut words = Vec::new();
            each_word(text, |word, place| words.push((word.to_owned(), place)));
            words
        };
        let found = words(&text);
        let mut general = words(&format!("{text} é"));
        general.pop();
        proptest::prop_assert_eq!(&found, &general);
        let words: Vec<Word> = asked_words.iter().map(|word| Word { text: word.clone(), is_prefix: false }).collect();
        let is_there = |word: &String| found.iter().any(|(known, _)| known == word);
        let all = (0..words.len()).map(Node::Word).collect::<Vec<_>>();
        let mut room = Vec::new();
        let query = TextQuery::new(words.clone(), Some(Node::And(all.clone())));
        proptest::prop_assert_eq!(query.finds(&text, &mut room), asked_words.iter().all(is_there));
        let query = TextQuery::new(words, Some(Node::Or(all)));
        proptest::prop_assert_eq!(query.finds(&text, &mut room), asked_words.iter().any(is_there));
    }
}
