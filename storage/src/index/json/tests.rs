//! What the index finds of random documents, against a walk through their trees.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringViewArray},
    buffer::Buffer,
};
use proptest::prelude::*;

use super::{
    JsonIndex, build,
    paths::{JsonPaths, Path},
    terms,
};
use crate::{
    documents::{DocumentSieve, DocumentTest, Step, ValueTest},
    forward::{ColumnReader, EncodeOptions, encode_column},
    ids::ColumnId,
    index::source::Source,
    schema::DataType,
};

#[derive(Clone, Debug)]
enum Tree {
    Null,
    Boolean(bool),
    Number(&'static str),
    Text(&'static str),
    Array(Vec<Tree>),
    Object(Vec<(&'static str, Tree)>),
}

const KEYS: [&str; 4] = ["a", "b", "ab", "é\u{1}\""];
const NUMBERS: [&str; 7] = ["0", "1", "-1", "1.5", "2", "-0.25", "12345678901234567890"];
const TEXTS: [&str; 7] = ["", "x", "xy", "1", "true", "{}", "ü \"quoted\" \\ \n"];

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Boolean),
        prop::sample::select(NUMBERS.to_vec()).prop_map(Tree::Number),
        prop::sample::select(TEXTS.to_vec()).prop_map(Tree::Text),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let members = prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Tree::Array),
            members.prop_map(|members| Tree::Object(members.into_iter().collect())),
        ]
    })
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            plain if (plain as u32) < 32 || plain == 'ü' => out.push_str(&format!("\\u{:04x}", plain as u32)),
            plain => out.push(plain),
        }
    }
    out + "\""
}

impl Tree {
    fn text(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Boolean(value) => value.to_string(),
            Self::Number(digits) => (*digits).into(),
            Self::Text(text) => quoted(text),
            Self::Array(items) => format!("[{}]", items.iter().map(Self::text).collect::<Vec<_>>().join(", ")),
            Self::Object(members) => {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("{}: {}", quoted(key), value.text())).collect();
                format!("{{{}}}", members.join(", "))
            }
        }
    }

    fn at(&self, path: &[Step]) -> Vec<&Self> {
        match (path, self) {
            ([], _) => vec![self],
            ([Step::Key(key), rest @ ..], Self::Object(members)) => {
                members.iter().filter(|(name, _)| name == key).flat_map(|(_, value)| value.at(rest)).collect()
            }
            ([Step::Element, rest @ ..], Self::Array(items)) => items.iter().flat_map(|item| item.at(rest)).collect(),
            _ => Vec::new(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// As the index means it.
    fn is(&self, wanted: &ValueTest) -> bool {
        let inside = |low: &f64, high: &f64| self.number().is_some_and(|number| *low <= number && number <= *high);
        match wanted {
            ValueTest::Exists => true,
            ValueTest::Null => matches!(self, Self::Null),
            ValueTest::Boolean(wanted) => matches!(self, Self::Boolean(value) if value == wanted),
            ValueTest::Number { low, high } => inside(low, high),
            ValueTest::String(wanted) => matches!(self, Self::Text(text) if text == wanted),
            ValueTest::Text(wanted) => match self {
                Self::Text(text) => text == wanted,
                Self::Boolean(_) => wanted.starts_with(['t', 'f']),
                Self::Number(_) => self.number() == wanted.parse().ok(),
                Self::Null => false,
                Self::Array(_) | Self::Object(_) => wanted.starts_with(['{', '[']),
            },
            ValueTest::Cast { low, high } => !matches!(self, Self::Null | Self::Number(_)) || inside(low, high),
        }
    }

    /// As a condition means it.
    fn is_truly(&self, wanted: &ValueTest) -> bool {
        match (wanted, self) {
            (ValueTest::Text(wanted), Self::Boolean(_) | Self::Number(_) | Self::Array(_) | Self::Object(_)) => {
                *wanted == self.text()
            }
            _ => self.is(wanted),
        }
    }

    fn passes(&self, test: &DocumentTest) -> bool {
        self.passes_by(test, &Self::is)
    }

    fn passes_by(&self, test: &DocumentTest, is: &impl Fn(&Self, &ValueTest) -> bool) -> bool {
        match test {
            DocumentTest::And(tests) => tests.iter().all(|test| self.passes_by(test, is)),
            DocumentTest::Or(tests) => tests.iter().any(|test| self.passes_by(test, is)),
            DocumentTest::At { path, value, .. } => self.at(path).iter().any(|found| is(found, value)),
        }
    }
}

fn test() -> impl Strategy<Value = DocumentTest> {
    let step = prop_oneof![
        3 => prop::sample::select(KEYS.to_vec()).prop_map(|key| Step::Key(key.into())),
        1 => Just(Step::Element),
    ];
    let number = || prop::sample::select(NUMBERS.to_vec()).prop_map(|digits| digits.parse::<f64>().unwrap());
    let text = || prop::sample::select(TEXTS.to_vec()).prop_map(str::to_owned);
    let value = prop_oneof![
        Just(ValueTest::Exists),
        Just(ValueTest::Null),
        any::<bool>().prop_map(ValueTest::Boolean),
        (number(), number()).prop_map(|(a, b)| ValueTest::Number { low: a.min(b), high: a.max(b) }),
        (number(), number()).prop_map(|(a, b)| ValueTest::Cast { low: a.min(b), high: a.max(b) }),
        number().prop_map(|low| ValueTest::Cast { low, high: f64::INFINITY }),
        text().prop_map(ValueTest::String),
        text().prop_map(ValueTest::Text),
    ];
    let at = (prop::collection::vec(step, 0..4), value).prop_map(|(path, value)| DocumentTest::At {
        column: ColumnId(1),
        path,
        value,
    });
    at.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(DocumentTest::And),
            prop::collection::vec(inner, 1..3).prop_map(DocumentTest::Or),
        ]
    })
}

