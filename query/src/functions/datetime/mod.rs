//! Dates, times, intervals: reading, writing, patterns, truncation, parts.

pub(crate) mod bin;
pub(crate) mod bucket;
pub(crate) mod format;
pub(crate) mod gapfill;
mod interval_pattern;
pub(crate) mod interval_text;
pub(crate) mod make;
pub(crate) mod moments;
pub(crate) mod parse;
pub(crate) mod part;
pub(crate) mod pattern;
pub(crate) mod rounding;
pub(crate) mod trunc;
