//! Protobuf's wire: fields as they stand in bytes, and the scalars in them.

use crate::decode::{
    cursor::{Broken, Cursor, DEPTH_MAX},
    number::Misfit,
    value::Value,
};

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    /// A string, a message, packed numbers.
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    /// A message between two tags.
    Group(&'a [u8]),
}

impl<'a> Raw<'a> {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64(_) => "eight bytes",
            Self::Bytes(_) => "a run of bytes",
            Self::Fixed32(_) => "four bytes",
            Self::Group(_) => "a group",
        }
    }

    /// The bytes of a message.
    pub(super) fn message(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) | Self::Group(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The next field: its number and value.
#[inline]
pub(super) fn field<'a>(cursor: &mut Cursor<'a>) -> Result<(u32, Raw<'a>), Broken> {
    let (number, wire) = tag(cursor)?;
    let raw = raw(cursor, number, wire, 0)?;
    Ok((number, raw))
}

#[inline]
fn tag(cursor: &mut Cursor<'_>) -> Result<(u32, u8), Broken> {
    let tag = cursor.varint()?;
    match u32::try_from(tag) {
        Ok(tag) if tag >> 3 != 0 => Ok((tag >> 3, (tag & 7) as u8)),
        _ => Err(cursor.broken(format!("{tag} is the tag of no field"))),
    }
}

#[inline]
fn raw<'a>(cursor: &mut Cursor<'a>, number: u32, wire: u8, depth: u32) -> Result<Raw<'a>, Broken> {
    Ok(match wire {
        0 => Raw::Varint(cursor.varint()?),
        1 => Raw::Fixed64(cursor.array()?),
        2 => {
            let length = cursor.varint()?;
            Raw::Bytes(cursor.take_as_said(length)?)
        }
        3 => Raw::Group(group(cursor, number, depth)?),
        5 => Raw::Fixed32(cursor.array()?),
        4 => return Err(cursor.broken(format!("field {number} ends a group that did not begin"))),
        other => return Err(cursor.broken(format!("field {number} has the unknown wire type {other}"))),
    })
}

/// What stands before the end of the group.
fn group<'a>(cursor: &mut Cursor<'a>, number: u32, depth: u32) -> Result<&'a [u8], Broken> {
    if depth >= DEPTH_MAX {
        return Err(cursor.broken(format!("groups are nested deeper than {DEPTH_MAX} levels")));
    }
    let inside = cursor.rest;
    loop {
        let length = inside.len() - cursor.rest.len();
        match tag(cursor)? {
            (ended, 4) if ended == number => return Ok(&inside[..length]),
            (other, wire) => raw(cursor, other, wire, depth + 1)?,
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    /// As the number of its word.
    Enum,
}

/// Why a field's value is none of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong<'a> {
    /// The wire has another type, or a number beyond the type's.
    Type,
    Misfit(Misfit, &'a [u8]),
}

impl Scalar {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Double => "a double",
            Self::Float => "a float",
            Self::Int32 => "an int32",
            Self::Int64 => "an int64",
            Self::Uint32 => "a uint32",
            Self::Uint64 => "a uint64",
            Self::Sint32 => "a sint32",
            Self::Sint64 => "a sint64",
            Self::Fixed32 => "a fixed32",
            Self::Fixed64 => "a fixed64",
            Self::Sfixed32 => "a sfixed32",
            Self::Sfixed64 => "a sfixed64",
            Self::Bool => "a bool",
            Self::String => "a string",
            Self::Bytes => "bytes",
            Self::Enum => "an enum",
        }
    }

    /// The value of a field that is not there.
    pub(super) fn zero(self) -> Value<'static> {
        match self {
            Self::Double => Value::Double(0.0),
            Self::Float => Value::Float(0.0),
            Self::Bool => Value::Boolean(false),
            Self::String => Value::String(""),
            Self::Bytes => Value::Bytes(&[]),
            _ => Value::Integer(0),
        }
    }

    /// The value, exactly: a number that the type does not have is refused, where other readers cut it off.
    #[inline]
    pub(super) fn value(self, raw: Raw<'_>) -> Result<Value<'_>, Wrong<'_>> {
        let zigzag = |raw: u64| (raw >> 1) as i64 ^ -((raw & 1) as i64);
        let narrow = |wide: i64| i32::try_from(wide).map(|value| Value::Integer(value.into())).map_err(|_| Wrong::Type);
        match (self, raw) {
            (Self::Double, Raw::Fixed64(bytes)) => Ok(Value::Double(f64::from_le_bytes(bytes))),
            (Self::Float, Raw::Fixed32(bytes)) => Ok(Value::Float(f32::from_le_bytes(bytes))),
            (Self::Int32 | Self::Enum, Raw::Varint(raw)) => narrow(raw as i64),
            (Self::Int64, Raw::Varint(raw)) => Ok(Value::Integer(raw as i64)),
            (Self::Uint32, Raw::Varint(raw)) => {
                u32::try_from(raw).map(|value| Value::Integer(value.into())).map_err(|_| Wrong::Type)
            }
            (Self::Uint64, Raw::Varint(raw)) => Ok(unsigned(raw)),
            (Self::Sint32, Raw::Varint(raw)) => narrow(zigzag(raw)),
            (Self::Sint64, Raw::Varint(raw)) => Ok(Value::Integer(zigzag(raw))),
            (Self::Fixed32, Raw::Fixed32(bytes)) => Ok(Value::Integer(u32::from_le_bytes(bytes).into())),
            (Self::Fixed64, Raw::Fixed64(bytes)) => Ok(unsigned(u64::from_le_bytes(bytes))),
            (Self::Sfixed32, Raw::Fixed32(bytes)) => Ok(Value::Integer(i32::from_le_bytes(bytes).into())),
            (Self::Sfixed64, Raw::Fixed64(bytes)) => Ok(Value::Integer(i64::from_le_bytes(bytes))),
            (Self::Bool, Raw::Varint(raw @ (0 | 1))) => Ok(Value::Boolean(raw == 1)),
            (Self::String, Raw::Bytes(bytes)) => Value::utf8(bytes).map_err(|misfit| Wrong::Misfit(misfit, bytes)),
            (Self::Bytes, Raw::Bytes(bytes)) => Ok(Value::Bytes(bytes)),
            _ => Err(Wrong::Type),
        }
    }

    /// The next of packed numbers.
    fn packed<'a>(self, cursor: &mut Cursor<'a>) -> Result<Raw<'a>, Broken> {
        Ok(match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => Raw::Fixed64(cursor.array()?),
            Self::Float | Self::Fixed32 | Self::Sfixed32 => Raw::Fixed32(cursor.array()?),
            _ => Raw::Varint(cursor.varint()?),
        })
    }

    /// Calls `each` for the values of one occurrence of a repeated field, packed or not.
    pub(super) fn each<'a, E: From<Broken>>(
        self,
        raw: Raw<'a>,
        start: usize,
        each: &mut dyn FnMut(Raw<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        match (self, raw) {
            (Self::String | Self::Bytes, _) => each(raw),
            (_, Raw::Bytes(packed)) => {
                let mut cursor = Cursor::new(packed, start);
                while !cursor.is_at_end() {
                    each(self.packed(&mut cursor)?)?;
                }
                Ok(())
            }
            _ => each(raw),
        }
    }
}

fn unsigned(value: u64) -> Value<'static> {
    i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer)
}
