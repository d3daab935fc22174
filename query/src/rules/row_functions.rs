//! Functions that give rows, on the syntax tree: each becomes `unnest` of a function that gives an array.
//!
//! | written | planned as |
//! |---|---|
//! | `SELECT generate_series(1, 3)` | `SELECT unnest(<series>(1, 3))`; several go in step, the shorter ones end in NULLs |
//! | `FROM jsonb_array_elements(t.doc) AS e` | `FROM LATERAL (SELECT unnest(<elements>(t.doc)) AS "value") AS e`, and `e` alone is `e.value` |
//! | `FROM unnest(a, b) WITH ORDINALITY AS u(x, y, n)` | `LATERAL (SELECT unnest(a) AS x, unnest(b) AS y, unnest(<ordinals>(a, b)) AS n) AS u` |
//! | `FROM generate_series(1, 1000000) AS i` | a relation that makes its rows as they are read, since the bounds are constant |
//! | `FROM jsonb_to_recordset(d) AS r(a int)` | `LATERAL (SELECT CAST(unnest(<elements>(d)) ->> 'a' AS int) AS a) AS r` |
//! | `FROM jsonb_populate_record(NULL::t, d)` | the same with the columns of the table `t` |
//! | `FROM now()` | `LATERAL (SELECT now() AS now) AS now` |
//!
//! What refers to relations before it in FROM is settled by [`super::lateral`].

mod alias;
mod from;
mod items;
mod record;
mod series;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr, FunctionArg, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName,
    OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableFactor, Value, VisitMut, VisitorMut,
};

use self::{
    alias::{WholeRows, shown_name, single_values, whole_rows},
    from::relation,
    items::{Items, Refused},
};
use super::syntax::{function, function_of, last_part, plain};
use crate::{SqlError, functions::rows};

/// One column of what a function gives.
struct Column {
    /// `None`: the alias of the function, or else the function's name.
    name: Option<&'static str>,
    /// The function of the same arguments that gives the column as an array; `None`: each argument is such an array.
    list: Option<&'static str>,
    /// The type that the values have beyond their Arrow type.
    marker: Option<&'static str>,
}

const fn column(list: &'static str) -> Column {
    Column { name: None, list: Some(list), marker: None }
}

const fn named(name: &'static str, list: &'static str, marker: Option<&'static str>) -> Column {
    Column { name: Some(name), list: Some(list), marker }
}

/// The columns of the function called `name`, if it gives rows.
fn columns_of(name: &str) -> Option<&'static [Column]> {
    const JSON: Option<&str> = Some("json");
    const JSONB: Option<&str> = Some("jsonb");
    Some(match name {
        "unnest" => const { &[Column { name: None, list: None, marker: None }] },
        "generate_series" => const { &[column(rows::SERIES)] },
        "generate_subscripts" => const { &[column(rows::SUBSCRIPTS)] },
        "regexp_split_to_table" => const { &[column("regexp_split_to_array")] },
        "string_to_table" => const { &[column("string_to_array")] },
        "regexp_matches" => const { &[column(rows::REGEXP_MATCHES)] },
        "jsonb_object_keys" | "json_object_keys" => const { &[column(rows::JSON_KEYS)] },
        "jsonb_path_query" => const { &[Column { name: None, list: Some(rows::JSONB_PATH_QUERY), marker: JSONB }] },
        "jsonb_array_elements" => const { &[named("value", rows::JSON_ELEMENTS, JSONB)] },
        "json_array_elements" => const { &[named("value", rows::JSON_ELEMENTS, JSON)] },
        "jsonb_array_elements_text" | "json_array_elements_text" => {
            const { &[named("value", rows::JSON_ELEMENTS_TEXT, None)] }
        }
        "jsonb_each" => const { &[named("key", rows::JSON_KEYS, None), named("value", rows::JSON_VALUES, JSONB)] },
        "json_each" => const { &[named("key", rows::JSON_KEYS, None), named("value", rows::JSON_VALUES, JSON)] },
        "jsonb_each_text" | "json_each_text" => {
            const { &[named("key", rows::JSON_KEYS, None), named("value", rows::JSON_VALUES_TEXT, None)] }
        }
        _ => return None,
    })
}

/// Columns with their types.
pub(crate) type Columns = Vec<(String, SqlType)>;

/// What the rewriting asks of the catalog.
pub(crate) struct Known<'a> {
    /// Whether a function of FROM is a relation already.
    pub(crate) is_relation: &'a dyn Fn(&str) -> bool,
    /// The columns of a table.
    pub(crate) columns: &'a dyn Fn(&str) -> Option<Columns>,
}

/// Rewrites `statement` in place.
pub(crate) fn rewrite(statement: &mut Statement, known: Known<'_>) -> Result<(), SqlError> {
    match VisitMut::visit(statement, &mut Rewriter { known }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter<'a> {
    known: Known<'a>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
        let aliases = single_values(select);
        if aliases.is_empty() {
            return ControlFlow::Continue(());
        }
        let shown: Vec<String> = select.projection.iter().filter_map(shown_name).collect();
        whole_rows(select, aliases.clone());
        let aliases = aliases.into_iter().filter(|(alias, _)| !shown.contains(alias)).collect();
        if let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(expressions) = &mut order.kind
        {
            let _ = VisitMut::visit(expressions, &mut WholeRows { aliases });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor {
            let name = last_part(name);
            if columns_of(&name).is_none() && (self.known.is_relation)(&name) {
                return ControlFlow::Continue(());
            }
        }
        match relation(factor, &self.known) {
            Ok(Some(changed)) => *factor = changed,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        let mut items = Items { depth: 0, error: None };
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                let _ = VisitMut::visit(expr, &mut items);
            }
        }
        if let GroupByExpr::Expressions(by, _) = &mut select.group_by {
            let _ = VisitMut::visit(by, &mut items);
        }
        if let Some(error) = items.error {
            return ControlFlow::Break(error);
        }
        for (clause, condition) in [("WHERE", &mut select.selection), ("HAVING", &mut select.having)] {
            if let Some(condition) = condition {
                VisitMut::visit(condition, &mut Refused { clause, depth: 0 })?;
            }
        }
        for join in select.from.iter_mut().flat_map(|from| &mut from.joins) {
            if let JoinOperator::Join(on)
            | JoinOperator::Inner(on)
            | JoinOperator::Left(on)
            | JoinOperator::LeftOuter(on) = &mut join.join_operator
                && let JoinConstraint::On(on) = on
            {
                VisitMut::visit(on, &mut Refused { clause: "JOIN conditions", depth: 0 })?;
            }
        }
        ControlFlow::Continue(())
    }
}

fn list(column: &Column, args: Vec<FunctionArg>) -> Option<Expr> {
    match column.list {
        Some(name) => Some(function_of(ObjectName::from(vec![Ident::new(name)]), args)),
        None => plain(args.last()?).cloned(),
    }
}

fn unnest(list: Expr) -> Expr {
    function("unnest", vec![list])
}

fn text(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

/// `expr` known as a value of type `marker`.
fn marked(expr: Expr, marker: Option<&str>) -> Expr {
    match marker {
        Some(marker) => function("with_metadata", vec![expr, text(tidemill_storage::schema::TYPE_KEY), text(marker)]),
        None => expr,
    }
}

fn cast(expr: Expr, data_type: SqlType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}
