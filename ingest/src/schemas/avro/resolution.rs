//! Whether a reader's schema resolves a writer's, by the rules of the Avro specification ("Schema Resolution").

use std::collections::HashSet;

use super::schema::{Field, Name, Primitive, Schema, Type, TypeId};
use crate::schemas::Misfit;

/// Pairs of types that are looked at: branches of unions that contain each other could otherwise take for ever.
const STEPS_MAX: usize = 200_000;

/// What of the writer's data the reader cannot resolve.
pub(in crate::schemas) fn misfits(reader: &Schema, writer: &Schema) -> Vec<Misfit> {
    let mut check = Check { reader, writer, open: HashSet::new(), steps: 0 };
    let mut misfits = Vec::new();
    check.resolve(reader.root, writer.root, "", &mut misfits);
    if check.steps >= STEPS_MAX {
        misfits.push(Misfit {
            kind: "NOT_CHECKED",
            path: "/".into(),
            description: format!("the schemas are so entangled that {STEPS_MAX} comparisons of types do not decide it"),
        });
    }
    misfits
}

struct Check<'a> {
    reader: &'a Schema,
    writer: &'a Schema,
    /// Pairs that are being looked at further up: a type within itself resolves if the rest of it does.
    open: HashSet<(TypeId, TypeId)>,
    steps: usize,
}

impl Check<'_> {
    fn resolve(&mut self, r: TypeId, w: TypeId, path: &str, out: &mut Vec<Misfit>) {
        self.steps += 1;
        if self.steps >= STEPS_MAX || !self.open.insert((r, w)) {
            return;
        }
        self.pair(r, w, path, out);
        self.open.remove(&(r, w));
    }

    fn is_resolved(&mut self, r: TypeId, w: TypeId, path: &str) -> bool {
        let mut misfits = Vec::new();
        self.resolve(r, w, path, &mut misfits);
        misfits.is_empty()
    }

    fn pair(&mut self, r: TypeId, w: TypeId, path: &str, out: &mut Vec<Misfit>) {
        let (reader, writer) = (self.reader, self.writer);
        let at = |more: &str| format!("{path}{more}");
        match (reader.get(r), writer.get(w)) {
            // Each value says of which branch it is.
            (_, Type::Union(branches)) => {
                for (number, branch) in branches.iter().enumerate() {
                    if matches!(reader.get(r), Type::Union(_)) {
                        self.resolve(r, *branch, path, out);
                    } else {
                        self.resolve(r, *branch, &at(&format!("/{number}")), out);
                    }
                }
            }
            (Type::Union(branches), _) => {
                if !branches.iter().any(|branch| self.is_resolved(*branch, w, path)) {
                    let description = format!(
                        "the reader's union has no branch that reads the writer's {}",
                        described(writer.get(w))
                    );
                    out.push(Misfit { kind: "MISSING_UNION_BRANCH", path: at("/"), description });
                }
            }
            (Type::Primitive(of, decimal), Type::Primitive(from, old)) => {
                if !is_promoted(*from, *of) {
                    out.push(mismatch(reader.get(r), writer.get(w), at("/")));
                } else {
                    same_decimal(*decimal, *old, at("/"), out);
                }
            }
            (Type::Record(name, fields), Type::Record(old, written)) => {
                self.same_name(name, old, path, out);
                for (number, field) in fields.iter().enumerate() {
                    let path = at(&format!("/fields/{number}"));
                    match find(field, written) {
                        Some(found) => self.resolve(field.of, found.of, &format!("{path}/type"), out),
                        None if field.has_default => {}
                        None => out.push(Misfit {
                            kind: "READER_FIELD_MISSING_DEFAULT_VALUE",
                            path,
                            description: format!(
                                "the field \"{}\" of the reader's schema has no default, and is not in the writer's schema",
                                field.name
                            ),
                        }),
                    }
                }
            }
            (Type::Enum { name, symbols, has_default }, Type::Enum { name: old, symbols: written, .. }) => {
                self.same_name(name, old, path, out);
                let missing: Vec<&str> =
                    written.iter().filter(|symbol| !symbols.contains(symbol)).map(String::as_str).collect();
                if !missing.is_empty() && !has_default {
                    let description = format!("the reader's enum lacks the symbols {}", missing.join(", "));
                    out.push(Misfit { kind: "MISSING_ENUM_SYMBOLS", path: at("/symbols"), description });
                }
            }
            (Type::Fixed { name, size, decimal }, Type::Fixed { name: old, size: written, decimal: before }) => {
                self.same_name(name, old, path, out);
                if size != written {
                    let description = format!("the size is {size} for the reader and {written} for the writer");
                    out.push(Misfit { kind: "FIXED_SIZE_MISMATCH", path: at("/size"), description });
                }
                same_decimal(*decimal, *before, at("/"), out);
            }
            (Type::Array(items), Type::Array(written)) => self.resolve(*items, *written, &at("/items"), out),
            (Type::Map(values), Type::Map(written)) => self.resolve(*values, *written, &at("/values"), out),
            (of, from) => out.push(mismatch(of, from, at("/"))),
        }
    }

    /// Names count without their namespaces, and the reader's aliases with them.
    fn same_name(&self, reader: &Name, writer: &Name, path: &str, out: &mut Vec<Misfit>) {
        if reader.short() != writer.short() && !reader.aliases.contains(&writer.full) {
            out.push(Misfit {
                kind: "NAME_MISMATCH",
                path: format!("{path}/name"),
                description: format!(
                    "the reader's type is called \"{}\", the writer's \"{}\", which is none of its aliases",
                    reader.full, writer.full
                ),
            });
        }
    }
}

/// The writer's field that a reader's is read from.
fn find<'a>(field: &Field, written: &'a [Field]) -> Option<&'a Field> {
    let by_name = written.iter().find(|candidate| candidate.name == field.name);
    by_name.or_else(|| written.iter().find(|candidate| field.aliases.contains(&candidate.name)))
}

fn is_promoted(from: Primitive, to: Primitive) -> bool {
    use Primitive::{Bytes, Double, Float, Int, Long, String};
    from == to
        || matches!(
            (from, to),
            (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double) | (String, Bytes) | (Bytes, String)
        )
}

/// "Two schemas that are decimal logical types match if their scales and precisions match."
fn same_decimal(reader: Option<(u64, u64)>, writer: Option<(u64, u64)>, path: String, out: &mut Vec<Misfit>) {
    if let (Some(reader), Some(writer)) = (reader, writer)
        && reader != writer
    {
        let description = format!(
            "the reader's decimal({}, {}) is not the writer's decimal({}, {})",
            reader.0, reader.1, writer.0, writer.1
        );
        out.push(Misfit { kind: "DECIMAL_MISMATCH", path, description });
    }
}

fn mismatch(reader: &Type, writer: &Type, path: String) -> Misfit {
    let description = format!("the reader's type {} cannot read the writer's {}", described(reader), described(writer));
    Misfit { kind: "TYPE_MISMATCH", path, description }
}

fn described(of: &Type) -> String {
    match of {
        Type::Primitive(of, _) => of.name().to_owned(),
        Type::Record(name, _) => format!("record {}", name.full),
        Type::Enum { name, .. } => format!("enum {}", name.full),
        Type::Fixed { name, .. } => format!("fixed {}", name.full),
        Type::Array(_) => "array".into(),
        Type::Map(_) => "map".into(),
        Type::Union(_) => "union".into(),
    }
}
