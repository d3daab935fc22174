//! One value of a column, in the form that statistics, predicates and defaults use.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// A non-null value. Several SQL types share one representation: SMALLINT, INT, BIGINT are `Int`; DATE is `Int` in days and
/// TIMESTAMP(TZ) is `Int` in microseconds since 1970-01-01; REAL and DOUBLE are `Float`; NUMERIC(p,s) is `Decimal`, the unscaled
/// integer at the column's scale; TEXT, UUID (canonical lower case) and JSONB (canonical) are `Text`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    Boolean(bool),
    Int(i64),
    Float(f64),
    Decimal(i128),
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

impl Scalar {
    /// The order that ORDER BY uses; floats as in Postgres (NaN above everything, -0 equal to 0). `None` between different kinds.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Boolean(a), Self::Boolean(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => compare_floats(*a, *b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            _ => return None,
        })
    }
}

/// Postgres' order of floats: NaN equals NaN and is above everything else; -0 equals 0.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
