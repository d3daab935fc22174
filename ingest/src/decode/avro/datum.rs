//! A way through one datum: to the values that columns want, and past all others.

use super::{
    plan::{Inner, Node},
    schema::{Schema, Type, TypeId},
};
use crate::decode::{
    column::Column,
    cursor::{Broken, Cursor, DEPTH_MAX, Unfit, check_size},
    json::jsonb::write_string,
    number::Misfit,
    value::{Moment, Unscaled, Value},
};

/// Values that take no bytes (nulls, empty records) and may yet stand in a message, besides sixteen for each of its bytes. Without a bound
/// a count of five bytes would be four billion of them.
const EMPTY_VALUES_MAX: usize = 1 << 16;

/// What a column has of the message at hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Nothing,
    Value(Value<'a>),
    /// A record, an array or a map, which begins here.
    Nested {
        of: TypeId,
        at: Cursor<'a>,
    },
    /// A string that is none.
    Misfit {
        misfit: Misfit,
        bytes: &'a [u8],
    },
}

/// Reads a datum from its beginning on.
pub(super) struct Reader<'a> {
    schema: &'a Schema,
    cursor: Cursor<'a>,
    /// Values that may still be read.
    budget: usize,
}

/// A value that is not made of others.
enum Scalar<'a> {
    Value(Value<'a>),
    NoText(Misfit, &'a [u8]),
}

impl<'a> Scalar<'a> {
    fn value(self) -> Result<Value<'a>, Misfit> {
        match self {
            Self::Value(value) => Ok(value),
            Self::NoText(misfit, _) => Err(misfit),
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(schema: &'a Schema, cursor: Cursor<'a>) -> Self {
        Self { schema, budget: EMPTY_VALUES_MAX + 16 * cursor.rest.len(), cursor }
    }

    /// Notes what the columns of `root` find. The whole message must be one datum.
    pub(super) fn whole(mut self, root: Option<&'a Node>, found: &mut [Found<'a>]) -> Result<(), Broken> {
        match root {
            Some(root) => self.walk(self.schema.root, root, found, 0)?,
            None => self.skip(self.schema.root, 0)?,
        }
        match self.cursor.rest.len() {
            0 => Ok(()),
            left => Err(self.cursor.broken(format!("{left} bytes are left over"))),
        }
    }

    fn walk(&mut self, id: TypeId, node: &'a Node, found: &mut [Found<'a>], depth: u32) -> Result<(), Broken> {
        self.step(depth)?;
        let schema = self.schema;
        let begin = self.cursor;
        match (schema.get(id), &node.inner) {
            (Type::Union(branches), Inner::Union(nodes)) => {
                let branch = self.index(branches.len(), "branches of a union")?;
                return match &nodes[branch] {
                    Some(node) => self.walk(branches[branch], node, found, depth + 1),
                    None if matches!(schema.get(branches[branch]), Type::Null) => Ok(()),
                    None => self.skip(branches[branch], depth + 1),
                };
            }
            (Type::Record(fields), Inner::Record(nodes)) => {
                for (field, node) in fields.iter().zip(nodes) {
                    match node {
                        Some(node) => self.walk(field.of, node, found, depth + 1)?,
                        None => self.skip(field.of, depth + 1)?,
                    }
                }
            }
            (Type::Array(items), Inner::Array(nodes)) if !nodes.is_empty() => {
                let mut index = 0;
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        match nodes.iter().find(|(wanted, _)| *wanted == index) {
                            Some((_, node)) => self.walk(*items, node, found, depth + 1)?,
                            None => self.skip(*items, depth + 1)?,
                        }
                        index += 1;
                    }
                }
            }
            (Type::Map(values), Inner::Map(nodes)) if !nodes.is_empty() => {
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        let key = self.bytes()?;
                        match nodes.iter().find(|(wanted, _)| wanted.as_bytes() == key) {
                            Some((_, node)) => {
                                // A key that comes twice: the last one counts, and nothing of the first may shine through.
                                for column in &node.subtree {
                                    found[*column] = Found::Nothing;
                                }
                                self.walk(*values, node, found, depth + 1)?;
                            }
                            None => self.skip(*values, depth + 1)?,
                        }
                    }
                }
            }
            (Type::Record(_) | Type::Array(_) | Type::Map(_), _) => self.skip(id, depth)?,
            _ => {
                let one = match self.scalar(id)? {
                    Scalar::Value(value) => Found::Value(value),
                    Scalar::NoText(misfit, bytes) => Found::Misfit { misfit, bytes },
                };
                for column in &node.columns {
                    found[*column] = one;
                }
                return Ok(());
            }
        }
        for column in &node.columns {
            found[*column] = Found::Nested { of: id, at: begin };
        }
        Ok(())
    }

    /// Goes past a value.
    fn skip(&mut self, id: TypeId, depth: u32) -> Result<(), Broken> {
        self.step(depth)?;
        let schema = self.schema;
        match schema.get(id) {
            Type::Union(branches) => {
                let branch = self.index(branches.len(), "branches of a union")?;
                self.skip(branches[branch], depth + 1)
            }
            Type::Record(fields) => fields.iter().try_for_each(|field| self.skip(field.of, depth + 1)),
            Type::Array(items) => self.skip_blocks(*items, false, depth),
            Type::Map(values) => self.skip_blocks(*values, true, depth),
            Type::Null => Ok(()),
            Type::String | Type::Json | Type::Bytes | Type::Decimal { fixed: None, .. } => self.bytes().map(|_| ()),
            _ => self.scalar(id).map(|_| ()),
        }
    }

    fn skip_blocks(&mut self, of: TypeId, has_keys: bool, depth: u32) -> Result<(), Broken> {
        while let Some(count) = self.block()? {
            for _ in 0..count {
                if has_keys {
                    self.bytes()?;
                }
                self.skip(of, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Every value is counted, also those without bytes: so no message takes more time than its length allows.
    #[inline]
    fn step(&mut self, depth: u32) -> Result<(), Broken> {
        if depth >= DEPTH_MAX {
            return Err(self.cursor.broken(format!("values are nested deeper than {DEPTH_MAX} levels")));
        }
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or_else(|| self.cursor.broken("there are more empty values than a message may hold"))?;
        Ok(())
    }

    /// How many values the next block of an array or map has; `None` at its end.
    fn block(&mut self) -> Result<Option<u64>, Broken> {
        let count = self.cursor.zigzag()?;
        if count < 0 {
            // Then its length in bytes follows, for readers that leave it out.
            let length = self.cursor.zigzag()?;
            if usize::try_from(length).is_err() || length as usize > self.cursor.rest.len() {
                return Err(self.cursor.broken("a block is longer than the message"));
            }
        }
        Ok(Some(count.unsigned_abs()).filter(|count| *count > 0))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.cursor.zigzag()?;
        match u64::try_from(length) {
            Ok(length) => self.cursor.take_as_said(length),
            Err(_) => Err(self.cursor.broken(format!("the length {length} is negative"))),
        }
    }

    fn index(&mut self, count: usize, of: &str) -> Result<usize, Broken> {
        let index = self.cursor.zigzag()?;
        match usize::try_from(index) {
            Ok(index) if index < count => Ok(index),
            _ => Err(self.cursor.broken(format!("{index} is none of the {count} {of}"))),
        }
    }

    fn int(&mut self) -> Result<i32, Broken> {
        let value = self.cursor.zigzag()?;
        i32::try_from(value).map_err(|_| self.cursor.broken(format!("{value} is no int")))
    }

    /// A value of a type that is neither a union nor made of others.
    #[inline]
    fn scalar(&mut self, id: TypeId) -> Result<Scalar<'a>, Broken> {
        let schema = self.schema;
        Ok(Scalar::Value(match schema.get(id) {
            Type::Boolean => match self.cursor.array()? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                [other] => return Err(self.cursor.broken(format!("{other} is no boolean"))),
            },
            Type::Int => Value::Integer(self.int()?.into()),
            Type::Long => Value::Integer(self.cursor.zigzag()?),
            Type::Float => Value::Float(f32::from_le_bytes(self.cursor.array()?)),
            Type::Double => Value::Double(f64::from_le_bytes(self.cursor.array()?)),
            Type::Bytes => Value::Bytes(self.bytes()?),
            Type::String => {
                let bytes = self.bytes()?;
                return Ok(match Value::utf8(bytes) {
                    Ok(value) => Scalar::Value(value),
                    Err(misfit) => Scalar::NoText(misfit, bytes),
                });
            }
            Type::Json => {
                let bytes = self.bytes()?;
                return Ok(match std::str::from_utf8(bytes) {
                    // What it says of itself is not taken for granted.
                    Ok(text) => Scalar::Value(Value::Text(text)),
                    Err(_) => Scalar::NoText(Misfit::Utf8, bytes),
                });
            }
            Type::Fixed(size) => Value::Bytes(self.cursor.take(*size)?),
            Type::Enum(symbols) => Value::String(&symbols[self.index(symbols.len(), "symbols of an enum")?]),
            Type::Decimal { fixed, scale, .. } => {
                let bytes = match fixed {
                    Some(size) => self.cursor.take(*size)?,
                    None => self.bytes()?,
                };
                Value::Decimal(Unscaled { bytes, scale: *scale })
            }
            Type::Uuid => Value::Uuid(self.cursor.array()?),
            Type::Date => Value::Moment(Moment::Date(self.int()?)),
            Type::Time(unit) => Value::Moment(Moment::Time { count: self.cursor.zigzag()?, unit: *unit }),
            Type::Timestamp { unit, is_utc } => {
                Value::Moment(Moment::Timestamp { count: self.cursor.zigzag()?, unit: *unit, is_utc: *is_utc })
            }
            Type::Null | Type::Record(_) | Type::Array(_) | Type::Map(_) | Type::Union(_) => Value::Null,
        }))
    }

    /// The type that is there, past unions.
    fn settle(&mut self, mut id: TypeId, depth: u32) -> Result<TypeId, Broken> {
        let schema = self.schema;
        self.step(depth)?;
        if let Type::Union(branches) = schema.get(id) {
            id = branches[self.index(branches.len(), "branches of a union")?];
        }
        Ok(id)
    }

    /// Appends the elements of an array to a column of its element type.
    pub(super) fn elements(&mut self, items: TypeId, column: &mut Column, json: &mut String) -> Result<(), Unfit> {
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let of = self.settle(items, 1)?;
                match self.schema.get(of) {
                    Type::Null => column.append_null(),
                    Type::Record(_) | Type::Array(_) | Type::Map(_) if column.takes_json() => {
                        json.clear();
                        self.write_json(of, json, 1)?;
                        column.append(Value::Json(json))?;
                    }
                    Type::Array(_) => return Err(column.refusal(Value::Json("an array"), Misfit::Nested).into()),
                    Type::Record(_) => return Err(column.refusal(Value::Json("a record"), Misfit::Kind).into()),
                    Type::Map(_) => return Err(column.refusal(Value::Json("a map"), Misfit::Kind).into()),
                    _ => match self.scalar(of)? {
                        Scalar::Value(value) => column.append(value)?,
                        Scalar::NoText(misfit, bytes) => {
                            return Err(column.refusal(Value::Bytes(bytes), misfit).into());
                        }
                    },
                }
            }
        }
        Ok(())
    }

    /// Appends a value as its JSON text: bytes in Base64, moments as ISO 8601, enums as their words.
    pub(super) fn write_json(&mut self, id: TypeId, out: &mut String, depth: u32) -> Result<(), Unfit> {
        let id = self.settle(id, depth)?;
        check_size(out)?;
        let schema = self.schema;
        match schema.get(id) {
            Type::Record(fields) => {
                out.push('{');
                for (at, field) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    write_string(&field.name, out);
                    out.push(':');
                    self.write_json(field.of, out, depth + 1)?;
                }
                out.push('}');
            }
            Type::Array(items) => {
                out.push('[');
                let mut is_first = true;
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        if !std::mem::take(&mut is_first) {
                            out.push(',');
                        }
                        self.write_json(*items, out, depth + 1)?;
                    }
                }
                out.push(']');
            }
            Type::Map(values) => {
                out.push('{');
                let mut is_first = true;
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        if !std::mem::take(&mut is_first) {
                            out.push(',');
                        }
                        Value::utf8(self.bytes()?)?.write_json(out)?;
                        out.push(':');
                        self.write_json(*values, out, depth + 1)?;
                    }
                }
                out.push('}');
            }
            _ => self.scalar(id)?.value()?.write_json(out)?,
        }
        Ok(())
    }
}
