//! Whether whatever one schema allows is allowed by another one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Map, Value as Json};

use crate::schemas::{Misfit, canonical};

const STEPS_MAX: usize = 100_000;

/// Words that tell people something and forbid nothing.
const SAYINGS: [&str; 14] = [
    "$schema",
    "$id",
    "id",
    "$comment",
    "$anchor",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "definitions",
    "$defs",
];
/// Words that are compared here; all others must be the same on both sides.
const KNOWN: [&str; 22] = [
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "anyOf",
    "oneOf",
    "$ref",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "format",
];

/// What of the writer's documents the reader's schema does not allow.
pub(in crate::schemas) fn misfits(reader: &Json, writer: &Json) -> Vec<Misfit> {
    let mut check = Check { reader, writer, open: HashSet::new(), steps: 0 };
    let mut misfits = Vec::new();
    check.within(writer, reader, "#", &mut misfits);
    if check.steps >= STEPS_MAX {
        let description = format!("the schemas are so entangled that {STEPS_MAX} comparisons do not decide it");
        misfits.push(Misfit { kind: "NOT_CHECKED", path: "#".into(), description });
    }
    misfits
}

struct Check<'a> {
    /// For references.
    reader: &'a Json,
    writer: &'a Json,
    /// Pairs that are being looked at further up, by address.
    open: HashSet<(usize, usize)>,
    steps: usize,
}

impl<'a> Check<'a> {
    fn within(&mut self, w: &'a Json, r: &'a Json, path: &str, out: &mut Vec<Misfit>) {
        self.steps += 1;
        let pair = (std::ptr::from_ref(w) as usize, std::ptr::from_ref(r) as usize);
        if self.steps >= STEPS_MAX || !self.open.insert(pair) {
            return;
        }
        self.pair(w, r, path, out);
        self.open.remove(&pair);
    }

    fn is_within(&mut self, w: &'a Json, r: &'a Json, path: &str) -> bool {
        let mut misfits = Vec::new();
        self.within(w, r, path, &mut misfits);
        misfits.is_empty()
    }

    fn pair(&mut self, w: &'a Json, r: &'a Json, path: &str, out: &mut Vec<Misfit>) {
        let mut tell = |kind, path: &str, description: String| {
            out.push(Misfit { kind, path: path.to_owned(), description });
        };
        let (Json::Object(writer), Json::Object(reader)) = (w, r) else {
            match (w, r) {
                (Json::Bool(false), _) | (_, Json::Bool(true)) => {}
                (_, Json::Object(reader)) if reader.keys().all(|word| SAYINGS.contains(&word.as_str())) => {}
                _ => tell(
                    "TYPE_NARROWED",
                    path,
                    "the reader allows less than the writer, which allows everything".into(),
                ),
            }
            return;
        };
        // References, which stand alone.
        if let Some(to) = writer.get("$ref").and_then(Json::as_str) {
            match resolved(self.writer, to) {
                Some(found) => self.within(found, r, path, out),
                None => same(writer, reader, path, out),
            }
            return;
        }
        if let Some(to) = reader.get("$ref").and_then(Json::as_str) {
            match resolved(self.reader, to) {
                Some(found) if reader.keys().all(|word| word == "$ref" || SAYINGS.contains(&word.as_str())) => {
                    self.within(w, found, path, out);
                }
                _ => same(writer, reader, path, out),
            }
            return;
        }
        // Alternatives of the writer: each must be allowed. Other words beside them only forbid more, but are lost here.
        if let Some(branches) = writer.get("anyOf").or_else(|| writer.get("oneOf")).and_then(Json::as_array) {
            if same_words(writer, reader) {
                return;
            }
            for (number, branch) in branches.iter().enumerate() {
                self.within(branch, r, &format!("{path}/{number}"), out);
            }
            return;
        }
        if let Some(branches) = reader.get("anyOf").and_then(Json::as_array) {
            let is_alone = reader.keys().all(|word| word == "anyOf" || SAYINGS.contains(&word.as_str()));
            if is_alone && branches.iter().any(|branch| self.is_within(w, branch, path)) {
                return;
            }
            tell(
                "SUM_TYPE_NARROWED",
                path,
                "no alternative of the reader's anyOf allows what the writer's schema does".into(),
            );
            return;
        }
        if let Some(branches) = reader.get("oneOf").and_then(Json::as_array) {
            // Exactly one has to be it: that holds where the types of all others are different.
            let of = types(writer);
            let may_be = |schema: &&Json| schema.as_object().is_none_or(|words| overlap(&types(words), &of));
            let apart = branches.iter().filter(may_be).count();
            let is_alone = reader.keys().all(|word| word == "oneOf" || SAYINGS.contains(&word.as_str()));
            if is_alone && apart == 1 && branches.iter().any(|branch| self.is_within(w, branch, path)) {
                return;
            }
            tell(
                "SUM_TYPE_NARROWED",
                path,
                "no single alternative of the reader's oneOf is sure to allow what the writer's schema does".into(),
            );
            return;
        }
        for (word, value) in reader {
            let is_known = KNOWN.contains(&word.as_str()) || SAYINGS.contains(&word.as_str());
            if !is_known && !is_same(writer.get(word), value) {
                tell(
                    "NOT_CHECKED",
                    &format!("{path}/{word}"),
                    format!("\"{word}\" is not the same on both sides, and it is not checked further"),
                );
            }
        }
        let (allowed, given) = (types(reader), types(writer));
        let missing: Vec<&str> = given.iter().filter(|of| !allows(&allowed, of)).copied().collect();
        if !missing.is_empty() {
            tell(
                "TYPE_NARROWED",
                &format!("{path}/type"),
                format!("the reader does not allow the types {}", missing.join(", ")),
            );
            return;
        }
        values(writer, reader, path, out);
        if given.contains("string") {
            bounds(writer, reader, &[("minLength", true), ("maxLength", false)], path, out);
            same_if_there(writer, reader, "format", path, out);
        }
        if given.contains("number") || given.contains("integer") {
            let words =
                [("minimum", true), ("exclusiveMinimum", true), ("maximum", false), ("exclusiveMaximum", false)];
            bounds(writer, reader, &words, path, out);
        }
        if given.contains("array") {
            bounds(writer, reader, &[("minItems", true), ("maxItems", false)], path, out);
            same_if_there(writer, reader, "uniqueItems", path, out);
            let of = |words: &'a Map<String, Json>| words.get("items").unwrap_or(&Json::Bool(true));
            match (of(writer), of(reader)) {
                (Json::Array(_), _) | (_, Json::Array(_)) => same_if_there(writer, reader, "items", path, out),
                (from, to) => self.within(from, to, &format!("{path}/items"), out),
            }
        }
        if given.contains("object") {
            bounds(writer, reader, &[("minProperties", true), ("maxProperties", false)], path, out);
            self.members(writer, reader, path, out);
        }
    }

