//! The alias of a function in FROM as its value: `FROM jsonb_array_elements(d) AS e` makes `e` mean `e.value`, `FROM unnest(a) AS u(x)` makes
//! `u` mean `u.x`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Select, SelectItem, TableFactor, TableWithJoins, VisitMut, VisitorMut,
};

use super::{
    super::syntax::{folded, last_part},
    Column, columns_of,
};

/// An alias, and its one column, which has another name.
pub(super) type SingleValue = (String, Ident);

/// Aliases of functions in FROM that have one column.
pub(super) fn single_values(select: &Select) -> Vec<SingleValue> {
    fn collect(from: &TableWithJoins, aliases: &mut Vec<SingleValue>) {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            let (function, alias) = match factor {
                TableFactor::Table { name, alias: Some(alias), args: Some(_), with_ordinality: false, .. } => {
                    (last_part(name), alias)
                }
                TableFactor::Function { name, alias: Some(alias), with_ordinality: false, .. } => {
                    (last_part(name), alias)
                }
                TableFactor::UNNEST { alias: Some(alias), array_exprs, with_ordinality: false, .. }
                    if array_exprs.len() == 1 =>
                {
                    ("unnest".to_owned(), alias)
                }
                TableFactor::NestedJoin { table_with_joins, .. } => {
                    collect(table_with_joins, aliases);
                    continue;
                }
                _ => continue,
            };
            let Some([column]) = columns_of(&function) else { continue };
            let shown = match (alias.columns.as_slice(), column) {
                ([], Column { name: Some(name), .. }) => Ident::new(*name),
                ([named], _) if named.data_type.is_none() => named.name.clone(),
                _ => continue,
            };
            if folded(&shown) != folded(&alias.name) {
                aliases.push((folded(&alias.name), shown));
            }
        }
    }
    let mut aliases = Vec::new();
    for from in &select.from {
        collect(from, &mut aliases);
    }
    aliases
}

pub(super) fn shown_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        _ => None,
    }
}

pub(super) fn whole_rows(select: &mut Select, aliases: Vec<SingleValue>) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
            && aliases.iter().any(|(alias, _)| *alias == folded(name))
        {
            let alias = Ident::with_quote('"', folded(name));
            *item = SelectItem::ExprWithAlias { expr: Expr::Identifier(name.clone()), alias };
        }
    }
    let _ = VisitMut::visit(select, &mut WholeRows { aliases });
}

pub(super) struct WholeRows {
    pub(super) aliases: Vec<SingleValue>,
}

impl VisitorMut for WholeRows {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some((_, column)) = self.aliases.iter().find(|(alias, _)| *alias == folded(name))
        {
            *expr = Expr::CompoundIdentifier(vec![name.clone(), column.clone()]);
        }
        ControlFlow::Continue(())
    }
}
