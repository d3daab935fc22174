//! Columns that `JOIN … USING` merges, where a side may be missing: the value of a FULL JOIN is that of the side that has one, of a RIGHT JOIN
//! that of the right side. The planner knows the left side's alone.
//!
//! ```text
//! SELECT *, x FROM a FULL JOIN b USING (x)
//!   ─► SELECT coalesce(a.x, b.x) AS x, a.* EXCEPT (x), b.* EXCEPT (x), coalesce(a.x, b.x) AS x FROM a FULL JOIN b ON a.x = b.x
//! ```

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, ExceptSelectItem, Expr, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, ObjectName,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor, VisitMut,
    VisitorMut, WildcardAdditionalOptions,
};

use super::syntax::function;
use crate::SqlError;

/// Rewrites the joins of a query's SELECT where a side may be missing, and what refers to their columns.
pub(super) fn rewrite(query: &mut Query) -> Result<(), SqlError> {
    let SetExpr::Select(select) = query.body.as_mut() else { return Ok(()) };
    let Some(merged) = joins(select)? else { return Ok(()) };
    let names: Vec<Option<String>> = select.projection.iter().map(output_name).collect();
    let has_all = names.iter().any(Option::is_none);
    rewrite_select(select, &merged);
    let Some(order_by) = &mut query.order_by else { return Ok(()) };
    if let OrderByKind::Expressions(items) = &mut order_by.kind {
        for item in items {
            // The name of an output column comes first.
            let is_output = match &item.expr {
                Expr::Identifier(name) => has_all || names.iter().flatten().any(|known| *known == folded(name)),
                _ => false,
            };
            if !is_output {
                replace(&mut item.expr, &merged);
            }
        }
    }
    Ok(())
}

/// A merged column.
struct Merged {
    name: Ident,
    value: Expr,
    /// Those that have it.
    relations: Vec<Ident>,
}

struct Columns {
    relations: Vec<Ident>,
    /// In the order that `*` has them.
    merged: Vec<Merged>,
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// The output column's name; `None` for a wildcard.
fn output_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(folded),
        SelectItem::UnnamedExpr(_) => Some(String::new()),
        _ => None,
    }
}

