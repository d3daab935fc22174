//! From "the batch failed" to the rows that made it fail.

use std::ops::Range;

/// Calls `run` on `rows`; where it fails, on the halves, down to single rows. `done` takes each range that worked, `bad` each row that did
/// not, both in order. Right for work that treats each row alone; k bad rows of n cost k log n calls.
pub(super) fn bisect<T>(
    rows: Range<usize>,
    run: &mut dyn FnMut(Range<usize>) -> Result<T, String>,
    done: &mut dyn FnMut(Range<usize>, T),
    bad: &mut dyn FnMut(usize, String),
) {
    match run(rows.clone()) {
        Ok(value) => done(rows, value),
        Err(reason) if rows.len() <= 1 => bad(rows.start, reason),
        Err(_) => {
            let middle = rows.start + rows.len() / 2;
            bisect(rows.start..middle, run, done, bad);
            bisect(middle..rows.end, run, done, bad);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_exactly_the_bad_rows(rows in prop::collection::vec(any::<bool>(), 1..100)) {
            let (mut good, mut found) = (Vec::new(), Vec::new());
            bisect(
                0..rows.len(),
                &mut |range| if rows[range].iter().all(|ok| *ok) { Ok(()) } else { Err("bad".into()) },
                &mut |range, ()| good.extend(range),
                &mut |row, _| found.push(row),
            );
            let wanted = |state: bool| rows.iter().enumerate().filter(|(_, ok)| **ok == state).map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(good, wanted(true));
            prop_assert_eq!(found, wanted(false));
        }
    }
}
