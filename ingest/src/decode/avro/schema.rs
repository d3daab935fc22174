//! Avro schemas: their JSON as types that refer to each other by number.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use crate::decode::value::Unit;

/// Types of one schema. Every type takes a few bytes of schema text, so this bounds memory only in name.
const TYPES_MAX: usize = 100_000;

/// A type's number in [`Schema::types`].
pub(super) type TypeId = usize;

/// What a message is written with.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    pub(super) root: TypeId,
}

#[derive(Debug)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// A string that says that it is a JSON document.
    Json,
    /// So many bytes.
    Fixed(usize),
    Record(Vec<Field>),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    /// In bytes, or in so many bytes.
    Decimal {
        fixed: Option<usize>,
        precision: u64,
        scale: u32,
    },
    /// Sixteen bytes; as a string it is one.
    Uuid,
    Date,
    Time(Unit),
    Timestamp {
        unit: Unit,
        is_utc: bool,
    },
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) of: TypeId,
}

impl Schema {
    /// Reads a schema and, before it, those whose names it uses. The error tells a person what is wrong.
    pub(super) fn parse<'a>(text: &str, referenced: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut parser = Parser { types: Vec::new(), names: HashMap::new(), primitives: HashMap::new() };
        for text in referenced {
            parser.text(text)?;
        }
        let root = parser.text(text)?;
        Ok(Self { types: parser.types, root })
    }

    #[inline]
    pub(super) fn get(&self, id: TypeId) -> &Type {
        &self.types[id]
    }
}

struct Parser {
    types: Vec<Type>,
    /// Named types by full name.
    names: HashMap<String, TypeId>,
    /// Types without attributes, by name: they stand everywhere.
    primitives: HashMap<String, TypeId>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<TypeId, String> {
        let json: Json = match serde_json::from_str(text) {
            Ok(json) => json,
            // The name of a type may stand without quotes.
            Err(_) if primitive(text.trim()).is_some() => Json::String(text.trim().into()),
            Err(error) => return Err(format!("it is not JSON: {error}")),
        };
        self.any(&json, "")
    }