fn paths() -> impl Strategy<Value = JsonPaths> {
    let path = || prop::collection::vec(prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1..3);
    let levels = prop::option::weighted(0.3, 1u8..4);
    (prop::collection::vec(path(), 0..3), prop::collection::vec(path(), 0..3), levels)
        .prop_map(|(paths, exclude, max_levels)| JsonPaths { paths, exclude, max_levels })
}

fn sections(texts: &[Option<String>], paths: Option<&JsonPaths>) -> Vec<Vec<u8>> {
    let array: ArrayRef = Arc::new(StringViewArray::from_iter(texts.iter().map(Option::as_deref)));
    let encoded = encode_column(&DataType::Jsonb, &[array], &EncodeOptions::default()).unwrap();
    let buffers = encoded.sections.into_iter().map(Buffer::from_vec).collect();
    let rows = texts.len() as u32;
    let column = ColumnReader::open(&DataType::Jsonb, encoded.encoding as u8, rows, buffers).unwrap();
    build(&Source::encoded(rows, &column), paths).unwrap()
}

fn opened(sections: Vec<Vec<u8>>, rows: usize, paths: Option<&JsonPaths>) -> crate::Result<JsonIndex> {
    JsonIndex::open(&sections.into_iter().map(Buffer::from_vec).collect::<Vec<_>>(), rows as u32, paths)
}

