//! Rows with a key and a time that memory has no room for: found by their keys, and due when their time has come.
//!
//! ```text
//! rows     a table: key → its rows, in pieces of about a block
//! times    a table: the rows' numbers and keys, in the order of their times, read once from the beginning to the end
//! marks    a byte of each row in memory: what happened to it since
//! ```
//!
//! Each time that an operator spills it makes two such files. They never become others: their rows go with time, and a file with the last of them.

use std::{collections::VecDeque, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, UInt8Array},
    datatypes::UInt8Type,
};

use super::{
    super::{
        flow::{InFile, Part},
        spill::{Store, failed},
    },
    Result, Table,
    block::Entries,
    table::hash_of,
    writing::Writing,
};
use crate::Result as Outcome;

/// Of what stands before the rows of a piece.
const PIECE_HEAD_BYTES: usize = 8;
/// Of what stands before a row.
const ROW_HEAD_BYTES: usize = 12;
const TIME_BYTES: usize = 16;

/// A row that goes to a file.
pub(crate) struct TimedRow<'a> {
    pub(crate) time: i64,
    pub(crate) mark: u8,
    pub(crate) key: &'a [u8],
    pub(crate) bytes: &'a [u8],
}

/// A row that was found by its key.
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) time: i64,
    pub(crate) mark: u8,
    pub(crate) bytes: Box<[u8]>,
}

/// Where a row is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    file: u32,
    number: u32,
}

/// A row whose time has come.
pub(crate) struct Due {
    pub(crate) place: Place,
    pub(crate) time: i64,
    pub(crate) mark: u8,
    pub(crate) key: Box<[u8]>,
    piece: u32,
}

/// The rows of an operator, or of one side of it.
pub(crate) struct Timed {
    kind: &'static str,
    files: Vec<File>,
    /// The rows of a picture whose times come next.
    restored: Option<(Table, Vec<u8>)>,
    /// Rows before that were due.
    before: i64,
    store: Arc<dyn Store>,
}

struct File {
    rows: Table,
    times: Table,
    marks: Vec<u8>,
    /// The next block of times, and what was read of those before it.
    next: usize,
    read: VecDeque<Waiting>,
    /// Rows that were due, and the time of the last of them.
    passed: usize,
    last: i64,
}

struct Waiting {
    time: i64,
    number: u32,
    piece: u32,
    key: Box<[u8]>,
}

