//! Packed values in compressed chunks of 8192 rows.
//!
//! Packing sees one value at a time. What comes again at a distance (the steps of an order's life, sensors that report in turn) it packs
//! anew each time, where a compressor finds it. Since the values of 64 rows fill whole bytes at any width, such repeats survive packing.
//!
//! ```text
//! ends:    where each chunk's stored bytes end, u64
//! stored:  chunk after chunk: one zstd frame or LZ4 block each, or as it was when that did not shrink it
//! ```
//!
//! A chunk is decompressed whole, about a nanosecond a row: so, unless somebody asked for it, only what saves half a byte a row, and a quarter
//! in all, is kept so. Predicates and groups run on narrow ids, which never save as much.

use arrow::buffer::Buffer;

use super::{
    EncodeOptions,
    codec::{Codec, Compressor, decompress, is_plausible},
    format::corrupt,
};
use crate::{Error, Result};

/// Rows of a chunk: what a scan reads at a time, and eight blocks of integers.
pub(crate) const CHUNK_ROWS: usize = 8192;
/// Compressed fast: repeats are found at any level, and most columns are only tried.
const ZSTD_LEVEL_TRIED: i32 = 1;
/// Chunks looked at before all are compressed.
const SAMPLE: usize = 8;
const END_BYTES: usize = 8;

/// The chunks, compressed, of a column of `rows` rows, and how; `None` where that does not pay.
pub(crate) fn compress(chunks: &[&[u8]], rows: usize, options: &EncodeOptions) -> Result<Option<(Codec, Vec<u8>)>> {
    let Some(codec) = options.compression.codec() else { return Ok(None) };
    let wanted = options.compression.is_wanted();
    let pays = |stored: usize, raw: usize, rows: usize| match wanted {
        true => raw > 0 && stored * 20 <= raw * 19,
        false => raw > 0 && stored * 4 <= raw * 3 && (raw - stored) * 2 >= rows,
    };
    let mut compressor = Compressor::new(Some(codec), if wanted { options.zstd_level } else { ZSTD_LEVEL_TRIED })?;
    let mut stored = Vec::new();
    let (mut raw, mut sampled) = (0, 0);
    for chunk in chunks.iter().step_by(chunks.len().div_ceil(SAMPLE).max(1)) {
        compressor.append(chunk, &mut stored)?;
        (raw, sampled) = (raw + chunk.len(), sampled + CHUNK_ROWS.min(rows));
    }
    if !pays(stored.len(), raw, sampled) {
        return Ok(None);
    }
    let mut ends = Vec::with_capacity(chunks.len() * END_BYTES);
    stored.clear();
    for chunk in chunks {
        compressor.append(chunk, &mut stored)?;
        ends.extend_from_slice(&(stored.len() as u64).to_le_bytes());
    }
    let raw = chunks.iter().map(|chunk| chunk.len()).sum();
    ends.extend_from_slice(&stored);
    Ok(pays(ends.len(), raw, rows).then_some((codec, ends)))
}

/// Compressed chunks that begin somewhere in a section and reach to its end.
#[derive(Debug)]
pub(crate) struct Chunks {
    codec: Codec,
    section: Buffer,
    at: usize,
    count: usize,
}

impl Chunks {
    /// `raw_bytes` gives the bytes of each chunk. Checks that the stored bytes are there and not fewer than they may be.
    pub(crate) fn open(
        codec: Codec,
        section: Buffer,
        at: usize,
        count: usize,
        raw_bytes: impl Fn(usize) -> usize,
    ) -> Result<Self> {
        let table = count.saturating_mul(END_BYTES).saturating_add(at);
        if section.len() < table {
            return Err(corrupt("ends of chunks", format!("{count} of them"), format!("{} bytes", section.len())));
        }
        let chunks = Self { codec, section, at, count };
        let mut from = 0;
        for chunk in 0..count {
            let (end, raw) = (chunks.end(chunk), raw_bytes(chunk));
            if end.checked_sub(from).is_none_or(|stored| !is_plausible(stored, raw)) {
                let what = format!("chunk {chunk}");
                return Err(corrupt(what, format!("at most {raw} bytes from {from} on"), format!("an end at {end}")));
            }
            from = end;
        }
        if chunks.section.len() - table != from {
            return Err(corrupt("chunks", format!("{from} bytes"), chunks.section.len() - table));
        }
        Ok(chunks)
    }

