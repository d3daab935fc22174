//! The operator behind OVER: rows wait for the end of their window, and are given in the order of ORDER BY, with their ranks.
//!
//! Where only the first n of each part are asked for, no more of them are kept. Rows that are equal in ORDER BY are in the order of their columns, so that the answer does not depend on
//! the order of arrival.

use std::{collections::BTreeMap, mem, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt64Array, new_null_array,
    },
    compute::cast,
    datatypes::UInt64Type,
};
use datafusion::common::DataFusionError;

use super::{
    flow::{Part, Taken},
    packing::Packing,
};
use crate::pipeline::plan::{RankKind, Ranking};

type Result<T> = std::result::Result<T, DataFusionError>;

/// Bytes of an entry beside its own.
const ENTRY_BYTES: usize = 64;
const RANKED: &str = "ranked";

/// Rows with all that the operator computes of them alone.
pub(crate) struct RankRows {
    pub(crate) times: TimestampMicrosecondArray,
    pub(crate) keys: Vec<ArrayRef>,
    pub(crate) order: Vec<ArrayRef>,
    /// What is kept of each.
    pub(crate) kept: Vec<ArrayRef>,
    pub(crate) before: Vec<i64>,
    pub(crate) places: Vec<u32>,
}

pub(crate) struct Ranked {
    ranking: Arc<Ranking>,
    keys: Packing,
    order: Packing,
    rows: Packing,
    /// By where windows begin, and keys.
    windows: BTreeMap<i64, BTreeMap<Box<[u8]>, Places>>,
    bytes: usize,
}

/// What ORDER BY says of a row, and what is kept of it.
type Place = (Box<[u8]>, Box<[u8]>);

/// The rows of a part in their order: of each how often it is there.
#[derive(Default)]
struct Places {
    rows: BTreeMap<Place, u64>,
    count: u64,
}

impl Ranked {
    pub(crate) fn new(ranking: Arc<Ranking>) -> Result<Self> {
        let keys = Packing::new(ranking.keys.iter().map(|key| key.field.data_type().clone()).collect())?;
        let order = ranking.order.iter();
        let order = order.map(|(by, options)| (by.field.data_type().clone(), *options));
        let order = Packing::ordered(order.collect())?;
        let rows = ranking.kept.iter().map(|at| ranking.schema.field(*at).data_type().clone()).collect();
        Ok(Self { ranking, keys, order, rows: Packing::new(rows)?, windows: BTreeMap::new(), bytes: 0 })
    }

