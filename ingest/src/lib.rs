//! From a source to a committed segment: sources, decoding, transforms, sealing and commit.
//!
//! ```text
//! source ─ poll ─► decode ─► transform ─► route ─► append ─► seal ─► commit
//!          messages  batch     batch                consuming  file    metadata log
//! ```
//!
//! No step looks back. Offsets travel with the rows and become durable in the same step as the rows.

pub mod backpressure;
pub mod commit;
mod compaction;
pub mod consistency;
pub mod consumer;
pub mod dead_letters;
pub mod decode;
pub mod deep_store;
pub mod error;
pub mod events;
mod http;
mod indexing;
mod key_maps;
pub mod landmark;
pub mod message;
pub mod pipeline;
mod quarantine;
mod recovery;
mod retention;
pub mod route;
pub mod runtime;
pub mod schemas;
pub mod seal;
pub mod sink;
pub mod source;

pub use error::{Error, Result};