    /// `serde_json` bounds the depth of the recursion.
    fn any(&mut self, json: &Json, namespace: &str) -> Result<TypeId, String> {
        match json {
            Json::String(name) => self.named(name, namespace),
            Json::Array(branches) => {
                let id = self.add(Type::Null)?;
                let mut ids = Vec::with_capacity(branches.len());
                for branch in branches {
                    if branch.is_array() {
                        return Err("a union stands directly in a union".into());
                    }
                    ids.push(self.any(branch, namespace)?);
                }
                self.types[id] = Type::Union(ids);
                Ok(id)
            }
            Json::Object(object) => self.object(object, namespace),
            other => Err(format!("{other} is no type")),
        }
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
                let (id, _) = self.declare(object, namespace)?;
                let symbols = object.get("symbols").and_then(Json::as_array).ok_or("an enum has no \"symbols\"")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                self.types[id] = Type::Enum(symbols.collect::<Option<_>>().ok_or("a symbol of an enum is no string")?);
                Ok(id)
            }
            "fixed" => {
                let (id, _) = self.declare(object, namespace)?;
                let size = object.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("a fixed has no \"size\"")?;
                self.types[id] = match logical(object) {
                    Some("decimal") => match precision(object) {
                        Some(precision) => Type::Decimal { fixed: Some(size), precision, scale: scale(object) },
                        None => Type::Fixed(size),
                    },
                    Some("uuid") if size == 16 => Type::Uuid,
                    _ => Type::Fixed(size),
                };
                Ok(id)
            }
            "array" => {
                let id = self.add(Type::Null)?;
                let items = self.any(object.get("items").ok_or("an array has no \"items\"")?, namespace)?;
                self.types[id] = Type::Array(items);
                Ok(id)
            }
            "map" => {
                let id = self.add(Type::Null)?;
                let values = self.any(object.get("values").ok_or("a map has no \"values\"")?, namespace)?;
                self.types[id] = Type::Map(values);
                Ok(id)
            }
            name => match (name, logical(object)) {
                ("bytes", Some("decimal")) => match precision(object) {
                    Some(precision) => self.add(Type::Decimal { fixed: None, precision, scale: scale(object) }),
                    None => self.named(name, namespace),
                },
                ("string", _) if is_json(object) => self.add(Type::Json),
                ("int", Some("date")) => self.add(Type::Date),
                ("int", Some("time-millis")) => self.add(Type::Time(Unit::Millis)),
                ("long", Some("time-micros")) => self.add(Type::Time(Unit::Micros)),
                ("long", Some(logical)) => match timestamp(logical) {
                    Some(of) => self.add(of),
                    None => self.named(name, namespace),
                },
                _ => self.named(name, namespace),
            },
        }
    }

    fn record(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<TypeId, String> {
        let (id, namespace) = self.declare(object, namespace)?;
        let listed = object.get("fields").and_then(Json::as_array).ok_or("a record has no \"fields\"")?;
        let mut fields: Vec<Field> = Vec::with_capacity(listed.len());
        for field in listed {
            let name = field.get("name").and_then(Json::as_str).ok_or("a field of a record has no \"name\"")?;
            let of = field.get("type").ok_or_else(|| format!("field \"{name}\" has no \"type\""))?;
            // A logical type beside a primitive one belongs into it; there it counts, elsewhere it means nothing.
            let of = self.any(of, &namespace)?;
            let aliases = field.get("aliases").and_then(Json::as_array).into_iter().flatten();
            let aliases = aliases.filter_map(Json::as_str).map(str::to_owned).collect();
            fields.push(Field { name: name.to_owned(), aliases, of });
        }
        self.types[id] = Type::Record(fields);
        Ok(id)
    }

    /// Makes room for a named type, so that it may be used within itself; its number and the namespace of what is in it.
    fn declare(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<(TypeId, String), String> {
        let name = object.get("name").and_then(Json::as_str).ok_or("a record, enum or fixed has no \"name\"")?;
        let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let id = self.add(Type::Null)?;
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("type \"{full}\" is defined twice"));
        }
        Ok((id, inner))
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some(made) = primitive(name) {
            if let Some(id) = self.primitives.get(name) {
                return Ok(*id);
            }
            let id = self.add(made)?;
            self.primitives.insert(name.to_owned(), id);
            return Ok(id);
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

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int,
        "long" => Type::Long,
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "string" => Type::String,
        _ => return None,
    })
}

fn timestamp(logical: &str) -> Option<Type> {
    let (unit, is_utc) = match logical.strip_prefix("local-") {
        Some(unit) => (unit, false),
        None => (logical, true),
    };
    let unit = match unit {
        "timestamp-millis" => Unit::Millis,
        "timestamp-micros" => Unit::Micros,
        "timestamp-nanos" => Unit::Nanos,
        _ => return None,
    };
    Some(Type::Timestamp { unit, is_utc })
}

fn logical(object: &Map<String, Json>) -> Option<&str> {
    object.get("logicalType").and_then(Json::as_str)
}

/// As Debezium marks documents, and our own sinks.
fn is_json(object: &Map<String, Json>) -> bool {
    object.get("connect.name").is_some_and(|name| name == "io.debezium.data.Json")
}

/// The precision of a decimal that is one; others are plain bytes, as the specification wants it.
fn precision(object: &Map<String, Json>) -> Option<u64> {
    let precision = object.get("precision").and_then(Json::as_u64).filter(|precision| *precision > 0)?;
    match object.get("scale") {
        None => Some(precision),
        Some(scale) => {
            scale.as_u64().filter(|scale| *scale <= precision && u32::try_from(*scale).is_ok()).map(|_| precision)
        }
    }
}