    fn start(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.ranking.size_us))
    }

    pub(crate) fn update(&mut self, rows: &RankRows) -> Result<Taken> {
        let mut taken = Taken::default();
        let (keys, order, kept) =
            (self.keys.pack(&rows.keys)?, self.order.pack(&rows.order)?, self.rows.pack(&rows.kept)?);
        for (row, before) in rows.before.iter().copied().enumerate() {
            let start = self.start(rows.times.value(row));
            if start.saturating_add(self.ranking.size_us) <= before {
                taken.late.push(rows.places[row]);
                continue;
            }
            self.put(start, keys.row(row), (order.row(row).into(), kept.row(row).into()), 1);
        }
        Ok(taken)
    }

    fn put(&mut self, start: i64, key: &[u8], row: (Box<[u8]>, Box<[u8]>), times: u64) {
        let window = self.windows.entry(start).or_default();
        if !window.contains_key(key) {
            self.bytes += key.len() + ENTRY_BYTES;
            window.insert(key.into(), Places::default());
        }
        let Some(places) = window.get_mut(key) else { return };
        let bytes = row.0.len() + row.1.len() + ENTRY_BYTES;
        let known = places.rows.entry(row).or_insert(0);
        if *known == 0 {
            self.bytes += bytes;
        }
        *known += times;
        places.count += times;
        let Some(most) = self.ranking.most else { return };
        while places.count > most as u64 {
            let Some(mut last) = places.rows.last_entry() else { return };
            let gone = (*last.get()).min(places.count - most as u64);
            places.count -= gone;
            *last.get_mut() -= gone;
            if *last.get() == 0 {
                let ((order, row), _) = last.remove_entry();
                self.bytes -= order.len() + row.len() + ENTRY_BYTES;
            }
        }
    }

    /// Gives the windows that end at or before the watermark, in their order.
    pub(crate) fn advance(&mut self, watermark: i64) -> Result<Taken> {
        let mut given = Vec::new();
        let size = self.ranking.size_us;
        while let Some(first) = self.windows.first_entry().filter(|first| first.key().saturating_add(size) <= watermark)
        {
            let parts = first.remove();
            let of_rows = |places: &Places| {
                let rows = places.rows.keys().map(|(order, row)| order.len() + row.len() + ENTRY_BYTES);
                rows.sum::<usize>()
            };
            let of_parts = parts.iter().map(|(key, places)| key.len() + ENTRY_BYTES + of_rows(places));
            self.bytes -= of_parts.sum::<usize>();
            given.extend(self.batch(&parts)?);
        }
        Ok(Taken::of(given))
    }

    fn batch(&self, parts: &BTreeMap<Box<[u8]>, Places>) -> Result<Option<RecordBatch>> {
        let (mut rows, mut ranks): (Vec<&[u8]>, Vec<Vec<u64>>) =
            (Vec::new(), vec![Vec::new(); self.ranking.ranks.len()]);
        for places in parts.values() {
            let (mut number, mut rank, mut dense) = (0u64, 0u64, 0u64);
            let mut last: Option<&Box<[u8]>> = None;
            for ((order, row), times) in &places.rows {
                if last != Some(order) {
                    (rank, dense, last) = (number + 1, dense + 1, Some(order));
                }
                for _ in 0..*times {
                    number += 1;
                    rows.push(row);
                    for (ranks, kind) in ranks.iter_mut().zip(&self.ranking.ranks) {
                        ranks.push(match kind {
                            RankKind::Number => number,
                            RankKind::Rank => rank,
                            RankKind::Dense => dense,
                        });
                    }
                }
            }
        }
        let count = rows.len();
        if count == 0 {
            return Ok(None);
        }
        let mut kept = self.rows.unpack(rows.into_iter())?.into_iter();
        let fields = self.ranking.schema.fields().iter().enumerate();
        let column = |(at, field): (usize, &arrow::datatypes::FieldRef)| match self.ranking.kept.contains(&at) {
            true => kept.next().unwrap_or_else(|| new_null_array(field.data_type(), count)),
            false => new_null_array(field.data_type(), count),
        };
        let mut columns: Vec<ArrayRef> = fields.map(column).collect();
        let of_ranks = self.ranking.output.fields().iter().skip(columns.len());
        for (ranks, field) in ranks.into_iter().zip(of_ranks.cloned().collect::<Vec<_>>()) {
            columns.push(cast(&UInt64Array::from(ranks), field.data_type())?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.ranking.output), columns, &options)?))
    }

    pub(crate) fn dump(&self) -> Result<Vec<Part>> {
        let part = |(start, parts): (&i64, &BTreeMap<Box<[u8]>, Places>)| {
            let all = || {
                parts.iter().flat_map(|(key, places)| places.rows.iter().map(move |(row, times)| (key, row, *times)))
            };
            let counts: Vec<u64> = all().map(|(.., times)| times).collect();
            let rows = counts.len();
            let columns = vec![
                vec![Arc::new(UInt64Array::from(counts)) as ArrayRef],
                self.keys.unpack(all().map(|(key, ..)| &**key))?,
                self.order.unpack(all().map(|(_, (order, _), _)| &**order))?,
                self.rows.unpack(all().map(|(_, (_, row), _)| &**row))?,
            ];
            Ok(Part::new(RANKED, *start, rows, columns))
        };
        self.windows.iter().map(part).collect()
    }

    pub(crate) fn restore(&mut self, part: Part) -> Result<()> {
        let foreign = || super::foreign(&part.kind);
        let [counts, keys, order, rows] = part.columns.as_slice() else { return Err(foreign()) };
        let counts = counts.first().and_then(|counts| counts.as_primitive_opt::<UInt64Type>());
        let counts = counts.filter(|_| part.kind == RANKED).ok_or_else(foreign)?;
        let (keys, order, rows) = (self.keys.pack(keys)?, self.order.pack(order)?, self.rows.pack(rows)?);
        for at in 0..part.rows {
            self.put(part.at, keys.row(at), (order.row(at).into(), rows.row(at).into()), counts.value(at));
        }
        Ok(())
    }

    /// Bytes, and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let rows = self.windows.values().flat_map(BTreeMap::values).map(|places| places.rows.len()).sum();
        (self.bytes + mem::size_of::<Self>(), rows)
    }
}
