//! Data of a schema to try columns out with: each type with its smallest, its largest and its usual values, each branch of a union, each word of an enum.

use super::{
    plan::{Inner, Node, Plan},
    schema::{Schema, Type, TypeId},
};
use crate::decode::{
    SourceColumn,
    trial::{self, Choices},
    value::Unit,
};

/// From here on unions are null and arrays are empty, if they can be.
const DEEP: u32 = 12;
const DEPTH_MAX: u32 = 64;
const FIXED_BYTES_MAX: usize = 1 << 20;
/// 2024-02-29T12:00:00Z.
const SECONDS: i64 = 1_709_208_000;
const WORDS: [&str; 5] = ["1", "text", "", "2024-02-29T12:00:00Z", "0b1a51e6-7d8b-4d5a-9c0e-00000000002a"];

/// Data that differ where the columns look. The error says why there are none.
pub(in crate::decode) fn examples(
    text: &str,
    references: &[(String, String)],
    columns: &[SourceColumn],
) -> Result<Vec<Vec<u8>>, String> {
    let schema = Schema::parse(text, references.iter().map(|(_, text)| text.as_str()))?;
    let plan = Plan::new(schema, columns)?;
    let wanted = plan.root.as_ref().map_or(Wanted::No, Wanted::At);
    trial::examples(|choices| {
        let mut writer = Writer { schema: &plan.schema, choices, out: Vec::new() };
        writer.write(plan.schema.root, wanted, 0)?;
        Ok(writer.out)
    })
}

/// Whether anybody looks at a value.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    No,
    At(&'a Node),
    /// At all of it.
    Whole,
}

impl<'a> Wanted<'a> {
    fn of(node: Option<&'a Node>) -> Self {
        node.map_or(Self::No, Self::At)
    }

    /// What is made of others is looked at as a whole when a column takes it.
    fn settled(self) -> Self {
        match self {
            Self::At(node) if !node.columns.is_empty() => Self::Whole,
            other => other,
        }
    }

    fn is_wanted(self) -> bool {
        !matches!(self, Self::No)
    }
}

struct Writer<'a, 'c> {
    schema: &'a Schema,
    choices: &'c mut Choices,
    out: Vec<u8>,
}

