//! PostgreSQL's patterns of numbers, for `to_char` and `to_number`: 9 0 . , D G S MI and FM. Others are an error 0A000.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Decimal128Array},
    compute::cast,
    datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type},
};
use datafusion::{
    error::DataFusionError,
    logical_expr::{ReturnFieldArgs, ScalarUDF, Volatility},
    scalar::ScalarValue,
};

use super::{
    simple::{Call, Returns, Simple, any},
    text_output,
};
use crate::SqlError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    /// `0`, or `9` which gives way to a blank in front.
    Digit {
        is_zero: bool,
    },
    Point,
    Group,
    /// S: + or −, beside the number.
    Sign,
    /// MI: − or a blank.
    Minus,
    Text(char),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumberPattern {
    nodes: Vec<Node>,
    is_bare: bool,
}

/// A number rounded to the pattern's decimals: its sign and its digits before and after the point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digits {
    is_negative: bool,
    whole: String,
    fraction: String,
}

impl NumberPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, SqlError> {
        let unsupported = |what: &str| Err(SqlError::not_supported(format!("formatting field \"{what}\" of a number")));
        let mut nodes = Vec::new();
        let mut is_bare = false;
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let upper: String = rest.chars().take(4).collect::<String>().to_ascii_uppercase();
            let mut length = first.len_utf8();
            if upper.starts_with("FM") {
                is_bare = true;
                rest = &rest[2..];
                continue;
            }
            for other in ["EEEE", "RN", "TH", "PL", "SG", "PR", "SP"] {
                if upper.starts_with(other) {
                    return unsupported(other);
                }
            }
            if upper.starts_with("MI") {
                nodes.push(Node::Minus);
                rest = &rest[2..];
                continue;
            }
            match first.to_ascii_uppercase() {
                '9' => nodes.push(Node::Digit { is_zero: false }),
                '0' => nodes.push(Node::Digit { is_zero: true }),
                '.' | 'D' => nodes.push(Node::Point),
                ',' | 'G' => nodes.push(Node::Group),
                'S' => nodes.push(Node::Sign),
                'V' => return unsupported("V"),
                'B' => return unsupported("B"),
                'C' => return unsupported("C"),
                'L' => return unsupported("L"),
                '"' => {
                    let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
                    nodes.extend(rest[1..end].trim_end_matches('"').chars().map(Node::Text));
                    length = end;
                }
                _ => nodes.push(Node::Text(first)),
            }
            rest = &rest[length..];
        }
        let count = |node: Node| nodes.iter().filter(|other| **other == node).count();
        if count(Node::Point) > 1 {
            return Err(SqlError::syntax("multiple decimal points"));
        }
        if count(Node::Sign) + count(Node::Minus) > 1 {
            return Err(SqlError::syntax("cannot use \"S\" twice or together with \"MI\""));
        }
        Ok(Self { nodes, is_bare })
    }

    fn point(&self) -> usize {
        self.nodes.iter().position(|node| *node == Node::Point).unwrap_or(self.nodes.len())
    }

    /// Digits after the point.
    pub(crate) fn decimals(&self) -> usize {
        let after = self.nodes.iter().skip(self.point());
        after.filter(|node| matches!(node, Node::Digit { .. })).count()
    }

    pub(crate) fn write(&self, digits: &Digits) -> String {
        let point = self.point();
        let places = self.nodes[..point].iter().filter(|node| matches!(node, Node::Digit { .. })).count();
        let whole = digits.whole.trim_start_matches('0');
        let overflow = whole.len() > places;
        let fraction = match overflow {
            true => "#".repeat(digits.fraction.len()),
            false => digits.fraction.clone(),
        };
        let whole = if overflow { "#".repeat(places) } else { whole.to_owned() };
        // Where the first 0 stands, digits begin; a number without decimals shows at least its last place.
        let first_zero = self.nodes[..point]
            .iter()
            .filter(|node| matches!(node, Node::Digit { .. }))
            .position(|node| *node == Node::Digit { is_zero: true });
        let has_point = point < self.nodes.len();
        let mut start = places - whole.len();
        if whole.is_empty() && !has_point && places > 0 {
            start = places - 1;
        }
        if whole.is_empty() && self.is_bare && has_point && self.decimals() == 0 && places > 0 {
            start = places - 1;
        }
        let start = first_zero.map_or(start, |zero| zero.min(start));
        // FM drops the zeros that 9s after the point stand for.
        let kept = match self.is_bare {
            false => fraction.len(),
            true => {
                let after = self.nodes[point..].iter().filter(|node| matches!(node, Node::Digit { .. }));
                let last_zero = after
                    .enumerate()
                    .filter(|(_, node)| **node == Node::Digit { is_zero: true })
                    .map(|(index, _)| index + 1)
                    .last()
                    .unwrap_or(0);
                fraction.trim_end_matches('0').len().max(last_zero)
            }
        };
        let zero = digits.whole.bytes().chain(digits.fraction.bytes()).all(|digit| digit == b'0');
        let is_negative = digits.is_negative && !zero;
        let has_sign = self.nodes.iter().any(|node| matches!(node, Node::Sign | Node::Minus));
        let sign_after = self.nodes.iter().position(|node| *node == Node::Sign)
            > self.nodes.iter().position(|node| matches!(node, Node::Digit { .. }));
        let leading_sign = match (has_sign, self.nodes.contains(&Node::Sign) && !sign_after) {
            (false, _) if is_negative => Some('-'),
            (false, _) if !self.is_bare => Some(' '),
            (true, true) => Some(if is_negative { '-' } else { '+' }),
            _ => None,
        };
        let mut out = String::new();
        let mut sign_written = leading_sign.is_none();
        let (mut place, mut decimal) = (0, 0);
        let sign = |out: &mut String, written: &mut bool| {
            if let (false, Some(sign)) = (*written, leading_sign) {
                out.push(sign);
            }
            *written = true;
        };
        for (index, node) in self.nodes.iter().enumerate() {
            match node {
                Node::Digit { .. } if index < point => {
                    if place >= start {
                        sign(&mut out, &mut sign_written);
                        let from_end = places - place;
                        let digit = whole.len().checked_sub(from_end).and_then(|at| whole.as_bytes().get(at));
                        out.push(digit.map_or('0', |digit| char::from(*digit)));
                    } else if !self.is_bare {
                        out.push(' ');
                    }
                    place += 1;
                }
                Node::Digit { .. } => {
                    if decimal < kept {
                        out.push(char::from(fraction.as_bytes()[decimal]));
                    }
                    decimal += 1;
                }
                Node::Point => {
                    sign(&mut out, &mut sign_written);
                    out.push('.');
                }
                Node::Group => {
                    if index < point && place > start {
                        out.push(',');
                    } else if !self.is_bare {
                        out.push(' ');
                    }
                }
                Node::Sign if sign_after => out.push(if is_negative { '-' } else { '+' }),
                Node::Sign => {}
                Node::Minus if is_negative => out.push('-'),
                Node::Minus if !self.is_bare => out.push(' '),
                Node::Minus => {}
                Node::Text(c) => out.push(*c),
            }
        }
        out
    }

    /// The digits of `text` where the pattern has digits; what stands between them is passed over.
    fn read(&self, text: &str, scale: i8) -> Result<i128, SqlError> {
        let invalid = || SqlError::invalid_text("numeric", text);
        let mut number = String::new();
        let mut rest = text.trim_start();
        let mut is_negative = false;
        let has_digit = |number: &str| number.bytes().any(|b| b.is_ascii_digit());
        for node in &self.nodes {
            if !has_digit(&number)
                && let Some(after) = rest.strip_prefix(['-', '+'])
            {
                is_negative |= rest.starts_with('-');
                rest = after;
            }
            match node {
                Node::Digit { .. } => {
                    if let Some(digit) = rest.chars().next().filter(char::is_ascii_digit) {
                        number.push(digit);
                        rest = &rest[1..];
                    } else if !number.contains('.') && self.point() < self.nodes.len() && rest.starts_with('.') {
                        // Fewer digits than places before the point: the point is met by its own node.
                    } else if let Some(c) = rest.chars().next().filter(|c| !c.is_ascii_digit() && *c == ' ') {
                        rest = &rest[c.len_utf8()..];
                    }
                }
                Node::Point => {
                    if let Some(after) = rest.strip_prefix('.') {
                        number.push('.');
                        rest = after;
                    }
                }
                Node::Group => rest = rest.strip_prefix(',').unwrap_or(rest),
                Node::Sign | Node::Minus => {
                    if let Some(after) = rest.strip_prefix(['-', '+']) {
                        is_negative |= rest.starts_with('-');
                        rest = after;
                    }
                }
                Node::Text(_) => {
                    if let Some(c) = rest.chars().next().filter(|c| !c.is_ascii_digit()) {
                        rest = &rest[c.len_utf8()..];
                    }
                }
            }
        }
        if !has_digit(&number) {
            return Err(invalid());
        }
        let value = super::text_input::numeric(&number, 38, scale)?;
        Ok(if is_negative { -value } else { value })
    }
}

