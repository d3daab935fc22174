//! From a request about rows to one about documents.
//!
//! | about rows | about documents |
//! |---|---|
//! | `count(*)`, `count(x)` | the sum of the rows, of those with an `x` (of the rows where no `x` is null) |
//! | `sum`, `min`, `max` | the same of the states |
//! | `approx_distinct`, `approx_percentile` | the states' sketches put together |
//! | `avg` | is a sum and a count already |
//! | a key `x`, or `x` rounded to bins | the dimension `x`; or one of bins of which those asked for are made |
//! | a condition on `x`, in WHERE or FILTER, of any form | the same condition on the dimension `x` |
//! | `x >= t`, `x < t` where `t` begins a bin of a dimension; IS NULL | the same of the bins |
//!
//! Whatever else is in a request makes it one for the rows.

use std::sync::Arc;

use super::{ROWS, StarTree, dimension_id, state_id};
use crate::{
    aggregate::{Aggregate, AggregateRequest, Bin, Function, GroupKey},
    ids::ColumnId,
    predicate::{CompareOp, Predicate},
    scalar::Scalar,
};

/// A request in the terms of documents.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Question {
    /// Bit `i`: dimension `i` is needed.
    pub(crate) needed: u32,
    pub(crate) keys: Vec<GroupKey>,
    pub(crate) aggregates: Vec<Aggregate>,
    pub(crate) predicate: Option<Predicate>,
}

/// What is known of a segment's columns.
pub(crate) trait Columns {
    /// Whether values of the column mean in the request what they meant when the tree was made.
    fn is_unchanged(&self, column: ColumnId) -> bool;
    fn has_nulls(&self, column: ColumnId) -> bool;
    /// What is left of a predicate when what is true of all rows is gone; `None`: nothing.
    fn left_open(&self, predicate: &Predicate) -> Option<Predicate>;
}

/// The question, if the tree's documents can answer it.
pub(crate) fn question(tree: &StarTree, request: &AggregateRequest, columns: &dyn Columns) -> Option<Question> {
    if !request.computed.is_empty() {
        return None;
    }
    let mut cover = Cover { tree, columns, needed: 0 };
    let keys = request.keys.iter().map(|key| cover.key(key)).collect::<Option<Vec<_>>>()?;
    let predicate = cover.condition(request.predicate.as_ref())?;
    let states = tree.states();
    let mut aggregates = Vec::with_capacity(request.aggregates.len());
    for aggregate in &request.aggregates {
        let function = cover.function(&aggregate.function, &states)?;
        let filter = cover.condition(aggregate.filter.as_ref())?;
        aggregates.push(Aggregate { function, filter });
    }
    Some(Question { needed: cover.needed, keys, aggregates, predicate })
}

struct Cover<'a> {
    tree: &'a StarTree,
    columns: &'a dyn Columns,
    needed: u32,
}

