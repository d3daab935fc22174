//! Aggregates that are an array of the rows' values and a function of that array, on the syntax tree.
//!
//! | written | planned as |
//! |---|---|
//! | `json_agg(x ORDER BY y) FILTER (…) OVER (…)` | `<array>(array_agg(to_json(x) ORDER BY y) FILTER (…) OVER (…))` |
//! | `json_object_agg(k, v)` | `<object>(array_agg(<member>(k, v)))` |
//! | `percentile_disc(f) WITHIN GROUP (ORDER BY x)` | `<percentile_disc>(array_agg(x ORDER BY x) FILTER (WHERE x IS NOT NULL), f)` |
//! | `mode() WITHIN GROUP (ORDER BY x)` | `<mode>(…)` of the same array |
//! | `to_jsonb(t)`, `json_agg(t)` of a relation t | the same of `<row>(t.*)`, see [`settle`] |
//! | `SELECT t FROM t` | `SELECT <row text>(t.*) AS t`, unless a column has that name |

use std::ops::ControlFlow;

use datafusion::{
    common::{DFSchema, ScalarValue, tree_node::Transformed},
    logical_expr::{Expr as LogicalExpr, expr::ScalarFunction},
    sql::sqlparser::ast::{
        BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
        FunctionArguments, Ident, ObjectName, Select, SelectItem, SetExpr, Statement, TableFactor, VisitMut,
        VisitorMut,
    },
};

use super::{
    natural::{self, Columns},
    syntax::{folded, function, last_part, shown_name},
};
use crate::functions::{json_rows, ordered_set, record};

/// Rewrites `statement` in place.
pub(crate) fn rewrite(statement: &mut Statement, columns: &Columns<'_>) {
    let hidden = natural::ctes(statement);
    let _ = VisitMut::visit(statement, &mut Rewriter { columns, hidden });
}

struct Rewriter<'a> {
    columns: &'a Columns<'a>,
    /// Names that a WITH gives, which hide tables.
    hidden: Vec<String>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.whole_rows(select);
        let relations = relations(select);
        if !relations.is_empty() {
            let mut rows = Rows { relations };
            let _ = VisitMut::visit(&mut select.projection, &mut rows);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(call) = expr
            && let Some(gathered) = gathered(call)
        {
            *expr = gathered;
        }
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    /// Puts the text of a whole row in the place of a table's name in the select list.
    fn whole_rows(&self, select: &mut Select) {
        let is_named = |item: &SelectItem| {
            matches!(
                item,
                SelectItem::UnnamedExpr(Expr::Identifier(_))
                    | SelectItem::ExprWithAlias { expr: Expr::Identifier(_), .. }
            )
        };
        if !select.projection.iter().any(is_named) {
            return;
        }
        let Some(tables) = natural::tables(select, self.columns, &self.hidden) else { return };
        let is_row = |name: &str| {
            tables.iter().any(|(table, _)| table == name)
                && !tables.iter().any(|(_, columns)| columns.iter().any(|column| column == name))
        };
        for item in &mut select.projection {
            let (name, alias) = match item {
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => (name.clone(), name.clone()),
                SelectItem::ExprWithAlias { expr: Expr::Identifier(name), alias } => (name.clone(), alias.clone()),
                _ => continue,
            };
            if is_row(&folded(&name)) {
                *item = SelectItem::ExprWithAlias { expr: whole(record::ROW_TEXT, name), alias };
            }
        }
    }
}

/// `function(relation.*)`.
fn whole(name: &str, relation: Ident) -> Expr {
    let columns = FunctionArgExpr::QualifiedWildcard(ObjectName::from(vec![relation]));
    let mut row = function(name, Vec::new());
    if let Expr::Function(row) = &mut row
        && let FunctionArguments::List(list) = &mut row.args
    {
        list.args.push(FunctionArg::Unnamed(columns));
    }
    row
}

