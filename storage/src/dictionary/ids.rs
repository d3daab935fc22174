//! The dictionary id of every row: packed one by one, or one per run; packed ones that come again and again in compressed chunks.

use std::{ops::Range, sync::OnceLock};

use arrow::buffer::Buffer;

use crate::{
    Result,
    bitpack::{Bitmask, IdSet, PADDING, Packed, pack, packed_bytes, width_of},
    forward::{
        EncodeOptions,
        chunks::{self, CHUNK_ROWS, Chunks},
        codec::Codec,
        format::{Reader, Writer, corrupt},
        integers::{self, Integers},
    },
};

/// Ids one by one, behind each other.
const PACKED: u8 = 0;
/// Ends of runs of equal ids, and the id of each run.
const RUNS: u8 = 1;
/// As packed, in chunks that zstd compressed.
const ZSTD_CHUNKS: u8 = 2;
/// The same by LZ4.
const LZ4_CHUNKS: u8 = 3;

/// Bytes of `rows` ids of a dictionary of `distinct` values.
pub(crate) fn ids_bytes(rows: usize, distinct: usize) -> usize {
    packed_bytes(rows, id_width(distinct))
}

fn id_width(distinct: usize) -> u8 {
    width_of(distinct.saturating_sub(1) as u64)
}

pub(crate) fn encode_ids(ids: &[u32], distinct: usize) -> Writer {
    let width = id_width(distinct);
    let mut writer = Writer::default();
    let runs = ids.chunk_by(|a, b| a == b).count();
    // A run costs its id and, at a guess, two bytes of its end. Reading by runs is slower, so they must be worth it.
    let as_runs = packed_bytes(runs, width) + runs * 2 < packed_bytes(ids.len(), width) / 2;
    let mut packed = Vec::new();
    if as_runs {
        let mut end = 0;
        let (ends, run_ids): (Vec<i64>, Vec<u64>) = ids
            .chunk_by(|a, b| a == b)
            .map(|run| {
                end += run.len() as i64;
                (end, u64::from(run[0]))
            })
            .unzip();
        writer.u8(RUNS);
        writer.u8(width);
        writer.u32(runs as u32);
        writer.section(integers::encode(&ends));
        pack(run_ids, width, &mut packed);
    } else {
        writer.u8(PACKED);
        writer.u8(width);
        pack(ids.iter().map(|id| u64::from(*id)), width, &mut packed);
    }
    if !packed.is_empty() {
        packed.resize(packed.len() + PADDING, 0);
    }
    writer.section(packed);
    writer
}

/// Puts the ids of `rows` rows that [`encode_ids`] wrote, at the beginning of `writer`, into compressed chunks where that pays.
pub(crate) fn compress_ids(writer: &mut Writer, rows: usize, options: &EncodeOptions) -> Result<()> {
    let &mut [PACKED, width, ..] = writer.head() else { return Ok(()) };
    let chunk = packed_bytes(CHUNK_ROWS, width);
    let Some(packed) = writer.sections().first().filter(|_| chunk > 0) else { return Ok(()) };
    let pieces: Vec<&[u8]> = packed[..packed_bytes(rows, width)].chunks(chunk).collect();
    if let Some((codec, section)) = chunks::compress(&pieces, rows, options)? {
        writer.head()[0] = match codec {
            Codec::Zstd => ZSTD_CHUNKS,
            Codec::Lz4 => LZ4_CHUNKS,
        };
        writer.replace_section(0, section);
    }
    Ok(())
}

/// The ids of a column. An id may be above the last value of the dictionary: the bytes decide, and who uses it checks.
#[derive(Debug)]
pub(crate) struct Ids {
    rows: usize,
    width: u8,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Packed(Buffer),
    Chunks(Chunks),
    Runs(Runs),
}

#[derive(Debug)]
struct Runs {
    count: usize,
    /// The id of each run.
    packed: Buffer,
    ends: Integers,
    /// The ends, strictly ascending to the number of rows; read at the first use.
    loaded: OnceLock<Vec<u32>>,
}