impl Cover<'_> {
    /// The dimensions made of a column, those of few values first.
    fn dimensions(&self, column: ColumnId) -> Vec<(usize, Option<Bin>)> {
        if !self.columns.is_unchanged(column) {
            return Vec::new();
        }
        let of_column = self.tree.dimensions.iter().enumerate().filter(|(_, dimension)| dimension.column == column);
        let mut found: Vec<_> = of_column.map(|(index, dimension)| (index, dimension.bin)).collect();
        found.sort_by_key(|(_, bin)| std::cmp::Reverse(bin.map_or(0, |bin| bin.width)));
        found
    }

    fn need(&mut self, index: usize) -> ColumnId {
        self.needed |= 1 << index;
        dimension_id(index)
    }

    fn key(&mut self, key: &GroupKey) -> Option<GroupKey> {
        let found = self.dimensions(key.column).into_iter().find(|(_, bin)| match (key.bin, bin) {
            (_, None) => true,
            (Some(asked), Some(bin)) => is_made_of(asked, *bin),
            (None, Some(_)) => false,
        });
        let (index, bin) = found?;
        let bin = key.bin.filter(|asked| Some(*asked) != bin);
        Some(GroupKey { column: self.need(index), bin })
    }

    fn function(&self, function: &Function, states: &[Function]) -> Option<Function> {
        let Some(column) = function.column() else { return Some(Function::Sum(ROWS)) };
        if !self.columns.is_unchanged(column) {
            return None;
        }
        if let Function::Count(column) = function
            && !self.columns.has_nulls(*column)
        {
            return Some(Function::Sum(ROWS));
        }
        let id = state_id(states.iter().position(|state| state == function)?);
        function.over_states(id)
    }

    /// The condition; the inner `None`: there is none.
    fn condition(&mut self, condition: Option<&Predicate>) -> Option<Option<Predicate>> {
        match condition.and_then(|condition| self.columns.left_open(condition)) {
            None => Some(None),
            Some(left) => self.predicate(&left).map(Some),
        }
    }

    fn predicate(&mut self, predicate: &Predicate) -> Option<Predicate> {
        match predicate {
            Predicate::And(children) => {
                children.iter().map(|child| self.predicate(child)).collect::<Option<_>>().map(Predicate::And)
            }
            Predicate::Or(children) => {
                children.iter().map(|child| self.predicate(child)).collect::<Option<_>>().map(Predicate::Or)
            }
            leaf => {
                let found = self.dimensions(leaf.column()?).into_iter();
                let (index, leaf) =
                    found.filter_map(|(index, bin)| Some((index, on_dimension(leaf, index, bin)?))).next()?;
                self.need(index);
                Some(leaf)
            }
        }
    }
}

/// Whether every bin of `asked` is made of whole bins of `bin`.
fn is_made_of(asked: Bin, bin: Bin) -> bool {
    let between = i128::from(asked.origin) - i128::from(bin.origin);
    bin.width > 0 && asked.width % bin.width == 0 && between % i128::from(bin.width) == 0
}

