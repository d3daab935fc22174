//! Methods of items: `.type()`, `.size()`, `.double()` and the others.

use std::rc::Rc;

use super::{
    ast::{Method, Node},
    decimal::{self, Decimal},
    evaluate::{Base, Evaluation, Sink, Stop},
    items::{Item, Pair},
    moment::{Kind, Moment},
    offsets,
};
use crate::{SqlError, functions::jsonb::tree::Json};

/// What numbers of objects are counted in: more than any place in a document.
const OBJECTS_UNIT: i64 = 10_000_000_000;
/// Precisions and scales of numeric.
const PRECISION_MAX: i32 = 1000;

impl Method {
    /// Whether it goes to the items of an array in lax mode.
    pub(super) fn unwraps(&self) -> bool {
        !matches!(self, Self::Type | Self::Size)
    }
}

fn not_numeric(message: String) -> SqlError {
    SqlError::new("22036", message)
}

fn only_for(method: &Method, what: &str) -> SqlError {
    not_numeric(format!("jsonpath item method .{}() can only be applied to a {what} value", method.name()))
}

fn invalid(method: &Method, argument: &str, kind: &str) -> SqlError {
    let name = method.name();
    not_numeric(format!("argument \"{argument}\" of jsonpath item method .{name}() is invalid for type {kind}"))
}

impl<'a> Evaluation<'a> {
    pub(super) fn method(
        &mut self,
        node: &'a Node,
        index: usize,
        method: &'a Method,
        value: &Item<'a>,
        found: Sink<'_, 'a>,
    ) -> Result<bool, Stop> {
        let made = match method {
            Method::Type => Item::text(value.type_name()),
            Method::Size => match value.items() {
                Some(items) => Item::number(items.len().to_string()),
                None if self.is_lax => Item::number("1".to_owned()),
                None => {
                    return self.mismatch("22039", || {
                        "jsonpath item method .size() can only be applied to an array".to_owned()
                    });
                }
            },
            Method::KeyValue => return self.key_values(node, index, value, found),
            Method::Abs | Method::Floor | Method::Ceiling => {
                let Some(digits) = value.as_number() else {
                    return self.fail(|| only_for(method, "numeric"));
                };
                let number = Decimal::of(digits);
                let number = match method {
                    Method::Abs => number.absolute(),
                    Method::Floor => number.floor(),
                    _ => number.ceiling(),
                };
                Item::number(number.plain().or_else(|error| self.fail(|| error))?)
            }
            Method::Double => self.double(method, value)?,
            Method::Bigint => self.whole(method, value, "bigint", i64::MIN, i64::MAX)?,
            Method::Integer => self.whole(method, value, "integer", i32::MIN.into(), i32::MAX.into())?,
            Method::Boolean => self.boolean(method, value)?,
            Method::Number => self.number(method, value, &[])?,
            Method::Decimal(arguments) => self.number(method, value, arguments)?,
            Method::Text => match value {
                Item::Moment(moment) => Item::text(moment.to_string()),
                _ => match value.json() {
                    Some(Json::Text(text)) => Item::text(text.as_str()),
                    Some(Json::Number(digits)) => Item::text(digits.as_str()),
                    Some(Json::Bool(truth)) => Item::text(truth.to_string()),
                    _ => return self.fail(|| only_for(method, "boolean, string, numeric, or datetime")),
                },
            },
            Method::Datetime
            | Method::Date
            | Method::Time(_)
            | Method::TimeTz(_)
            | Method::Timestamp(_)
            | Method::TimestampTz(_) => self.moment(method, value)?,
        };
        self.next(node, index + 1, made, found)
    }

