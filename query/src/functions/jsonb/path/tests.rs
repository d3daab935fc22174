use proptest::prelude::*;

use super::{evaluate, parser};
use crate::functions::jsonb::tree::Json;

/// What a path finds, or the SQLSTATE of its error.
fn found(document: &str, path: &str) -> String {
    let run = || {
        let path = parser::parse(path)?;
        let root: Json = document.parse()?;
        let found = evaluate::run(&path, &root, None, true, false, &mut 0)?;
        Ok(found.items.iter().map(|item| item.printed()).collect::<Vec<_>>().join(", "))
    };
    run().unwrap_or_else(|error: crate::SqlError| error.sqlstate.to_owned())
}

fn printed(path: &str) -> String {
    parser::parse(path).map_or_else(|error| error.sqlstate.to_owned(), |path| path.to_string())
}

#[test]
fn printed_as_postgresql_prints() {
    for (path, wanted) in [
        ("$", "$"),
        ("strict $.a[*] ? (@.b > 1)", "strict $.\"a\"[*]?(@.\"b\" > 1)"),
        ("1 + 2 * 3 - 4", "((1 + 2 * 3) - 4)"),
        ("(1 + 2) * 3", "((1 + 2) * 3)"),
        ("1 == 1 || 2 == 2 && 3 == 3", "(1 == 1 || 2 == 2 && 3 == 3)"),
        ("1 == 1 && 2 == 2 && 3 == 3", "((1 == 1 && 2 == 2) && 3 == 3)"),
        ("-$.a.abs()", "(-$.\"a\".abs())"),
        ("$.**{2 to last}[0, 1 to last]", "$.**{2 to last}[0,1 to last]"),
        ("$ ? (@ like_regex \"a\" flag \"qi\")", "$?(@ like_regex \"a\" flag \"iq\")"),
        // PostgreSQL leaves out the brackets, and cannot read what it prints.
        ("(exists($.a)).type()", "(exists ($.\"a\")).type()"),
    ] {
        assert_eq!(printed(path), wanted, "{path}");
    }
}

/// Debug builds take more stack for a level than a test's thread has for all.
#[test]
fn hostile_paths_end_in_errors() {
    std::thread::Builder::new().stack_size(32 << 20).spawn(hostile_paths).unwrap().join().unwrap();
}

fn hostile_paths() {
    let deep = |open: &str, middle: &str, close: &str, count: usize| {
        format!("{}{middle}{}", open.repeat(count), close.repeat(count))
    };
    let nested: Json = deep("[", "1", "]", 1000).parse().unwrap();
    for count in [101, 10_000, 50_000] {
        for path in [
            deep("(", "1", ")", count),
            deep("(", "1 == 1", ")", count),
            deep("-", "$", "", count),
            deep("$[", "0", "]", count),
            deep("$ ? (@.a == ", "1", ")", count),
            deep("!(", "1 == 1", ")", count),
            deep("exists(", "1", ")", count),
            format!("$.a == {}", deep("$ ? (exists(", "@", "))", count)),
            format!("${}", ".a".repeat(count)),
            format!("${}", "[0]".repeat(count)),
            format!("${}", ".**".repeat(count)),
            format!("1{}", " + 1".repeat(count)),
            format!("1{}", ".type()".replace('.', " .").repeat(count)),
        ] {
            assert_eq!(printed(&path), "54001", "{} of {count}", &path[..path.len().min(40)]);
        }
        for path in ["(".repeat(count), "[".repeat(count), "$[".repeat(count), "!(".repeat(count), "-".repeat(count)] {
            assert!(["42601", "54001"].contains(&printed(&path).as_str()));
        }
    }
    // Wide is no harm, and can be read again.
    let wide = format!("1 == 0{}", " || 1 == 0".repeat(10_000));
    assert_eq!(found("1", &wide), "false");
    assert_eq!(printed(&printed(&wide)), printed(&wide));
    // Every way to go down four times is one of 40 billion.
    let text = nested.to_string();
    for path in ["$.**.**.**.**", "$.**{0 to last}.**{1 to 2000000000}.**.** ? (@ == 7)", "$.** ? ($.**.** == 7)"] {
        assert_eq!(found(&text, path), "54000", "{path}");
    }
    assert_eq!(found(&text, "$.**{2147483647}"), "");
    assert_eq!(found(&text, "$.**{last}"), "1");
    assert_eq!(found(&text, "$.**.size() ? (@ > 1)"), "");
    // At the deepest levels that are let through, on the stack of a test.
    for path in
        [deep("(", "1", ")", 90), deep("$[", "0", "]", 45), format!("${}", "[*]".repeat(90)), deep("-", "$", "", 90)]
    {
        assert_ne!(found(&text, &path), "54001", "{path}");
    }
    for path in ["$[2147483647]", "$[0 to 2147483647]", "$[-2147483648 to 2147483647]"] {
        assert_eq!(found("[1]", path), if path.contains("to") { "1" } else { "" });
    }
    let long = "9".repeat(131_072);
    assert_eq!(found(&long, "$ * $"), "22003");
    assert_eq!(found(&long, "$ + 1"), "22003");
    assert_eq!(printed("1e131072"), "22003");
    assert_eq!(printed(&"x".repeat(2 << 20)), "54000");
    assert_eq!(printed(&format!("$ ? (1 == 1{})", " || @ like_regex \"a\"".repeat(101))), "54000");
    assert_eq!(printed("$ ? (@ like_regex \"(a{1000}){1000}\")"), "2201B");
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![r"[a-c]{1,2}", Just("\"a \\\"b\"".to_owned()), Just("to".to_owned()), Just("size".to_owned())]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        r"(0|[1-9][0-9]{0,2})(\.[0-9]{1,2})?",
        Just("\"x\\n\"".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("$v".to_owned()),
        Just("0x1f".to_owned()),
        Just("$".to_owned()),
    ]
}

