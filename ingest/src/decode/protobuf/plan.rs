//! Which fields of a message the columns want: their paths laid upon the types of its schema.

use std::collections::HashMap;

use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::{
    schema::{Kind, MessageKind},
    wire::{Raw, Scalar, Wrong},
};
use crate::decode::{PathStep, SourceColumn, value::Value};

/// A type and where in it the columns stand.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) message: MessagePlan,
    /// Columns that take the whole message.
    pub(super) whole: Vec<usize>,
    pub(super) kind: MessageKind,
    /// Columns that have no place in the type: NULL in every row.
    pub(super) absent: Vec<usize>,
    /// One for each place of the plan.
    pub(super) places: usize,
}

/// A message at one place.
#[derive(Debug, Default)]
pub(super) struct MessagePlan {
    /// By number.
    pub(super) fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) shape: Shape,
    /// Columns of the other members of its oneof: when this one comes, they have nothing.
    pub(super) others: Vec<usize>,
}

#[derive(Debug)]
pub(super) enum Shape {
    /// Wanted only for what it takes away from other members of its oneof.
    Unwanted,
    One {
        kind: Kinds,
        /// Without a presence of its own: then it has its type's zero when it is not there.
        is_implicit: bool,
        element: Element,
    },
    Many {
        kind: Kinds,
        /// Columns that take all of it, and the place where its pieces are kept.
        columns: Vec<usize>,
        place: usize,
        /// By index.
        elements: Vec<(usize, Element)>,
    },
    Map {
        kinds: MapKinds,
        columns: Vec<usize>,
        place: usize,
        /// By key.
        entries: Vec<(String, Element)>,
    },
}

/// A type and, of an enum, its words.
#[derive(Debug)]
pub(super) struct Kinds {
    pub(super) kind: Kind,
    words: HashMap<i32, String>,
}

#[derive(Debug)]
pub(super) struct MapKinds {
    pub(super) key: Scalar,
    pub(super) value: Kinds,
}

/// One value that columns take, or parts of it.
#[derive(Debug)]
pub(super) struct Element {
    /// Columns that take the value as it is.
    pub(super) columns: Vec<usize>,
    pub(super) inner: Option<MessagePlan>,
    /// Columns of this value and all in it.
    pub(super) subtree: Vec<usize>,
    /// Of the value itself, and the end of those in it.
    pub(super) places: std::ops::Range<usize>,
}

impl Kinds {
    fn of(kind: prost_reflect::Kind) -> Self {
        let kind = Kind::of(kind);
        let words = match &kind {
            Kind::Enum(words) => words.values().map(|word| (word.number(), word.name().to_owned())).collect(),
            _ => HashMap::new(),
        };
        Self { kind, words }
    }

    /// The value of a field; `None` of a message.
    #[inline]
    pub(super) fn value<'a>(&'a self, raw: Raw<'a>) -> Option<Result<Value<'a>, Wrong<'a>>> {
        let scalar = self.kind.scalar()?;
        Some(scalar.value(raw).map(|value| self.with_word(value)))
    }

    /// The value of a field that is not there; `None` of a message.
    pub(super) fn zero(&self) -> Option<Value<'_>> {
        self.kind.scalar().map(|scalar| self.with_word(scalar.zero()))
    }

    /// A number of an enum that has no word stays a number.
    fn with_word<'a>(&'a self, value: Value<'a>) -> Value<'a> {
        match (&self.kind, value) {
            (Kind::Enum(_), Value::Integer(number)) => match self.words.get(&(number as i32)) {
                Some(name) => Value::Symbol { name, number: number as i32 },
                None => value,
            },
            _ => value,
        }
    }
}

impl Plan {
    pub(super) fn new(descriptor: &MessageDescriptor, columns: &[SourceColumn]) -> Self {
        let wanted: Vec<Wanted<'_>> = columns.iter().enumerate().map(|(at, column)| (at, &column.path[..])).collect();
        let mut layout = Layout { places: 1 };
        let whole: Vec<usize> = taken_whole(&wanted);
        let (message, mut found) = layout.message(descriptor, &wanted);
        found.extend(&whole);
        let absent = (0..columns.len()).filter(|at| !found.contains(at)).collect();
        Self { message, whole, kind: MessageKind::of(descriptor.clone()), absent, places: layout.places }
    }
}

/// A column and the steps that are left to its value.
type Wanted<'a> = (usize, &'a [PathStep]);