impl Timed {
    /// `kind`: of its parts of a picture.
    pub(crate) fn new(kind: &'static str, store: Arc<dyn Store>) -> Self {
        Self { kind, files: Vec::new(), restored: None, before: i64::MIN, store }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Rows before this were due.
    pub(crate) fn before(&self) -> i64 {
        self.before
    }

    /// Makes files of rows; those that would have been due are there for who looks for their keys.
    pub(crate) fn put(&mut self, rows: &[TimedRow<'_>]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut file = File::write(rows, &*self.store).map_err(failed)?;
        file.due(self.before, |_| {}).map_err(failed)?;
        self.files.push(file);
        Ok(())
    }

    /// All rows of a key, also those that were due, those of the newest file first.
    pub(crate) fn of_key(&self, key: &[u8]) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        if self.files.is_empty() {
            return Ok(found);
        }
        let hash = hash_of(key);
        for (at, file) in self.files.iter().enumerate().rev() {
            for piece in 0.. {
                let Some(piece) = file.piece(hash, key, piece).map_err(failed)? else { break };
                for row in piece.rows() {
                    let (number, time, bytes) = row.ok_or_else(|| failed(file.rows.torn(0)))?;
                    let mark = file.mark(number).map_err(failed)?;
                    let place = Place { file: at as u32, number };
                    found.push(Found { place, time, mark, bytes: bytes.into() });
                }
            }
        }
        Ok(found)
    }

    /// Adds bits to what is known of a row. Places are good until rows are put, or forgotten.
    pub(crate) fn mark(&mut self, place: Place, bits: u8) {
        let mark = self.files.get_mut(place.file as usize).and_then(|file| file.marks.get_mut(place.number as usize));
        if let Some(mark) = mark {
            *mark |= bits;
        }
    }

    /// The rows before a time that were not due yet, in the order of their times.
    pub(crate) fn due(&mut self, before: i64) -> Result<Vec<Due>> {
        self.before = self.before.max(before);
        let mut due = Vec::new();
        for (at, file) in self.files.iter_mut().enumerate() {
            let mut waiting = Vec::new();
            file.due(before, |row| waiting.push(row)).map_err(failed)?;
            for Waiting { time, number, piece, key } in waiting {
                let mark = file.mark(number).map_err(failed)?;
                due.push(Due { place: Place { file: at as u32, number }, time, mark, key, piece });
            }
        }
        due.sort_by_key(|due| (due.time, due.place));
        Ok(due)
    }

    /// What rows say, in their order.
    pub(crate) fn read(&self, due: &[&Due]) -> Result<Vec<Box<[u8]>>> {
        let mut order: Vec<usize> = (0..due.len()).collect();
        order.sort_unstable_by_key(|at| due[*at].place);
        let mut found: Vec<Box<[u8]>> = vec![Box::default(); due.len()];
        // Of a file pieces follow one another.
        let mut last: Option<(&Due, Piece)> = None;
        for at in order {
            let Due { place, key, piece, .. } = due[at];
            let file = &self.files[place.file as usize];
            let is_of = |of: &Due| (of.place.file, of.piece, &of.key) == (place.file, *piece, key);
            if last.as_ref().is_none_or(|(of, _)| !is_of(of)) {
                let read = file.piece(hash_of(key), key, *piece).map_err(failed)?;
                last = Some((due[at], read.ok_or_else(|| failed(file.rows.torn(0)))?));
            }
            let row = last.as_ref().and_then(|(_, piece)| piece.row(place.number));
            found[at] = row.ok_or_else(|| failed(file.rows.torn(0)))?.into();
        }
        Ok(found)
    }

    /// Drops files whose rows are all before a time, and were due.
    pub(crate) fn forget(&mut self, before: i64) {
        self.files.retain(|file| file.passed < file.marks.len() || file.last >= before);
    }

    /// Of a picture: for each file its rows with their marks, then its times.
    pub(crate) fn dump(&self) -> Vec<Part> {
        let parts = self.files.iter().flat_map(|file| {
            let marks: ArrayRef = Arc::new(UInt8Array::from(file.marks.clone()));
            let rows = Part::new(self.kind, self.before, file.marks.len(), vec![vec![marks]]);
            let times = Part::new(self.kind, self.before, 0, Vec::new());
            [
                Part { in_file: Some(InFile::Table(file.rows.clone())), ..rows },
                Part { in_file: Some(InFile::Table(file.times.clone())), ..times },
            ]
        });
        parts.collect()
    }

    /// Takes a part of a picture; they come in their order.
    pub(crate) fn restore(&mut self, part: &Part) -> Result<()> {
        let foreign = || super::super::foreign(&part.kind);
        let Some(InFile::Table(table)) = &part.in_file else { return Err(foreign()) };
        let Some((rows, marks)) = self.restored.take() else {
            let marks = part.columns.first().and_then(|columns| columns.first()).ok_or_else(foreign)?;
            let marks = marks.as_primitive_opt::<UInt8Type>().ok_or_else(foreign)?;
            self.restored = Some((table.clone(), marks.values().to_vec()));
            return Ok(());
        };
        if table.entries() != marks.len() as u64 || !part.columns.is_empty() {
            return Err(foreign());
        }
        let adopt = |table: Table| table.adopt(&*self.store).map_err(failed);
        let mut file = File::new(adopt(rows)?, adopt(table.clone())?, marks);
        self.before = self.before.max(part.at);
        file.due(part.at, |_| {}).map_err(failed)?;
        self.files.push(file);
        Ok(())
    }

    /// Of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.rows.bytes() + file.times.bytes() + file.marks.len()).sum()
    }

    /// Rows that were not due yet.
    pub(crate) fn waiting(&self) -> usize {
        self.files.iter().map(|file| file.marks.len() - file.passed).sum()
    }

    /// Of a row in files, about.
    pub(crate) fn row_bytes(&self) -> usize {
        let rows: usize = self.files.iter().map(|file| file.marks.len()).sum();
        self.spilled() as usize / rows.max(1)
    }

    /// Bytes in files.
    pub(crate) fn spilled(&self) -> u64 {
        self.files.iter().map(|file| file.rows.file().bytes + file.times.file().bytes).sum()
    }
}

impl File {
    fn new(rows: Table, times: Table, marks: Vec<u8>) -> Self {
        Self { rows, times, marks, next: 0, read: VecDeque::new(), passed: 0, last: i64::MIN }
    }

