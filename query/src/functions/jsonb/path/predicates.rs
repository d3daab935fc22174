//! Predicates, which are true, false or unknown: unknown is what an error inside of one and a comparison of what does not compare give.

use std::cmp::Ordering;

use super::{
    ast::{Comparison, Node, Predicate},
    decimal,
    evaluate::{Evaluation, Stop},
    items::Item,
};
use crate::functions::jsonb::tree::Json;

/// `None` is unknown.
type Truth = Option<bool>;

/// Bytes of two texts or numbers that count as one step of a comparison.
const STEP_BYTES: usize = 1000;

impl<'a> Evaluation<'a> {
    pub(super) fn truth(&mut self, predicate: &'a Predicate, value: &Item<'a>) -> Result<Truth, Stop> {
        Ok(match predicate {
            Predicate::And(terms) => {
                let mut all = Some(true);
                for term in terms {
                    // What is unknown stays so unless a term is false.
                    match self.truth(term, value)? {
                        Some(false) => return Ok(Some(false)),
                        Some(true) => {}
                        None => all = None,
                    }
                }
                all
            }
            Predicate::Or(terms) => {
                let mut any = Some(false);
                for term in terms {
                    match self.truth(term, value)? {
                        Some(true) => return Ok(Some(true)),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any
            }
            Predicate::Not(inner) => self.truth(inner, value)?.map(|truth| !truth),
            Predicate::IsUnknown(inner) => Some(self.truth(inner, value)?.is_none()),
            Predicate::Exists(node) => {
                let mut found = Vec::new();
                let is_lax = self.is_lax;
                // In strict mode an error behind the first item counts.
                self.quietly(|this| this.node(node, value, if is_lax { None } else { Some(&mut found) }))?
            }
            Predicate::Compare(op, left, right) => {
                self.pairs(left, Some((right, true)), value, |left, right| match right {
                    Some(right) => compared(*op, left, right),
                    None => Ok(None),
                })?
            }
            Predicate::StartsWith(left, right) => self.pairs(left, Some((right, false)), value, |left, right| {
                Ok(match (left.as_text(), right.and_then(Item::as_text)) {
                    (Some(whole), Some(start)) => Some(whole.starts_with(start)),
                    _ => None,
                })
            })?,
            Predicate::LikeRegex(node, pattern) => {
                self.pairs(node, None, value, |item, _| Ok(item.as_text().map(|text| pattern.regex.is_match(text))))?
            }
        })
    }

    /// Runs with errors suppressed, which are unknown.
    fn quietly(&mut self, run: impl FnOnce(&mut Self) -> Result<bool, Stop>) -> Result<Truth, Stop> {
        let throws = std::mem::replace(&mut self.throws, false);
        let result = run(self);
        self.throws = throws;
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Stop::Suppressed) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    fn operand(&mut self, node: &'a Node, value: &Item<'a>, unwraps: bool) -> Result<Option<Vec<Item<'a>>>, Stop> {
        let mut items = Vec::new();
        let truth = self.quietly(|this| this.unwrapped(node, value, unwraps, &mut items).map(|()| true))?;
        Ok(truth.map(|_| items))
    }

    /// Whether `holds` is true of any pair of items. In strict mode all pairs are asked, and one that is unknown makes it unknown.
    fn pairs(
        &mut self,
        left: &'a Node,
        right: Option<(&'a Node, bool)>,
        value: &Item<'a>,
        mut holds: impl FnMut(&Item<'a>, Option<&Item<'a>>) -> Result<Truth, Stop>,
    ) -> Result<Truth, Stop> {
        let Some(lefts) = self.operand(left, value, true)? else { return Ok(None) };
        let rights: Vec<Option<Item<'a>>> = match right {
            Some((node, unwraps)) => match self.operand(node, value, unwraps)? {
                Some(items) => items.into_iter().map(Some).collect(),
                None => return Ok(None),
            },
            None => vec![None],
        };
        let size = |item: &Item<'a>| item.as_text().or_else(|| item.as_number()).map_or(0, str::len);
        let (mut any, mut unknown) = (false, false);
        for left in &lefts {
            for right in &rights {
                self.spend(1 + (size(left) / STEP_BYTES) as u64)?;
                match holds(left, right.as_ref())? {
                    Some(true) if self.is_lax => return Ok(Some(true)),
                    Some(true) => any = true,
                    None if !self.is_lax => return Ok(None),
                    None => unknown = true,
                    Some(false) => {}
                }
            }
        }
        Ok(if any {
            Some(true)
        } else if unknown {
            None
        } else {
            Some(false)
        })
    }
}

fn compared<'a>(op: Comparison, left: &Item<'a>, right: &Item<'a>) -> Result<Truth, Stop> {
    let order = match (left, right) {
        (Item::Moment(left), Item::Moment(right)) => left.order(right)?,
        _ => {
            let is_null = |item: &Item<'_>| matches!(item.json(), Some(Json::Null));
            match (left.json(), right.json()) {
                (Some(Json::Null), Some(Json::Null)) => Some(Ordering::Equal),
                // Null differs from all else, and is neither less nor greater.
                _ if is_null(left) || is_null(right) => return Ok(Some(op == Comparison::NotEqual)),
                (Some(Json::Bool(left)), Some(Json::Bool(right))) => Some(left.cmp(right)),
                (Some(Json::Number(left)), Some(Json::Number(right))) => Some(decimal::order(left, right)),
                (Some(Json::Text(left)), Some(Json::Text(right))) => Some(left.as_bytes().cmp(right.as_bytes())),
                _ => None,
            }
        }
    };
    Ok(order.map(|order| match op {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }))
}
