//! Random rows, and tables that hold them in different physical forms.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// Columns after `id`: name, type, whether sums and averages of it are exact.
pub(super) const COLUMNS: [(&str, &str, bool); 12] = [
    ("b", "BOOLEAN", false),
    ("s", "INT", true),
    ("i", "INT", true),
    ("l", "BIGINT", true),
    ("n", "NUMERIC(12,2)", true),
    // Multiples of a quarter: sums do not depend on their order.
    ("r", "DOUBLE PRECISION", true),
    ("city", "TEXT", false),
    ("word", "TEXT", false),
    ("d", "DATE", false),
    ("at", "TIMESTAMPTZ", false),
    ("u", "UUID", false),
    ("late", "TEXT", false),
];

pub(super) const CITIES: [&str; 10] =
    ["Bergen", "Berlin", "Bern", "", "São Paulo", "New York", "100%", "under_score", "München", "berlin"];

/// A value of the column as an SQL literal; with `rare`, also ones that no row has.
pub(super) fn literal(column: &str, rng: &mut StdRng, rare: bool) -> String {
    match column {
        "b" => if rng.random() { "true" } else { "false" }.into(),
        "s" => match rng.random_range(0..20) {
            0 => "-32768".into(),
            1 => "32767".into(),
            _ => rng.random_range(-8..8).to_string(),
        },
        "i" => rng.random_range(-500..500).to_string(),
        "l" => match rng.random_range(0..30) {
            0 => "-9223372036854775807".into(),
            1 => "9223372036854775807".into(),
            _ => (rng.random_range(0..40i64) * 1_000_000_007).to_string(),
        },
        "n" => format!("{}.{:02}", rng.random_range(-300..300), rng.random_range(0..100)),
        "r" => format!("{}", f64::from(rng.random_range(-400..400)) / 4.0),
        "city" if rare && rng.random_range(0..6) == 0 => "'Nowhere'".into(),
        "city" | "late" => format!("'{}'", CITIES[rng.random_range(0..CITIES.len())]),
        "word" => format!("'w{}'", rng.random_range(0..900)),
        "d" => format!("'2026-{:02}-{:02}'", rng.random_range(1..13), rng.random_range(1..29)),
        "at" => format!(
            "'2026-03-{:02} {:02}:{:02}:00+00'",
            rng.random_range(1..29),
            rng.random_range(0..24),
            15 * rng.random_range(0..4)
        ),
        "u" => format!("'00000000-0000-4000-8000-{:012x}'", rng.random_range(0..700)),
        other => unreachable!("column {other}"),
    }
}

/// A document, or NULL.
fn document(rng: &mut StdRng) -> String {
    let mut members = Vec::new();
    if rng.random_range(0..5) > 0 {
        members.push(format!("\"c\": \"{}\"", CITIES[rng.random_range(0..CITIES.len())]));
    }
    match rng.random_range(0..6) {
        0 => {}
        1 => members.push("\"n\": null".into()),
        2 => members.push(format!("\"n\": \"{}\"", rng.random_range(-20..20))),
        _ => members.push(format!("\"n\": {}", rng.random_range(-20..20))),
    }
    if rng.random() {
        let words: Vec<String> =
            (0..rng.random_range(0..4)).map(|_| format!("\"w{}\"", rng.random_range(0..6))).collect();
        members.push(format!("\"w\": [{}]", words.join(", ")));
    }
    if rng.random() {
        members.push(format!("\"d\": {{\"s\": {}, \"e\": {{}}}}", rng.random_range(0..5)));
    }
    match rng.random_range(0..12) {
        0 => "NULL".into(),
        1 => format!("'[\"c\", {{{}}}]'", members.join(", ")),
        _ => format!("'{{{}}}'", members.join(", ")),
    }
}

/// What limits an index of documents.
pub(super) fn json_options(rng: &mut StdRng) -> String {
    let mut paths = |most: usize| {
        let paths: Vec<&str> = (0..rng.random_range(1..=most))
            .map(|_| *["c", "n", "w", "d", "d.s", "d.e", "nope"].choose(rng).unwrap())
            .collect();
        paths.join(", ")
    };
    let (some, others) = (paths(4), paths(2));
    match rng.random_range(0..4) {
        0 => format!("WITH (paths = '{some}')"),
        1 => format!("WITH (exclude = '{others}')"),
        2 => format!("WITH (paths = '{some}', exclude = '{others}', max_levels = {})", rng.random_range(2..4)),
        _ => format!("WITH (max_levels = {})", rng.random_range(1..4)),
    }
}

/// `(id, …)` of each row; a tenth of the values is NULL. `late` is NULL or `'old'` in the first half, as a column that was added later has it.
pub(super) fn rows(count: usize, rng: &mut StdRng) -> Vec<String> {
    let row = |id: usize, rng: &mut StdRng| {
        let mut values = vec![id.to_string(), document(rng)];
        for (column, ..) in COLUMNS {
            values.push(match column {
                "late" if id < count / 2 => "'old'".into(),
                _ if rng.random_range(0..10) == 0 => "NULL".into(),
                _ => literal(column, rng, false),
            });
        }
        format!("({})", values.join(","))
    };
    (0..count).map(|id| row(id, rng)).collect()
}

/// The statements that make table `name` with all columns.
pub(super) fn create(name: &str, with: &str) -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|(column, kind, _)| format!("{column} {kind}")).collect();
    format!("CREATE TABLE {name} (id BIGINT NOT NULL, doc JSONB, {}) {with}", columns.join(", "))
}

pub(super) fn insert(name: &str, rows: &[String]) -> String {
    format!("INSERT INTO {name} VALUES {}", rows.join(","))
}