impl Ids {
    pub(crate) fn open(rows: usize, reader: &mut Reader) -> Result<Self> {
        let kind = reader.u8("layout of ids")?;
        let width = reader.u8("width of ids")?;
        if width > 32 {
            return Err(corrupt("width of ids", "at most 32", width));
        }
        let packed = |count: usize, reader: &mut Reader| {
            let packed = reader.section("ids")?;
            match Packed::new(&packed, width, count) {
                Some(_) => Ok(packed),
                None => Err(corrupt("ids", format!("{count} of {width} bits"), format!("{} bytes", packed.len()))),
            }
        };
        let layout = match kind {
            PACKED => Layout::Packed(packed(rows, reader)?),
            RUNS => {
                let count = reader.u32("runs of ids")? as usize;
                if count > rows {
                    return Err(corrupt("runs of ids", format!("at most {rows}"), count));
                }
                let ends = Integers::open(reader.section("ends of runs")?, count)?;
                Layout::Runs(Runs { count, packed: packed(count, reader)?, ends, loaded: OnceLock::new() })
            }
            ZSTD_CHUNKS | LZ4_CHUNKS => {
                let codec = if kind == ZSTD_CHUNKS { Codec::Zstd } else { Codec::Lz4 };
                let count = rows.div_ceil(CHUNK_ROWS);
                let raw = |chunk: usize| packed_bytes(CHUNK_ROWS.min(rows - chunk * CHUNK_ROWS), width);
                Layout::Chunks(Chunks::open(codec, reader.section("ids")?, 0, count, raw)?)
            }
            other => return Err(corrupt("layout of ids", "0 to 3", other)),
        };
        Ok(Self { rows, width, layout })
    }

