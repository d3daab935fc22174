//! Column builders.
