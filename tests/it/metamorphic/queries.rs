//! Random queries about a table called `{t}`.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::data::{CITIES, COLUMNS, literal};

fn column(rng: &mut StdRng) -> &'static str {
    COLUMNS.choose(rng).unwrap().0
}

fn summable(rng: &mut StdRng) -> &'static str {
    let all: Vec<_> = COLUMNS.iter().filter(|(.., exact)| *exact).collect();
    all.choose(rng).unwrap().0
}

/// A condition over the columns of the relation `of` (with its dot, or empty).
fn condition(of: &str, depth: u32, rng: &mut StdRng) -> String {
    if depth > 0 && rng.random_range(0..10) < 6 {
        let (left, right) = (condition(of, depth - 1, rng), condition(of, depth - 1, rng));
        return match rng.random_range(0..7) {
            0..=2 => format!("({left} AND {right})"),
            3..=5 => format!("({left} OR {right})"),
            _ => format!("NOT ({left})"),
        };
    }
    let name = column(rng);
    let c = format!("{of}{name}");
    let mut value = || literal(name, rng, true);
    let (low, high) = (value(), value());
    match rng.random_range(0..20) {
        0..=2 => format!("{c} = {low}"),
        3 => format!("{c} <> {low}"),
        4 => format!("{c} {} {low}", ["<", "<=", ">", ">="].choose(rng).unwrap()),
        5 => format!("{c} BETWEEN {low} AND {high}"),
        6 => {
            let values: Vec<_> = (0..rng.random_range(1..6)).map(|_| literal(name, rng, true)).collect();
            format!("{c} {}IN ({})", if rng.random_range(0..3) == 0 { "NOT " } else { "" }, values.join(", "))
        }
        7 => format!("{c} IN ({low}, NULL, {high})"),
        8 => format!("{c} IS {}NULL", if rng.random() { "NOT " } else { "" }),
        9 => format!("{c} IS {}DISTINCT FROM {low}", if rng.random() { "NOT " } else { "" }),
        10 => {
            let pattern = ["Ber%", "%er%", "%n", "_ern", "100\\%", "under\\_%", "w1%", "%", "", "B%l%n", "w_"];
            let operator = ["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"].choose(rng).unwrap();
            let text = ["city", "word", "late"].choose(rng).unwrap();
            format!("{of}{text} {operator} '{}'", pattern.choose(rng).unwrap())
        }
        11 => format!("{of}s {} {of}i % 10", ["=", "<", ">="].choose(rng).unwrap()),
        12 => format!("{of}i + {} > {of}n", rng.random_range(-5..5)),
        13 => format!("{of}id {} {}", ["<", ">", "="].choose(rng).unwrap(), rng.random_range(0..1600)),
        14 => format!("{of}b"),
        15 | 16 => document(of, rng),
        17 => words(of, rng),
        _ => rounded(of, rng),
    }
}

/// A condition on moments as functions round them, not always at the beginning of something.
fn rounded(of: &str, rng: &mut StdRng) -> String {
    let rounded = [
        "date_trunc('day', {of}at)",
        "date_trunc('hour', {of}at)",
        "date_trunc('week', {of}at)",
        "date_bin('6 hours', {of}at, '2001-01-01 00:30+00')",
        "{of}at::date",
        "{of}at::date::timestamp",
        "date_trunc('month', {of}d)",
    ];
    let rounded = rounded.choose(rng).unwrap().replace("{of}", of);
    let kind = match rounded.as_str() {
        text if text.ends_with("::date") => "date",
        text if text.ends_with("::timestamp") => "timestamp",
        _ => "timestamptz",
    };
    let mut moment = || match (kind, rng.random_range(0..5)) {
        ("date", _) | (_, 0) => format!("{kind} '2026-{:02}-{:02}'", rng.random_range(2..5), rng.random_range(1..29)),
        (_, 1) => format!("{kind} '2026-03-{:02} {:02}:15:00'", rng.random_range(1..29), rng.random_range(0..24)),
        (_, 2) => format!("{kind} '2026-03-{:02} {:02}:00:00'", rng.random_range(1..29), rng.random_range(0..24)),
        _ => format!("{kind} '2026-03-{:02} 00:00:00'", rng.random_range(1..29)),
    };
    let (a, b, c) = (moment(), moment(), moment());
    match rng.random_range(0..4) {
        0 => format!("{rounded} {}BETWEEN {a} AND {b}", if rng.random() { "NOT " } else { "" }),
        1 => format!("{rounded} {}IN ({a}, {b}, {c})", if rng.random_range(0..3) == 0 { "NOT " } else { "" }),
        _ => format!("{rounded} {} {a}", ["=", "=", "<>", "<", "<=", ">", ">="].choose(rng).unwrap()),
    }
}