    fn double(&self, method: &Method, value: &Item<'a>) -> Result<Item<'a>, Stop> {
        let (Some(text), is_text) = (value.as_number().or_else(|| value.as_text()), value.as_text().is_some()) else {
            return self.fail(|| only_for(method, "string or numeric"));
        };
        // What Rust reads beyond PostgreSQL: nothing but "infinity" in other forms, which is refused anyway.
        let trimmed = text.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
        let number: f64 = match trimmed.parse::<f64>() {
            Ok(number) => number,
            Err(_) => return self.fail(|| invalid(method, text, "double precision")),
        };
        if !number.is_finite() {
            let is_named = trimmed.contains(['n', 'N']);
            return self.fail(|| match is_named {
                true => not_numeric("NaN or Infinity is not allowed for jsonpath item method .double()".to_owned()),
                false => invalid(method, text, "double precision"),
            });
        }
        // Too small for a float.
        if number == 0.0
            && trimmed.split(['e', 'E']).next().is_some_and(|digits| digits.contains(|c| ('1'..='9').contains(&c)))
        {
            return self.fail(|| invalid(method, text, "double precision"));
        }
        match is_text {
            true => Ok(Item::number(decimal::of_float(number)?)),
            false => Ok(value.clone()),
        }
    }

    fn whole(&self, method: &Method, value: &Item<'a>, kind: &str, min: i64, max: i64) -> Result<Item<'a>, Stop> {
        let read = match (value.as_number(), value.as_text()) {
            (Some(digits), _) => (i64::try_from(Self::nearest(digits)).ok(), digits),
            (_, Some(text)) => (integer(text), text),
            _ => return self.fail(|| only_for(method, "string or numeric")),
        };
        match read {
            (Some(number), _) if (min..=max).contains(&number) => Ok(Item::number(number.to_string())),
            (_, given) => self.fail(|| invalid(method, given, kind)),
        }
    }

    fn boolean(&self, method: &Method, value: &Item<'a>) -> Result<Item<'a>, Stop> {
        let (truth, given) = match value.json() {
            Some(Json::Bool(truth)) => (Some(*truth), ""),
            Some(Json::Number(digits)) => (digits.parse::<i32>().ok().map(|number| number != 0), digits.as_str()),
            Some(Json::Text(text)) => (truth(text), text.as_str()),
            _ => return self.fail(|| only_for(method, "boolean, string, or numeric")),
        };
        match truth {
            Some(truth) => Ok(Item::Made(Rc::new(Json::Bool(truth)))),
            None => self.fail(|| invalid(method, given, "boolean")),
        }
    }

    fn number(&self, method: &Method, value: &Item<'a>, arguments: &[String]) -> Result<Item<'a>, Stop> {
        let (digits, given) = match (value.as_number(), value.as_text()) {
            (Some(digits), _) => (digits.to_owned(), digits),
            (_, Some(text)) => match decimal::read(text) {
                Some(digits) => (digits, text),
                None if is_no_number(text) => {
                    let name = method.name();
                    return self.fail(|| {
                        not_numeric(format!("NaN or Infinity is not allowed for jsonpath item method .{name}()"))
                    });
                }
                None => return self.fail(|| invalid(method, text, "numeric")),
            },
            _ => return self.fail(|| only_for(method, "string or numeric")),
        };
        let Some(precision) = arguments.first() else { return Ok(Item::number(digits)) };
        let argument = |text: &str, what: &str| match text.parse::<i32>() {
            Ok(number) => Ok(number),
            Err(_) => self.fail(|| {
                not_numeric(format!("{what} of jsonpath item method .decimal() is out of range for type integer"))
            }),
        };
        let precision = argument(precision, "precision")?;
        let scale = arguments.get(1).map_or(Ok(0), |scale| argument(scale, "scale"))?;
        if !(1..=PRECISION_MAX).contains(&precision) {
            let message = format!("NUMERIC precision {precision} must be between 1 and {PRECISION_MAX}");
            return Err(SqlError::invalid_parameter(message).into());
        }
        if !(-PRECISION_MAX..=PRECISION_MAX).contains(&scale) {
            let message = format!("NUMERIC scale {scale} must be between -{PRECISION_MAX} and {PRECISION_MAX}");
            return Err(SqlError::invalid_parameter(message).into());
        }
        match Decimal::of(&digits).fitted(precision as usize, scale.into()) {
            Some(number) => Ok(Item::number(number.plain()?)),
            None => self.fail(|| invalid(method, given, "numeric")),
        }
    }

    fn moment(&self, method: &Method, value: &Item<'a>) -> Result<Item<'a>, Stop> {
        let no_moment = |message: String| SqlError::new("22031", message);
        let name = method.name();
        let Some(text) = value.as_text() else {
            return self.fail(|| no_moment(format!("jsonpath item method .{name}() can only be applied to a string")));
        };
        let unknown = || {
            let error = no_moment(format!("{name} format is not recognized: \"{text}\""));
            match method {
                Method::Datetime => error.with_hint("It reads the ISO forms of dates and times."),
                _ => error,
            }
        };
        let Some(read) = Moment::read(text) else { return self.fail(unknown) };
        let (kind, precision) = match method {
            Method::Date => (Kind::Date, &None),
            Method::Time(precision) => (Kind::Time, precision),
            Method::TimeTz(precision) => (Kind::TimeTz, precision),
            Method::Timestamp(precision) => (Kind::Timestamp, precision),
            Method::TimestampTz(precision) => (Kind::TimestampTz, precision),
            _ => (read.kind, &None),
        };
        let Some(mut moment) = read.to(kind)? else { return self.fail(unknown) };
        if let Some(precision) = precision {
            match precision.parse::<i32>() {
                Ok(digits) => moment = moment.rounded(u32::try_from(digits).unwrap_or(0)),
                Err(_) => {
                    return self.fail(|| {
                        no_moment(format!(
                            "time precision of jsonpath item method .{name}() is out of range for type integer"
                        ))
                    });
                }
            }
        }
        Ok(Item::Moment(moment))
    }

    /// `{"id": …, "key": …, "value": …}` of each member; the id is where the object stands in PostgreSQL's form of its document.
    fn key_values(
        &mut self,
        node: &'a Node,
        index: usize,
        value: &Item<'a>,
        mut found: Sink<'_, 'a>,
    ) -> Result<bool, Stop> {
        let members: Vec<(&str, Item<'a>)> = match value {
            Item::Part(Json::Object(members)) => {
                members.iter().map(|(key, value)| (key.as_str(), Item::Part(value))).collect()
            }
            Item::Pair(_) => ["id", "key", "value"].iter().filter_map(|key| Some((*key, value.member(key)?))).collect(),
            _ => {
                return self.fail(|| {
                    let message = "jsonpath item method .keyvalue() can only be applied to an object";
                    SqlError::new("2203C", message)
                });
            }
        };
        let id = self.object_id(value)?;
        let mut any = false;
        for (key, value) in members {
            self.spend(1)?;
            let number = self.made_objects;
            self.made_objects += 1;
            let (id, key) = (Json::Number(id.to_string()), Json::Text(key.to_owned()));
            let (document, start) = match &value {
                Item::Part(json @ (Json::Object(_) | Json::Array(_))) => {
                    (Some(*json), offsets::of_value(&id, &key) - self.place(json)?)
                }
                _ => (None, 0),
            };
            let pair = Item::Pair(Rc::new(Pair { id, key, value, number }));
            let base = Base { document, number, start };
            if self.based(base, |this| this.next(node, index + 1, pair, found.as_deref_mut()))? {
                if found.is_none() {
                    return Ok(true);
                }
                any = true;
            }
        }
        Ok(any)
    }

    fn object_id(&mut self, value: &Item<'a>) -> Result<i64, Stop> {
        let place = match value {
            Item::Part(json) => self.place(json)? + self.base.start,
            _ => 0,
        };
        let number = match value {
            Item::Pair(pair) => pair.number,
            _ => self.base.number,
        };
        Ok(number * OBJECTS_UNIT + place)
    }

    /// Where a part stands in its document.
    fn place(&mut self, part: &'a Json) -> Result<i64, Stop> {
        let address = |json: &Json| std::ptr::from_ref(json) as usize;
        if let Some(place) = self.offsets.get(&address(part)) {
            return Ok(*place);
        }
        if let Some(document) = self.base.document {
            let mut places = Vec::new();
            offsets::places(document, &mut places);
            self.spend(places.len() as u64)?;
            self.offsets.extend(places.into_iter().map(|(json, place)| (address(json), place)));
        }
        Ok(self.offsets.get(&address(part)).copied().unwrap_or(0))
    }
}

/// A text as PostgreSQL reads an integer.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let (is_minus, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.get(..2) {
        Some("0x") => (&lower[2..], 16),
        Some("0o") => (&lower[2..], 8),
        Some("0b") => (&lower[2..], 2),
        _ => (lower.as_str(), 10),
    };
    let is_grouped = radix != 10 && digits.starts_with('_') || digits.split('_').all(|group| !group.is_empty());
    let plain = digits.replace('_', "");
    if !is_grouped || !plain.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = i128::from_str_radix(&plain, radix).ok()?;
    i64::try_from(if is_minus { -number } else { number }).ok()
}

/// As PostgreSQL reads a boolean: the beginning of a word.
fn truth(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str| !text.is_empty() && word.starts_with(&text);
    match text.as_str() {
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        _ if begins("true") || begins("yes") => Some(true),
        _ if begins("false") || begins("no") => Some(false),
        _ => None,
    }
}

/// What numeric reads as no number.
fn is_no_number(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_prefix(['-', '+']).unwrap_or(&text);
    matches!(text, "nan" | "inf" | "infinity")
}
