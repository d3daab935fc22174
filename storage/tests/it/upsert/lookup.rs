//! Look-ups of keys say what a scan says.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringViewArray};
use tidemill_storage::table::{Found, Table};

use super::*;

/// The amounts that are seen, by their keys: as bytes of the code and of the place as they are compared.
fn scanned(table: &Table, spec: &KeySpec) -> BTreeMap<(String, String), i64> {
    let request = Arc::new(ScanRequest {
        schema: table.schema(),
        projection: vec![CODE, PLACE, AMOUNT],
        predicate: None,
        limit: None,
        batch_rows: 8192,
        hints: ScanHints::default(),
    });
    let mut found = BTreeMap::new();
    for unit in table.snapshot().plan(&request).units {
        for batch in unit.scan(&request, &Arc::default()).unwrap() {
            let batch = batch.unwrap();
            let (codes, places) = (batch.column(0).as_string_view(), batch.column(1).as_primitive::<Float64Type>());
            for row in 0..batch.num_rows() {
                let place = if spec.columns.len() > 1 { plain(places.value(row)) } else { String::new() };
                let amount = batch.column(2).as_primitive::<Int64Type>().value(row);
                assert_eq!(found.insert((codes.value(row).to_owned(), place), amount), None, "a key is seen twice");
            }
        }
    }
    found
}

/// Asks for the keys of these events, and for one that nobody has.
pub(super) fn check<'e>(table: &Table, spec: &KeySpec, events: impl Iterator<Item = &'e Event>) {
    let (schema, seen) = (table.schema(), scanned(table, spec));
    let ask = |code: &str, place: f64| {
        let mut key: Vec<ArrayRef> = vec![Arc::new(StringViewArray::from(vec![code]))];
        if spec.columns.len() > 1 {
            key.push(Arc::new(Float64Array::from(vec![place])));
        }
        table.look_up(&schema, &key, &[4, 0]).unwrap()
    };
    let events: Vec<&Event> = events.collect();
    check_all(table, spec, &events, &seen);
    check_partners(table, spec, &events, &seen);
    for event in events {
        let place = if spec.columns.len() > 1 { plain(event.place) } else { String::new() };
        match (ask(&event.code, event.place), seen.get(&(event.code.clone(), place))) {
            (Found::Row(values), Some(amount)) => {
                assert_eq!(values[0].as_primitive::<Int64Type>().value(0), *amount);
                assert_eq!(values[1].as_string_view().value(0), event.code);
            }
            // Tombstones in memory are left to the scan.
            (Found::Nothing | Found::Unknown, None) => {}
            (found, scanned) => panic!("{found:?} is not {scanned:?}"),
        }
    }
    assert!(matches!(ask("nobody's", 1.5), Found::Nothing), "a key that nobody has");
}

/// Many keys at once: what is not left to the scan is what it says.
fn check_all(table: &Table, spec: &KeySpec, events: &[&Event], seen: &BTreeMap<(String, String), i64>) {
    let codes = events.iter().map(|event| event.code.as_str()).chain(["nobody's"]);
    let places = events.iter().map(|event| event.place).chain([1.5]);
    let mut keys: Vec<ArrayRef> = vec![Arc::new(StringViewArray::from_iter_values(codes.clone()))];
    if spec.columns.len() > 1 {
        keys.push(Arc::new(Float64Array::from_iter_values(places.clone())));
    }
    let found = table.look_up_all(&keys, &[AMOUNT, CODE]).unwrap();
    let amounts = found.columns[0].as_primitive::<Int64Type>();
    let found_codes = found.columns[1].as_string_view();
    let mut next = 0;
    for (at, (code, place)) in codes.zip(places).enumerate() {
        let place = if spec.columns.len() > 1 { plain(place) } else { String::new() };
        let expected = seen.get(&(code.to_owned(), place));
        if found.keys.get(next) == Some(&(at as u32)) {
            assert_eq!((Some(&amounts.value(next)), found_codes.value(next)), (expected, code));
            next += 1;
        } else if expected.is_some() {
            assert!(found.unknown.contains(&(at as u32)), "{code} is there");
        }
    }
    assert_eq!((next, amounts.len()), (found.keys.len(), found.keys.len()));
    assert!(!found.unknown.contains(&(events.len() as u32)), "a key that nobody has");
}

/// Rows of some values: by the key and one more column, and by a column that is no key.
fn check_partners(table: &Table, spec: &KeySpec, events: &[&Event], seen: &BTreeMap<(String, String), i64>) {
    let mut amounts: Vec<i64> = seen.values().copied().collect();
    amounts.sort_unstable();
    let mut distinct = amounts.clone();
    distinct.dedup();
    let keys: ArrayRef = Arc::new(Int64Array::from(distinct.clone()));
    let found = table.partners(&[AMOUNT], &[keys], &[AMOUNT]).unwrap();
    let values = found.columns[0].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(values, amounts);
    assert!(found.keys.iter().zip(&values).all(|(key, amount)| distinct[*key as usize] == *amount));
    // Of each code and place once, with the amount that it has, and with another.
    for more in [0, 1] {
        let mut wanted: BTreeMap<(String, String), (f64, i64)> = BTreeMap::new();
        for event in events {
            let place = if spec.columns.len() > 1 { plain(event.place) } else { String::new() };
            let key = (event.code.clone(), place);
            let amount = seen.get(&key).copied().unwrap_or(0) + more;
            wanted.insert(key, (event.place, amount));
        }
        let mut keys: Vec<ArrayRef> =
            vec![Arc::new(StringViewArray::from_iter_values(wanted.keys().map(|(code, _)| code.as_str())))];
        let mut by = vec![CODE];
        if spec.columns.len() > 1 {
            keys.push(Arc::new(Float64Array::from_iter_values(wanted.values().map(|(place, _)| *place))));
            by.push(PLACE);
        }
        keys.push(Arc::new(Int64Array::from_iter_values(wanted.values().map(|(_, amount)| *amount))));
        by.push(AMOUNT);
        let found = table.partners(&by, &keys, &[AMOUNT]).unwrap();
        let there = wanted.keys().enumerate().filter(|(_, key)| more == 0 && seen.contains_key(*key));
        let expected: Vec<u32> = there.map(|(at, _)| at as u32).collect();
        assert_eq!(found.keys, expected);
    }
}
