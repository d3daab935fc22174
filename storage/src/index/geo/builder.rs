//! Making an index of places.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::cast,
    datatypes::{DataType as ArrowType, Float64Type},
};

use super::super::{ordered, source::Source};
use crate::{Result, geo::code};

/// The sections: how many rows have a place, then these and their cells.
pub(in crate::index) fn build(lat: &Source<'_>, lng: &Source<'_>) -> Result<Vec<Vec<u8>>> {
    let mut pairs: Vec<(i64, u32)> = Vec::with_capacity(lat.rows as usize);
    for rows in lat.steps() {
        let degrees = |source: &Source<'_>| -> Result<ArrayRef> {
            Ok(Arc::new(cast(&source.values_of(rows.clone())?, &ArrowType::Float64)?))
        };
        let (lats, lngs) = (degrees(lat)?, degrees(lng)?);
        let (lats, lngs) = (lats.as_primitive::<Float64Type>(), lngs.as_primitive::<Float64Type>());
        for at in 0..lats.len() {
            if lats.is_valid(at)
                && lngs.is_valid(at)
                && let Some(cell) = code(lats.value(at), lngs.value(at))
            {
                pairs.push((cell as i64, rows.start + at as u32));
            }
        }
    }
    let count = (pairs.len() as u32).to_le_bytes().to_vec();
    let [rows, cells] = ordered::encode(pairs, lat.rows);
    Ok(vec![count, rows, cells])
}
