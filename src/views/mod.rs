//! What the schema `rt` shows of the running server.