/// A condition on the words of a text.
fn words(of: &str, rng: &mut StdRng) -> String {
    let words = ["bergen", "berlin", "bern", "ber:*", "são", "paulo", "new", "york", "y:*", "100", "old", "nowhere"];
    let mut word = || *words.choose(rng).unwrap();
    let (a, b, c) = (word(), word(), word());
    let column = format!("{of}{}", ["city", "late"].choose(rng).unwrap());
    let asked = match rng.random_range(0..8) {
        0 => format!("{a} & {b}"),
        1 => format!("{a} | {b} & !{c}"),
        2 => format!("!({a} | {b})"),
        3 => format!("{a} <-> {b}"),
        4 => format!("!({a} <-> {b}) & ({c} | {b})"),
        5 => format!("!{a} <-> {b}"),
        _ => a.to_owned(),
    };
    let not = if rng.random_range(0..4) == 0 { "NOT " } else { "" };
    format!("{not}(to_tsvector('simple', {column}) @@ to_tsquery('simple', '{asked}'))")
}

/// A condition on the documents.
fn document(of: &str, rng: &mut StdRng) -> String {
    let number: i32 = rng.random_range(-20..20);
    let mut city = || CITIES.choose(rng).unwrap();
    let (city, other) = (city(), city());
    match rng.random_range(0..10) {
        0 => format!("{of}doc->>'c' = '{city}'"),
        1 => format!("{of}doc->>'c' IN ('{city}', '{other}')"),
        2 => format!("{of}doc->'d'->>'s' = '{}'", number.rem_euclid(5)),
        3 => format!("({of}doc->>'n')::numeric {} {number}", ["<", "<=", ">", ">=", "="].choose(rng).unwrap()),
        4 => format!("({of}doc->>'n')::float8 BETWEEN {number} AND {}", number + 5),
        5 => format!("{of}doc @> '{{\"w\": [\"w{}\"]}}'", number.rem_euclid(6)),
        6 => format!("{of}doc @> '{{\"c\": \"{city}\", \"d\": {{\"s\": {}}}}}'", number.rem_euclid(5)),
        7 => format!("{of}doc ? '{}'", ["c", "n", "w", "nope"].choose(rng).unwrap()),
        8 => format!("{of}doc->>'n' = '{number}'"),
        _ => format!(
            "{of}doc->>'{}' IS {}NULL",
            ["c", "n", "d"].choose(rng).unwrap(),
            if rng.random() { "NOT " } else { "" }
        ),
    }
}

fn filter(rng: &mut StdRng) -> String {
    condition("", rng.random_range(0..3), rng)
}

fn key(rng: &mut StdRng) -> String {
    match rng.random_range(0..12) {
        0 => "date_trunc('hour', at)".into(),
        1 => "date_trunc('day', at)".into(),
        2 => "date_trunc('month', d)".into(),
        // Other letters than those of ASCII have no other case in PostgreSQL's locale C.
        3 => "left(city, 3)".into(),
        4 => "i / 100".into(),
        5 => "date_bin('12 hours', at, '2001-01-01 00:30+00')".into(),
        6 => "date_trunc('week', at)".into(),
        _ => loop {
            // Groups of floats are told apart by their text as well; they are keys too.
            let name = column(rng);
            if name != "b" || rng.random() {
                break name.into();
            }
        },
    }
}

