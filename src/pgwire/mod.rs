//! The PostgreSQL wire protocol, 3.0 and 3.2, over [`crate::session`].

pub mod server;
