//! Schemas with all that the rules of resolution ask of them, checked more strictly than a reader has to: what a registry takes, others build on.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

const TYPES_MAX: usize = 100_000;

/// A type's number.
pub(super) type TypeId = usize;

#[derive(Debug)]
pub(in crate::schemas) struct Schema {
    types: Vec<Type>,
    pub(super) root: TypeId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) full: String,
    /// Full names.
    pub(super) aliases: Vec<String>,
}

impl Name {
    /// Without its namespace.
    pub(super) fn short(&self) -> &str {
        self.full.rsplit_once('.').map_or(&self.full, |(_, short)| short)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

impl Primitive {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "string" => Self::String,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
        }
    }
}

/// Precision and scale.
pub(super) type Decimal = (u64, u64);

#[derive(Debug)]
pub(super) enum Type {
    Primitive(Primitive, Option<Decimal>),
    Record(Name, Vec<Field>),
    Enum { name: Name, symbols: Vec<String>, has_default: bool },
    Fixed { name: Name, size: u64, decimal: Option<Decimal> },
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) of: TypeId,
    pub(super) has_default: bool,
}

impl Schema {
    /// And its JSON.
    pub(in crate::schemas) fn parse(text: &str, referenced: &[(String, String)]) -> Result<(Self, Json), String> {
        let mut parser = Parser::default();
        for (name, text) in referenced {
            parser.text(text).map_err(|reason| format!("reference \"{name}\": {reason}"))?;
        }
        let (root, json) = parser.text(text)?;
        let schema = Self { types: parser.types, root };
        for (of, default, field) in &parser.defaults {
            if !schema.takes(*of, default) {
                return Err(format!("the default {default} of field \"{field}\" is no value of its type"));
            }
        }
        Ok((schema, json))
    }

    pub(super) fn get(&self, id: TypeId) -> &Type {
        &self.types[id]
    }

    /// Whether JSON is a default of a type. A default is as deep as its text, which is bounded.
    fn takes(&self, id: TypeId, json: &Json) -> bool {
        match self.get(id) {
            Type::Primitive(of, _) => match of {
                Primitive::Null => json.is_null(),
                Primitive::Boolean => json.is_boolean(),
                Primitive::Int => json.as_i64().is_some_and(|value| i32::try_from(value).is_ok()),
                Primitive::Long => json.as_i64().is_some(),
                Primitive::Float | Primitive::Double => json.is_number(),
                Primitive::Bytes => is_bytes(json, None),
                Primitive::String => json.is_string(),
            },
            Type::Enum { symbols, .. } => json.as_str().is_some_and(|word| symbols.iter().any(|symbol| symbol == word)),
            Type::Fixed { size, .. } => is_bytes(json, Some(*size)),
            Type::Array(items) => json.as_array().is_some_and(|all| all.iter().all(|item| self.takes(*items, item))),
            Type::Map(values) => json.as_object().is_some_and(|all| all.values().all(|one| self.takes(*values, one))),
            Type::Union(branches) => branches.iter().any(|branch| self.takes(*branch, json)),
            Type::Record(_, fields) => json.as_object().is_some_and(|members| {
                fields.iter().all(|field| match members.get(&field.name) {
                    Some(value) => self.takes(field.of, value),
                    None => field.has_default,
                })
            }),
        }
    }
}

/// Bytes in JSON: characters up to U+00FF.
fn is_bytes(json: &Json, size: Option<u64>) -> bool {
    json.as_str().is_some_and(|text| {
        text.chars().all(|c| u32::from(c) <= 0xff) && size.is_none_or(|size| text.chars().count() as u64 == size)
    })
}

