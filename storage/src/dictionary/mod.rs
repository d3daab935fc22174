//! Sorted dictionaries.
