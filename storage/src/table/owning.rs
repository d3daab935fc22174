//! Which partitions may have rows of the keys that a predicate names: all rows of a key are in one.

use crate::{
    hash,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::TableSchema,
    upsert::{KeySpec, fingerprint_of_hashes, owner},
};

/// Keys that are looked at one by one; of more, most partitions have some.
const KEYS_MAX: usize = 256;

/// For each partition whether it may have rows that pass; `None`: any may.
pub(super) fn owning(
    key: &KeySpec,
    schema: &TableSchema,
    predicate: Option<&Predicate>,
    partitions: usize,
) -> Option<Vec<bool>> {
    if partitions < 2 {
        return None;
    }
    let leaves = match predicate? {
        Predicate::And(children) => children.as_slice(),
        leaf => std::slice::from_ref(leaf),
    };
    let mut keys: Vec<Vec<u64>> = vec![Vec::new()];
    for id in &key.columns {
        let data_type = &schema.column(*id)?.data_type;
        let named = leaves.iter().find_map(|leaf| values(leaf).filter(|_| leaf.column() == Some(*id)))?;
        if keys.len() * named.len() > KEYS_MAX {
            return None;
        }
        let hashes = named.iter().map(|value| hash::of_scalar(value, data_type)).collect::<Option<Vec<u64>>>()?;
        let with = |key: &Vec<u64>, hash: u64| key.iter().copied().chain([hash]).collect();
        keys = keys.iter().flat_map(|key| hashes.iter().map(move |hash| with(key, *hash))).collect();
    }
    let mut owning = vec![false; partitions];
    for key in &keys {
        owning[owner(fingerprint_of_hashes(key), partitions as u32) as usize] = true;
    }
    Some(owning)
}

/// The only values that pass.
fn values(leaf: &Predicate) -> Option<&[Scalar]> {
    match leaf {
        Predicate::Compare { op: CompareOp::Eq, value, .. } => Some(std::slice::from_ref(value)),
        Predicate::In { values, negated: false, .. } => Some(values),
        _ => None,
    }
}

#[cfg(test)]
mod tests {

    use arrow::array::{Array, ArrayRef, RecordBatch};

    use super::*;
    use crate::{
        evaluate::scalar_array,
        ids::{ColumnId, SchemaVersion},
        schema::{Column, DataType},
        upsert::Keep,
    };

    fn some() -> Vec<(DataType, Vec<Scalar>)> {
        let ints = |numbers: &[i64]| numbers.iter().map(|number| Scalar::Int(*number)).collect::<Vec<_>>();
        vec![
            (DataType::BigInt, ints(&[0, -1, 7, i64::MAX])),
            (DataType::SmallInt, ints(&[0, -1, 7, 300])),
            (DataType::TimestampTz, ints(&[0, -1, 1_700_000_000_000_000, 5])),
            (DataType::Date, ints(&[0, -1, 20_000, 5])),
            (
                DataType::Text,
                ["", "a", "ß", "a long text that no view holds"].map(|text| Scalar::Text(text.into())).into(),
            ),
            (DataType::Numeric { precision: 10, scale: 2 }, [0, -150, 99_999, 1].map(Scalar::Decimal).into()),
            (DataType::Double, [0.0, -0.0, f64::NAN, 1.5].map(Scalar::Float).into()),
            (DataType::Real, [0.0, -0.0, 0.1f32 as f64, 1.5].map(Scalar::Float).into()),
            (
                DataType::Bytea,
                [vec![], vec![0], vec![1, 2], vec![255; 40]].map(|bytes| Scalar::Bytes(bytes.into())).into(),
            ),
        ]
    }

    /// As rows go to partitions, of every type, alone and with another column.
    #[test]
    fn the_partition_of_a_key_is_that_of_its_rows() {
        let types = some();
        for (first, (one, ones)) in types.iter().enumerate() {
            for (two, twos) in std::iter::once(&types[first]).chain(&types[first + 1..]) {
                let columns =
                    vec![Column::new(ColumnId(0), "a", one.clone()), Column::new(ColumnId(1), "b", two.clone())];
                let schema = TableSchema { version: SchemaVersion(1), columns, time_column: None };
                for (of_a, of_b) in ones.iter().zip(twos) {
                    let arrays: Vec<ArrayRef> =
                        vec![scalar_array(of_a, one).unwrap(), scalar_array(of_b, two).unwrap()];
                    assert_eq!((arrays[0].len(), arrays[1].len()), (1, 1));
                    let row = RecordBatch::try_new(schema.arrow(), arrays).unwrap();
                    for columns in [vec![ColumnId(0)], vec![ColumnId(1), ColumnId(0)]] {
                        let key = KeySpec {
                            columns,
                            version: None,
                            delete: None,
                            keep: Keep::Last,
                            keeps_losers: true,
                            late: None,
                            ages: None,
                            merges: false,
                        };
                        let is = |id, value: &Scalar| Predicate::Compare {
                            column: ColumnId(id),
                            op: CompareOp::Eq,
                            value: value.clone(),
                        };
                        let predicate = Predicate::And(vec![is(0, of_a), is(1, of_b)]);
                        let owning = owning(&key, &schema, Some(&predicate), 5).unwrap();
                        let owner = key.owners(&schema, &row, 5).unwrap()[0] as usize;
                        assert!(
                            owning.iter().enumerate().all(|(at, owns)| *owns == (at == owner)),
                            "{one}, {two}: {of_a:?}, {of_b:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn keys_that_are_not_named_may_be_anywhere() {
        let schema = TableSchema {
            version: SchemaVersion(1),
            columns: vec![Column::new(ColumnId(0), "a", DataType::Int), Column::new(ColumnId(1), "b", DataType::Int)],
            time_column: None,
        };
        let key = |columns| KeySpec {
            columns,
            version: None,
            delete: None,
            keep: Keep::Last,
            keeps_losers: true,
            late: None,
            ages: None,
            merges: false,
        };
        let is = |id, op, value| Predicate::Compare { column: ColumnId(id), op, value: Scalar::Int(value) };
        let owning = |columns: &[u32], predicate: Predicate| {
            owning(&key(columns.iter().map(|id| ColumnId(*id)).collect()), &schema, Some(&predicate), 4)
        };
        assert_eq!(owning(&[0], is(0, CompareOp::Greater, 5)), None);
        assert_eq!(owning(&[0, 1], is(0, CompareOp::Eq, 5)), None);
        let either = Predicate::Or(vec![is(0, CompareOp::Eq, 5), is(1, CompareOp::Eq, 5)]);
        assert_eq!(owning(&[0], either), None);
        let listed =
            |negated| Predicate::In { column: ColumnId(0), values: (0..3).map(Scalar::Int).collect(), negated };
        assert_eq!(owning(&[0], listed(true)), None);
        let three = owning(&[0], listed(false)).unwrap();
        let one = |value| owning(&[0], is(0, CompareOp::Eq, value)).unwrap();
        let union: Vec<bool> = (0..4).map(|at| (0..3).any(|value| one(value)[at])).collect();
        assert_eq!(three, union);
    }
}