/// The leaf, on dimension `index`; `None` where the dimension does not tell.
fn on_dimension(leaf: &Predicate, index: usize, bin: Option<Bin>) -> Option<Predicate> {
    let column = dimension_id(index);
    Some(match (leaf, bin) {
        (Predicate::IsNull { negated, .. }, _) => Predicate::IsNull { column, negated: *negated },
        (Predicate::Compare { op, value, .. }, None) => Predicate::Compare { column, op: *op, value: value.clone() },
        (Predicate::In { values, negated, .. }, None) => {
            Predicate::In { column, values: values.clone(), negated: *negated }
        }
        (Predicate::Like { pattern, negated, case_insensitive, .. }, None) => {
            Predicate::Like { column, pattern: pattern.clone(), negated: *negated, case_insensitive: *case_insensitive }
        }
        (Predicate::Matches { query, negated, .. }, None) => {
            Predicate::Matches { column, query: Arc::clone(query), negated: *negated }
        }
        (Predicate::Holds { condition, .. }, None) => Predicate::Holds { column, condition: Arc::clone(condition) },
        (Predicate::Compare { op, value: Scalar::Int(value), .. }, Some(bin)) => {
            let (op, border) = match op {
                CompareOp::GreaterEq | CompareOp::Less => (*op, *value),
                CompareOp::Greater => (CompareOp::GreaterEq, value.checked_add(1)?),
                CompareOp::LessEq => (CompareOp::Less, value.checked_add(1)?),
                CompareOp::Eq | CompareOp::NotEq => return None,
            };
            let inside = i128::from(border) - i128::from(bin.origin);
            if inside % i128::from(bin.width) != 0 {
                return None;
            }
            Predicate::Compare { column, op, value: Scalar::Int(border) }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ids::SchemaVersion,
        schema::{Column, DataType, TableSchema},
    };

    struct Plain;

    impl Columns for Plain {
        fn is_unchanged(&self, _: ColumnId) -> bool {
            true
        }

        fn has_nulls(&self, column: ColumnId) -> bool {
            column == ColumnId(3)
        }

        fn left_open(&self, predicate: &Predicate) -> Option<Predicate> {
            Some(predicate.clone())
        }
    }

    const HOUR: Bin = Bin { width: 3_600, origin: 0 };

    fn tree() -> StarTree {
        let dimension = |column, bin| GroupKey { column: ColumnId(column), bin };
        StarTree {
            dimensions: vec![dimension(0, None), dimension(1, Some(HOUR))],
            aggregates: vec![Function::Rows, Function::Sum(ColumnId(3)), Function::Max(ColumnId(2))],
            max_leaf_records: 10,
        }
    }

    fn ask(keys: Vec<GroupKey>, functions: &[Function], predicate: Option<Predicate>) -> Option<Question> {
        let types = [DataType::BigInt, DataType::Timestamp, DataType::Int, DataType::Int];
        let columns = types.into_iter().enumerate().map(|(id, t)| Column::new(ColumnId(id as u32), "c", t)).collect();
        let schema = Arc::new(TableSchema { version: SchemaVersion(1), columns, time_column: None });
        let aggregates = functions.iter().map(|function| Aggregate { function: *function, filter: None }).collect();
        let request = AggregateRequest {
            schema,
            keys,
            aggregates,
            computed: Vec::new(),
            predicate,
            indexes: Default::default(),
            results: None,
            star_tree: true,
        };
        question(&tree(), &request, &Plain)
    }

    fn time(op: CompareOp, value: i64) -> Option<Predicate> {
        Some(Predicate::Compare { column: ColumnId(1), op, value: Scalar::Int(value) })
    }

    #[test]
    fn keys_may_be_coarser_bins() {
        let key = |width, origin| vec![GroupKey { column: ColumnId(1), bin: Some(Bin { width, origin }) }];
        let found = ask(key(7_200, 3_600), &[Function::Rows], None).unwrap();
        assert_eq!(
            (found.needed, found.keys),
            (2, vec![GroupKey { column: ColumnId(1), bin: key(7_200, 3_600)[0].bin }])
        );
        assert_eq!(ask(key(3_600, 0), &[], None).unwrap().keys[0].bin, None);
        assert_eq!(ask(key(7_200, 60), &[], None), None);
        assert_eq!(ask(key(60, 0), &[], None), None);
        assert_eq!(ask(vec![GroupKey { column: ColumnId(1), bin: None }], &[], None), None);
    }

    #[test]
    fn conditions_on_bins_have_their_bounds_at_borders() {
        use CompareOp::{Eq, Greater, GreaterEq, Less, LessEq};
        let bound = |predicate| ask(Vec::new(), &[], predicate).map(|found| found.predicate);
        assert_eq!(bound(time(GreaterEq, 7_200)), Some(time(GreaterEq, 7_200)));
        assert_eq!(bound(time(LessEq, 7_199)), Some(time(Less, 7_200)));
        assert_eq!(bound(time(Greater, -1)), Some(time(GreaterEq, 0)));
        for (op, value) in [(GreaterEq, 7_201), (LessEq, 7_200), (Greater, 7_200), (Eq, 7_200), (LessEq, i64::MAX)] {
            assert_eq!(bound(time(op, value)), None, "{op:?} {value}");
        }
    }

    #[test]
    fn counts_are_sums_of_rows_where_nothing_is_null() {
        let count = |column| ask(Vec::new(), &[Function::Count(ColumnId(column))], None);
        assert_eq!(count(2).unwrap().aggregates[0].function, Function::Sum(ROWS));
        // Kept with the sum.
        assert_eq!(count(3).unwrap().aggregates[0].function, Function::Sum(state_id(1)));
        assert_eq!(ask(Vec::new(), &[Function::Min(ColumnId(2))], None), None);
        assert_eq!(ask(Vec::new(), &[Function::Sum(ColumnId(2))], None), None);
    }
}
