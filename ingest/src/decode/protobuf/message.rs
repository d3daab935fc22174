//! A way through one message: to the values that columns want, and past all others.

use super::{
    plan::{Element, Field, Kinds, MapKinds, MessagePlan, Plan, Shape},
    schema::{Kind, MessageKind},
    wire::{Raw, Wrong, field},
};
use crate::decode::{
    cursor::{Broken, Cursor, DEPTH_MAX},
    number::Misfit,
    value::Value,
};

/// Occurrences of repeated fields and messages that are kept of one message: each is larger in memory than it may be in bytes.
pub(super) const PIECES_MAX: usize = 1 << 20;

/// What a column has of the message at hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Nothing,
    Value(Value<'a>),
    /// A string that is none.
    Misfit {
        misfit: Misfit,
        bytes: &'a [u8],
    },
    /// Occurrences of `place` among the pieces from `from` on.
    Pieces {
        what: What<'a>,
        place: usize,
        from: usize,
    },
}

/// What pieces make together.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    /// One message: its occurrences end to end.
    Message(&'a MessageKind),
    Many(&'a Kinds),
    Map(&'a MapKinds),
}

/// Room for what is found in one message after the other.
#[derive(Debug)]
pub(super) struct Finds<'a> {
    /// By column.
    pub(super) found: Vec<Found<'a>>,
    /// Place and value.
    pub(super) pieces: Vec<(usize, Raw<'a>)>,
    /// Elements of repeated fields that went by, by place.
    counts: Vec<usize>,
}

impl<'a> Finds<'a> {
    pub(super) fn new(columns: usize) -> Self {
        Self { found: vec![Found::Nothing; columns], pieces: Vec::new(), counts: Vec::new() }
    }

    /// Notes what the columns of `plan` find in a message, which begins `start` bytes after what it came in.
    pub(super) fn read(&mut self, plan: &'a Plan, bytes: &'a [u8], start: usize) -> Result<(), Broken> {
        self.found.fill(Found::Nothing);
        self.pieces.clear();
        self.counts.clear();
        self.counts.resize(plan.places, 0);
        let origin = (bytes.as_ptr() as usize).wrapping_sub(start);
        Reader { finds: self, origin }.message(&plan.message, bytes, 0)?;
        if !plan.whole.is_empty() {
            let from = self.pieces.len();
            self.pieces.push((0, Raw::Bytes(bytes)));
            for column in &plan.whole {
                self.found[*column] = Found::Pieces { what: What::Message(&plan.kind), place: 0, from };
            }
        }
        Ok(())
    }

    /// The occurrences that belong to what was found.
    pub(super) fn pieces(&self, place: usize, from: usize) -> impl Iterator<Item = Raw<'a>> {
        self.pieces[from..].iter().filter(move |(of, _)| *of == place).map(|(_, raw)| *raw)
    }
}

struct Reader<'r, 'a> {
    finds: &'r mut Finds<'a>,
    /// The address from which positions are counted.
    origin: usize,
}

impl<'a> Reader<'_, 'a> {
    /// Recursion goes along paths; the bound is for schemas that are longer than any path.
    fn message(&mut self, plan: &'a MessagePlan, bytes: &'a [u8], depth: u32) -> Result<(), Broken> {
        let mut cursor = Cursor::new(bytes, self.start(bytes));
        if depth >= DEPTH_MAX {
            return Err(cursor.broken(format!("messages are nested deeper than {DEPTH_MAX} levels")));
        }
        self.begin(plan);
        // Fields mostly come in the order of their numbers.
        let mut expected = 0;
        while !cursor.is_at_end() {
            let (number, raw) = field(&mut cursor)?;
            let at = match plan.fields.get(expected) {
                Some(next) if next.number == number => expected,
                _ => match plan.fields.binary_search_by_key(&number, |field| field.number) {
                    Ok(at) => at,
                    Err(_) => continue,
                },
            };
            expected = at + 1;
            self.occurrence(&plan.fields[at], raw, depth).map_err(|what| match what {
                Fault::Broken(broken) => broken,
                Fault::Type(wanted) => {
                    cursor.broken(format!("field {number} is {} where {wanted} is wanted, which ends", raw.name()))
                }
            })?;
        }
        Ok(())
    }

    /// What fields without a presence have before they come: zeros, empty lists and maps. A message that comes in several pieces keeps
    /// what the pieces before brought.
    fn begin(&mut self, plan: &'a MessagePlan) {
        let from = self.finds.pieces.len();
        let found = &mut self.finds.found;
        let mut set = |columns: &[usize], zero: Found<'a>| {
            for column in columns {
                if matches!(found[*column], Found::Nothing) {
                    found[*column] = zero;
                }
            }
        };
        for field in &plan.fields {
            match &field.shape {
                Shape::One { kind, is_implicit: true, element } => {
                    if let Some(zero) = kind.zero() {
                        set(&element.columns, Found::Value(zero));
                    }
                }
                Shape::Many { kind, columns, place, .. } => {
                    set(columns, Found::Pieces { what: What::Many(kind), place: *place, from });
                }
                Shape::Map { kinds, columns, place, .. } => {
                    set(columns, Found::Pieces { what: What::Map(kinds), place: *place, from });
                }
                Shape::One { .. } | Shape::Unwanted => {}
            }
        }
    }

    fn occurrence(&mut self, field: &'a Field, raw: Raw<'a>, depth: u32) -> Result<(), Fault> {
        self.forget(&field.others);
        match &field.shape {
            Shape::Unwanted => Ok(()),
            Shape::One { kind, element, .. } => self.element(kind, element, raw, depth),
            Shape::Many { kind, columns, place, elements } => {
                if !columns.is_empty() {
                    self.keep(*place, raw)?;
                }
                if elements.is_empty() {
                    return Ok(());
                }
                let mut one = |raw| {
                    let index = self.finds.counts[*place];
                    self.finds.counts[*place] += 1;
                    match elements.iter().find(|(wanted, _)| *wanted == index) {
                        Some((_, element)) => self.element(kind, element, raw, depth),
                        None => Ok(()),
                    }
                };
                match kind.kind.scalar() {
                    Some(scalar) => scalar.each(raw, 0, &mut one),
                    None => one(raw),
                }
            }
            Shape::Map { kinds, columns, place, entries } => {
                if !columns.is_empty() {
                    self.keep(*place, raw)?;
                }
                if entries.is_empty() {
                    return Ok(());
                }
                let bytes = raw.message().ok_or(Fault::Type("an entry of a map"))?;
                let (key, value) = entry(bytes, self.start(bytes))?;
                let mut text = String::new();
                let key = key.map_or(Ok(kinds.key.zero()), |raw| kinds.key.value(raw));
                let key = key.map_err(|_| Fault::Type(kinds.key.name()))?;
                // A key is a number, a bool or a string: it has a text.
                if key.write_text(&mut text).is_err() {
                    return Ok(());
                }
                let Some((_, element)) = entries.iter().find(|(wanted, _)| *wanted == text) else { return Ok(()) };
                // A key that comes twice: the last one counts, and nothing of the first may shine through.
                self.forget(&element.subtree);
                self.finds.counts[element.places.clone()].fill(0);
                match (value, &kinds.value.kind) {
                    (Some(raw), _) => self.element(&kinds.value, element, raw, depth),
                    (None, Kind::Message(_)) => self.element(&kinds.value, element, Raw::Bytes(&[]), depth),
                    (None, _) => {
                        let zero = kinds.value.zero().map_or(Found::Nothing, Found::Value);
                        self.set(&element.columns, zero);
                        Ok(())
                    }
                }
            }
        }
    }

    fn element(&mut self, kind: &'a Kinds, element: &'a Element, raw: Raw<'a>, depth: u32) -> Result<(), Fault> {
        let message = match (kind.value(raw), &kind.kind) {
            (None, Kind::Message(message)) => message,
            (Some(Ok(value)), _) => {
                self.set(&element.columns, Found::Value(value));
                return Ok(());
            }
            (Some(Err(Wrong::Misfit(misfit, bytes))), _) => {
                self.set(&element.columns, Found::Misfit { misfit, bytes });
                return Ok(());
            }
            (_, other) => return Err(Fault::Type(other.scalar().map_or("a message", |scalar| scalar.name()))),
        };
        let bytes = raw.message().ok_or(Fault::Type("a message"))?;
        if let Some(inner) = &element.inner {
            self.message(inner, bytes, depth + 1)?;
        }
        if !element.columns.is_empty() {
            let (place, from) = (element.places.start, self.finds.pieces.len());
            for column in &element.columns {
                let found = &mut self.finds.found[*column];
                if !matches!(found, Found::Pieces { .. }) {
                    *found = Found::Pieces { what: What::Message(message), place, from };
                }
            }
            self.keep(place, raw)?;
        }
        Ok(())
    }

    fn keep(&mut self, place: usize, raw: Raw<'a>) -> Result<(), Broken> {
        if self.finds.pieces.len() >= PIECES_MAX {
            return Err(Broken::new(format!("it has more than {PIECES_MAX} repeated fields")));
        }
        self.finds.pieces.push((place, raw));
        Ok(())
    }

    fn set(&mut self, columns: &[usize], to: Found<'a>) {
        for column in columns {
            self.finds.found[*column] = to;
        }
    }

    fn forget(&mut self, columns: &[usize]) {
        self.set(columns, Found::Nothing);
    }

    fn start(&self, bytes: &[u8]) -> usize {
        (bytes.as_ptr() as usize).wrapping_sub(self.origin)
    }
}

enum Fault {
    Broken(Broken),
    /// Another type is wanted.
    Type(&'static str),
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Key and value of a map's entry.
pub(super) fn entry(bytes: &[u8], start: usize) -> Result<(Option<Raw<'_>>, Option<Raw<'_>>), Broken> {
    let mut cursor = Cursor::new(bytes, start);
    let (mut key, mut value) = (None, None);
    while !cursor.is_at_end() {
        match field(&mut cursor)? {
            (1, raw) => key = Some(raw),
            (2, raw) => value = Some(raw),
            _ => {}
        }
    }
    Ok((key, value))
}