    fn write(rows: &[TimedRow<'_>], store: &dyn Store) -> Outcome<Self> {
        let mut order: Vec<(u64, &TimedRow<'_>)> = rows.iter().map(|row| (hash_of(row.key), row)).collect();
        order.sort_by(|(a, x), (b, y)| (a, x.key, x.time).cmp(&(b, y.key, y.time)));
        // Pieces of a key have hashes that follow one another.
        let mut pieces = Vec::new();
        for of_key in order.chunk_by(|(a, x), (b, y)| a == b && x.key == y.key) {
            let (mut begin, mut bytes, mut piece) = (0, 0, 0);
            for (at, (hash, row)) in of_key.iter().enumerate() {
                bytes += ROW_HEAD_BYTES + row.bytes.len();
                if bytes >= store.block_bytes() || at + 1 == of_key.len() {
                    pieces.push((hash.wrapping_add(u64::from(piece)), piece, &of_key[begin..=at]));
                    (begin, bytes, piece) = (at + 1, 0, piece + 1);
                }
            }
        }
        pieces.sort_by(|(a, m, x): &(u64, u32, &[(u64, &TimedRow<'_>)]), (b, n, y)| {
            (a, x[0].1.key, m).cmp(&(b, y[0].1.key, n))
        });
        let mut writing = Writing::new(store, 0, pieces.len() as u64)?;
        let (mut marks, mut times, mut value) =
            (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()), vec![]);
        for (hash, piece, rows) in pieces {
            value.clear();
            value.extend_from_slice(&(marks.len() as u32).to_le_bytes());
            value.extend_from_slice(&piece.to_le_bytes());
            for (_, row) in rows {
                value.extend_from_slice(&row.time.to_le_bytes());
                value.extend_from_slice(&(row.bytes.len() as u32).to_le_bytes());
                value.extend_from_slice(row.bytes);
                times.push((row.time, marks.len() as u32, piece, row.key));
                marks.push(row.mark);
            }
            writing.add(hash, rows[0].1.key, &value)?;
        }
        let rows = writing.finish()?;
        times.sort_unstable_by_key(|(time, number, ..)| (*time, *number));
        // Nobody looks for a time: they are read one after the other.
        let mut writing = Writing::new(store, 0, 0)?;
        for (at, (time, number, piece, key)) in times.into_iter().enumerate() {
            value.clear();
            value.extend_from_slice(&time.to_le_bytes());
            value.extend_from_slice(&number.to_le_bytes());
            value.extend_from_slice(&piece.to_le_bytes());
            writing.add(at as u64, key, &value)?;
        }
        Ok(Self::new(rows, writing.finish()?, marks))
    }

    /// A byte of each row; a file that has more of them is none of this.
    fn mark(&self, number: u32) -> Outcome<u8> {
        self.marks.get(number as usize).copied().ok_or_else(|| self.rows.torn(0))
    }

    fn piece(&self, hash: u64, key: &[u8], piece: u32) -> Outcome<Option<Piece>> {
        let is_it = |value: &[u8]| Piece::number_of(value) == Some(piece);
        let found = self.rows.find(hash.wrapping_add(u64::from(piece)), key, is_it)?;
        Ok(found.map(Piece))
    }

    /// Takes the rows before a time.
    fn due(&mut self, before: i64, mut take: impl FnMut(Waiting)) -> Outcome<()> {
        loop {
            while let Some(row) = self.read.pop_front_if(|row| row.time < before) {
                self.passed += 1;
                self.last = self.last.max(row.time);
                take(row);
            }
            if !self.read.is_empty() || self.next == self.times.blocks() {
                return Ok(());
            }
            let block = self.times.block(self.next)?;
            for entry in Entries::of(&block) {
                let torn = || self.times.torn(self.next);
                let (key, value) = entry.ok_or_else(torn)?;
                let waiting = Waiting::of(key, value).ok_or_else(torn)?;
                match self.times.counts(key) {
                    true => self.read.push_back(waiting),
                    // Of another lane.
                    false => (self.passed, self.last) = (self.passed + 1, self.last.max(waiting.time)),
                }
            }
            self.next += 1;
        }
    }
}

impl Waiting {
    fn of(key: &[u8], value: &[u8]) -> Option<Self> {
        let value: &[u8; TIME_BYTES] = value.try_into().ok()?;
        let (time, rest) = value.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (time, number) = (i64::from_le_bytes(*time), u32::from_le_bytes(*number));
        Some(Self { time, number, piece: u32::from_le_bytes(rest.try_into().ok()?), key: key.into() })
    }
}

/// Rows of a key: the number of the first, which piece it is; of each row its time, its length and what it says.
struct Piece(Vec<u8>);

impl Piece {
    fn number_of(value: &[u8]) -> Option<u32> {
        value.get(PIECE_HEAD_BYTES / 2..PIECE_HEAD_BYTES)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// Number, time and bytes of each; `None` where it is none, and then no more.
    fn rows(&self) -> impl Iterator<Item = Option<(u32, i64, &[u8])>> {
        let mut number = self.0.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
        let mut rest = self.0.get(PIECE_HEAD_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let row = cut(rest);
            rest = row.map_or(&[], |(.., rest)| rest);
            number = number.wrapping_add(1);
            Some(row.map(|(time, bytes, _)| (number.wrapping_sub(1), time, bytes)))
        })
    }

    fn row(&self, number: u32) -> Option<&[u8]> {
        self.rows().map_while(|row| row).find_map(|(found, _, bytes)| (found == number).then_some(bytes))
    }
}

fn cut(rest: &[u8]) -> Option<(i64, &[u8], &[u8])> {
    let (time, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((i64::from_le_bytes(*time), bytes, rest))
}