fn found(index: &JsonIndex, test: &DocumentTest, rows: usize) -> Vec<usize> {
    index.list(test, &(0..rows as u32), 0).unwrap().iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_is_what_a_walk_finds(
        trees in prop::collection::vec(prop::option::weighted(0.9, tree()), 0..60),
        tests in prop::collection::vec(test(), 1..12),
    ) {
        let texts: Vec<Option<String>> = trees.iter().map(|tree| tree.as_ref().map(Tree::text)).collect();
        let index = opened(sections(&texts, None), texts.len(), None).unwrap();
        for test in tests {
            let expected: Vec<usize> = (0..trees.len())
                .filter(|row| trees[*row].as_ref().is_some_and(|tree| tree.passes(&test)))
                .collect();
            // An AND may leave a condition out that would leave out few.
            let rows = found(&index, &test, texts.len());
            let has_and = format!("{test:?}").contains("And");
            prop_assert!(if has_and { expected.iter().all(|row| rows.contains(row)) } else { rows == expected }, "{rows:?} {expected:?} {test:?}");
            prop_assert!(index.count(&test).unwrap().unwrap() >= rows.len() as u64 || has_and);
            let (from, to) = (texts.len() as u32 / 3, texts.len() as u32);
            let part: Vec<usize> = index.list(&test, &(from..to), from & !63).unwrap().iter().collect();
            let all = rows.iter().filter(|row| **row >= from as usize).map(|row| row - (from as usize & !63));
            prop_assert!(has_and || part == all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn bytes_rule_out_no_document_that_passes(trees in prop::collection::vec(tree(), 0..40), tests in prop::collection::vec(test(), 1..12)) {
        for test in &tests {
            let Some(sieve) = DocumentSieve::of(test) else { continue };
            for tree in trees.iter().filter(|tree| tree.passes_by(test, &Tree::is_truly)) {
                prop_assert!(sieve.passes(&tree.text()), "{} {test:?}", tree.text());
            }
        }
    }

    /// An index of some paths says nothing, or all that passes and perhaps more; what it says of a question that it covers by one path is what an index of everything says,
    /// but for what lies deeper than it tells apart.
    #[test]
    fn an_index_of_some_paths_leaves_out_nothing_that_passes(
        trees in prop::collection::vec(prop::option::weighted(0.9, tree()), 0..60),
        tests in prop::collection::vec(test(), 1..12),
        paths in paths(),
    ) {
        let texts: Vec<Option<String>> = trees.iter().map(|tree| tree.as_ref().map(Tree::text)).collect();
        let limited = opened(sections(&texts, Some(&paths)), texts.len(), Some(&paths)).unwrap();
        let whole = opened(sections(&texts, None), texts.len(), None).unwrap();
        for test in tests {
            let rows = found(&limited, &test, texts.len());
            let passing = (0..trees.len()).filter(|row| trees[*row].as_ref().is_some_and(|tree| tree.passes(&test)));
            for row in passing {
                prop_assert!(rows.contains(&row), "{row} of {rows:?} {test:?} {paths:?}");
            }
            match limited.count(&test).unwrap() {
                None => prop_assert!(rows.len() == texts.len() && paths.covered(&test).is_none()),
                Some(_) if matches!(test, DocumentTest::At { .. }) && paths.max_levels.is_none() => {
                    prop_assert_eq!(rows, found(&whole, &test, texts.len()));
                }
                Some(_) => {}
            }
        }
    }

    #[test]
    fn damaged_sections_never_panic(at in 0usize..4000, bit in 0u8..8, test in test()) {
        let texts: Vec<Option<String>> =
            (0..50).map(|row| Some(format!(r#"{{"a": {row}, "b": ["x", {{"ab": {}}}]}}"#, row % 3))).collect();
        let mut sections = sections(&texts, None);
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
        if let Ok(index) = opened(sections, texts.len(), None) {
            let _ = index.count(&test);
            let _ = index.list(&test, &(0..50), 0);
        }
    }
}

/// Deep, long and broken documents are found whatever is asked of what is not told apart.
#[test]
fn what_is_not_told_apart_is_found() {
    let deep = |inside: &str| format!("{}{inside}{}", "{\"a\":".repeat(40), "}".repeat(40));
    let long = "k".repeat(200);
    let texts = vec![
        Some(deep("1")),
        Some(deep("[2, \"}\"]")),
        Some(format!(r#"{{"{long}1": "{long}2"}}"#)),
        Some("{\"a\": tru".to_owned()),
        None,
    ];
    let index = opened(sections(&texts, None), texts.len(), None).unwrap();
    let at = |path: Vec<Step>, value| DocumentTest::At { column: ColumnId(1), path, value };
    let deep_path = vec![Step::Key("a".into()); 40];
    assert_eq!(found(&index, &at(deep_path, ValueTest::Text("1".into())), 5), [0, 1, 3]);
    let long_path = vec![Step::Key(format!("{long}1"))];
    assert_eq!(found(&index, &at(long_path.clone(), ValueTest::Text(format!("{long}2"))), 5), [2, 3]);
    assert_eq!(found(&index, &at(long_path, ValueTest::Text("k".into())), 5), [3]);
    let mut count = 0;
    terms::of_document(r#" [ ] "#, None, &mut |_| count += 1);
    assert_eq!(count, 1);
    for broken in ["", "{", "[1,]", "[1 2]", "\"\\u12\"", "nul", "{1:2}", "1 1", "[\"\\ud800\\u\"]", "}"] {
        let mut unreadable = false;
        terms::of_document(broken, None, &mut |term| unreadable = term == [0xff]);
        assert!(unreadable, "{broken}");
    }
}

/// `doc->>'a' = '{}'` looked for objects and arrays alone: strings that begin like one were missed.
#[test]
fn a_string_in_brackets_is_found() {
    let texts = [Some(r#"{"a": "{}"}"#.to_owned()), Some(r#"{"a": {}}"#.to_owned()), Some(r#"{"a": "x"}"#.to_owned())];
    let index = opened(sections(&texts, None), texts.len(), None).unwrap();
    let path = vec![Step::Key("a".into())];
    let test = DocumentTest::At { column: ColumnId(1), path, value: ValueTest::Text("{}".into()) };
    assert_eq!(found(&index, &test, texts.len()), [0, 1]);
}

/// What is shown is read again as what it was.
#[test]
fn lists_of_paths_have_several_forms() {
    let read = |text: &str| JsonPaths::parse_paths(text);
    let path = |keys: &[&str]| -> Path { keys.iter().map(|key| (*key).to_owned()).collect() };
    assert_eq!(read("a.b, tags"), Some(vec![path(&["a", "b"]), path(&["tags"])]));
    assert_eq!(read("{a.b,tags}"), read("a.b, tags"));
    assert_eq!(read("$.a.b,$.tags[*]"), read("a.b, tags"));
    assert_eq!(read("\"a.b\".\"say \"\"x\"\"\""), Some(vec![path(&["a.b", "say \"x\""])]));
    assert_eq!(read("items[*].name"), Some(vec![path(&["items", "name"])]));
    assert_eq!(read("\"\""), Some(vec![path(&[""])]));
    for broken in ["", " ", "a.", ".a", "a,", ",a", "a..b", "\"a", "a[0]", "{a", "a b\"c\"", "\"a\"b"] {
        assert_eq!(read(broken), None, "{broken}");
    }
    for keys in [&["a b", "ü"][..], &["a,b", "{c}", "[*]"], &["\"", "'"], &["$", "$x", "-1"], &["", " "]] {
        let paths = JsonPaths { paths: vec![path(keys), path(&["z"])], ..JsonPaths::default() };
        let shown = paths.options().remove(0).1;
        assert_eq!(read(&shown), Some(paths.paths), "{shown}");
    }
}

#[test]
fn an_index_knows_what_it_covers() {
    let paths = JsonPaths {
        paths: JsonPaths::parse_paths("a.b, tags").unwrap(),
        exclude: JsonPaths::parse_paths("a.b.secret").unwrap(),
        max_levels: None,
    };
    let at = |path: &str, value: ValueTest| {
        let path = path.split('.').filter(|key| !key.is_empty());
        let path = path.map(|key| if key == "[]" { Step::Element } else { Step::Key(key.into()) }).collect();
        DocumentTest::At { column: ColumnId(1), path, value }
    };
    let is_covered = |path: &str, value: ValueTest| paths.covered(&at(path, value)).is_some();
    assert!(is_covered("tags", ValueTest::Exists));
    assert!(is_covered("tags.[]", ValueTest::String("x".into())));
    assert!(is_covered("[].tags.[].deeper", ValueTest::Null));
    assert!(is_covered("a.b", ValueTest::Text("x".into())));
    // Something may be below that is left out.
    assert!(!is_covered("a.b", ValueTest::Exists));
    assert!(!is_covered("a.b", ValueTest::Text("{}".into())));
    assert!(!is_covered("a.b.secret.x", ValueTest::Null));
    assert!(!is_covered("a", ValueTest::Null));
    assert!(!is_covered("", ValueTest::Null));
    let (known, unknown) = (at("tags", ValueTest::Null), at("c", ValueTest::Null));
    let both = DocumentTest::And(vec![known.clone(), unknown.clone()]);
    assert_eq!(paths.covered(&both), Some(DocumentTest::And(vec![known.clone()])));
    assert_eq!(paths.covered(&DocumentTest::Or(vec![known, unknown])), None);
}
