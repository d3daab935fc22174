//! `x.tableoid`, which every relation of PostgreSQL has and none shows: psql joins `pg_description` with it.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, TableFactor, Value, VisitMut, VisitorMut};

use super::{
    definitions,
    rewrite::{REGCLASS, call, part},
};

/// Puts the oid of the catalog in the place of the `tableoid` of those that `select` reads.
pub(super) fn settle(select: &mut Select) {
    let relations = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let mut names = HashMap::new();
    for relation in relations {
        let TableFactor::Table { name, alias, .. } = relation else { continue };
        let Some(relation) = name.0.last().and_then(part) else { continue };
        if definitions::find("pg_catalog", relation).is_some() {
            let shown = alias.as_ref().map_or(relation, |alias| alias.name.value.as_str());
            names.insert(shown.to_owned(), format!("pg_catalog.{relation}"));
        }
    }
    if !names.is_empty() {
        let _ = select.visit(&mut TableOids(names));
    }
}

struct TableOids(HashMap<String, String>);

impl VisitorMut for TableOids {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let [Ident { value: relation, .. }, Ident { value: column, .. }] = parts.as_slice()
            && column == "tableoid"
            && let Some(name) = self.0.get(relation)
        {
            *expr = call(REGCLASS, vec![Expr::Value(Value::SingleQuotedString(name.clone()).into())]);
        }
        ControlFlow::Continue(())
    }
}
