//! From a source to a committed segment: sources, decoding, transforms, sealing and commit.
//!
//! ```text
//! source ─ poll ─► decode ─► transform ─► route ─► append ─► seal ─► commit
//!          messages  batch     batch                consuming  file    metadata log
//! ```
//!
//! No step looks back. Offsets travel with the rows and become durable in the same step as the rows.

pub mod commit;
pub mod dead_letters;
pub mod decode;
pub mod error;
pub mod message;
pub mod pipeline;
pub mod source;

pub use error::{Error, Result};
