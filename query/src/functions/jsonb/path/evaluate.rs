//! What a path finds in a document, as PostgreSQL defines it.
//!
//! A path is walked from the left, and each item goes through all further steps before the next one does: where only existence is asked, the first
//! that comes out ends it. Errors that PostgreSQL suppresses inside of predicates and with `silent` are [`Stop::Suppressed`]; all others end the query.
//!
//! In lax mode arrays are unwrapped where a step wants something else, single values count as arrays of one, and what is missing is no error.

use std::{collections::HashMap, rc::Rc};

use num_bigint::BigInt;

use super::{
    ast::{Arithmetic, Head, Node, Path, Step},
    decimal::Decimal,
    items::Item,
};
use crate::{SqlError, functions::jsonb::tree::Json};

/// Steps that the evaluation on one document takes at most, which bounds what it holds, too.
pub(super) const STEPS_MAX: u64 = 10_000_000;
/// Digits of a number that count as one step.
const STEP_DIGITS: usize = 100;
/// The document is number 0 of the objects that `.keyvalue()` numbers, the variables are number 1.
const FIRST_MADE_OBJECT: i64 = 2;

/// Why evaluation ends early.
pub(super) enum Stop {
    Suppressed,
    Error(SqlError),
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Self::Error(error)
    }
}

/// Where items go; `None` where only their existence is asked.
pub(super) type Sink<'s, 'a> = Option<&'s mut Vec<Item<'a>>>;

/// What objects are numbered by in `.keyvalue()`: the document that they are in, and its number.
#[derive(Clone)]
pub(super) struct Base<'a> {
    pub(super) document: Option<&'a Json>,
    pub(super) number: i64,
    /// Where the document begins in what has the number.
    pub(super) start: i64,
}

pub(super) struct Evaluation<'a> {
    pub(super) is_lax: bool,
    pub(super) ignores_structure: bool,
    pub(super) throws: bool,
    root: &'a Json,
    pub(super) current: Item<'a>,
    variables: Option<&'a Json>,
    /// Of the innermost array that is subscripted, for `last`.
    array_length: Option<usize>,
    pub(super) base: Base<'a>,
    pub(super) made_objects: i64,
    /// Places of objects in PostgreSQL's form of documents.
    pub(super) offsets: HashMap<usize, i64>,
    steps: u64,
}

/// What a path finds before it ends, or an error that is suppressed ends it.
pub(super) struct Found<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) is_cut: bool,
}

/// All items that `path` finds, or one if only existence is asked and errors behind it do not count. `variables` is an object.
pub(super) fn run<'a>(
    path: &'a Path,
    root: &'a Json,
    variables: Option<&'a Json>,
    throws: bool,
    only_exists: bool,
    steps_taken: &mut u64,
) -> Result<Found<'a>, SqlError> {
    let mut evaluation = Evaluation {
        is_lax: !path.is_strict,
        ignores_structure: !path.is_strict,
        throws,
        root,
        current: Item::Part(root),
        variables,
        array_length: None,
        base: Base { document: Some(root), number: 0, start: 0 },
        made_objects: FIRST_MADE_OBJECT,
        offsets: HashMap::new(),
        steps: 0,
    };
    let mut items = Vec::new();
    // In strict mode an error behind the first item counts.
    let ends_early = only_exists && evaluation.is_lax;
    let result = if ends_early {
        evaluation.node(&path.root, &Item::Part(root), None).map(|is_found| {
            if is_found {
                items.push(Item::Part(root));
            }
        })
    } else {
        evaluation.node(&path.root, &Item::Part(root), Some(&mut items)).map(|_| ())
    };
    *steps_taken += evaluation.steps;
    match result {
        Ok(()) => Ok(Found { items, is_cut: false }),
        Err(Stop::Suppressed) => Ok(Found { items, is_cut: true }),
        Err(Stop::Error(error)) => Err(error),
    }
}

impl<'a> Evaluation<'a> {
    /// An error that predicates and `silent` suppress.
    pub(super) fn fail<T>(&self, error: impl FnOnce() -> SqlError) -> Result<T, Stop> {
        Err(if self.throws { Stop::Error(error()) } else { Stop::Suppressed })
    }

