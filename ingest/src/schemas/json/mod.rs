//! JSON Schema: what is one, and whether all documents of one are documents of another.
//!
//! `is_within(writer, reader)` proves that whatever the writer's schema allows is allowed by the reader's. What it cannot prove it refuses and says so: words that it does not know (`not`, `patternProperties`,
//! `$dynamicRef` …) must be the same on both sides. So a "yes" holds; a "no" may be too careful.

mod containment;
#[cfg(test)]
mod tests;

use serde_json::Value as Json;

pub(super) use self::containment::misfits;

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];

/// Reads a schema; what a word's value must be is looked at only for the ones that comparisons use.
pub(super) fn parse(text: &str) -> Result<Json, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    if !json.is_object() && !json.is_boolean() {
        return Err("a JSON Schema is an object, true or false".into());
    }
    check(&json)?;
    Ok(json)
}

/// `serde_json` bounds the depth of the recursion.
fn check(schema: &Json) -> Result<(), String> {
    let Json::Object(words) = schema else {
        return if schema.is_boolean() { Ok(()) } else { Err(format!("{schema} is no JSON Schema")) };
    };
    for (word, value) in words {
        let wrong = |wanted: &str| Err(format!("\"{word}\" is {value}; it takes {wanted}"));
        let is_type = |of: &Json| of.as_str().is_some_and(|of| TYPES.contains(&of));
        match word.as_str() {
            "type" => {
                let is_right = match value {
                    Json::Array(all) => !all.is_empty() && all.iter().all(is_type),
                    one => is_type(one),
                };
                if !is_right {
                    return wrong(&format!("one of {} or a list of them", TYPES.join(", ")));
                }
            }
            "properties" | "definitions" | "$defs" | "patternProperties" => match value {
                Json::Object(members) => members.values().try_for_each(check)?,
                _ => return wrong("an object of schemas"),
            },
            "additionalProperties" | "not" | "contains" | "propertyNames" => check(value)?,
            "items" => match value {
                Json::Array(all) => all.iter().try_for_each(check)?,
                one => check(one)?,
            },
            "anyOf" | "oneOf" | "allOf" => match value {
                Json::Array(all) if !all.is_empty() => all.iter().try_for_each(check)?,
                _ => return wrong("a list of schemas"),
            },
            "required" if value.as_array().is_none_or(|all| all.iter().any(|name| !name.is_string())) => {
                return wrong("a list of names");
            }
            "enum" if value.as_array().is_none_or(Vec::is_empty) => return wrong("a list of values"),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
                if value.as_u64().is_none() =>
            {
                return wrong("a whole number of 0 or more");
            }
            "minimum" | "maximum" | "multipleOf" if !value.is_number() => return wrong("a number"),
            "$ref" if !value.is_string() => return wrong("a text"),
            _ => {}
        }
    }
    Ok(())
}
