//! Packed integers, row masks and the kernels on them.
pub mod mask;
pub use mask::Bitmask;
