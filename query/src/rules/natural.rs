//! What the names of the relations in FROM are, and NATURAL joins that need their columns: `a NATURAL FULL JOIN b` becomes `a FULL JOIN b USING (x, y)` of the
//! columns that both have.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, Statement, TableFactor, TableWithJoins,
    Value, VisitMut, VisitorMut,
};

use super::syntax::{folded, last_part};
use crate::SqlError;

/// The columns of the table of this name, if it is one.
pub(super) type Columns<'a> = dyn Fn(&str) -> Option<Vec<String>> + 'a;

/// Gives NATURAL RIGHT and FULL joins of tables their columns. Others stay: the planner knows them, or refuses them.
pub(super) fn rewrite(statement: &mut Statement, columns: &Columns<'_>) {
    let hidden = ctes(statement);
    let _ = VisitMut::visit(statement, &mut Rewriter { columns, hidden });
}

struct Rewriter<'a> {
    columns: &'a Columns<'a>,
    hidden: Vec<String>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for from in &mut select.from {
            let _ = self.spell_out(from);
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    fn spell_out(&self, from: &mut TableWithJoins) -> Option<()> {
        let is_natural = |join: &Join| matches!(constraint(&join.join_operator), Some(JoinConstraint::Natural));
        let is_outer = |join: &Join| {
            matches!(
                join.join_operator,
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
            )
        };
        if !from.joins.iter().any(|join| is_natural(join) && is_outer(join)) {
            return None;
        }
        let mut left = table(&from.relation, self.columns, &self.hidden)?.1;
        for join in &mut from.joins {
            let right = table(&join.relation, self.columns, &self.hidden)?.1;
            if is_natural(join)
                && let Some(constraint) = constraint_mut(&mut join.join_operator)
            {
                let both = left.iter().filter(|name| right.contains(name));
                let both = both.map(|name| ObjectName::from(vec![Ident::with_quote('"', name)])).collect::<Vec<_>>();
                *constraint = match both.is_empty() {
                    true => JoinConstraint::On(Expr::Value(Value::Boolean(true).into())),
                    false => JoinConstraint::Using(both),
                };
            }
            left.extend(right);
            left.dedup();
        }
        Some(())
    }
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Join, Left, LeftOuter, Right, RightOuter};
    match operator {
        Join(c) | Inner(c) | Left(c) | LeftOuter(c) | Right(c) | RightOuter(c) | FullOuter(c) => Some(c),
        _ => None,
    }
}

fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    use JoinOperator::{FullOuter, Inner, Join, Left, LeftOuter, Right, RightOuter};
    match operator {
        Join(c) | Inner(c) | Left(c) | LeftOuter(c) | Right(c) | RightOuter(c) | FullOuter(c) => Some(c),
        _ => None,
    }
}

/// The names that the WITHs of a statement give.
pub(super) fn ctes(statement: &mut Statement) -> Vec<String> {
    struct Found(Vec<String>);
    impl VisitorMut for Found {
        type Break = ();

        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            let named = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| folded(&cte.alias.name));
            self.0.extend(named);
            ControlFlow::Continue(())
        }
    }
    let mut found = Found(Vec::new());
    let _ = VisitMut::visit(statement, &mut found);
    found.0
}

/// What a table is called in its query, and its columns; `None` for other relations.
fn table(factor: &TableFactor, columns: &Columns<'_>, hidden: &[String]) -> Option<(String, Vec<String>)> {
    let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
    let table = last_part(name);
    if hidden.contains(&table) && name.0.len() == 1 {
        return None;
    }
    match alias {
        None => Some((table.clone(), columns(&table)?)),
        Some(alias) if alias.columns.is_empty() => Some((folded(&alias.name), columns(&table)?)),
        Some(_) => None,
    }
}

/// All tables in FROM with their columns; `None` when there are other relations.
pub(super) fn tables(select: &Select, columns: &Columns<'_>, hidden: &[String]) -> Option<Vec<(String, Vec<String>)>> {
    factors(select).map(|factor| table(factor, columns, hidden)).collect()
}

fn factors(select: &Select) -> impl Iterator<Item = &TableFactor> {
    select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)))
}

/// 42712 when two relations in FROM have one name. The same names in two schemas are two.
pub(super) fn named_twice(select: &Select) -> Option<SqlError> {
    let mut known: Vec<(String, Option<String>)> = Vec::new();
    for factor in factors(select) {
        let (name, whole) = match factor {
            TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
                (folded(&alias.name), None)
            }
            TableFactor::Table { name, alias: None, args: None, .. } => {
                (last_part(name), Some(name.to_string()).filter(|_| name.0.len() > 1))
            }
            _ => continue,
        };
        let is_same = |(other, schema): &(String, Option<String>)| {
            *other == name && (schema.is_none() || whole.is_none() || *schema == whole)
        };
        if known.iter().any(is_same) {
            return Some(SqlError::new("42712", format!("table name \"{name}\" specified more than once")));
        }
        known.push((name, whole));
    }
    None
}
