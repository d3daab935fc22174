//! The one test binary of the root package.

mod exactly_once;
mod metadata;
mod slt;
mod support;
mod tidy;
mod users_path;
