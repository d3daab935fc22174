//! A subquery of several columns as one for each of them, on the syntax tree: `SET (a, b) = (SELECT x, y …)`.
//!
//! Each is planned for itself over the snapshot of the statement. Where the query says which row it gives, they are of one row; where it does not (LIMIT
//! without an ORDER BY that tells rows apart), as little is said of it here.

use datafusion::sql::sqlparser::{
    ast::{Expr, GroupByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Value},
    dialect::PostgreSqlDialect,
    parser::Parser,
};

use super::{
    changes::{query_of, template},
    syntax::folded,
};
use crate::SqlError;

/// The subqueries of the `columns` columns of `query`.
pub(super) fn of_columns(query: &Query, columns: usize) -> Result<Vec<Query>, SqlError> {
    if let SetExpr::Select(select) = query.body.as_ref()
        && is_plain(select)
    {
        if select.projection.len() != columns {
            return Err(SqlError::syntax("number of columns does not match number of values"));
        }
        if stands_alone(query, select) {
            return Ok((0..columns).map(|at| only(query, at)).collect());
        }
    }
    (0..columns).map(|at| around(query, columns, at)).collect()
}

/// Whether each item of the list is one column.
fn is_plain(select: &Select) -> bool {
    let is_one = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    select.projection.iter().all(is_one)
}

/// Whether nothing else in the query names items of the list.
fn stands_alone(query: &Query, select: &Select) -> bool {
    let alias = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    };
    let aliases: Vec<String> = select.projection.iter().filter_map(alias).collect();
    let names = |expr: &Expr| match expr {
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        Expr::Identifier(name) => aliases.contains(&folded(name)),
        _ => false,
    };
    let by_order = query.order_by.as_ref().is_some_and(|order| match &order.kind {
        OrderByKind::Expressions(items) => items.iter().any(|item| names(&item.expr)),
        OrderByKind::All(_) => true,
    });
    let by_group = match &select.group_by {
        GroupByExpr::Expressions(items, _) => items.iter().any(names),
        GroupByExpr::All(_) => true,
    };
    select.distinct.is_none() && !by_order && !by_group
}

fn only(query: &Query, at: usize) -> Query {
    let mut query = query.clone();
    if let SetExpr::Select(select) = query.body.as_mut() {
        let item = select.projection.swap_remove(at);
        select.projection = vec![item];
    }
    query
}

/// `SELECT column3 FROM (query) AS row (column1, column2, …)`.
fn around(query: &Query, columns: usize, at: usize) -> Result<Query, SqlError> {
    let names: Vec<String> = (1..=columns).map(|column| format!("column{column}")).collect();
    let text = format!("SELECT {} FROM ({query}) AS \"row\" ({})", names[at], names.join(", "));
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &text).ok().and_then(|mut parsed| parsed.pop());
    let mut statement = parsed.map_or_else(|| template("SELECT 1"), Ok)?;
    let wrapped = || SqlError::not_supported("this subquery for several columns of UPDATE");
    query_of(&mut statement).map(|query| query.clone()).ok_or_else(wrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sql: &str, columns: usize) -> Result<Vec<String>, SqlError> {
        let mut statement = template(sql).unwrap();
        let parts = of_columns(query_of(&mut statement).unwrap(), columns)?;
        Ok(parts.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_column_is_a_query_of_its_own() {
        assert_eq!(
            split("SELECT x, y AS z FROM u WHERE u.id = t.id ORDER BY w LIMIT 1", 2).unwrap(),
            [
                "SELECT x FROM u WHERE u.id = t.id ORDER BY w LIMIT 1",
                "SELECT y AS z FROM u WHERE u.id = t.id ORDER BY w LIMIT 1"
            ]
        );
        let around = |sql: &str| split(sql, 2).unwrap()[1].starts_with("SELECT column2 FROM (");
        for named in [
            "SELECT x, y AS z FROM u ORDER BY z",
            "SELECT x, y FROM u ORDER BY 2",
            "SELECT x, max(y) FROM u GROUP BY 1",
            "SELECT DISTINCT x, y FROM u",
            "SELECT * FROM u",
            "SELECT 1, 2 UNION SELECT 3, 4",
            "VALUES (1, 2)",
        ] {
            assert!(around(named), "{named}");
        }
        assert_eq!(split("SELECT x FROM u", 2).unwrap_err().sqlstate, "42601");
    }
}
