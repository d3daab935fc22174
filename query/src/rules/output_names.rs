//! Names in ORDER BY: one that stands alone is an output column's if there is such a one; in an expression it is a column of FROM.
//!
//! ```text
//! SELECT b AS a FROM t ORDER BY -a, a   ─►   SELECT b AS a' FROM t ORDER BY -a, a'       a' is shown as a
//! ```

use std::{collections::HashSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, VisitMut, VisitorMut,
};

use super::syntax::{APART, folded};

/// Rewrites the outermost query in place: its output columns have no other use than to be shown.
pub(super) fn rewrite(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let Some(order_by) = &mut query.order_by else { return };
    let OrderByKind::Expressions(items) = &mut order_by.kind else { return };
    if select.distinct.is_some() {
        return;
    }
    let mut inside = Names::default();
    for item in items.iter_mut().filter(|item| alone(item).is_none()) {
        let _ = VisitMut::visit(&mut item.expr, &mut inside);
    }
    if inside.names.is_empty() {
        return;
    }
    let mut grouped = Names::default();
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        let _ = VisitMut::visit(keys, &mut grouped);
    }
    inside.names.retain(|name| !grouped.names.contains(name));
    for name in inside.names {
        rename(select, items, &name);
    }
}

fn alone(item: &OrderByExpr) -> Option<&Ident> {
    match &item.expr {
        Expr::Identifier(name) => Some(name),
        _ => None,
    }
}

fn rename(select: &mut Select, items: &mut [OrderByExpr], name: &str) {
    let mut renamed = None;
    for item in &mut select.projection {
        if let SelectItem::ExprWithAlias { expr, alias } = item
            && folded(alias) == name
            && !is_column(expr, name)
        {
            let apart = Ident::with_quote('"', format!("{name}{APART}o"));
            *alias = apart.clone();
            renamed = Some(apart);
        }
    }
    let Some(renamed) = renamed else { return };
    for item in items {
        if alone(item).is_some_and(|known| folded(known) == name) {
            item.expr = Expr::Identifier(renamed.clone());
        }
    }
}

/// Whether it is the column of that name: then both meanings are one.
fn is_column(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Identifier(column) => folded(column) == name,
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|column| folded(column) == name),
        _ => false,
    }
}

/// The names without a relation in this query's own expressions.
#[derive(Default)]
struct Names {
    depth: usize,
    names: HashSet<String>,
}

impl VisitorMut for Names {
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
        if let (0, Expr::Identifier(name)) = (self.depth, expr) {
            self.names.insert(folded(name));
        }
        ControlFlow::Continue(())
    }
}
