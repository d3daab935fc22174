//! Functions that give rows where a value stands: in the list of SELECT they become `unnest`; elsewhere they are refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Function, FunctionArg, FunctionArguments, Query, VisitorMut};

use super::{
    super::syntax::{folded, last_part},
    Column, columns_of, list, marked, unnest,
};
use crate::SqlError;

/// Replaces functions that give rows by `unnest`, this query's own only.
pub(super) struct Items {
    pub(super) depth: usize,
    pub(super) error: Option<SqlError>,
}

impl VisitorMut for Items {
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
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        // `(jsonb_each(doc)).key`
        if let Expr::CompoundFieldAccess { root, access_chain } = expr
            && let [AccessExpr::Dot(Expr::Identifier(member))] = access_chain.as_slice()
            && let Expr::Function(call) = unnested(root)
            && let Some((columns, args)) = row_function(call)
            && let Some(column) = columns.iter().find(|column| column.name == Some(folded(member).as_str()))
            && let Some(list) = list(column, args)
        {
            *expr = marked(unnest(list), column.marker);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Some((columns, args)) = row_function(call) else { return ControlFlow::Continue(()) };
        match columns {
            [column] if column.list.is_some() => {
                if let Some(list) = list(column, args) {
                    *expr = marked(unnest(list), column.marker);
                }
            }
            [_] => {}
            _ => {
                let name = last_part(&call.name);
                let error = SqlError::not_supported(format!("{name} as one value of type record"))
                    .with_hint(format!("Write FROM {name}(…), or ({name}(…)).key."));
                self.error.get_or_insert(error);
            }
        }
        ControlFlow::Continue(())
    }
}

fn unnested(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

fn row_function(call: &Function) -> Option<(&'static [Column], Vec<FunctionArg>)> {
    let columns = columns_of(&last_part(&call.name))?;
    match &call.args {
        FunctionArguments::List(list) => Some((columns, list.args.clone())),
        _ => None,
    }
}

/// Refuses functions that give rows where there can be one value only.
pub(super) struct Refused {
    pub(super) clause: &'static str,
    pub(super) depth: usize,
}

impl VisitorMut for Refused {
    type Break = SqlError;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<SqlError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<SqlError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if self.depth == 0
            && let Expr::Function(call) = expr
            && row_function(call).is_some()
        {
            let message = format!("set-returning functions are not allowed in {}", self.clause);
            return ControlFlow::Break(SqlError::new("0A000", message));
        }
        ControlFlow::Continue(())
    }
}