impl<'a> Writer<'a, '_> {
    fn choose(&mut self, wanted: Wanted<'_>, options: usize) -> usize {
        if wanted.is_wanted() { self.choices.choose(options) } else { 0 }
    }

    fn write(&mut self, id: TypeId, wanted: Wanted<'a>, depth: u32) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("its types hold each other without end".into());
        }
        let schema = self.schema;
        let wanted = if matches!(schema.get(id), Type::Union(_)) { wanted } else { wanted.settled() };
        match schema.get(id) {
            Type::Union(branches) => return self.union(branches, wanted, depth),
            Type::Record(fields) => {
                for (at, field) in fields.iter().enumerate() {
                    let inner = match wanted {
                        Wanted::At(Node { inner: Inner::Record(nodes), .. }) => Wanted::of(nodes[at].as_ref()),
                        Wanted::At(_) => Wanted::No,
                        other => other,
                    };
                    self.write(field.of, inner, depth + 1)?;
                }
            }
            Type::Array(items) => self.array(*items, wanted, depth)?,
            Type::Map(values) => self.map(*values, wanted, depth)?,
            _ => self.scalar(id, wanted)?,
        }
        Ok(())
    }

    fn union(&mut self, branches: &'a [TypeId], wanted: Wanted<'a>, depth: u32) -> Result<(), String> {
        let is_null = |at: &usize| matches!(self.schema.get(branches[*at]), Type::Null);
        let mut order: Vec<usize> = (0..branches.len()).collect();
        // What holds a value comes first, but where it could go on without end.
        order.sort_by_key(|at| is_null(at) != (depth >= DEEP));
        if branches.is_empty() {
            return Err("a union has no branch".into());
        }
        let options = if wanted.is_wanted() { order.len() } else { 1 };
        let (place, chosen) = self.choices.open(options);
        let branch = order[chosen];
        zigzag(branch as i64, &mut self.out);
        let inner = match wanted {
            Wanted::At(Node { inner: Inner::Union(nodes), .. }) => Wanted::of(nodes[branch].as_ref()),
            Wanted::At(_) => Wanted::No,
            other => other,
        };
        self.write(branches[branch], inner, depth + 1)?;
        self.choices.close(place);
        Ok(())
    }

    fn array(&mut self, items: TypeId, wanted: Wanted<'a>, depth: u32) -> Result<(), String> {
        let nodes = match wanted {
            Wanted::At(Node { inner: Inner::Array(nodes), .. }) => nodes.as_slice(),
            _ => &[],
        };
        let last = nodes.iter().map(|(index, _)| index + 1).max().unwrap_or(0);
        let count = if depth < DEEP { last.clamp(1, 32) } else { 0 };
        let (place, is_empty) = self.choices.open(if wanted.is_wanted() { 2 } else { 1 });
        if is_empty == 0 && count > 0 {
            zigzag(count as i64, &mut self.out);
            for at in 0..count {
                let inner = match wanted {
                    Wanted::Whole => Wanted::Whole,
                    _ => Wanted::of(nodes.iter().find(|(index, _)| *index == at).map(|(_, node)| node)),
                };
                self.write(items, inner, depth + 1)?;
            }
        }
        self.out.push(0);
        self.choices.close(place);
        Ok(())
    }

    fn map(&mut self, values: TypeId, wanted: Wanted<'a>, depth: u32) -> Result<(), String> {
        let nodes = match wanted {
            Wanted::At(Node { inner: Inner::Map(nodes), .. }) => nodes.as_slice(),
            _ => &[],
        };
        let mut entries: Vec<(&str, Wanted<'a>)> =
            nodes.iter().map(|(key, node)| (key.as_str(), Wanted::At(node))).collect();
        if entries.is_empty() {
            entries.push(("key", if matches!(wanted, Wanted::Whole) { wanted } else { Wanted::No }));
        }
        let (place, is_empty) = self.choices.open(if wanted.is_wanted() { 2 } else { 1 });
        if is_empty == 0 && depth < DEEP {
            zigzag(entries.len() as i64, &mut self.out);
            for (key, inner) in entries {
                self.bytes(key.as_bytes());
                self.write(values, inner, depth + 1)?;
            }
        }
        self.out.push(0);
        self.choices.close(place);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        zigzag(bytes.len() as i64, &mut self.out);
        self.out.extend_from_slice(bytes);
    }

    fn scalar(&mut self, id: TypeId, wanted: Wanted<'_>) -> Result<(), String> {
        match self.schema.get(id) {
            Type::Null | Type::Record(_) | Type::Array(_) | Type::Map(_) | Type::Union(_) => {}
            Type::Boolean => {
                let chosen = self.choose(wanted, 2);
                self.out.push(1 - chosen as u8);
            }
            Type::Int => {
                let chosen = self.choose(wanted, 3);
                zigzag([1, i32::MAX.into(), i32::MIN.into()][chosen], &mut self.out);
            }
            Type::Long => {
                let chosen = self.choose(wanted, 3);
                zigzag([1, i64::MAX, i64::MIN][chosen], &mut self.out);
            }
            Type::Float => {
                let chosen = self.choose(wanted, 4);
                self.out.extend([1.0, 0.5, f32::MAX, f32::NAN][chosen].to_le_bytes());
            }
            Type::Double => {
                let chosen = self.choose(wanted, 5);
                self.out.extend([1.0, 0.5, 0.1, f64::MAX, f64::NAN][chosen].to_le_bytes());
            }
            Type::String => {
                let chosen = self.choose(wanted, WORDS.len());
                self.bytes(WORDS[chosen].as_bytes());
            }
            Type::Json => {
                let chosen = self.choose(wanted, 3);
                self.bytes(["1", r#"{"a": [null]}"#, "[]"][chosen].as_bytes());
            }
            Type::Bytes => {
                let chosen = self.choose(wanted, 3);
                self.bytes([&b"1"[..], b"", &[0xff; 20]][chosen]);
            }
            Type::Fixed(size) => {
                let chosen = self.choose(wanted, 2);
                self.fixed(*size, [b'1', 0xff][chosen])?;
            }
            Type::Uuid => self.out.extend([7; 16]),
            Type::Enum(symbols) => {
                let chosen = self.choose(wanted, symbols.len());
                if chosen >= symbols.len() {
                    return Err("an enum has no symbols".into());
                }
                zigzag(chosen as i64, &mut self.out);
            }
            Type::Decimal { fixed, precision, scale } => {
                let chosen = self.choose(wanted, 3);
                let largest = u32::try_from(*precision).ok().and_then(|digits| 10i128.checked_pow(digits));
                let largest = largest.unwrap_or(i128::MAX) - 1;
                let digits = [10i128.checked_pow(*scale).unwrap_or(0).min(largest), largest, -largest][chosen];
                self.decimal(digits, *fixed)?;
            }
            Type::Date => zigzag(SECONDS / 86_400, &mut self.out),
            Type::Time(unit) => zigzag(43_200 * per_second(*unit), &mut self.out),
            Type::Timestamp { unit, .. } => zigzag(SECONDS * per_second(*unit), &mut self.out),
        }
        Ok(())
    }

    fn fixed(&mut self, size: usize, byte: u8) -> Result<(), String> {
        if size > FIXED_BYTES_MAX {
            return Err(format!("a fixed has {size} bytes"));
        }
        self.out.resize(self.out.len() + size, byte);
        Ok(())
    }

    fn decimal(&mut self, digits: i128, fixed: Option<usize>) -> Result<(), String> {
        let bytes = digits.to_be_bytes();
        let Some(size) = fixed else {
            self.bytes(&bytes);
            return Ok(());
        };
        let sign = if digits < 0 { 0xff } else { 0 };
        if let Some(more) = size.checked_sub(bytes.len()) {
            self.fixed(more, sign)?;
            self.out.extend(bytes);
            return Ok(());
        }
        let (cut, kept) = bytes.split_at(bytes.len() - size);
        let is_whole = cut.iter().all(|byte| *byte == sign) && kept.first().is_none_or(|first| (first ^ sign) < 0x80);
        match is_whole {
            true => self.out.extend(kept),
            // As large as fits.
            false => {
                for at in 0..size {
                    self.out.push(if at == 0 { 0x7f ^ sign } else { 0xff ^ sign });
                }
            }
        }
        Ok(())
    }
}

fn per_second(unit: Unit) -> i64 {
    match unit {
        Unit::Millis => 1_000,
        Unit::Micros => 1_000_000,
        Unit::Nanos => 1_000_000_000,
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}
