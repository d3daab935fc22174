//! Documents of a JSON Schema to try columns out with.

use serde_json::{Map, Value as Json, json};

use super::{Choices, examples as all, inside};
use crate::decode::{PathStep, SourceColumn};

const DEPTH_MAX: u32 = 16;
const WORDS: [&str; 4] = ["1", "text", "", "2024-02-29T12:00:00Z"];

/// Documents that differ where the columns look. Words of the schema that forbid some values of a type (`minimum`, `pattern` and their like) are not looked at. The error says why there are none.
pub(super) fn examples(text: &str, columns: &[SourceColumn]) -> Result<Vec<Vec<u8>>, String> {
    let schema: Json = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    let paths: Vec<&[PathStep]> = columns.iter().map(|column| &column.path[..]).collect();
    all(|choices| {
        let mut writer = Writer { root: &schema, choices };
        Ok(writer.value(&schema, &paths, 0)?.to_string().into_bytes())
    })
}

struct Writer<'a, 'c> {
    root: &'a Json,
    choices: &'c mut Choices,
}

impl Writer<'_, '_> {
    fn value(&mut self, schema: &Json, paths: &[&[PathStep]], depth: u32) -> Result<Json, String> {
        if depth > DEPTH_MAX {
            return Ok(Json::Null);
        }
        let Some(words) = schema.as_object() else { return Ok(self.any(paths)) };
        if let Some(place) = words.get("$ref").and_then(Json::as_str) {
            let pointer = place.strip_prefix('#').ok_or_else(|| format!("it refers to '{place}'"))?;
            let of = self.root.pointer(pointer).ok_or_else(|| format!("it refers to '{place}', which is not there"))?;
            return self.value(of, paths, depth + 1);
        }
        if let Some(only) = words.get("const") {
            return Ok(only.clone());
        }
        if let Some(values) = words.get("enum").and_then(Json::as_array).filter(|values| !values.is_empty()) {
            return Ok(values[self.choose(paths, values.len())].clone());
        }
        if let Some(all) = words.get("allOf").and_then(Json::as_array) {
            let mut whole = words.clone();
            whole.remove("allOf");
            for part in all.iter().filter_map(Json::as_object) {
                merge(&mut whole, part);
            }
            return self.value(&Json::Object(whole), paths, depth + 1);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(branches) = words.get(word).and_then(Json::as_array).filter(|all| !all.is_empty()) {
                // What holds a value comes first.
                let mut order: Vec<&Json> = branches.iter().collect();
                order.sort_by_key(|branch| branch.get("type").is_some_and(|of| of == "null"));
                let (place, chosen) = self.choices.open(if paths.is_empty() { 1 } else { order.len() });
                let made = self.value(order[chosen], paths, depth + 1);
                self.choices.close(place);
                return made;
            }
        }
        let mut kinds: Vec<&str> = match words.get("type") {
            Some(Json::String(one)) => vec![one.as_str()],
            Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).collect(),
            _ if words.contains_key("properties") => vec!["object"],
            _ if words.contains_key("items") => vec!["array"],
            _ => return Ok(self.any(paths)),
        };
        kinds.sort_by_key(|kind| *kind == "null");
        let (place, chosen) = self.choices.open(if paths.is_empty() { 1 } else { kinds.len() });
        let made = self.of_type(kinds.get(chosen).copied().unwrap_or("null"), words, paths, depth);
        self.choices.close(place);
        made
    }

    fn choose(&mut self, paths: &[&[PathStep]], options: usize) -> usize {
        if paths.is_empty() { 0 } else { self.choices.choose(options) }
    }

    /// Where anything may stand.
    fn any(&mut self, paths: &[&[PathStep]]) -> Json {
        [json!("text"), json!(1), json!({"a": 1}), json!([1]), json!(true), Json::Null][self.choose(paths, 6)].clone()
    }

    fn of_type(
        &mut self,
        kind: &str,
        words: &Map<String, Json>,
        paths: &[&[PathStep]],
        depth: u32,
    ) -> Result<Json, String> {
        Ok(match kind {
            "object" => {
                let required = |name: &str| {
                    words.get("required").and_then(Json::as_array).is_some_and(|all| all.iter().any(|one| one == name))
                };
                let mut members = Map::new();
                for (name, schema) in words.get("properties").and_then(Json::as_object).into_iter().flatten() {
                    let inner = inside(paths, |step| matches!(step, PathStep::Field(field) if field == name));
                    let options = if inner.is_empty() || required(name) { 1 } else { 2 };
                    let (place, chosen) = self.choices.open(options);
                    if chosen == 0 {
                        members.insert(name.clone(), self.value(schema, &inner, depth + 1)?);
                    }
                    self.choices.close(place);
                }
                Json::Object(members)
            }
            "array" => {
                let (place, is_empty) = self.choices.open(if paths.is_empty() { 1 } else { 2 });
                let mut items = Vec::new();
                if is_empty == 0 {
                    let inner = inside(paths, |step| *step == PathStep::Index(0));
                    let of = words.get("items").cloned().unwrap_or(Json::Bool(true));
                    items.push(self.value(&of, &inner, depth + 1)?);
                }
                self.choices.close(place);
                Json::Array(items)
            }
            "string" => match words.get("format").and_then(Json::as_str) {
                Some("date-time") => json!("2024-02-29T12:00:00Z"),
                Some("date") => json!("2024-02-29"),
                Some("uuid") => json!("0b1a51e6-7d8b-4d5a-9c0e-00000000002a"),
                _ => json!(WORDS[self.choose(paths, WORDS.len())]),
            },
            "integer" => json!([1, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX][self.choose(paths, 4)]),
            "number" => [json!(1), json!(0.5), json!(1e300)][self.choose(paths, 3)].clone(),
            "boolean" => json!(self.choose(paths, 2) == 0),
            _ => Json::Null,
        })
    }
}

/// Adds the words of a part of allOf.
fn merge(whole: &mut Map<String, Json>, part: &Map<String, Json>) {
    for (word, value) in part {
        match (whole.get_mut(word), value) {
            (Some(Json::Object(known)), Json::Object(more)) => known.extend(more.clone()),
            (Some(Json::Array(known)), Json::Array(more)) => known.extend(more.iter().cloned()),
            (Some(_), _) => {}
            (None, _) => _ = whole.insert(word.clone(), value.clone()),
        }
    }
}