fn taken_whole(wanted: &[Wanted<'_>]) -> Vec<usize> {
    wanted.iter().filter(|(_, path)| path.is_empty()).map(|(column, _)| *column).collect()
}

struct Layout {
    places: usize,
}

impl Layout {
    /// Recursion goes along paths. Also the columns that have a place in the message.
    fn message(&mut self, descriptor: &MessageDescriptor, wanted: &[Wanted<'_>]) -> (MessagePlan, Vec<usize>) {
        let mut by_number: Vec<(FieldDescriptor, Vec<Wanted<'_>>)> = Vec::new();
        for (column, path) in wanted {
            let Some((PathStep::Field(name), rest)) = path.split_first() else { continue };
            let field = descriptor.get_field_by_name(name).or_else(|| descriptor.get_field_by_json_name(name));
            let Some(field) = field else { continue };
            match by_number.iter_mut().find(|(known, _)| known.number() == field.number()) {
                Some((_, inside)) => inside.push((*column, rest)),
                None => by_number.push((field, vec![(*column, rest)])),
            }
        }
        let mut fields = Vec::new();
        let mut oneofs: Vec<(String, u32, Vec<usize>)> = Vec::new();
        let mut found = Vec::new();
        for (field, inside) in by_number {
            let (shape, columns) = self.field(&field, &inside);
            if columns.is_empty() {
                continue;
            }
            if let Some(oneof) = field.containing_oneof() {
                oneofs.push((oneof.full_name().to_owned(), field.number(), columns.clone()));
            }
            found.extend(columns);
            fields.push(Field { number: field.number(), shape, others: Vec::new() });
        }
        for (oneof, member, columns) in oneofs {
            let members = descriptor.fields().filter(|field| {
                field.number() != member && field.containing_oneof().is_some_and(|of| of.full_name() == oneof)
            });
            for other in members {
                match fields.iter_mut().find(|field| field.number == other.number()) {
                    Some(field) => field.others.extend(&columns),
                    None => {
                        fields.push(Field { number: other.number(), shape: Shape::Unwanted, others: columns.clone() })
                    }
                }
            }
        }
        fields.sort_by_key(|field| field.number);
        (MessagePlan { fields }, found)
    }

    fn field(&mut self, field: &FieldDescriptor, wanted: &[Wanted<'_>]) -> (Shape, Vec<usize>) {
        if field.is_map()
            && let prost_reflect::Kind::Message(entry) = field.kind()
        {
            let key = Kind::of(entry.map_entry_key_field().kind()).scalar().unwrap_or(Scalar::String);
            let kinds = MapKinds { key, value: Kinds::of(entry.map_entry_value_field().kind()) };
            let (place, columns) = (self.place(), taken_whole(wanted));
            let mut found = columns.clone();
            let mut keys: Vec<&String> = wanted
                .iter()
                .filter_map(|(_, path)| match path.first() {
                    Some(PathStep::Field(key)) => Some(key),
                    _ => None,
                })
                .collect();
            keys.sort_unstable();
            keys.dedup();
            let mut entries = Vec::new();
            for key in keys {
                let inside = behind(wanted, &PathStep::Field(key.clone()));
                entries.extend(self.element(&kinds.value.kind, &inside).map(|element| (key.clone(), element)));
            }
            found.extend(entries.iter().flat_map(|(_, element)| &element.subtree));
            return (Shape::Map { kinds, columns, place, entries }, found);
        }
        let kind = Kinds::of(field.kind());
        if field.is_list() {
            let (place, columns) = (self.place(), taken_whole(wanted));
            let mut found = columns.clone();
            let mut indices: Vec<usize> = wanted
                .iter()
                .filter_map(|(_, path)| match path.first() {
                    Some(PathStep::Index(index)) => Some(*index),
                    _ => None,
                })
                .collect();
            indices.sort_unstable();
            indices.dedup();
            let mut elements = Vec::new();
            for index in indices {
                let inside = behind(wanted, &PathStep::Index(index));
                elements.extend(self.element(&kind.kind, &inside).map(|element| (index, element)));
            }
            found.extend(elements.iter().flat_map(|(_, element)| &element.subtree));
            return (Shape::Many { kind, columns, place, elements }, found);
        }
        match self.element(&kind.kind, wanted) {
            Some(element) => {
                let found = element.subtree.clone();
                (Shape::One { kind, is_implicit: !field.supports_presence(), element }, found)
            }
            None => (Shape::Unwanted, Vec::new()),
        }
    }

    fn element(&mut self, kind: &Kind, wanted: &[Wanted<'_>]) -> Option<Element> {
        let place = self.place();
        let columns = taken_whole(wanted);
        let mut subtree = columns.clone();
        let mut inner = None;
        if let Kind::Message(kind) = kind {
            let (message, found) = self.message(&kind.descriptor, wanted);
            inner = Some(message).filter(|_| !found.is_empty());
            subtree.extend(found);
        }
        Some(Element { columns, inner, places: place..self.places, subtree })
            .filter(|element| !element.subtree.is_empty())
    }

    fn place(&mut self) -> usize {
        self.places += 1;
        self.places - 1
    }
}

/// Those who want something behind this step.
fn behind<'a>(wanted: &[Wanted<'a>], step: &PathStep) -> Vec<Wanted<'a>> {
    let inside = wanted.iter().filter(|(_, path)| path.first() == Some(step));
    inside.map(|(column, path)| (*column, &path[1..])).collect()
}
