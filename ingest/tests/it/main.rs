//! Integration tests of ingestion, in one binary.

#![allow(clippy::unwrap_used, reason = "for tests")]

#[cfg(feature = "failpoints")]
mod crash;
#[expect(unreachable_pub, reason = "shared with the tests of the root package")]
mod harness;
mod machine;
mod remade;
