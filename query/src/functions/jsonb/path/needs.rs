//! What a document must hold, at least, for a path to find something in it: the hint that an index of documents takes.
//!
//! | condition | needs |
//! |---|---|
//! | `doc @? '$.a.b ? (@ == "x")'`, `doc @@ '$.a.b == "x"'` | "x" at `a.b`, or at the elements of arrays that lax mode unwraps on the way |
//! | `doc @@ '$.n > 5'` | a number from 5 on there |
//! | `doc @? '$.a[*] ? (@.b starts with "x").c'` | something at `a.b` and at `a.c` |
//!
//! What is not known to be needed (`!`, `is unknown`, `.*`, arithmetic, …) is left out, so that the hint says less than the path, never more.

use tidemill_storage::{
    documents::{DocumentTest, Step as Place, ValueTest},
    ids::ColumnId,
};

use super::{
    ast::{Comparison, Head, Node, Path, Predicate, Step},
    parser,
};

/// Places that one hint asks for at most: each step of lax mode doubles them.
const PLACES_MAX: usize = 32;

/// `None` where nothing is known. `is_match`: of `@@`, where the path must be true.
pub(crate) fn needs(path: &str, column: ColumnId, start: &[Place], is_match: bool) -> Option<DocumentTest> {
    let Path { is_strict, root } = parser::parse(path).ok()?;
    let needs = Needs { column, is_lax: !is_strict, root: vec![start.to_vec()] };
    match (&root.head, root.steps.is_empty()) {
        (Head::Predicate(predicate), true) if is_match => needs.of_truth(predicate, &needs.root),
        // A predicate is an item, whether it is true or not.
        (Head::Predicate(_), _) => None,
        _ => needs.of_existence(&root, &needs.root),
    }
}

type Places = Vec<Vec<Place>>;

struct Needs {
    column: ColumnId,
    is_lax: bool,
    root: Places,
}

/// Where items come from, as far as that is known, and what else must be so that they do.
struct Found {
    places: Places,
    /// Whether these are all the places that items come from.
    is_all: bool,
    tests: Vec<DocumentTest>,
}

fn and(mut tests: Vec<DocumentTest>) -> Option<DocumentTest> {
    if tests.len() < 2 { tests.pop() } else { Some(DocumentTest::And(tests)) }
}

impl Needs {
    fn at(&self, places: &Places, value: &ValueTest) -> Option<DocumentTest> {
        // The document itself is always there.
        if *value == ValueTest::Exists && places.iter().any(Vec::is_empty) {
            return None;
        }
        let at = |path: &Vec<Place>| DocumentTest::At { column: self.column, path: path.clone(), value: value.clone() };
        match places.as_slice() {
            [one] => Some(at(one)),
            many => Some(DocumentTest::Or(many.iter().map(at).collect())),
        }
    }

    /// The same places and, in lax mode, the elements of arrays there.
    fn opened(&self, places: &Places) -> Places {
        let mut opened = places.clone();
        if self.is_lax {
            opened.extend(places.iter().map(|place| [place.as_slice(), &[Place::Element]].concat()));
        }
        opened
    }

    fn found(&self, node: &Node, current: &Places) -> Option<Found> {
        let places = match node.head {
            Head::Root => self.root.clone(),
            Head::Current => current.clone(),
            _ => return None,
        };
        let mut found = Found { places, is_all: true, tests: Vec::new() };
        for step in &node.steps {
            let next: Places = match step {
                Step::Key(key) => {
                    let from = self.opened(&found.places);
                    from.into_iter().map(|place| [place, vec![Place::Key(key.clone())]].concat()).collect()
                }
                // In lax mode what is no array counts as an array of one.
                Step::AnyItem | Step::Items(_) if self.is_lax => self.opened(&found.places),
                Step::AnyItem | Step::Items(_) => {
                    found.places.iter().map(|place| [place.as_slice(), &[Place::Element]].concat()).collect()
                }
                Step::Filter(predicate) => {
                    let filtered = self.opened(&found.places);
                    found.tests.extend(self.of_truth(predicate, &filtered));
                    filtered
                }
                Step::AnyKey | Step::AnyLevel(..) | Step::Method(_) => {
                    found.is_all = false;
                    break;
                }
            };
            if next.len() > PLACES_MAX {
                found.is_all = false;
                break;
            }
            found.places = next;
        }
        Some(found)
    }

