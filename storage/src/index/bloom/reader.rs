//! Asking a Bloom filter.

use arrow::buffer::Buffer;

use crate::{
    Result,
    forward::format::corrupt,
    hash,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
    schema::DataType,
    split_block::{self, BLOCK_BYTES},
};

/// Values of an IN that are asked for.
const VALUES_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct Bloom {
    blocks: Buffer,
}

impl Bloom {
    pub(in crate::index) fn open(sections: &[Buffer]) -> Result<Self> {
        match sections {
            [blocks] if !blocks.is_empty() && blocks.len().is_multiple_of(BLOCK_BYTES) => {
                Ok(Self { blocks: blocks.clone() })
            }
            [blocks] => Err(corrupt("blocks of a Bloom filter", "whole ones of 32 bytes", blocks.len())),
            _ => Err(corrupt("sections of a Bloom filter", 1, sections.len())),
        }
    }

    /// Whether no row of the segment passes `leaf`, as far as the filter knows. The column is of `data_type`.
    pub(crate) fn excludes(&self, leaf: &Predicate, data_type: &DataType) -> bool {
        match leaf {
            Predicate::Compare { op: CompareOp::Eq, value, .. } => !self.may_have(value, data_type),
            Predicate::In { values, negated: false, .. } if values.len() <= VALUES_MAX => {
                !values.iter().any(|value| self.may_have(value, data_type))
            }
            _ => false,
        }
    }

    fn may_have(&self, value: &Scalar, data_type: &DataType) -> bool {
        let Some(hash) = hash::of_scalar(value, data_type) else { return true };
        split_block::may_have(&self.blocks, hash)
    }
}
