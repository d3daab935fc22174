//! Look-ups of keys say what a scan says.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{ArrayRef, AsArray, Float64Array, StringViewArray};
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