fn relation(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, alias: None, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// Which sides may be missing: left, right; and the constraint. `None` for joins without one.
fn parts(operator: &mut JoinOperator) -> Option<(bool, bool, &mut JoinConstraint)> {
    Some(match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (false, false, constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (false, true, constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (true, false, constraint),
        JoinOperator::FullOuter(constraint) => (true, true, constraint),
        _ => return None,
    })
}

fn unsupported(what: &str) -> SqlError {
    SqlError::not_supported(format!("{what} beside a RIGHT or FULL JOIN with USING"))
        .with_hint("join with ON, and write coalesce(a.x, b.x) for the column that both have")
}

/// Spells the joins out; `None` where every merged column is the left side's.
fn joins(select: &mut Select) -> Result<Option<Columns>, SqlError> {
    let asks = |join: &mut Join| match parts(&mut join.join_operator) {
        Some((true, _, JoinConstraint::Using(_))) => Some(false),
        Some((true, _, JoinConstraint::Natural)) => Some(true),
        _ => None,
    };
    let found: Vec<bool> = select.from.iter_mut().flat_map(|from| &mut from.joins).filter_map(asks).collect();
    if found.is_empty() {
        return Ok(chained(select));
    }
    if found.contains(&true) {
        return Err(SqlError::not_supported("NATURAL RIGHT JOIN and NATURAL FULL JOIN")
            .with_hint("name the columns: RIGHT JOIN … USING (x)"));
    }
    spelled_out(select).map(Some)
}

/// Several joins of which one merges columns: the planner does not find those in the joins that follow. Where it is not clear whose they are, they stay as
/// they are.
fn chained(select: &mut Select) -> Option<Columns> {
    let [from] = select.from.as_mut_slice() else { return None };
    let mut merges = |join: &mut Join| matches!(parts(&mut join.join_operator), Some((_, _, JoinConstraint::Using(_))));
    if from.joins.len() < 2 || !from.joins.iter_mut().any(&mut merges) {
        return None;
    }
    let mut copy = select.clone();
    let columns = spelled_out(&mut copy).ok()?;
    *select = copy;
    Some(columns)
}

fn spelled_out(select: &mut Select) -> Result<Columns, SqlError> {
    let [from] = select.from.as_mut_slice() else { return Err(unsupported("a second relation in FROM")) };
    let first = relation(&from.relation).ok_or_else(|| unsupported("a relation without a name"))?;
    let mut columns = Columns { relations: vec![first], merged: Vec::new() };
    for join in &mut from.joins {
        let right = relation(&join.relation).ok_or_else(|| unsupported("a relation without a name"))?;
        if let Some((left_missing, right_missing, constraint)) = parts(&mut join.join_operator) {
            match constraint {
                JoinConstraint::Using(names) => {
                    let names: Vec<Ident> =
                        names.iter().filter_map(|name| name.0.last()?.as_ident().cloned()).collect();
                    *constraint = JoinConstraint::On(columns.merge(&names, &right, left_missing, right_missing)?);
                }
                JoinConstraint::On(condition) => replace(condition, &columns),
                JoinConstraint::Natural => return Err(unsupported("NATURAL JOIN")),
                JoinConstraint::None => {}
            }
        }
        columns.relations.push(right);
    }
    Ok(columns)
}

impl Columns {
    fn of(&self, name: &Ident) -> Option<&Merged> {
        self.merged.iter().find(|merged| folded(&merged.name) == folded(name))
    }

    /// Merges columns of the relations so far with those of `right`; the condition of the join.
    fn merge(
        &mut self,
        names: &[Ident],
        right: &Ident,
        left_missing: bool,
        right_missing: bool,
    ) -> Result<Expr, SqlError> {
        let mut condition: Option<Expr> = None;
        let mut merged = Vec::with_capacity(names.len());
        for name in names {
            let (left_value, mut relations) = match (self.of(name), self.relations.as_slice()) {
                (Some(known), _) => (known.value.clone(), known.relations.clone()),
                (None, [one]) => (qualified(one, name), vec![one.clone()]),
                _ => return Err(unsupported(&format!("USING ({name}) after joins that do not merge it,"))),
            };
            let right_value = qualified(right, name);
            let equal = Expr::BinaryOp {
                left: Box::new(left_value.clone()),
                op: BinaryOperator::Eq,
                right: Box::new(right_value.clone()),
            };
            condition = Some(match condition {
                None => equal,
                Some(condition) => {
                    Expr::BinaryOp { left: Box::new(condition), op: BinaryOperator::And, right: Box::new(equal) }
                }
            });
            let value = match (left_missing, right_missing) {
                (false, _) => left_value,
                (true, false) => right_value,
                (true, true) => function("coalesce", vec![left_value, right_value]),
            };
            relations.push(right.clone());
            merged.push(Merged { name: name.clone(), value, relations });
        }
        // The columns of the last join come first.
        self.merged.retain(|known| names.iter().all(|name| folded(name) != folded(&known.name)));
        merged.append(&mut self.merged);
        self.merged = merged;
        condition.ok_or_else(|| SqlError::syntax("USING names no column"))
    }
}

fn qualified(relation: &Ident, name: &Ident) -> Expr {
    Expr::CompoundIdentifier(vec![relation.clone(), name.clone()])
}

fn rewrite_select(select: &mut Select, columns: &Columns) {
    let mut projection = Vec::with_capacity(select.projection.len());
    for item in std::mem::take(&mut select.projection) {
        match item {
            SelectItem::Wildcard(options) if options == WildcardAdditionalOptions::default() => {
                all_columns(columns, &mut projection);
            }
            SelectItem::UnnamedExpr(Expr::Identifier(name)) if columns.of(&name).is_some() => {
                let mut expr = Expr::Identifier(name.clone());
                replace(&mut expr, columns);
                projection.push(SelectItem::ExprWithAlias { expr, alias: name });
            }
            SelectItem::UnnamedExpr(mut expr) => {
                replace(&mut expr, columns);
                projection.push(SelectItem::UnnamedExpr(expr));
            }
            SelectItem::ExprWithAlias { mut expr, alias } => {
                replace(&mut expr, columns);
                projection.push(SelectItem::ExprWithAlias { expr, alias });
            }
            other => projection.push(other),
        }
    }
    select.projection = projection;
    if let Some(selection) = &mut select.selection {
        replace(selection, columns);
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        for key in keys {
            replace(key, columns);
        }
    }
    for condition in select.having.iter_mut().chain(&mut select.qualify) {
        replace(condition, columns);
    }
}

/// What `*` stands for.
fn all_columns(columns: &Columns, out: &mut Vec<SelectItem>) {
    let merged = columns.merged.iter();
    out.extend(
        merged.map(|merged| SelectItem::ExprWithAlias { expr: merged.value.clone(), alias: merged.name.clone() }),
    );
    for relation in &columns.relations {
        let mut names = columns
            .merged
            .iter()
            .filter(|merged| merged.relations.iter().any(|known| folded(known) == folded(relation)))
            .map(|merged| merged.name.clone());
        let opt_except =
            names.next().map(|first_element| ExceptSelectItem { first_element, additional_elements: names.collect() });
        out.push(SelectItem::QualifiedWildcard(
            SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![relation.clone()])),
            WildcardAdditionalOptions { opt_except, ..Default::default() },
        ));
    }
}

/// Puts merged columns in the place of their bare names, in this query and not in those inside of it.
fn replace(expr: &mut Expr, columns: &Columns) {
    let _ = VisitMut::visit(expr, &mut Replacer { columns, depth: 0 });
}

struct Replacer<'a> {
    columns: &'a Columns,
    depth: usize,
}

impl VisitorMut for Replacer<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(merged) = self.columns.of(name)
        {
            *expr = merged.value.clone();
        }
        ControlFlow::Continue(())
    }
}