    pub(crate) fn codec(&self) -> Codec {
        self.codec
    }

    fn end(&self, chunk: usize) -> usize {
        let bytes = self.section.get(self.at + chunk * END_BYTES..).and_then(<[u8]>::first_chunk);
        bytes.map_or(usize::MAX, |bytes| usize::try_from(u64::from_le_bytes(*bytes)).unwrap_or(usize::MAX))
    }

    /// Puts the `raw_bytes` bytes of a chunk into `out`, and `padding` zeros behind them.
    pub(crate) fn read(&self, chunk: usize, raw_bytes: usize, padding: usize, out: &mut Vec<u8>) -> Result<()> {
        let table = self.at + self.count * END_BYTES;
        let from = if chunk == 0 { 0 } else { self.end(chunk - 1) };
        let stored = self.section.get(table + from..table + self.end(chunk));
        let stored = stored.ok_or_else(|| Error::Invalid(format!("chunk {chunk} of {}", self.count)))?;
        match decompress(self.codec, stored, raw_bytes, padding, out)? {
            true => Ok(()),
            false => Err(corrupt(
                format!("chunk {chunk}"),
                format!("{raw_bytes} bytes by {}", self.codec.name()),
                "other bytes",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Compression;

    fn options(compression: Compression) -> EncodeOptions {
        EncodeOptions { compression, ..EncodeOptions::default() }
    }

    #[test]
    fn what_repeats_is_compressed_and_comes_back() {
        let raw: Vec<Vec<u8>> =
            (0..30u8).map(|chunk| (0..9000).map(|i| ((i % 320) as u8).wrapping_mul(chunk)).collect()).collect();
        let pieces: Vec<&[u8]> = raw.iter().map(Vec::as_slice).collect();
        for compression in [Compression::Default, Compression::Zstd, Compression::Lz4] {
            let packed = compress(&pieces, 30 * CHUNK_ROWS, &options(compression)).expect("compresses");
            let (codec, packed) = packed.expect("pays");
            let open = |section: Vec<u8>, count, raw: usize| {
                Chunks::open(codec, Buffer::from_vec(section), 5, count, move |_| raw)
            };
            let mut section = vec![7; 5];
            section.extend_from_slice(&packed);
            let chunks = open(section.clone(), 30, 9000).expect("sound");
            let mut out = vec![1; 3];
            for chunk in [3, 0, 29] {
                chunks.read(chunk, 9000, 64, &mut out).expect("reads");
                assert_eq!((&out[..9000], &out[9000..]), (pieces[chunk], [0; 64].as_slice()));
            }
            // A length that is not the frame's, an end before the one before it, bytes left over or missing.
            assert!(chunks.read(3, 8999, 64, &mut out).is_err() && chunks.read(3, 9001, 64, &mut out).is_err());
            for (count, raw) in [(29, 9000), (31, 9000), (30, 10)] {
                assert!(open(section.clone(), count, raw).is_err());
            }
            section[5 + 8] = 0;
            section[5 + 9] = 0;
            assert!(open(section, 30, 9000).is_err());
        }
        assert_eq!(compress(&pieces, 30 * CHUNK_ROWS, &options(Compression::None)).expect("compresses"), None);
    }

    #[test]
    fn what_does_not_pay_is_left_alone() {
        let mut state = 1u64;
        let random: Vec<u8> = (0..80_000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let random: Vec<&[u8]> = random.chunks(8192).collect();
        for compression in Compression::ALL {
            assert_eq!(compress(&random, 10 * CHUNK_ROWS, &options(compression)).expect("compresses"), None);
            assert_eq!(compress(&[], 0, &options(compression)).expect("compresses"), None);
        }
        // Shrinks to nothing, but was a bit a row: only who asks for it has it.
        let zeros = vec![0; 1024];
        assert_eq!(compress(&[&zeros], CHUNK_ROWS, &options(Compression::Default)).expect("compresses"), None);
        assert!(compress(&[&zeros], CHUNK_ROWS, &options(Compression::Lz4)).expect("compresses").is_some());
    }
}