    /// An error of structure: nothing is found where these are ignored.
    pub(super) fn mismatch(&self, sqlstate: &'static str, message: impl FnOnce() -> String) -> Result<bool, Stop> {
        if self.ignores_structure {
            return Ok(false);
        }
        self.fail(|| SqlError::new(sqlstate, message()))
    }

    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Stop> {
        self.steps += steps;
        if self.steps > STEPS_MAX {
            return Err(Stop::Error(
                SqlError::new("54000", "the JSON path takes too many steps")
                    .with_detail(format!("It takes more than {STEPS_MAX} on one document."))
                    .with_hint("Each \".**\" and each pair of items that is compared multiplies them."),
            ));
        }
        Ok(())
    }

    /// What `node` makes of `value`, which may be an array to unwrap.
    pub(super) fn node(&mut self, node: &'a Node, value: &Item<'a>, mut found: Sink<'_, 'a>) -> Result<bool, Stop> {
        self.spend(1)?;
        let made = match &node.head {
            Head::Null => Item::Made(Rc::new(Json::Null)),
            Head::Bool(truth) => Item::Made(Rc::new(Json::Bool(*truth))),
            Head::Number(digits) => Item::number(digits.clone()),
            Head::Text(text) => Item::text(text.as_str()),
            Head::Current => self.current.clone(),
            Head::Root => {
                let base = Base { document: Some(self.root), number: 0, start: 0 };
                return self.based(base, |this| this.next(node, 0, Item::Part(this.root), found));
            }
            Head::Variable(name) => {
                let value = self
                    .variables
                    .and_then(|variables| variables.member(name))
                    .ok_or_else(|| SqlError::new("42704", format!("could not find jsonpath variable \"{name}\"")))?;
                let base = Base { document: self.variables, number: 1, start: 0 };
                return self.based(base, |this| this.next(node, 0, Item::Part(value), found));
            }
            Head::Last => match self.array_length {
                Some(length) => Item::number((length as i64 - 1).to_string()),
                None => return Err(SqlError::internal("last stands outside of a subscript").into()),
            },
            Head::Predicate(predicate) => {
                let truth = self.truth(predicate, value)?;
                Item::Made(Rc::new(truth.map_or(Json::Null, Json::Bool)))
            }
            Head::Arithmetic(op, left, right) => self.arithmetic(*op, left, right, value)?,
            Head::Sign(is_minus, operand) => {
                let mut operands = Vec::new();
                self.unwrapped(operand, value, true, &mut operands)?;
                let mut any = false;
                let is_end = node.steps.is_empty() && found.is_none();
                for operand in operands {
                    let Some(digits) = operand.as_number() else {
                        if is_end {
                            continue;
                        }
                        let sign = if *is_minus { "-" } else { "+" };
                        return self.fail(|| {
                            let message = format!("operand of unary jsonpath operator {sign} is not a numeric value");
                            SqlError::new("2203B", message)
                        });
                    };
                    let signed = match is_minus {
                        true => Item::number(self.checked(Decimal::of(digits).negated().plain())?),
                        false => operand.clone(),
                    };
                    if self.next(node, 0, signed, found.as_deref_mut())? {
                        if found.is_none() {
                            return Ok(true);
                        }
                        any = true;
                    }
                }
                return Ok(any);
            }
        };
        self.next(node, 0, made, found)
    }

    pub(super) fn based<T>(&mut self, base: Base<'a>, run: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.base, base);
        let result = run(self);
        self.base = outer;
        result
    }

    fn checked<T>(&self, result: Result<T, SqlError>) -> Result<T, Stop> {
        result.or_else(|error| self.fail(|| error))
    }