    pub(crate) fn layout(&self) -> &'static str {
        match &self.layout {
            Layout::Packed(_) => "dictionary",
            Layout::Chunks(chunks) => match chunks.codec() {
                Codec::Zstd => "zstd dictionary",
                Codec::Lz4 => "lz4 dictionary",
            },
            Layout::Runs(_) => "runs",
        }
    }

    /// What finding ids costs for a row, in nanoseconds: see `ColumnReader::select_cost`.
    pub(crate) fn select_cost(&self) -> f64 {
        match &self.layout {
            Layout::Packed(_) => 0.1,
            Layout::Chunks(_) => 1.2,
            Layout::Runs(_) => 0.02,
        }
    }

    /// Calls `each` with the packed ids of `rows` chunk by chunk: the ids, which of them, and how many came before. Chunks that `wanted` (which
    /// is given the rows, counted from the first of `rows`) does not take are left out.
    fn for_each_chunk(
        &self,
        chunks: &Chunks,
        rows: Range<usize>,
        wanted: impl Fn(Range<usize>) -> bool,
        mut each: impl FnMut(Packed<'_>, Range<usize>, usize),
    ) -> Result<()> {
        let mut bytes = Vec::new();
        for chunk in rows.start / CHUNK_ROWS..rows.end.div_ceil(CHUNK_ROWS) {
            let first = chunk * CHUNK_ROWS;
            let count = CHUNK_ROWS.min(self.rows - first);
            let part = rows.start.max(first)..rows.end.min(first + count);
            let before = part.start - rows.start;
            if part.is_empty() || !wanted(before..before + part.len()) {
                continue;
            }
            chunks.read(chunk, packed_bytes(count, self.width), PADDING, &mut bytes)?;
            let packed = Packed::new(&bytes, self.width, count).expect("invariant: a chunk has its bytes");
            each(packed, part.start - first..part.end - first, before);
        }
        Ok(())
    }

    fn packed<'p>(&self, packed: &'p Buffer, count: usize) -> Packed<'p> {
        Packed::new(packed, self.width, count).expect("invariant: open checked the length of the ids")
    }

    fn ends<'r>(&self, runs: &'r Runs) -> Result<&'r [u32]> {
        if let Some(ends) = runs.loaded.get() {
            return Ok(ends);
        }
        let ends = runs.ends.decode(0..runs.count, |end| u32::try_from(end).unwrap_or(0))?;
        let ascending = ends.first().is_none_or(|first| *first > 0) && ends.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || ends.last().map_or(0, |last| *last as usize) != self.rows {
            let last = ends.last().copied().unwrap_or(0);
            return Err(corrupt(
                "ends of runs",
                format!("ascending to {}", self.rows),
                format!("a last end of {last}"),
            ));
        }
        Ok(runs.loaded.get_or_init(|| ends))
    }

    /// The runs that touch `rows`: id and the rows of it within `rows`, counted from the first of `rows`.
    fn runs_in<'r>(
        &'r self,
        runs: &'r Runs,
        rows: Range<usize>,
    ) -> Result<impl Iterator<Item = (u32, Range<usize>)> + 'r> {
        let ends = self.ends(runs)?;
        let packed = self.packed(&runs.packed, runs.count);
        let first = ends.partition_point(|end| *end as usize <= rows.start);
        let mut start = rows.start;
        Ok((first..ends.len()).map_while(move |run| {
            if start >= rows.end {
                return None;
            }
            let end = (ends[run] as usize).min(rows.end);
            let part = start - rows.start..end - rows.start;
            start = end;
            Some((packed.get(run) as u32, part))
        }))
    }

    /// Puts the ids of `rows`, which lie below the number of rows, into `out`, cleared first.
    pub(crate) fn read(&self, rows: Range<usize>, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        out.resize(rows.len(), 0);
        match &self.layout {
            Layout::Packed(packed) => self.packed(packed, self.rows).unpack_u32(rows.start, out),
            Layout::Chunks(chunks) => self.for_each_chunk(
                chunks,
                rows,
                |_| true,
                |packed, part, before| {
                    packed.unpack_u32(part.start, &mut out[before..before + part.len()]);
                },
            )?,
            Layout::Runs(runs) => {
                for (id, part) in self.runs_in(runs, rows)? {
                    out[part].fill(id);
                }
            }
        }
        Ok(())
    }

    /// The ids of those rows of `rows` that `selection` holds.
    pub(crate) fn gather(&self, rows: Range<usize>, selection: &Bitmask) -> Result<Vec<u32>> {
        let mut out = Vec::new();
        self.gather_into(rows, selection, &mut out)?;
        Ok(out)
    }

    /// As [`Self::gather`], into `out`, which is cleared first.
    pub(crate) fn gather_into(&self, rows: Range<usize>, selection: &Bitmask, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        out.reserve(selection.count());
        match &self.layout {
            Layout::Packed(packed) => self.packed(packed, self.rows).gather_u32(rows.start, selection, out),
            Layout::Chunks(chunks) => {
                let wanted = |part: Range<usize>| selection.any_in(part);
                let mut ids = Vec::new();
                self.for_each_chunk(chunks, rows, wanted, |packed, part, before| {
                    let all = before..before + part.len();
                    if selection.count_in(all.clone()) < part.len() / 8 {
                        out.extend(selection.iter_in(all).map(|row| packed.get(part.start + row - before) as u32));
                    } else {
                        ids.resize(part.len(), 0);
                        packed.unpack_u32(part.start, &mut ids);
                        out.extend(selection.iter_in(all).map(|row| ids[row - before]));
                    }
                })?;
            }
            Layout::Runs(runs) => {
                for (id, part) in self.runs_in(runs, rows)? {
                    out.resize(out.len() + selection.count_in(part), id);
                }
            }
        }
        Ok(())
    }

    /// Takes out of `mask` the rows whose id lies inside `low..=high`, or outside when `inside` is false.
    pub(crate) fn select_range(
        &self,
        rows: Range<usize>,
        low: u32,
        high: u32,
        inside: bool,
        mask: &mut Bitmask,
    ) -> Result<()> {
        self.select(
            rows,
            inside,
            mask,
            |id| (low..=high).contains(&id) == inside,
            |packed, start, count, words| {
                packed.select_range(start, count, low, high, words);
            },
        )
    }

    /// As [`Self::select_range`], for membership in a set.
    pub(crate) fn select_set(&self, rows: Range<usize>, set: &IdSet, mask: &mut Bitmask) -> Result<()> {
        self.select(
            rows,
            true,
            mask,
            |id| set.contains(id),
            |packed, start, count, words| {
                packed.select_set(start, count, set, words);
            },
        )
    }

    /// `test` is asked of a run's id; `select` of packed ones, where what it finds is turned round unless `inside`.
    fn select(
        &self,
        rows: Range<usize>,
        inside: bool,
        mask: &mut Bitmask,
        test: impl Fn(u32) -> bool,
        select: impl Fn(Packed<'_>, usize, usize, &mut [u64]),
    ) -> Result<()> {
        match &self.layout {
            Layout::Packed(packed) => {
                select_packed(self.packed(packed, self.rows), rows, 0, inside, mask, &test, &select);
                Ok(())
            }
            Layout::Chunks(chunks) => {
                let live: Vec<bool> =
                    (0..rows.len()).step_by(1024).map(|at| mask.any_in(at..rows.len().min(at + 1024))).collect();
                let wanted = |part: Range<usize>| live[part.start / 1024..part.end.div_ceil(1024)].contains(&true);
                self.for_each_chunk(chunks, rows, wanted, |packed, part, before| {
                    select_packed(packed, part, before, inside, mask, &test, &select);
                })
            }
            Layout::Runs(runs) => self.select_runs(runs, rows, mask, test),
        }
    }

    fn select_runs(
        &self,
        runs: &Runs,
        rows: Range<usize>,
        mask: &mut Bitmask,
        test: impl Fn(u32) -> bool,
    ) -> Result<()> {
        for (id, part) in self.runs_in(runs, rows)? {
            if !test(id) {
                mask.clear_in(part);
            }
        }
        Ok(())
    }
}

