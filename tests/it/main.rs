//! The one test binary of the root package.

mod support;
mod tidy;
