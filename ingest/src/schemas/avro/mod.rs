//! Avro: schemas as the specification wants them, and its rules of resolution.

mod resolution;
mod schema;
#[cfg(test)]
mod tests;

pub(super) use self::{
    resolution::misfits,
    schema::{Schema, plain},
};
