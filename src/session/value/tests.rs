//! Values against what PostgreSQL 15 prints and reads.