    fn of_existence(&self, node: &Node, current: &Places) -> Option<DocumentTest> {
        let mut found = self.found(node, current)?;
        found.tests.extend(self.at(&found.places, &ValueTest::Exists));
        and(found.tests)
    }

    fn of_truth(&self, predicate: &Predicate, current: &Places) -> Option<DocumentTest> {
        match predicate {
            Predicate::And(terms) => and(terms.iter().filter_map(|term| self.of_truth(term, current)).collect()),
            Predicate::Or(terms) => {
                let tests: Option<Vec<_>> = terms.iter().map(|term| self.of_truth(term, current)).collect();
                tests.map(DocumentTest::Or)
            }
            Predicate::Not(_) | Predicate::IsUnknown(_) => None,
            Predicate::Exists(node) | Predicate::LikeRegex(node, _) | Predicate::StartsWith(node, _) => {
                self.of_existence(node, current)
            }
            Predicate::Compare(op, left, right) => match (constant(left), constant(right)) {
                (None, Some(value)) => self.of_comparison(left, *op, value, current),
                (Some(value), None) => self.of_comparison(right, op.swapped(), value, current),
                // There must be a pair of items.
                (None, None) => {
                    and([left, right].into_iter().filter_map(|side| self.of_existence(side, current)).collect())
                }
                (Some(_), Some(_)) => None,
            },
        }
    }

    fn of_comparison(&self, node: &Node, op: Comparison, value: &Head, current: &Places) -> Option<DocumentTest> {
        let mut found = self.found(node, current)?;
        let wanted = if found.is_all { wanted(op, value) } else { ValueTest::Exists };
        // A comparison goes into arrays, too.
        let places = match wanted {
            ValueTest::Exists => found.places,
            _ => self.opened(&found.places),
        };
        found.tests.extend(self.at(&places, &wanted));
        and(found.tests)
    }
}

fn constant(node: &Node) -> Option<&Head> {
    let is_constant = matches!(node.head, Head::Null | Head::Bool(_) | Head::Number(_) | Head::Text(_));
    (is_constant && node.steps.is_empty()).then_some(&node.head)
}