    fn members(
        &mut self,
        writer: &'a Map<String, Json>,
        reader: &'a Map<String, Json>,
        path: &str,
        out: &mut Vec<Misfit>,
    ) {
        if writer.contains_key("patternProperties") || reader.contains_key("patternProperties") {
            for word in ["properties", "additionalProperties", "required"] {
                same_if_there(writer, reader, word, path, out);
            }
            return;
        }
        let empty = || BTreeMap::new();
        let listed = |words: &'a Map<String, Json>| -> BTreeMap<&'a str, &'a Json> {
            let members = words.get("properties").and_then(Json::as_object);
            members.map_or_else(empty, |members| members.iter().map(|(name, of)| (name.as_str(), of)).collect())
        };
        let (given, allowed) = (listed(writer), listed(reader));
        let rest = |words: &'a Map<String, Json>| words.get("additionalProperties").unwrap_or(&Json::Bool(true));
        let (given_rest, allowed_rest) = (rest(writer), rest(reader));
        let names: BTreeSet<&str> = given.keys().chain(allowed.keys()).copied().collect();
        for name in names {
            let from = given.get(name).copied().unwrap_or(given_rest);
            let to = allowed.get(name).copied().unwrap_or(allowed_rest);
            self.within(from, to, &format!("{path}/properties/{name}"), out);
        }
        self.within(given_rest, allowed_rest, &format!("{path}/additionalProperties"), out);
        let required = |words: &'a Map<String, Json>| -> BTreeSet<&'a str> {
            words.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
        };
        for name in required(reader).difference(&required(writer)) {
            out.push(Misfit {
                kind: "REQUIRED_ATTRIBUTE_ADDED",
                path: format!("{path}/required"),
                description: format!("the reader requires \"{name}\", and the writer does not"),
            });
        }
    }
}

/// What a reference of the document to itself leads to.
fn resolved<'a>(root: &'a Json, to: &str) -> Option<&'a Json> {
    match to.strip_prefix('#')? {
        "" => Some(root),
        pointer => root.pointer(pointer),
    }
}

