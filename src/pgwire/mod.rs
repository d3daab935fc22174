//! The PostgreSQL wire protocol, 3.0 and 3.2, over [`crate::session`].
//!
//! ```text
//! server ─ accept ─► startup (TLS, parameters, SCRAM) ─► connection ─ simple │ extended │ copy ─► session
//!                    └ cancel request ─► session::Registry
//! ```
//!
//! What always holds: rows go out as they come, through a buffer of fixed size; while a statement runs the socket is watched, so that
//! a client that goes away stops its work; no bytes of a client panic the server.

mod connection;
mod extended;
pub mod frame;
mod reply;
pub mod scram;
pub mod server;
mod simple;
mod startup;
mod tls;
