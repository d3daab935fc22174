//! Integration tests of ingestion, in one binary.

#[cfg(feature = "failpoints")]
mod crash;
#[expect(unreachable_pub, reason = "shared with the tests of the root package")]
mod harness;
mod machine;
