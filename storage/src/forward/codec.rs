//! Compressing bytes, and getting them back: zstd frames or LZ4 blocks.
//!
//! What is stored has just the raw bytes where compression did not shrink them; so nothing needs to say which of the two it is. No frame stands
//! for more than [`RATIO_MAX`] times its bytes: the size of a file bounds what reading it allocates.

use std::cell::RefCell;

use crate::{Error, Result, schema::Compression};

/// Nothing is stored smaller than this part of its raw size. (LZ4 cannot.)
pub(crate) const RATIO_MAX: usize = 256;

/// How compressed bytes are compressed. Each place in the format says it in a byte of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Zstd,
    Lz4,
}

impl Codec {
    /// As it stands before the encoding in `rt.segments`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

impl Compression {
    /// What it compresses with.
    pub(crate) fn codec(self) -> Option<Codec> {
        match self {
            Self::Default | Self::Zstd => Some(Codec::Zstd),
            Self::Lz4 => Some(Codec::Lz4),
            Self::None => None,
        }
    }

    /// Somebody asked for it: then it is worth it as soon as it saves a twentieth.
    pub(crate) fn is_wanted(self) -> bool {
        matches!(self, Self::Zstd | Self::Lz4)
    }
}

/// Compresses pieces of bytes, one after the other; or stores them raw, each that it does not shrink.
pub(crate) enum Compressor {
    Raw,
    Zstd(zstd::bulk::Compressor<'static>),
    Lz4,
}

impl Compressor {
    /// `level` is zstd's.
    pub(crate) fn new(codec: Option<Codec>, level: i32) -> Result<Self> {
        Ok(match codec {
            None => Self::Raw,
            Some(Codec::Zstd) => Self::Zstd(zstd::bulk::Compressor::new(level).map_err(failed)?),
            Some(Codec::Lz4) => Self::Lz4,
        })
    }

    pub(crate) fn append(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let packed = match self {
            Self::Raw => None,
            Self::Zstd(compressor) => Some(compressor.compress(raw).map_err(failed)?),
            Self::Lz4 => Some(lz4_flex::block::compress(raw)),
        };
        let keeps = |packed: &Vec<u8>| packed.len() < raw.len() && packed.len() * RATIO_MAX >= raw.len();
        out.extend_from_slice(packed.as_ref().filter(|packed| keeps(packed)).map_or(raw, Vec::as_slice));
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("compress", "", &error)
}

thread_local! {
    /// Its tables take 160 KB: far more to set up than a block takes to decompress.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Whether `stored` may stand for `raw_bytes` bytes at all.
pub(crate) fn is_plausible(stored: usize, raw_bytes: usize) -> bool {
    stored <= raw_bytes && stored.saturating_mul(RATIO_MAX) >= raw_bytes
}

/// Puts what [`Compressor::append`] stored, `raw_bytes` bytes, and `padding` zeros behind them into `out`, which is cleared first. False when it
/// does not decompress to just that.
pub(crate) fn decompress(
    codec: Codec,
    stored: &[u8],
    raw_bytes: usize,
    padding: usize,
    out: &mut Vec<u8>,
) -> Result<bool> {
    out.clear();
    if !is_plausible(stored.len(), raw_bytes) {
        return Ok(false);
    }
    out.reserve_exact(raw_bytes + padding);
    let read = if stored.len() == raw_bytes {
        out.extend_from_slice(stored);
        Some(raw_bytes)
    } else {
        match codec {
            Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|kept| {
                let decompressor = match kept {
                    Some(decompressor) => decompressor,
                    None => kept
                        .insert(zstd::bulk::Decompressor::new().map_err(|error| Error::io("decompress", "", &error))?),
                };
                Ok::<_, Error>(decompressor.decompress_to_buffer(stored, out).ok())
            })?,
            Codec::Lz4 => {
                out.resize(raw_bytes, 0);
                lz4_flex::block::decompress_into(stored, out).ok()
            }
        }
    };
    let whole = read == Some(raw_bytes);
    out.resize(raw_bytes + padding, 0);
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codecs() -> impl Strategy<Value = Codec> {
        prop_oneof![Just(Codec::Zstd), Just(Codec::Lz4)]
    }

    proptest! {
        #[test]
        fn bytes_come_back(
            codec in codecs(), padding in prop_oneof![Just(0usize), Just(64)],
            piece in prop::collection::vec(any::<u8>(), 0..300), times in prop_oneof![Just(1usize), 2usize..2000],
        ) {
            let raw = piece.repeat(times);
            let mut stored = Vec::new();
            Compressor::new(Some(codec), 3).expect("a compressor").append(&raw, &mut stored).expect("compresses");
            prop_assert!(is_plausible(stored.len(), raw.len()));
            let mut out = vec![1; 3];
            prop_assert!(decompress(codec, &stored, raw.len(), padding, &mut out).expect("reads"));
            prop_assert_eq!(&out[..raw.len()], &raw);
            prop_assert_eq!(&out[raw.len()..], &vec![0; padding]);
            // Another length is not what it stands for.
            prop_assert!(!decompress(codec, &stored, raw.len() + 1, padding, &mut out).expect("reads"));
            if !raw.is_empty() && stored.len() < raw.len() {
                prop_assert!(!decompress(codec, &stored, raw.len() - 1, padding, &mut out).expect("reads"));
            }
        }

        #[test]
        fn any_bytes_are_some_bytes_or_none(
            codec in codecs(), stored in prop::collection::vec(any::<u8>(), 0..200), raw_bytes in 0usize..5000,
        ) {
            let mut out = Vec::new();
            if decompress(codec, &stored, raw_bytes, 64, &mut out).expect("reads") {
                prop_assert_eq!(out.len(), raw_bytes + 64);
            }
        }
    }

    #[test]
    fn nothing_grows_and_nothing_shrinks_too_far() {
        let zeros = vec![0u8; 1 << 20];
        for codec in [None, Some(Codec::Zstd), Some(Codec::Lz4)] {
            let mut stored = Vec::new();
            Compressor::new(codec, 3).expect("a compressor").append(&zeros, &mut stored).expect("compresses");
            assert!(is_plausible(stored.len(), zeros.len()), "{codec:?}");
            let mut out = Vec::new();
            assert!(decompress(codec.unwrap_or(Codec::Lz4), &stored, zeros.len(), 0, &mut out).expect("reads"));
            assert!(out == zeros);
        }
        assert!(!decompress(Codec::Zstd, &[1; 10], 10 * RATIO_MAX + 1, 0, &mut Vec::new()).expect("reads"));
    }
}