/// Where fewer than one in this many rows are left, their ids are looked at one by one.
const SPARSE: usize = 32;

/// Takes out of `mask`, from bit `before` on, the rows whose packed id `select` does not find, or for which `test` is false.
fn select_packed(
    packed: Packed<'_>,
    rows: Range<usize>,
    before: usize,
    inside: bool,
    mask: &mut Bitmask,
    test: &impl Fn(u32) -> bool,
    select: &impl Fn(Packed<'_>, usize, usize, &mut [u64]),
) {
    let mut words = [0u64; 64];
    let mut positions = Vec::new();
    for at in (0..rows.len()).step_by(words.len() * 64) {
        let count = (rows.len() - at).min(words.len() * 64);
        let here = before + at..before + at + count;
        match mask.count_in(here.clone()) {
            0 => continue,
            few if few < count / SPARSE => {
                mask.positions_in(here.clone(), &mut positions);
                for position in &positions {
                    let position = *position as usize;
                    if !test(packed.get(rows.start + at + position) as u32) {
                        mask.unset(here.start + position);
                    }
                }
                continue;
            }
            _ => {}
        }
        let words = &mut words[..count.div_ceil(64)];
        select(packed, rows.start + at, count, words);
        if !inside {
            words.iter_mut().for_each(|word| *word = !*word);
        }
        mask.and_bits(before + at, count, words);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(ids: &[u32], distinct: usize) -> Result<Ids> {
        let sections = encode_ids(ids, distinct).finish().into_iter().map(Buffer::from_vec).collect();
        Ids::open(ids.len(), &mut Reader::new(sections)?)
    }

    proptest! {
        #[test]
        fn ids_are_read_gathered_and_selected(
            runs in prop::collection::vec((0u32..300, 1usize..60), 0..60), long in any::<bool>(),
            ends in any::<(prop::sample::Index, prop::sample::Index)>(), bounds in (0u32..300, 0u32..300), inside in any::<bool>(),
        ) {
            let ids: Vec<u32> =
                runs.iter().flat_map(|(id, count)| std::iter::repeat_n(*id, if long { *count * 20 } else { 1 })).collect();
            let column = open(&ids, 300).expect("own bytes are sound");
            let (a, b) = (ends.0.index(ids.len() + 1), ends.1.index(ids.len() + 1));
            let rows = a.min(b)..a.max(b);
            let run = &ids[rows.clone()];
            let mut out = vec![3];
            column.read(rows.clone(), &mut out).expect("reads");
            prop_assert_eq!(&out, run);
            let mut mask = Bitmask::all(run.len());
            column.select_range(rows.clone(), bounds.0, bounds.1, inside, &mut mask).expect("selects");
            let passes = |id: &u32| (bounds.0..=bounds.1).contains(id) == inside;
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), (0..run.len()).filter(|i| passes(&run[*i])).collect::<Vec<_>>());
            let gathered = column.gather(rows.clone(), &mask).expect("gathers");
            prop_assert_eq!(gathered, run.iter().copied().filter(passes).collect::<Vec<_>>());
            let set = IdSet::of(300, (0..300).filter(|id| id % 7 == bounds.0 % 7));
            let mut mask = Bitmask::all(run.len());
            column.select_set(rows, &set, &mut mask).expect("selects");
            let expected: Vec<usize> = (0..run.len()).filter(|i| run[*i] % 7 == bounds.0 % 7).collect();
            prop_assert_eq!(mask.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_sorted_column_is_kept_as_runs() {
        let ids: Vec<u32> = (0..100_000).map(|row| row / 1000).collect();
        assert_eq!(open(&ids, 100).expect("sound").layout(), "runs");
        assert!(encode_ids(&ids, 100).bytes() < 500);
        let mixed: Vec<u32> = (0..100_000).map(|row| row % 100).collect();
        assert_eq!(open(&mixed, 100).expect("sound").layout(), "dictionary");
    }
}