fn gathered(call: &mut Function) -> Option<Expr> {
    let (finish, item): (&str, Option<&str>) = match last_part(&call.name).as_str() {
        "json_agg" => (json_rows::ARRAY, Some("to_json")),
        "jsonb_agg" => (json_rows::BINARY_ARRAY, Some("to_json")),
        "json_object_agg" => (json_rows::OBJECT, Some(json_rows::MEMBER)),
        "jsonb_object_agg" => (json_rows::BINARY_OBJECT, Some(json_rows::BINARY_MEMBER)),
        "percentile_disc" => (ordered_set::PERCENTILE_DISC, None),
        "mode" => (ordered_set::MODE, None),
        _ => return None,
    };
    let FunctionArguments::List(list) = &mut call.args else { return None };
    let mut direct = Vec::new();
    match item {
        Some(item) => {
            let args = std::mem::take(&mut list.args);
            let items = args.into_iter().map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            });
            let item = function(item, items.collect::<Option<Vec<Expr>>>()?);
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(item))];
        }
        None => {
            let [order] = call.within_group.as_slice() else { return None };
            let order = order.clone();
            call.within_group = Vec::new();
            direct = std::mem::take(&mut list.args)
                .into_iter()
                .filter_map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                    _ => None,
                })
                .collect();
            let valued = Expr::IsNotNull(Box::new(order.expr.clone()));
            call.filter = Some(Box::new(match call.filter.take() {
                Some(filter) => Expr::BinaryOp {
                    left: Box::new(Expr::Nested(filter)),
                    op: BinaryOperator::And,
                    right: Box::new(valued),
                },
                None => valued,
            }));
            *list = FunctionArgumentList {
                duplicate_treatment: None,
                args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(order.expr.clone()))],
                clauses: vec![FunctionArgumentClause::OrderBy(vec![order])],
            };
        }
    }
    let mut array = call.clone();
    array.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let mut arguments = vec![Expr::Function(array)];
    arguments.extend(direct);
    Some(function(finish, arguments))
}

// ---- rows of a relation as values ----------------------------------------------------------------------------------------

/// What the relations in FROM are called that have rows, rather than single values.
fn relations(select: &Select) -> Vec<String> {
    let factors = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    factors
        .filter_map(|factor| match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                Some(alias.as_ref().map_or_else(|| last_part(name), |alias| folded(&alias.name)))
            }
            TableFactor::Derived { alias: Some(alias), subquery, .. } => {
                let name = folded(&alias.name);
                let columns: Vec<String> = match subquery.body.as_ref() {
                    _ if !alias.columns.is_empty() => alias.columns.iter().map(|column| folded(&column.name)).collect(),
                    SetExpr::Select(select) => select.projection.iter().filter_map(item_name).collect(),
                    _ => Vec::new(),
                };
                (!columns.contains(&name)).then_some(name)
            }
            _ => None,
        })
        .collect()
}

fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(folded),
        _ => None,
    }
}

/// `to_jsonb(t)` becomes `to_jsonb(<row>(t.*))`.
struct Rows {
    relations: Vec<String>,
}

impl VisitorMut for Rows {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(call) = expr
            && ["row_to_json", "to_json", "to_jsonb", "json_agg", "jsonb_agg"].contains(&last_part(&call.name).as_str())
            && let FunctionArguments::List(list) = &mut call.args
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) = list.args.first_mut()
            && let Expr::Identifier(name) = argument
            && self.relations.contains(&folded(name))
        {
            *argument = whole(json_rows::ROW, name.clone());
        }
        ControlFlow::Continue(())
    }
}

/// In `<row>(t.*)` puts names and columns of t in the place of `t.*`.
pub(crate) fn settle(expr: LogicalExpr, schema: &DFSchema) -> Transformed<LogicalExpr> {
    match expr {
        #[expect(deprecated, reason = "the planner gives t.* as an argument of a function in this way")]
        LogicalExpr::ScalarFunction(ScalarFunction { func, args })
            if [json_rows::ROW, record::ROW_TEXT].contains(&func.name())
                && matches!(args.as_slice(), [LogicalExpr::Wildcard { qualifier: Some(_), .. }]) =>
        {
            let relation = match args.as_slice() {
                [LogicalExpr::Wildcard { qualifier, .. }] => qualifier.clone(),
                _ => None,
            };
            let args = schema
                .iter()
                .filter(|(qualifier, _)| match (qualifier, &relation) {
                    (Some(known), Some(asked)) => known.resolved_eq(asked) || known.table() == asked.table(),
                    _ => false,
                })
                .flat_map(|(qualifier, field)| {
                    let name = ScalarValue::Utf8View(Some(shown_name(field.name()).to_owned()));
                    let column = datafusion::common::Column::new(qualifier.cloned(), field.name());
                    [LogicalExpr::Literal(name, None), LogicalExpr::Column(column)]
                })
                .collect();
            Transformed::yes(LogicalExpr::ScalarFunction(ScalarFunction { func, args }))
        }
        other => Transformed::no(other),
    }
}
