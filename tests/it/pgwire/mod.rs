//! The Postgres wire: real clients, raw bytes and psql against a server in this process, with tables in memory.

mod auth;

mod fixture;
mod hostile;
mod protocol;
