//! Tests of the package at its surface.

mod scan;
