//! What conditions say of where a time begins and ends: `ts >= a AND ts < b` of the query itself, and of the relations that it reads the time from.

use datafusion::{
    common::{
        Column, JoinType,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Expr, LogicalPlan, Operator,
        expr::{Between, BinaryExpr},
        utils::split_conjunction,
    },
};

/// One side of a range of moments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bound {
    /// Without columns.
    pub(crate) at: Expr,
    /// Whether it is the first moment after that, not that moment.
    pub(crate) is_after: bool,
}

/// The time is nowhere before any of `from`, and before all of `to`.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    pub(super) from: Vec<Bound>,
    pub(super) to: Vec<Bound>,
}

impl Bounds {
    /// Of `time`, an expression of `plan`'s columns.
    pub(super) fn of(plan: &LogicalPlan, time: &Expr) -> Self {
        let mut bounds = Self::default();
        bounds.gather(plan, time);
        bounds
    }

    fn gather(&mut self, plan: &LogicalPlan, time: &Expr) {
        match plan {
            LogicalPlan::Filter(filter) => {
                self.conditions(&filter.predicate, time);
                self.gather(&filter.input, time);
            }
            LogicalPlan::Sort(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => {
                if let [input] = plan.inputs().as_slice()
                    && is_of(time, input)
                {
                    self.gather(input, time);
                }
            }
            LogicalPlan::SubqueryAlias(named) => {
                let inner = below(time, |column| {
                    let index = named.schema.maybe_index_of_column(column)?;
                    let (qualifier, field) = named.input.schema().qualified_field(index);
                    Some(Expr::Column(Column::new(qualifier.cloned(), field.name())))
                });
                if let Some(inner) = inner {
                    self.gather(&named.input, &inner);
                }
            }
            LogicalPlan::Projection(projection) => {
                let inner = below(time, |column| {
                    let index = projection.schema.maybe_index_of_column(column)?;
                    Some(projection.expr.get(index)?.clone().unalias())
                });
                if let Some(inner) = inner {
                    self.gather(&projection.input, &inner);
                }
            }
            LogicalPlan::Join(join) => {
                let sides = [(&join.left, JoinType::Right), (&join.right, JoinType::Left)];
                for (side, preserves_other) in sides {
                    if !is_of(time, side) {
                        continue;
                    }
                    // Rows of a side that is preserved need not satisfy the condition; the time of the others is null where they do not.
                    if let Some(condition) = &join.filter
                        && (join.join_type == JoinType::Inner || join.join_type == preserves_other)
                    {
                        self.conditions(condition, time);
                    }
                    self.gather(side, time);
                }
            }
            _ => {}
        }
    }

    fn conditions(&mut self, predicate: &Expr, time: &Expr) {
        for condition in split_conjunction(predicate) {
            match condition {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                    if left.as_ref() == time {
                        self.compared(*op, right);
                    } else if right.as_ref() == time
                        && let Some(op) = op.swap()
                    {
                        self.compared(op, left);
                    }
                }
                Expr::Between(Between { expr, negated: false, low, high }) if expr.as_ref() == time => {
                    self.compared(Operator::GtEq, low);
                    self.compared(Operator::LtEq, high);
                }
                _ => {}
            }
        }
    }

    /// `time op value`.
    fn compared(&mut self, op: Operator, value: &Expr) {
        if !is_constant(value) {
            return;
        }
        let bound = |is_after| Bound { at: value.clone(), is_after };
        match op {
            Operator::Gt => self.from.push(bound(true)),
            Operator::GtEq => self.from.push(bound(false)),
            Operator::Lt => self.to.push(bound(false)),
            Operator::LtEq => self.to.push(bound(true)),
            Operator::Eq => {
                self.from.push(bound(false));
                self.to.push(bound(true));
            }
            _ => {}
        }
    }
}

fn is_of(time: &Expr, plan: &LogicalPlan) -> bool {
    time.column_refs().into_iter().all(|column| plan.schema().has_column(column))
}

/// `time` with its columns replaced, if all can be.
fn below(time: &Expr, replaced: impl Fn(&Column) -> Option<Expr>) -> Option<Expr> {
    let mut all = true;
    let inner = time.clone().transform_up(|expr| {
        Ok(match &expr {
            Expr::Column(column) => match replaced(column) {
                Some(inner) => Transformed::yes(inner),
                None => {
                    all = false;
                    Transformed::no(expr)
                }
            },
            _ => Transformed::no(expr),
        })
    });
    inner.ok().filter(|_| all).map(|inner| inner.data)
}

/// Whether it is known before rows are read, the same for all of them.
pub(super) fn is_constant(expr: &Expr) -> bool {
    let mut is_constant = !expr.is_volatile();
    let walked = expr.apply(|expr| {
        is_constant &= !matches!(
            expr,
            Expr::Column(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        );
        Ok(if is_constant { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && is_constant
}