fn aggregate(rng: &mut StdRng) -> String {
    let number = summable(rng);
    let any = loop {
        let any = column(rng);
        if !["b", "u"].contains(&any) {
            break any;
        }
    };
    let call = match rng.random_range(0..12) {
        0 | 1 => "count(*)".to_owned(),
        2 => format!("count({any})"),
        3 | 4 => format!("sum({number})"),
        5 => format!("min({any})"),
        6 => format!("max({any})"),
        // Averages beyond 16 digits are rounded to other places than PostgreSQL's.
        7 if number != "l" => return format!("round(avg({number})::numeric, 4)"),
        8 => return format!("count(DISTINCT {any})"),
        9 => "bool_and(b)".to_owned(),
        10 => "bool_or(b)".to_owned(),
        _ => return format!("sum({number}) + count({any})"),
    };
    match rng.random_range(0..6) {
        0 => format!("{call} FILTER (WHERE {})", condition("", 0, rng)),
        _ => call,
    }
}

fn aggregates(rng: &mut StdRng) -> String {
    let all: Vec<_> = (0..rng.random_range(1..5)).map(|_| aggregate(rng)).collect();
    all.join(", ")
}

/// A query whose answer does not depend on the order in which rows come.
pub(super) fn query(rng: &mut StdRng) -> String {
    match rng.random_range(0..15) {
        0 | 1 => format!(
            "SELECT id, {}, {} FROM {{t}} WHERE {} ORDER BY id{} LIMIT {}",
            column(rng),
            column(rng),
            filter(rng),
            if rng.random() { " DESC" } else { "" },
            rng.random_range(1..60)
        ),
        2 | 3 => format!("SELECT {} FROM {{t}} WHERE {}", aggregates(rng), filter(rng)),
        4..=6 => {
            let keys: Vec<_> = (0..rng.random_range(1..3)).map(|_| key(rng)).collect();
            let having = match rng.random_range(0..4) {
                0 => format!(" HAVING count(*) > {}", rng.random_range(0..8)),
                _ => String::new(),
            };
            let condition = match rng.random_range(0..3) {
                0 => String::new(),
                _ => format!(" WHERE {}", filter(rng)),
            };
            let keys = keys.join(", ");
            format!("SELECT {keys}, {} FROM {{t}}{condition} GROUP BY {keys}{having}", aggregates(rng))
        }
        7 => format!("SELECT DISTINCT {}, {} FROM {{t}} WHERE {}", column(rng), column(rng), filter(rng)),
        8 | 9 => format!(
            "SELECT {0}, id FROM {{t}} WHERE {1} ORDER BY {0}{2}{3}, id LIMIT {4} OFFSET {5}",
            column(rng),
            filter(rng),
            if rng.random() { " DESC" } else { "" },
            [" NULLS FIRST", " NULLS LAST", ""].choose(rng).unwrap(),
            rng.random_range(1..20),
            rng.random_range(0..5)
        ),
        10 => format!(
            "SELECT count(*), sum(x.i), min(y.word) FROM {{t}} x {} {{t}} y ON x.{} = y.i AND y.id < 300 WHERE x.id < 400 AND {}",
            ["JOIN", "LEFT JOIN"].choose(rng).unwrap(),
            ["s", "i"].choose(rng).unwrap(),
            condition("x.", 1, rng)
        ),
        11 => {
            let column = column(rng);
            format!(
                "SELECT count(*), sum(i) FROM {{t}} WHERE {column} {}IN (SELECT {column} FROM {{t}} WHERE {} AND {column} IS NOT NULL) AND {}",
                if rng.random_range(0..3) == 0 { "NOT " } else { "" },
                filter(rng),
                condition("", 0, rng)
            )
        }
        12 => {
            // Each row passes, fails or is unknown.
            let p = filter(rng);
            format!(
                "SELECT (SELECT count(*) FROM {{t}} WHERE {p}) + (SELECT count(*) FROM {{t}} WHERE NOT ({p})) \
                 + (SELECT count(*) FROM {{t}} WHERE ({p}) IS NULL) - (SELECT count(*) FROM {{t}})"
            )
        }
        13 => {
            // The same condition as a value, where no index and no pruning sees it.
            let p = filter(rng);
            format!(
                "SELECT (SELECT count(*) FROM {{t}} WHERE {p}) - (SELECT sum(CASE WHEN {p} THEN 1 ELSE 0 END) FROM {{t}})"
            )
        }
        _ => format!(
            "SELECT {0}, count(*) FROM (SELECT {0}, row_number() OVER (PARTITION BY {0} ORDER BY id) AS place FROM {{t}} WHERE {1}) w \
             WHERE place <= 3 GROUP BY {0}",
            column(rng),
            filter(rng)
        ),
    }
}