fn scale(object: &Map<String, Json>) -> u32 {
    object.get("scale").and_then(Json::as_u64).and_then(|scale| u32::try_from(scale).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(text: &str) -> Type {
        let mut schema = Schema::parse(text, []).unwrap();
        let root = schema.root;
        std::mem::replace(&mut schema.types[root], Type::Null)
    }

    #[test]
    fn names_are_found_through_namespaces() {
        let text = r#"{"type": "record", "name": "a.b.R", "fields": [
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X"]}},
            {"name": "again", "type": ["null", "E"]},
            {"name": "full", "type": "a.b.E", "aliases": ["whole"]},
            {"name": "next", "type": ["null", "R"]},
            {"name": "other", "type": {"type": "fixed", "name": "F", "namespace": "c", "size": 2}},
            {"name": "f", "type": {"type": "array", "items": "c.F"}}]}"#;
        let schema = Schema::parse(text, []).unwrap();
        let Type::Record(fields) = schema.get(schema.root) else { panic!("a record") };
        assert_eq!(fields[0].of, fields[2].of);
        assert_eq!(fields[2].aliases, ["whole"]);
        assert!(matches!(schema.get(fields[3].of), Type::Union(branches) if branches[1] == schema.root));
        assert!(
            Schema::parse(&text.replace("\"a.b.E\"", "\"a.E\""), []).unwrap_err().contains("\"a.E\" is not defined")
        );
        let using = r#"{"type": "record", "name": "U", "fields": [{"name": "r", "type": "a.b.R"}]}"#;
        assert!(Schema::parse(using, []).is_err());
        assert!(Schema::parse(using, [text]).is_ok());
    }

    #[test]
    fn logical_types_that_are_none_are_what_they_stand_on() {
        assert!(matches!(root(r#"{"type":"int","logicalType":"date"}"#), Type::Date));
        assert!(matches!(root(r#"{"type":"long","logicalType":"date"}"#), Type::Long));
        assert!(matches!(
            root(r#"{"type":"long","logicalType":"local-timestamp-micros"}"#),
            Type::Timestamp { unit: Unit::Micros, is_utc: false }
        ));
        assert!(matches!(root(r#"{"type":"string","logicalType":"uuid"}"#), Type::String));
        let decimal = |more: &str| root(&format!(r#"{{"type":"bytes","logicalType":"decimal"{more}}}"#));
        assert!(matches!(
            decimal(r#","precision":9,"scale":2"#),
            Type::Decimal { fixed: None, precision: 9, scale: 2 }
        ));
        assert!(matches!(decimal(r#","precision":9"#), Type::Decimal { fixed: None, precision: 9, scale: 0 }));
        for bad in [r#","precision":2,"scale":3"#, r#","scale":3"#, r#","precision":9,"scale":-1"#, ""] {
            assert!(matches!(decimal(bad), Type::Bytes), "{bad}");
        }
        assert!(matches!(root(r#"{"type":{"type":"string","avro.java.string":"String"}}"#), Type::String));
        assert!(matches!(root("string"), Type::String));
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            "{",
            "7",
            "\"Unknown\"",
            "{\"type\":\"record\",\"name\":\"R\"}",
            "{\"type\":\"record\",\"fields\":[]}",
            "{\"type\":\"enum\",\"name\":\"E\",\"symbols\":[1]}",
            "{\"type\":\"fixed\",\"name\":\"F\",\"size\":-1}",
            "{\"type\":\"array\"}",
            "[\"null\",[\"int\"]]",
            "{\"type\":\"record\",\"name\":\"R\",\"fields\":[{\"name\":\"a\"}]}",
            "[{\"type\":\"fixed\",\"name\":\"F\",\"size\":1},{\"type\":\"fixed\",\"name\":\"F\",\"size\":2}]",
        ] {
            assert!(Schema::parse(bad, []).is_err(), "{bad}");
        }
        assert!(Schema::parse(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), []).is_err());
    }
}
