//! What all subscriptions of a server may use together: how many there are, and the memory for rows that they compare.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::SqlError;

/// See the module.
#[derive(Debug)]
pub(crate) struct Limits {
    subscriptions_max: usize,
    bytes_max: usize,
    subscriptions: AtomicUsize,
    bytes: AtomicUsize,
}

impl Limits {
    pub(crate) fn new(subscriptions_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { subscriptions_max, bytes_max, subscriptions: AtomicUsize::new(0), bytes: AtomicUsize::new(0) })
    }

    /// Room for one more. 53400 when there is none.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Place, SqlError> {
        let place = Place(Arc::clone(self));
        if self.subscriptions.fetch_add(1, Ordering::SeqCst) >= self.subscriptions_max {
            return Err(SqlError::new("53400", "too many subscriptions")
                .with_detail(format!("query.max_subscriptions is {}.", self.subscriptions_max))
                .with_hint("End those that nobody reads (pg_cancel_backend), or raise query.max_subscriptions."));
        }
        Ok(place)
    }

    /// Memory for rows, none yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held { limits: Arc::clone(self), bytes: 0 }
    }
}

/// The place of one subscription, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Limits>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Memory for rows, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    limits: Arc<Limits>,
    bytes: usize,
}

impl Held {
    /// Takes more. 53200 when all subscriptions have as much as they may.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), SqlError> {
        let all = self.limits.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.bytes += bytes;
        if all <= self.limits.bytes_max {
            return Ok(());
        }
        Err(SqlError::new("53200", "the result is too large to be compared with what it was")
            .with_detail(format!("memory.subscription_bytes is {}, for all subscriptions.", self.limits.bytes_max))
            .with_hint(
                "Subscribe to fewer rows or columns, or raise memory.subscription_bytes. SELECT … FROM one table WHERE …, without aggregates, joins, DISTINCT \
                 and LIMIT, needs no memory for the rows that stay.",
            ))
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.limits.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_memory_come_back() {
        let limits = Limits::new(1, 100);
        let place = limits.begin().unwrap();
        assert_eq!(limits.begin().unwrap_err().sqlstate, "53400");
        drop(place);
        let _place = limits.begin().unwrap();
        let (mut one, mut other) = (limits.hold(), limits.hold());
        one.grow(60).unwrap();
        assert_eq!(other.grow(60).unwrap_err().sqlstate, "53200");
        drop(other);
        one.shrink(30);
        limits.hold().grow(70).unwrap();
        assert_eq!(limits.bytes.load(Ordering::SeqCst), 30);
    }
}
