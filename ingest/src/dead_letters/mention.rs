//! Whether a dead letter is about somebody: it could not be read as its format says, so this is a guess about bytes.

use memchr::memmem;
use serde_json::Value;

use super::DeadLetter;

impl DeadLetter {
    /// Whether the letter has `value` where one of the names is: of JSON in a member of this name, at any depth; of everything else anywhere, with neither
    /// letters nor digits around it.
    pub fn mentions(&self, names: &[String], value: &str) -> bool {
        match serde_json::from_slice::<Value>(&self.reject.raw) {
            Ok(document @ (Value::Object(_) | Value::Array(_))) => has_member(&document, names, value),
            _ => has_word(&self.reject.raw, value.as_bytes()),
        }
    }
}

fn has_member(document: &Value, names: &[String], value: &str) -> bool {
    match document {
        Value::Object(members) => members.iter().any(|(name, member)| {
            let is_it = names.contains(name)
                && match member {
                    Value::Array(items) => items.iter().any(|item| is_text_of(item, value)),
                    other => is_text_of(other, value),
                };
            is_it || has_member(member, names, value)
        }),
        Value::Array(items) => items.iter().any(|item| has_member(item, names, value)),
        _ => false,
    }
}

fn is_text_of(scalar: &Value, value: &str) -> bool {
    match scalar {
        // UUIDs and numbers have several spellings.
        Value::String(text) => text.eq_ignore_ascii_case(value),
        Value::Number(number) => value.parse::<f64>().is_ok_and(|value| number.as_f64() == Some(value)),
        Value::Bool(is) => is.to_string() == value,
        _ => false,
    }
}

fn has_word(bytes: &[u8], word: &[u8]) -> bool {
    let is_of_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    !word.is_empty()
        && memmem::find_iter(bytes, word).any(|at| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            !is_of_word(before) && !is_of_word(bytes.get(at + word.len()))
        })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tidemill_storage::ids::StreamId;

    use super::*;
    use crate::message::Reject;

    fn letter(raw: &'static [u8]) -> DeadLetter {
        let reject =
            Reject { offset: 0, timestamp_ms: 0, column: None, reason: String::new(), raw: Bytes::from_static(raw) };
        DeadLetter { source: "s".into(), stream: StreamId::default(), raw_length: raw.len() as u64, reject, at_us: 0 }
    }

    #[test]
    fn a_document_is_about_whom_its_member_names() {
        let mentions = |raw: &'static [u8]| letter(raw).mentions(&["user_id".into(), "uid".into()], "42");
        assert!(mentions(br#"{"user_id": 42, "price": "x"}"#));
        assert!(mentions(br#"[{"order": {"user_id": "42"}}]"#));
        assert!(mentions(br#"{"user_id": [7, 42]}"#));
        assert!(mentions(br#"{"uid": 42.0}"#));
        // Another one's order of 42 things.
        assert!(!mentions(br#"{"user_id": 7, "quantity": 42}"#));
        assert!(!mentions(br#"{"user_id": 421}"#));
        assert!(!mentions(br#"{"user_id": null}"#));
    }

    #[test]
    fn other_bytes_are_about_every_word_in_them() {
        let mentions = |raw: &'static [u8]| letter(raw).mentions(&["user_id".into()], "ann@example.org");
        assert!(mentions(b"7,ann@example.org,oops"));
        assert!(mentions(b"{\"user_id\": \"ann@example.org\", broken"));
        assert!(mentions(b"\x00\x1eann@example.org"));
        assert!(!mentions(b"7,joann@example.org,oops"));
        assert!(!mentions(b"7,ann@example.organisation"));
        assert!(!letter(b"anything").mentions(&[], ""));
    }
}