/// The same schema without what means nothing: `{"type": "int"}` is `"int"`.
pub(in crate::schemas) fn plain(json: &Json) -> Json {
    match json {
        Json::Object(members) => match members.get("type") {
            Some(only) if members.len() == 1 => plain(only),
            _ => {
                let member = |(name, value): (&String, &Json)| {
                    let value = if name == "default" { value.clone() } else { plain(value) };
                    (name.clone(), value)
                };
                Json::Object(members.iter().map(member).collect())
            }
        },
        Json::Array(items) => Json::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

#[derive(Default)]
struct Parser {
    types: Vec<Type>,
    /// Named types by full name.
    names: HashMap<String, TypeId>,
    /// Type, default and name of the field, to be looked at when all types are known.
    defaults: Vec<(TypeId, Json, String)>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<(TypeId, Json), String> {
        let json: Json = match serde_json::from_str(text) {
            Ok(json) => json,
            // The name of a type may stand without quotes.
            Err(_) if Primitive::parse(text.trim()).is_some() => Json::String(text.trim().into()),
            Err(error) => return Err(format!("it is not JSON: {error}")),
        };
        Ok((self.any(&json, "")?, json))
    }

    /// `serde_json` bounds the depth of the recursion.
    fn any(&mut self, json: &Json, namespace: &str) -> Result<TypeId, String> {
        match json {
            Json::String(name) => self.named(name, namespace),
            Json::Array(branches) => self.union(branches, namespace),
            Json::Object(object) => self.object(object, namespace),
            other => Err(format!("{other} is no type")),
        }
    }

    fn union(&mut self, branches: &[Json], namespace: &str) -> Result<TypeId, String> {
        let mut ids = Vec::with_capacity(branches.len());
        let mut seen = HashSet::new();
        for branch in branches {
            let id = self.any(branch, namespace)?;
            let word = match &self.types[id] {
                Type::Union(_) => return Err("a union stands directly in a union".into()),
                Type::Primitive(of, _) => of.name().to_owned(),
                Type::Array(_) => "array".into(),
                Type::Map(_) => "map".into(),
                Type::Record(name, _) | Type::Enum { name, .. } | Type::Fixed { name, .. } => name.full.clone(),
            };
            if !seen.insert(word.clone()) {
                return Err(format!("a union has \"{word}\" twice"));
            }
            ids.push(id);
        }
        self.add(Type::Union(ids))
    }

    fn object(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<TypeId, String> {
        let kind = object.get("type").ok_or("a type has no \"type\"")?;
        let Json::String(kind) = kind else {
            // {"type": {"type": …}}, as some writers nest it.
            return self.any(kind, namespace);
        };
        match kind.as_str() {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let (id, name, _) = self.declare(object, namespace)?;
                let symbols = object.get("symbols").and_then(Json::as_array).ok_or("an enum has no \"symbols\"")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                let symbols: Vec<String> = symbols.collect::<Option<_>>().ok_or("a symbol of an enum is no string")?;
                if let Some(wrong) = symbols.iter().find(|symbol| !is_name(symbol)) {
                    return Err(format!("\"{wrong}\" cannot be a symbol of an enum: {NAMES}"));
                }
                if symbols.iter().collect::<HashSet<_>>().len() < symbols.len() {
                    return Err(format!("enum \"{}\" has a symbol twice", name.full));
                }
                let default = object.get("default");
                if let Some(default) = default
                    && !symbols.iter().any(|symbol| default == symbol)
                {
                    return Err(format!("the default {default} of enum \"{}\" is none of its symbols", name.full));
                }
                self.types[id] = Type::Enum { name, symbols, has_default: default.is_some() };
                Ok(id)
            }
            "fixed" => {
                let (id, name, _) = self.declare(object, namespace)?;
                let size = object.get("size").and_then(Json::as_u64).ok_or("a fixed has no \"size\"")?;
                self.types[id] = Type::Fixed { name, size, decimal: decimal(object) };
                Ok(id)
            }
            "array" => {
                let items = self.any(object.get("items").ok_or("an array has no \"items\"")?, namespace)?;
                self.add(Type::Array(items))
            }
            "map" => {
                let values = self.any(object.get("values").ok_or("a map has no \"values\"")?, namespace)?;
                self.add(Type::Map(values))
            }
            "bytes" => self.add(Type::Primitive(Primitive::Bytes, decimal(object))),
            name => self.named(name, namespace),
        }
    }

    fn record(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<TypeId, String> {
        let (id, name, namespace) = self.declare(object, namespace)?;
        let listed = object.get("fields").and_then(Json::as_array).ok_or("a record has no \"fields\"")?;
        let mut fields: Vec<Field> = Vec::with_capacity(listed.len());
        let mut seen = HashSet::new();
        for field in listed {
            let named = field.get("name").and_then(Json::as_str).ok_or("a field of a record has no \"name\"")?;
            if !is_name(named) {
                return Err(format!("\"{named}\" cannot be the name of a field: {NAMES}"));
            }
            if !seen.insert(named) {
                return Err(format!("record \"{}\" has the field \"{named}\" twice", name.full));
            }
            let of = field.get("type").ok_or_else(|| format!("field \"{named}\" has no \"type\""))?;
            let of = self.any(of, &namespace)?;
            let default = field.get("default");
            if let Some(default) = default {
                self.defaults.push((of, default.clone(), format!("{}.{named}", name.full)));
            }
            let aliases = field.get("aliases").and_then(Json::as_array).into_iter().flatten();
            let aliases = aliases.filter_map(Json::as_str).map(str::to_owned).collect();
            fields.push(Field { name: named.to_owned(), aliases, of, has_default: default.is_some() });
        }
        self.types[id] = Type::Record(name, fields);
        Ok(id)
    }

    /// Makes room for a named type, so that it may be used within itself; its number, its name and the namespace of what is in it.
    fn declare(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<(TypeId, Name, String), String> {
        let name = object.get("name").and_then(Json::as_str).ok_or("a record, enum or fixed has no \"name\"")?;
        let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        if !full.split('.').all(is_name) {
            return Err(format!("\"{full}\" cannot be the name of a type: {NAMES}"));
        }
        if Primitive::parse(&full).is_some() {
            return Err(format!("a type cannot be called \"{full}\""));
        }
        let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let aliases = object.get("aliases").and_then(Json::as_array).into_iter().flatten();
        let aliases = aliases.filter_map(Json::as_str).map(|alias| full_name(alias, &inner)).collect();
        let name = Name { full: full.clone(), aliases };
        let id = self.add(Type::Record(name.clone(), Vec::new()))?;
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("type \"{full}\" is defined twice"));
        }
        Ok((id, name, inner))
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some(of) = Primitive::parse(name) {
            return self.add(Type::Primitive(of, None));
        }
        let full = full_name(name, namespace);
        self.names.get(&full).copied().ok_or_else(|| format!("type \"{full}\" is not defined"))
    }

    fn add(&mut self, of: Type) -> Result<TypeId, String> {
        if self.types.len() >= TYPES_MAX {
            return Err(format!("it has more than {TYPES_MAX} types"));
        }
        self.types.push(of);
        Ok(self.types.len() - 1)
    }
}

const NAMES: &str = "names are letters, digits and underscores, and begin with no digit";

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// Of a decimal that is one; others are plain bytes, as the specification wants it.
fn decimal(object: &Map<String, Json>) -> Option<Decimal> {
    object.get("logicalType").filter(|logical| *logical == "decimal")?;
    let precision = object.get("precision").and_then(Json::as_u64).filter(|precision| *precision > 0)?;
    match object.get("scale") {
        None => Some((precision, 0)),
        Some(scale) => scale.as_u64().filter(|scale| *scale <= precision).map(|scale| (precision, scale)),
    }
}
