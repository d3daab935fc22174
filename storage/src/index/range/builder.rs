//! Making a range index of a column.

use super::{
    super::{ordered, postings, source::Source},
    BY_ID, BY_VALUE, NOTHING, of_array,
};
use crate::Result;

/// The sections: layout and number of values, then by layout the postings, or the rows and the values.
pub(in crate::index) fn build(source: &Source<'_>) -> Result<Vec<Vec<u8>>> {
    if let Some((ids, keys)) = source.ids()? {
        let mut sections = vec![vec![BY_ID, 0, 0, 0, 0]];
        sections.extend(postings::encode(&ids, keys)?);
        return Ok(sections);
    }
    let mut pairs: Vec<(i64, u32)> = Vec::with_capacity(source.rows as usize);
    let (mut row, mut fit) = (0u32, true);
    source.each_array(|array| {
        fit &= of_array(array, |value| {
            pairs.extend(value.map(|value| (value, row)));
            row += 1;
        })?;
        Ok(())
    })?;
    if !fit {
        return Ok(vec![vec![NOTHING, 0, 0, 0, 0]]);
    }
    let mut head = vec![BY_VALUE];
    head.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
    let [rows, values] = ordered::encode(pairs, source.rows);
    Ok(vec![head, rows, values])
}