/// What gives the digits of a row, rounded to a number of decimals.
pub(crate) fn reader(array: &ArrayRef) -> Result<Box<dyn Fn(usize, usize) -> Digits>, DataFusionError> {
    let split = |text: String| {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.as_str()),
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        Digits { is_negative, whole: whole.to_owned(), fraction: fraction.to_owned() }
    };
    Ok(match array.data_type() {
        DataType::Float32 | DataType::Float64 => {
            let values = cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone();
            Box::new(move |row, decimals| split(format!("{:.decimals$}", values.value(row))))
        }
        data_type => {
            let scale = if let DataType::Decimal128(_, scale) = data_type { *scale } else { 0 };
            let values = cast(array, &DataType::Decimal128(38, scale))?.as_primitive::<Decimal128Type>().clone();
            Box::new(move |row, decimals| {
                let mut value = values.value(row);
                let scale = usize::try_from(scale.max(0)).unwrap_or(0);
                if scale > decimals {
                    let divisor = 10i128.pow((scale - decimals) as u32);
                    let half = divisor / 2 * value.signum();
                    value = value.saturating_add(half) / divisor;
                }
                let mut text = String::new();
                text_output::decimal(value, scale.min(decimals) as i8, &mut text);
                let mut digits = split(text);
                digits.fraction.extend(std::iter::repeat_n('0', decimals.saturating_sub(scale)));
                digits
            })
        }
    })
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    vec![Simple::udf("to_number", any(2, Volatility::Immutable), Returns::Field(read_type), to_number)]
}

/// As many decimals as the pattern has, where it is constant.
fn read_type(args: &ReturnFieldArgs<'_>) -> Result<FieldRef, DataFusionError> {
    let scale = match args.scalar_arguments.get(1) {
        Some(Some(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)))) => {
            i8::try_from(NumberPattern::parse(text)?.decimals().min(37)).unwrap_or(16)
        }
        _ => 16,
    };
    Ok(Arc::new(Field::new("to_number", DataType::Decimal128(38, scale), true)))
}

fn to_number(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let DataType::Decimal128(precision, scale) = *call.returns.data_type() else {
        return Err(DataFusionError::Internal("to_number gives numeric".to_owned()));
    };
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let mut out = Vec::with_capacity(call.rows);
    for (text, pattern) in texts.iter().zip(patterns.iter()) {
        out.push(match (text, pattern) {
            (Some(text), Some(pattern)) => Some(NumberPattern::parse(pattern)?.read(text, scale)?),
            _ => None,
        });
    }
    Ok(Arc::new(out.into_iter().collect::<Decimal128Array>().with_precision_and_scale(precision, scale)?))
}
