//! The wiring of a running server.
