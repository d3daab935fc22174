//! Views, on the syntax tree: the name of one in FROM becomes its query, with its columns under the names that they had when it was made.
//!
//! ```text
//! FROM v AS x   ⇒   FROM (SELECT "a" AS "a", "b" AS "total" FROM (<the query of v>) AS "v") AS x
//! ```
//!
//! What always holds: the query means what it meant when the view was made: relations in it are those of `public` (WITH of the statement
//! around it hides none), and columns that a table got later do not come out of a `*` in it.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TableAlias, TableFactor, VisitMut, VisitorMut,
};

use super::syntax::{folded, query};
use crate::{
    SqlError,
    catalog::{PUBLIC, TableCatalog, ViewHandle},
};

/// Views that may stand in one another.
const DEPTH_MAX: usize = 32;

/// Puts the queries of views in the place of their names.
pub(crate) fn expand(statement: &mut Statement, tables: &dyn TableCatalog) -> Result<(), SqlError> {
    if tables.has_views() {
        let mut expander = Expander { tables, scopes: Vec::new(), depth: 0, is_view: false, used: BTreeSet::new() };
        if let ControlFlow::Break(error) = VisitMut::visit(statement, &mut expander) {
            return Err(error);
        }
    }
    Ok(())
}

/// The oids of the tables and views of `public` that a query names.
pub fn relations(query: &Query, tables: &dyn TableCatalog) -> BTreeSet<u32> {
    let mut finder = Expander { tables, scopes: Vec::new(), depth: DEPTH_MAX, is_view: true, used: BTreeSet::new() };
    let _ = VisitMut::visit(&mut query.clone(), &mut finder);
    finder.used
}

struct Expander<'a> {
    tables: &'a dyn TableCatalog,
    /// Names that WITH gives, of the queries around.
    scopes: Vec<Vec<String>>,
    depth: usize,
    /// In a view's query: names are made those of `public`.
    is_view: bool,
    used: BTreeSet<u32>,
}

impl Expander<'_> {
    /// The name of a relation of `public`, if `name` may be one.
    fn public_name(&self, name: &ObjectName) -> Option<String> {
        let parts: Option<Vec<&Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
        match parts?.as_slice() {
            [name] => {
                let name = folded(name);
                (!self.scopes.iter().flatten().any(|known| *known == name)).then_some(name)
            }
            [schema, name] if folded(schema) == PUBLIC => Some(folded(name)),
            _ => None,
        }
    }

    fn relation(&mut self, factor: &mut TableFactor) -> Result<(), SqlError> {
        let TableFactor::Table { name, args: None, alias, .. } = factor else { return Ok(()) };
        let Some(called) = self.public_name(name) else { return Ok(()) };
        let qualified = || ObjectName::from(vec![Ident::new(PUBLIC), Ident::with_quote('"', called.clone())]);
        if let Some(table) = self.tables.table(&called) {
            self.used.insert(table.oid);
            if self.is_view {
                *name = qualified();
            }
            return Ok(());
        }
        let Some(view) = self.tables.view(&called) else { return Ok(()) };
        self.used.insert(view.oid);
        if self.depth >= DEPTH_MAX {
            return match self.is_view {
                // Only asked what is used.
                true if self.depth == DEPTH_MAX => Ok(()),
                _ => Err(SqlError::new("54001", format!("views in views are nested too deeply at \"{called}\""))),
            };
        }
        let alias = alias.take().unwrap_or_else(|| named(&called));
        *factor = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(self.query_of(&view)?),
            alias: Some(alias),
            sample: None,
        };
        Ok(())
    }

    /// A view's query with the view's columns, views in it expanded.
    fn query_of(&self, view: &ViewHandle) -> Result<Query, SqlError> {
        let mut inner = query(&view.query)?;
        let mut expander = Expander {
            tables: self.tables,
            scopes: Vec::new(),
            depth: self.depth + 1,
            is_view: true,
            used: BTreeSet::new(),
        };
        if let ControlFlow::Break(error) = VisitMut::visit(&mut inner, &mut expander) {
            return Err(error);
        }
        let mut outer = query("SELECT 1 FROM t")?;
        if let SetExpr::Select(select) = outer.body.as_mut() {
            let columns = view.columns.iter().map(|column| SelectItem::ExprWithAlias {
                expr: datafusion::sql::sqlparser::ast::Expr::Identifier(Ident::with_quote('"', &column.source)),
                alias: Ident::with_quote('"', &column.name),
            });
            select.projection = columns.collect();
            for from in &mut select.from {
                from.relation = TableFactor::Derived {
                    lateral: false,
                    subquery: Box::new(inner.clone()),
                    alias: Some(named(&view.name)),
                    sample: None,
                };
            }
        }
        Ok(outer)
    }
}

fn named(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::with_quote('"', name), columns: Vec::new(), at: None }
}

impl VisitorMut for Expander<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let names = query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| folded(&cte.alias.name));
        self.scopes.push(names.collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<SqlError> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        match self.relation(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}
