//! The one test binary of the root package.

mod tidy;