/// What stands on the left of `op value`.
fn wanted(op: Comparison, value: &Head) -> ValueTest {
    match (value, op) {
        (Head::Null, Comparison::Equal) => ValueTest::Null,
        (Head::Bool(truth), Comparison::Equal) => ValueTest::Boolean(*truth),
        (Head::Text(text), Comparison::Equal) => ValueTest::String(text.clone()),
        (Head::Number(digits), op) => match (digits.parse(), op) {
            // Rounding keeps the order, so that bounds that are rounded leave out nothing.
            (Ok(number), Comparison::Equal) => ValueTest::Number { low: number, high: number },
            (Ok(high), Comparison::Less | Comparison::LessOrEqual) => {
                ValueTest::Number { low: f64::NEG_INFINITY, high }
            }
            (Ok(low), Comparison::Greater | Comparison::GreaterOrEqual) => {
                ValueTest::Number { low, high: f64::INFINITY }
            }
            _ => ValueTest::Exists,
        },
        _ => ValueTest::Exists,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{evaluate, parser},
        *,
    };
    use crate::functions::jsonb::tree::Json;

    fn values<'a>(json: &'a Json, path: &[Place]) -> Vec<&'a Json> {
        match path.split_first() {
            None => vec![json],
            Some((Place::Key(key), rest)) => json.member(key).map_or_else(Vec::new, |member| values(member, rest)),
            Some((Place::Element, rest)) => match json {
                Json::Array(items) => items.iter().flat_map(|item| values(item, rest)).collect(),
                _ => Vec::new(),
            },
        }
    }

    /// Whether a document passes, as an index of documents has it.
    fn passes(json: &Json, test: &DocumentTest) -> bool {
        match test {
            DocumentTest::And(tests) => tests.iter().all(|test| passes(json, test)),
            DocumentTest::Or(tests) => tests.iter().any(|test| passes(json, test)),
            DocumentTest::At { path, value, .. } => values(json, path).into_iter().any(|found| match (value, found) {
                (ValueTest::Exists, _) | (ValueTest::Null, Json::Null) => true,
                (ValueTest::Boolean(wanted), Json::Bool(found)) => wanted == found,
                (ValueTest::String(wanted), Json::Text(found)) => wanted == found,
                (ValueTest::Number { low, high }, Json::Number(digits)) => {
                    (*low..=*high).contains(&digits.parse::<f64>().unwrap())
                }
                _ => false,
            }),
        }
    }

    fn document() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            proptest::bool::ANY.prop_map(Json::Bool),
            "[0-3]".prop_map(Json::Number),
            "[xy]".prop_map(Json::Text),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
                prop::collection::vec(("[ab]", inner), 0..3).prop_map(Json::object),
            ]
        })
    }

    fn condition(item: &'static str) -> impl Strategy<Value = String> {
        let steps = prop::collection::vec(
            prop_oneof![
                4 => Just(".a"), 4 => Just(".b"), 2 => Just("[*]"), 1 => Just("[0]"), 1 => Just("[last]"), 1 => Just(".*"), 1 => Just(".**"),
                1 => Just(".size()"), 1 => Just(".type()")
            ],
            0..4,
        );
        let chain = steps.prop_map(move |steps| format!("{item}{}", steps.concat()));
        let value = prop_oneof![Just("1"), Just("\"x\""), Just("null"), Just("true"), Just("1.5")];
        let simple = (chain.clone(), "==|!=|<|>=|>", value, chain.clone()).prop_flat_map(|(left, op, value, right)| {
            prop_oneof![
                3 => Just(format!("{left} {op} {value}")),
                1 => Just(format!("{value} {op} {left}")),
                1 => Just(format!("{left} {op} {right}")),
                1 => Just(format!("exists({left})")),
                1 => Just(format!("!({left} {op} {value})")),
                1 => Just(format!("({left} {op} {value}) is unknown")),
                1 => Just(format!("{left} starts with \"x\"")),
                1 => Just(format!("{left} like_regex \"y\"")),
                1 => Just(format!("exists({left} ? (@.a == 1 || @.b != \"x\"))")),
            ]
        });
        (simple.clone(), simple).prop_flat_map(|(left, right)| {
            prop_oneof![
                2 => Just(left.clone()),
                1 => Just(format!("{left} && {right}")),
                1 => Just(format!("{left} || {right}")),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn documents_that_pass_hold_what_is_needed(
            document in document(),
            is_strict in proptest::bool::weighted(0.2),
            is_match in proptest::bool::ANY,
            outer in condition("$"),
            inner in condition("@"),
            steps in "(\\.a|\\.b|\\[\\*\\]|\\[0\\]){0,3}",
            end in "(\\.a|\\.b)?",
        ) {
            let mode = if is_strict { "strict " } else { "" };
            let path = if is_match { format!("{mode}{outer}") } else { format!("{mode}${steps} ? ({inner}){end}") };
            let parsed = parser::parse(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            let found = evaluate::run(&parsed, &document, None, false, !is_match, &mut 0).unwrap();
            let holds = match is_match {
                true => matches!(found.items.as_slice(), [one] if matches!(one.json(), Some(Json::Bool(true)))),
                false => !found.is_cut && !found.items.is_empty(),
            };
            if let (true, Some(needed)) = (holds, needs(&path, ColumnId(1), &[], is_match)) {
                prop_assert!(passes(&document, &needed), "{} passes {}, but not {:?}", document, path, needed);
            }
        }
    }

    #[test]
    fn simple_paths_need_what_they_say() {
        let needed = |path: &str, is_match| needs(path, ColumnId(1), &[], is_match);
        let key = |key: &str| Place::Key(key.to_owned());
        let at = |path: Vec<Place>, value| DocumentTest::At { column: ColumnId(1), path, value };
        assert_eq!(needed("strict $.a.b", false), Some(at(vec![key("a"), key("b")], ValueTest::Exists)));
        assert_eq!(
            needed("$.a == \"x\"", true),
            Some(DocumentTest::Or(
                [
                    vec![key("a")],
                    vec![Place::Element, key("a")],
                    vec![key("a"), Place::Element],
                    vec![Place::Element, key("a"), Place::Element],
                ]
                .map(|path| at(path, ValueTest::String("x".to_owned())))
                .into()
            ))
        );
        // It finds false, which is something.
        assert_eq!(needed("$.a == \"x\"", false), None);
        assert_eq!(needed("!($.a == 1)", true), None);
        assert_eq!(needed("$.**.a", false), None);
        assert_eq!(needed("$.a == 1 || 1 == 1", true), None);
        assert_eq!(needed("$.a[", true), None);
    }
}