    fn arithmetic(
        &mut self,
        op: Arithmetic,
        left: &'a Node,
        right: &'a Node,
        value: &Item<'a>,
    ) -> Result<Item<'a>, Stop> {
        let (mut lefts, mut rights) = (Vec::new(), Vec::new());
        self.unwrapped(left, value, true, &mut lefts)?;
        self.unwrapped(right, value, true, &mut rights)?;
        let single = |items: &[Item<'a>]| match items {
            [one] => one.as_number().map(str::to_owned),
            _ => None,
        };
        let (Some(left), Some(right)) = (single(&lefts), single(&rights)) else {
            let side = if single(&lefts).is_none() { "left" } else { "right" };
            return self.fail(|| {
                let message =
                    format!("{side} operand of jsonpath operator {} is not a single numeric value", op.sign());
                SqlError::new("22038", message)
            });
        };
        let work = (left.len() / STEP_DIGITS + 1) * (right.len() / STEP_DIGITS + 1);
        self.spend(work as u64)?;
        let (left, right) = (Decimal::of(&left), Decimal::of(&right));
        let result = match op {
            Arithmetic::Add => Ok(left.add(&right)),
            Arithmetic::Subtract => Ok(left.subtract(&right)),
            Arithmetic::Multiply => Ok(left.multiply(&right)),
            Arithmetic::Divide => left.divide(&right),
            Arithmetic::Remainder => left.remainder(&right),
        };
        Ok(Item::number(self.checked(result.and_then(|number| number.plain()))?))
    }

    /// The items of `node`, and in lax mode those of arrays among them if `unwraps`.
    pub(super) fn unwrapped(
        &mut self,
        node: &'a Node,
        value: &Item<'a>,
        unwraps: bool,
        found: &mut Vec<Item<'a>>,
    ) -> Result<(), Stop> {
        if !unwraps || !self.is_lax {
            return self.node(node, value, Some(found)).map(|_| ());
        }
        let mut items = Vec::new();
        self.node(node, value, Some(&mut items))?;
        for item in items {
            match item.items() {
                Some(parts) => {
                    self.spend(parts.len() as u64)?;
                    found.extend(parts.iter().map(Item::Part));
                }
                None => found.push(item),
            }
        }
        Ok(())
    }

    /// Gives `value` to the step at `index`, or out.
    pub(super) fn next(
        &mut self,
        node: &'a Node,
        index: usize,
        value: Item<'a>,
        found: Sink<'_, 'a>,
    ) -> Result<bool, Stop> {
        if index < node.steps.len() {
            return self.step(node, index, &value, found, self.is_lax);
        }
        if let Some(found) = found {
            found.push(value);
        }
        Ok(true)
    }

    fn step(
        &mut self,
        node: &'a Node,
        index: usize,
        value: &Item<'a>,
        found: Sink<'_, 'a>,
        unwraps: bool,
    ) -> Result<bool, Stop> {
        self.spend(1)?;
        let unwraps = unwraps && value.is_array();
        match &node.steps[index] {
            Step::Key(key) => {
                if value.is_object() {
                    return match value.member(key) {
                        Some(member) => self.next(node, index + 1, member, found),
                        None => self.mismatch("2203A", || format!("JSON object does not contain key \"{key}\"")),
                    };
                }
                if unwraps {
                    return self.parts(node, index, value, found);
                }
                self.mismatch("2203A", || "jsonpath member accessor can only be applied to an object".to_owned())
            }
            Step::AnyKey => {
                if value.is_object() {
                    return self.each_child(node, index + 1, value, found, self.is_lax);
                }
                if unwraps {
                    return self.parts(node, index, value, found);
                }
                self.mismatch("2203C", || {
                    "jsonpath wildcard member accessor can only be applied to an object".to_owned()
                })
            }
            Step::AnyItem => {
                if value.is_array() {
                    return self.each_child(node, index + 1, value, found, self.is_lax);
                }
                if self.is_lax {
                    return self.next(node, index + 1, value.clone(), found);
                }
                self.mismatch("22039", || "jsonpath wildcard array accessor can only be applied to an array".to_owned())
            }
            Step::AnyLevel(from, to) => self.levels(node, index, value, (*from, *to), found),
            Step::Items(ranges) => self.subscripts(node, index, ranges, value, found),
            Step::Filter(predicate) => {
                if unwraps {
                    return self.parts(node, index, value, found);
                }
                let outer = std::mem::replace(&mut self.current, value.clone());
                let truth = self.truth(predicate, value);
                self.current = outer;
                match truth? {
                    Some(true) => self.next(node, index + 1, value.clone(), found),
                    _ => Ok(false),
                }
            }
            Step::Method(method) => {
                if unwraps && method.unwraps() {
                    return self.parts(node, index, value, found);
                }
                self.method(node, index, method, value, found)
            }
        }
    }

    /// The same step on each item of an array, of which none is unwrapped again.
    fn parts(&mut self, node: &'a Node, index: usize, value: &Item<'a>, found: Sink<'_, 'a>) -> Result<bool, Stop> {
        self.each_child(node, index, value, found, false)
    }

    fn each_child(
        &mut self,
        node: &'a Node,
        index: usize,
        value: &Item<'a>,
        mut found: Sink<'_, 'a>,
        unwraps: bool,
    ) -> Result<bool, Stop> {
        let mut any = false;
        for child in value.children() {
            self.spend(1)?;
            if self.apply(node, index, child, found.as_deref_mut(), unwraps)? {
                if found.is_none() {
                    return Ok(true);
                }
                any = true;
            }
        }
        Ok(any)
    }

    fn apply(
        &mut self,
        node: &'a Node,
        index: usize,
        value: Item<'a>,
        found: Sink<'_, 'a>,
        unwraps: bool,
    ) -> Result<bool, Stop> {
        match index < node.steps.len() {
            true => self.step(node, index, &value, found, unwraps),
            false => self.next(node, index, value, found),
        }
    }

    /// `.**`: the value itself and all below it, between two levels. `last` as both stands for the leaves.
    fn levels(
        &mut self,
        node: &'a Node,
        index: usize,
        value: &Item<'a>,
        (from, to): (Option<u32>, Option<u32>),
        mut found: Sink<'_, 'a>,
    ) -> Result<bool, Stop> {
        let (first, last) = (from.unwrap_or(u32::MAX), to.unwrap_or(u32::MAX));
        let only_leaves = from.is_none() && to.is_none();
        let is_container = value.is_array() || value.is_object();
        let strictness = self.ignores_structure;
        self.ignores_structure = true;
        let mut walk = |this: &mut Self| -> Result<bool, Stop> {
            let mut any = false;
            if first == 0 {
                match this.next(node, index + 1, value.clone(), found.as_deref_mut()) {
                    Ok(true) if found.is_none() => return Ok(true),
                    Ok(is_found) => any |= is_found,
                    // PostgreSQL forgets it when it goes down.
                    Err(Stop::Suppressed) if is_container => {}
                    Err(stop) => return Err(stop),
                }
            }
            if !is_container || last == 0 {
                return Ok(any);
            }
            // Down to the left first, without recursion: documents are deeper than paths.
            let mut open = vec![value.children()];
            while let Some(children) = open.last_mut() {
                let Some(child) = children.next() else {
                    open.pop();
                    continue;
                };
                this.spend(1)?;
                let level = u32::try_from(open.len()).unwrap_or(u32::MAX);
                let goes_down = child.is_array() || child.is_object();
                if (level >= first || only_leaves && !goes_down)
                    && this.apply(node, index + 1, child.clone(), found.as_deref_mut(), this.is_lax)?
                {
                    if found.is_none() {
                        return Ok(true);
                    }
                    any = true;
                }
                if goes_down && level < last {
                    open.push(child.children());
                }
            }
            Ok(any)
        };
        let result = walk(self);
        self.ignores_structure = strictness;
        result
    }

    fn subscripts(
        &mut self,
        node: &'a Node,
        index: usize,
        ranges: &'a [(Node, Option<Node>)],
        value: &Item<'a>,
        mut found: Sink<'_, 'a>,
    ) -> Result<bool, Stop> {
        let items = value.items();
        if items.is_none() && !self.is_lax {
            return self.mismatch("22039", || "jsonpath array accessor can only be applied to an array".to_owned());
        }
        let length = items.map_or(1, <[Json]>::len);
        let outer = self.array_length.replace(length);
        let mut walk = |this: &mut Self| -> Result<bool, Stop> {
            let mut any = false;
            for (from, to) in ranges {
                this.array_length = Some(length);
                let from = this.subscript(from, value)?;
                let to = match to {
                    Some(to) => this.subscript(to, value)?,
                    None => from,
                };
                let length = length as i64;
                if !this.ignores_structure && (from < 0 || from > to || to >= length) {
                    return this.fail(|| SqlError::new("22033", "jsonpath array subscript is out of bounds"));
                }
                for place in from.max(0)..=to.min(length - 1) {
                    this.spend(1)?;
                    let item = match items {
                        Some(items) => Item::Part(&items[place as usize]),
                        None => value.clone(),
                    };
                    if this.next(node, index + 1, item, found.as_deref_mut())? {
                        if found.is_none() {
                            return Ok(true);
                        }
                        any = true;
                    }
                }
            }
            Ok(any)
        };
        let result = walk(self);
        self.array_length = outer;
        result
    }

    fn subscript(&mut self, node: &'a Node, value: &Item<'a>) -> Result<i64, Stop> {
        let mut found = Vec::new();
        self.node(node, value, Some(&mut found))?;
        let [Some(digits)] = found.iter().map(Item::as_number).collect::<Vec<_>>()[..] else {
            return self.fail(|| SqlError::new("22033", "jsonpath array subscript is not a single numeric value"));
        };
        match i32::try_from(Decimal::of(digits).truncated()) {
            Ok(subscript) => Ok(subscript.into()),
            Err(_) => self.fail(|| SqlError::new("22033", "jsonpath array subscript is out of integer range")),
        }
    }

    /// The number that is nearest to one with digits behind the point.
    pub(super) fn nearest(digits: &str) -> BigInt {
        Decimal::of(digits).whole()
    }
}