/// Types that values may have.
fn types(words: &Map<String, Json>) -> BTreeSet<&str> {
    match words.get("type") {
        Some(Json::String(one)) => BTreeSet::from([one.as_str()]),
        Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).collect(),
        _ => {
            let of = |value: &Json| match value {
                Json::Null => "null",
                Json::Bool(_) => "boolean",
                Json::Number(number) if number.is_f64() => "number",
                Json::Number(_) => "integer",
                Json::String(_) => "string",
                Json::Array(_) => "array",
                Json::Object(_) => "object",
            };
            match (words.get("const"), words.get("enum")) {
                (Some(value), _) => BTreeSet::from([of(value)]),
                (None, Some(Json::Array(values))) => values.iter().map(of).collect(),
                _ => BTreeSet::from(["null", "boolean", "object", "array", "number", "string"]),
            }
        }
    }
}

fn allows(allowed: &BTreeSet<&str>, of: &str) -> bool {
    allowed.contains(of) || (of == "integer" && allowed.contains("number"))
}

fn overlap(a: &BTreeSet<&str>, b: &BTreeSet<&str>) -> bool {
    a.iter().any(|of| allows(b, of)) || b.iter().any(|of| allows(a, of))
}

/// `enum` and `const`.
fn values(writer: &Map<String, Json>, reader: &Map<String, Json>, path: &str, out: &mut Vec<Misfit>) {
    fn listed(words: &Map<String, Json>) -> Option<BTreeSet<String>> {
        match (words.get("const"), words.get("enum")) {
            (Some(value), _) => Some(BTreeSet::from([canonical(value)])),
            (None, Some(Json::Array(values))) => Some(values.iter().map(canonical).collect()),
            _ => None,
        }
    }
    let Some(allowed) = listed(reader) else { return };
    let missing: Vec<String> = match listed(writer) {
        Some(given) => given.difference(&allowed).cloned().collect(),
        None => vec!["values other than those listed".into()],
    };
    if !missing.is_empty() {
        let description = format!("the reader does not allow {}", missing.join(", "));
        out.push(Misfit { kind: "ENUM_ARRAY_NARROWED", path: format!("{path}/enum"), description });
    }
}

/// Bounds of the reader must be those of the writer, or wider.
fn bounds(
    writer: &Map<String, Json>,
    reader: &Map<String, Json>,
    words: &[(&str, bool)],
    path: &str,
    out: &mut Vec<Misfit>,
) {
    for (word, is_lower) in words {
        let Some(bound) = reader.get(*word) else { continue };
        let is_kept = match (bound.as_f64(), writer.get(*word).and_then(Json::as_f64)) {
            (Some(bound), Some(given)) if *is_lower => given >= bound,
            (Some(bound), Some(given)) => given <= bound,
            // Draft 4 has true and false here.
            (None, _) => is_same(writer.get(*word), bound),
            (Some(_), None) => false,
        };
        if !is_kept {
            let given = writer.get(*word).map_or("none".into(), Json::to_string);
            let description = format!("the reader's \"{word}\" is {bound}, the writer's {given}");
            out.push(Misfit { kind: "BOUND_NARROWED", path: format!("{path}/{word}"), description });
        }
    }
}

fn same_if_there(
    writer: &Map<String, Json>,
    reader: &Map<String, Json>,
    word: &str,
    path: &str,
    out: &mut Vec<Misfit>,
) {
    if let Some(value) = reader.get(word)
        && !is_same(writer.get(word), value)
    {
        let description = format!("\"{word}\" is not the same on both sides, and it is not checked further");
        out.push(Misfit { kind: "NOT_CHECKED", path: format!("{path}/{word}"), description });
    }
}

fn same(writer: &Map<String, Json>, reader: &Map<String, Json>, path: &str, out: &mut Vec<Misfit>) {
    if !same_words(writer, reader) {
        let description =
            "a reference leads out of the schema, or stands beside other words: it is not checked further";
        out.push(Misfit { kind: "NOT_CHECKED", path: path.into(), description: description.into() });
    }
}

/// Whether both say the same and lead nowhere within their documents, which may differ.
fn same_words(writer: &Map<String, Json>, reader: &Map<String, Json>) -> bool {
    let heard = |words: &Map<String, Json>| -> Map<String, Json> {
        words
            .iter()
            .filter(|(word, _)| !SAYINGS.contains(&word.as_str()))
            .map(|(word, of)| (word.clone(), of.clone()))
            .collect()
    };
    is_same(Some(&Json::Object(heard(writer))), &Json::Object(heard(reader)))
}

fn is_same(writer: Option<&Json>, reader: &Json) -> bool {
    let text = canonical(reader);
    writer.is_some_and(|writer| canonical(writer) == text) && !text.contains("\"$ref\":\"#")
}
