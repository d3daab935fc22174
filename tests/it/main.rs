//! The one test binary of the root package.

mod cli;
mod ddl;
mod dead_letters;
mod exactly_once;
mod http;
mod metadata;
mod pgwire;
mod readme;
mod slt;
mod support;
mod tidy;
mod users_path;
