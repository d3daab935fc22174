use proptest::prelude::*;

use super::*;
use crate::{
    ids::{ColumnId, SchemaVersion},
    schema::Column,
    stats::column_stats,
    testing::{
        Random, generate,
        oracle::{self, Written},
    },
};

fn text_column(name: &str) -> (TableSchema, ColumnId) {
    let column = Column::new(ColumnId(1), name, DataType::Text);
    (TableSchema { version: SchemaVersion(1), columns: vec![column], time_column: None }, ColumnId(1))
}

fn stats(min: &str, max: &str, exact: bool, nulls: u64) -> ColumnStats {
    ColumnStats {
        min: Some(Scalar::Text(min.into())),
        max: Some(Scalar::Text(max.into())),
        exact,
        nulls,
        ..ColumnStats::default()
    }
}

fn verdict(predicate: &Predicate, stats: &ColumnStats) -> Verdict {
    let (schema, _) = text_column("t");
    judge(predicate, &schema, &Run { rows: 10, written: &schema, stats: |_: usize| Some(stats) }, None)
}

fn like(pattern: &str) -> Predicate {
    Predicate::Like { column: ColumnId(1), pattern: pattern.into(), negated: false, case_insensitive: false }
}

fn compare(op: CompareOp, value: &str) -> Predicate {
    Predicate::Compare { column: ColumnId(1), op, value: Scalar::Text(value.into()) }
}

#[test]
fn a_prefix_is_looked_for_between_the_bounds() {
    let known = stats("berlin", "boston", true, 0);
    for (pattern, expected) in [
        ("a%", Verdict::Never),
        ("c%", Verdict::Never),
        ("b%", Verdict::Maybe),
        ("berlin%", Verdict::Maybe),
        ("bern%", Verdict::Maybe),
        ("boston_", Verdict::Maybe),
        ("bp%", Verdict::Never),
        ("be_%", Verdict::Maybe),
        ("%z", Verdict::Maybe),
        ("\\%%", Verdict::Never),
        ("\\", Verdict::Maybe),
        ("", Verdict::Maybe),
    ] {
        assert_eq!(verdict(&like(pattern), &known), expected, "{pattern}");
    }
}

#[test]
fn cut_bounds_prove_absence_but_not_equality() {
    assert_eq!(verdict(&compare(CompareOp::Eq, "b"), &stats("b", "b", true, 0)), Verdict::Always);
    assert_eq!(verdict(&compare(CompareOp::Eq, "b"), &stats("b", "b", false, 0)), Verdict::Maybe);
    assert_eq!(verdict(&compare(CompareOp::NotEq, "b"), &stats("b", "b", true, 0)), Verdict::Never);
    assert_eq!(verdict(&compare(CompareOp::NotEq, "b"), &stats("b", "b", false, 0)), Verdict::Maybe);
    assert_eq!(verdict(&compare(CompareOp::Less, "a"), &stats("b", "c", false, 0)), Verdict::Never);
    assert_eq!(verdict(&compare(CompareOp::Less, "d"), &stats("b", "c", false, 0)), Verdict::Always);
}

#[test]
fn nulls_take_always_away_and_nothing_but_nulls_is_never() {
    assert_eq!(verdict(&compare(CompareOp::Less, "d"), &stats("b", "c", true, 1)), Verdict::Maybe);
    let nothing = ColumnStats { nulls: 10, ..ColumnStats::default() };
    assert_eq!(verdict(&compare(CompareOp::NotEq, "d"), &nothing), Verdict::Never);
    let is_null = |negated| Predicate::IsNull { column: ColumnId(1), negated };
    assert_eq!(verdict(&is_null(false), &nothing), Verdict::Always);
    assert_eq!(verdict(&is_null(true), &nothing), Verdict::Never);
    assert_eq!(verdict(&is_null(false), &stats("b", "c", true, 0)), Verdict::Never);
    assert_eq!(verdict(&is_null(true), &stats("b", "c", true, 3)), Verdict::Maybe);
}

#[test]
fn only_one_column_may_be_asked() {
    let (schema, _) = text_column("t");
    let known = stats("b", "c", true, 0);
    let run = Run { rows: 10, written: &schema, stats: |_: usize| Some(&known) };
    let never = compare(CompareOp::Eq, "x");
    assert_eq!(judge(&never, &schema, &run, Some(ColumnId(1))), Verdict::Never);
    assert_eq!(judge(&never, &schema, &run, Some(ColumnId(2))), Verdict::Maybe);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// The verdict never contradicts the rows, also over a schema change.
    #[test]
    fn verdicts_are_true_of_the_rows(seed: u64, rows in 1usize..30) {
        let mut random = Random::new(seed);
        let (schema, shapes) = generate::schema(&mut random);
        let batch = generate::batch(&mut random, &schema, &shapes, 0, rows);
        let types: Vec<DataType> = schema.columns.iter().map(|column| column.data_type.clone()).collect();
        let stats: Vec<ColumnStats> = types
            .iter()
            .zip(batch.columns())
            .map(|(data_type, array)| column_stats(data_type, std::slice::from_ref(array)))
            .collect();
        let written = Written { schema: schema.clone(), rows: oracle::rows_of(&types, &batch) };
        for _ in 0..5 {
            let current = generate::altered(&mut random, &schema);
            let predicate = generate::predicate(&mut random, &current, 1);
            let run = Run { rows: rows as u64, written: &schema, stats: |index: usize| stats.get(index) };
            let selected = oracle::scan(&written, &current, &[], Some(&predicate)).len();
            match judge(&predicate, &current, &run, None) {
                Verdict::Never => prop_assert_eq!(selected, 0, "{:?}", predicate),
                Verdict::Always => prop_assert_eq!(selected, rows, "{:?}", predicate),
                Verdict::Maybe => {}
            }
        }
    }
}
