//! The one test binary of the root package.

mod slt;
mod support;
mod tidy;
