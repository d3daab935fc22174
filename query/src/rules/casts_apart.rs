//! `count(a), count(a::bigint)`: the planner's names of expressions leave casts out, so that two columns of an aggregate would have one name. Where that
//! happens the casts are written `CASE WHEN true THEN a::bigint END`, which the optimizer takes off again.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use datafusion::sql::sqlparser::ast::{
    CaseWhen, Expr, GroupByExpr, Query, Select, SelectItem, Value, VisitMut, VisitorMut,
    helpers::attached_token::AttachedToken,
};

/// Rewrites the calls and the GROUP BY of this SELECT in place.
pub(super) fn rewrite(select: &mut Select) {
    let mut calls = Calls { depth: 0, casts: false, known: HashMap::new() };
    each(select, &mut calls);
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        keys.iter_mut().for_each(|key| calls.add(key));
    }
    if !calls.casts {
        return;
    }
    let ambiguous: HashSet<String> = calls.known.into_values().filter(|texts| texts.len() > 1).flatten().collect();
    if !ambiguous.is_empty() {
        each(select, &mut Apart { depth: 0, ambiguous, inside: Vec::new() });
    }
}

/// Visits this SELECT's own expressions.
fn each(select: &mut Select, visitor: &mut impl VisitorMut<Break = ()>) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let _ = VisitMut::visit(expr, visitor);
        }
    }
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        let _ = VisitMut::visit(keys, visitor);
    }
    let _ = VisitMut::visit(&mut select.having, visitor);
}

struct Calls {
    depth: usize,
    casts: bool,
    /// Texts by what they are without their casts.
    known: HashMap<String, HashSet<String>>,
}

impl Calls {
    fn add(&mut self, expr: &Expr) {
        let mut bare = expr.clone();
        let mut casts = Uncast { found: false };
        let _ = VisitMut::visit(&mut bare, &mut casts);
        self.casts |= casts.found;
        self.known.entry(bare.to_string()).or_default().insert(expr.to_string());
    }
}

impl VisitorMut for Calls {
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
        if self.depth == 0 && matches!(expr, Expr::Function(_)) {
            self.add(expr);
        }
        ControlFlow::Continue(())
    }
}

struct Uncast {
    found: bool,
}

impl VisitorMut for Uncast {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } = expr {
            self.found = true;
            *expr = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
        }
        ControlFlow::Continue(())
    }
}

/// Wraps the casts of what is ambiguous.
struct Apart {
    depth: usize,
    ambiguous: HashSet<String>,
    /// For each expression around, whether it has been changed: what is inside of it then is done.
    inside: Vec<bool>,
}

impl VisitorMut for Apart {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let done = self.inside.last().copied().unwrap_or(false);
        let changes = !done && self.depth == 0 && self.ambiguous.contains(&expr.to_string());
        if changes {
            let _ = VisitMut::visit(expr, &mut Wrapped);
        }
        self.inside.push(done || changes);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.inside.pop();
        ControlFlow::Continue(())
    }
}

struct Wrapped;

impl VisitorMut for Wrapped {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { data_type, .. } = expr {
            // Its type tells one cast from another.
            let mark = Expr::Value(Value::SingleQuotedString(data_type.to_string()).into());
            let condition = Expr::IsNotNull(Box::new(mark));
            let result = std::mem::replace(expr, Expr::Value(Value::Null.into()));
            *expr = Expr::Case {
                case_token: AttachedToken::empty(),
                end_token: AttachedToken::empty(),
                operand: None,
                conditions: vec![CaseWhen { condition, result }],
                else_result: None,
            };
        }
        ControlFlow::Continue(())
    }
}
