use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray, Int64Array, RecordBatchOptions, StringViewArray},
    datatypes::{Field, Int64Type, Schema},
};
use tidemill_storage::testing::Random;

use super::{super::limits::Limits, *};

fn batch(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let fields = vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8View, true)];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|(a, _)| Some(*a)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|(_, b)| *b).collect::<StringViewArray>()),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Random rows beside a plain map, whole and in parts.
#[test]
fn differences_beside_a_plain_map() {
    let limits = Limits::new(1, 1 << 20);
    for seed in 0..50 {
        let random = &mut Random::new(seed);
        let texts = [None, Some(""), Some("a"), Some("a text that no view holds in itself")];
        let mut counts = Counts::new(limits.hold());
        let mut before: BTreeMap<(i64, Option<&str>), i64> = BTreeMap::new();
        for _ in 0..4 {
            let rows: Vec<_> = (0..random.below(60)).map(|_| (random.below(8) as i64, *random.pick(&texts))).collect();
            let mut now: BTreeMap<(i64, Option<&str>), i64> = BTreeMap::new();
            rows.iter().for_each(|row| *now.entry(*row).or_default() += 1);
            counts.add(&batch(&rows), Side::Now, Part::ALL).unwrap();
            let mut wanted = now.clone();
            before.iter().for_each(|(row, count)| *wanted.entry(*row).or_default() -= count);
            wanted.retain(|_, count| *count != 0);
            let differences = counts.differences();
            assert!(differences.is_sorted_by_key(|(_, count)| *count > 0));
            let columns = counts.columns(&differences).unwrap();
            let found: BTreeMap<_, _> = differences
                .iter()
                .enumerate()
                .map(|(at, (_, count))| {
                    let text = columns[1].as_string_view();
                    let text = (!arrow::array::Array::is_null(text, at)).then(|| text.value(at));
                    ((columns[0].as_primitive::<Int64Type>().value(at), text), *count)
                })
                .collect();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), wanted.into_iter().collect::<Vec<_>>(), "seed {seed}");
            // Each row is in one part.
            let mut of_parts = 0;
            for part in Part::ALL.halves().into_iter().flat_map(Part::halves) {
                let mut some = counts.alike(limits.hold());
                some.add(&batch(&rows), Side::Now, part).unwrap();
                of_parts += some.differences().len();
            }
            assert_eq!(of_parts, now.len());
            counts.settle();
            before = now;
        }
    }
}

#[test]
fn rows_without_columns_are_all_the_same() {
    let limits = Limits::new(1, 1 << 20);
    let empty = |rows| {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap()
    };
    let mut counts = Counts::new(limits.hold());
    counts.add(&empty(3), Side::Before, Part::ALL).unwrap();
    counts.add(&empty(5), Side::Now, Part::ALL).unwrap();
    assert_eq!(counts.differences(), [(&[] as &[u8], 2)]);
}
