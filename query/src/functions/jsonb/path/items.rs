//! What a path's steps are done with: parts of documents, and values that the path makes.

use std::rc::Rc;

use super::moment::Moment;
use crate::functions::jsonb::tree::Json;

#[derive(Clone, Debug)]
pub(super) enum Item<'a> {
    Part(&'a Json),
    /// A scalar.
    Made(Rc<Json>),
    Pair(Rc<Pair<'a>>),
    Moment(Moment),
}

/// What `.keyvalue()` gives: `{"id": …, "key": …, "value": …}`.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) id: Json,
    pub(super) key: Json,
    pub(super) value: Item<'a>,
    /// Which of the objects made so far it is.
    pub(super) number: i64,
}

impl<'a> Item<'a> {
    pub(super) fn number(digits: String) -> Self {
        Self::Made(Rc::new(Json::Number(digits)))
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Made(Rc::new(Json::Text(text.into())))
    }

    /// The scalar, array or object; nothing of a moment and of a pair.
    pub(super) fn json(&self) -> Option<&Json> {
        match self {
            Self::Part(json) => Some(json),
            Self::Made(json) => Some(json),
            Self::Pair(_) | Self::Moment(_) => None,
        }
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self, Self::Part(Json::Array(_)))
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Part(Json::Object(_)) | Self::Pair(_))
    }

    pub(super) fn as_number(&self) -> Option<&str> {
        match self.json() {
            Some(Json::Number(digits)) => Some(digits),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self.json() {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> Option<&'a [Json]> {
        match self {
            Self::Part(Json::Array(items)) => Some(items),
            _ => None,
        }
    }

    /// Of an object.
    pub(super) fn member(&self, key: &str) -> Option<Self> {
        match self {
            Self::Part(json @ Json::Object(_)) => json.member(key).map(Self::Part),
            Self::Pair(pair) => match key {
                "id" => Some(Self::Made(Rc::new(pair.id.clone()))),
                "key" => Some(Self::Made(Rc::new(pair.key.clone()))),
                "value" => Some(pair.value.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Items of an array, values of an object.
    pub(super) fn children(&self) -> Children<'a> {
        match self {
            Self::Part(Json::Array(items)) => Children::Items(items.iter()),
            Self::Part(Json::Object(members)) => Children::Members(members.iter()),
            Self::Pair(_) => {
                let values = ["id", "key", "value"].iter().filter_map(|key| self.member(key)).collect::<Vec<_>>();
                Children::Few(values.into_iter())
            }
            _ => Children::Few(Vec::new().into_iter()),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Pair(_) => "object",
            Self::Moment(moment) => moment.type_name(),
            Self::Part(json) => json.type_name(),
            Self::Made(json) => json.type_name(),
        }
    }

    /// As jsonb prints it.
    pub(super) fn printed(&self) -> String {
        match self {
            Self::Part(json) => json.to_string(),
            Self::Made(json) => json.to_string(),
            Self::Moment(moment) => format!("\"{moment}\""),
            Self::Pair(pair) => {
                format!("{{\"id\": {}, \"key\": {}, \"value\": {}}}", pair.id, pair.key, pair.value.printed())
            }
        }
    }
}

pub(super) enum Children<'a> {
    Items(std::slice::Iter<'a, Json>),
    Members(std::slice::Iter<'a, (String, Json)>),
    Few(std::vec::IntoIter<Item<'a>>),
}

impl<'a> Iterator for Children<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Self::Items(items) => items.next().map(Item::Part),
            Self::Members(members) => members.next().map(|(_, value)| Item::Part(value)),
            Self::Few(items) => items.next(),
        }
    }
}