/// Expressions of the grammar; `@` and `last` only where they may stand.
fn expression() -> impl Strategy<Value = String> {
    let steps = |inner: BoxedStrategy<String>| {
        prop_oneof![
            key().prop_map(|key| format!(".{key}")),
            Just(".*".to_owned()),
            Just("[*]".to_owned()),
            Just(".**".to_owned()),
            (0u32..3, 0u32..3).prop_map(|(from, to)| format!(".**{{{from} to {to}}}")),
            Just(".**{last}".to_owned()),
            Just("[last]".to_owned()),
            inner.clone().prop_map(|inner| format!("[{inner}]")),
            (inner.clone(), inner.clone()).prop_map(|(from, to)| format!("[{from} to {to}, last - 1]")),
            (inner.clone(), inner.clone(), "==|<>|<|>=").prop_map(|(a, b, op)| format!(" ? ({a} {op} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!(" ? (@ > {a} && !(exists({b})) || @.a == {b})")),
            inner.prop_map(|a| format!(" ? ((@ starts with \"a\") is unknown || {a} like_regex \"b.\" flag \"is\")")),
            Just(".type()".to_owned()),
            Just(".decimal(4, -1)".to_owned()),
            Just(".time(3)".to_owned()),
        ]
    };
    scalar().prop_recursive(4, 40, 3, move |inner| {
        let inner = inner.boxed();
        prop_oneof![
            (inner.clone(), steps(inner.clone())).prop_map(|(inner, step)| format!("({inner}){step}")),
            ("[-+*/%]", inner.clone(), inner.clone()).prop_map(|(op, a, b)| format!("{a} {op} {b}")),
            ("[-+*/%]", inner.clone(), inner.clone()).prop_map(|(op, a, b)| format!("({a} {op} {b})")),
            inner.clone().prop_map(|inner| format!("-{inner}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a} == {b} || {b} > 1).type()")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn what_is_printed_reads_as_the_same(text in expression(), is_strict in proptest::bool::ANY) {
        let text = format!("{}{text}", if is_strict { "strict " } else { "" });
        let path = parser::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let shown = path.to_string();
        let again = parser::parse(&shown).unwrap_or_else(|error| panic!("{text} as {shown}: {error}"));
        prop_assert_eq!(&shown, &again.to_string());
        // What they find is the same, too, errors included.
        let document = r#"{"a": [1, {"b": "x"}], "size": {"to": [2.5, null, true]}}"#;
        prop_assert_eq!(found(document, &text), found(document, &shown), "{} and {}", text, shown);
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"[$@.*?()\[\]{}"\\ua0-9exX_ !&|<>=+/%,-]{0,24}"#) {
        let first = printed(&text);
        if !["42601", "22P02", "22P05", "22003", "54001"].contains(&first.as_str()) {
            prop_assert_eq!(printed(&first), first);
        }
    }

    #[test]
    fn arithmetic_is_exact(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000, scale in 0usize..4) {
        let decimal = |value: i64| super::decimal::Decimal::of(&format!("{value}")).plain().unwrap();
        prop_assert_eq!(found("null", &format!("({a}) + ({b})")), decimal(a + b));
        prop_assert_eq!(found("null", &format!("({a}) * ({b})")), decimal(a * b));
        if b != 0 {
            prop_assert_eq!(found("null", &format!("({a}) % ({b})")), decimal(a % b));
        }
        let padded = |value: i64| format!("({value}.{})", "0".repeat(scale + 1));
        prop_assert_eq!(found("null", &format!("{} < ({b})", padded(a))), (a < b).to_string());
        prop_assert_eq!(found("null", &format!("({a}) == {}", padded(b))), (a == b).to_string());
    }
}
