//! Functions in FROM: each becomes a derived table.

use datafusion::sql::sqlparser::ast::{
    DataType as SqlType, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, SelectItem, SetExpr, TableAlias,
    TableFactor, TableFunctionArgs, Value,
};

use super::{
    super::syntax::{APART, folded, function, function_of, last_part, query},
    Column, Known, cast, columns_of, list, marked,
    record::{populated, record},
    series::{constant_bounds, series_relation},
    unnest,
};
use crate::{SqlError, functions::rows};

/// The derived table that stands for a function in FROM.
pub(super) fn relation(factor: &mut TableFactor, known: &Known<'_>) -> Result<Option<TableFactor>, SqlError> {
    let argument = |expr: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr.clone()));
    match factor {
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            let args = array_exprs.iter().map(argument).collect();
            derived(&ObjectName::from(vec![Ident::new("unnest")]), args, *with_ordinality, alias.take(), known)
                .map(Some)
        }
        TableFactor::Table { name, alias, args: Some(TableFunctionArgs { args, .. }), with_ordinality, .. } => {
            derived(name, std::mem::take(args), *with_ordinality, alias.take(), known).map(Some)
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            derived(name, std::mem::take(args), *with_ordinality, alias.take(), known).map(Some)
        }
        _ => Ok(None),
    }
}

fn derived(
    name: &ObjectName,
    args: Vec<FunctionArg>,
    ordinality: bool,
    alias: Option<TableAlias>,
    known: &Known<'_>,
) -> Result<TableFactor, SqlError> {
    let called = last_part(name);
    let alias = alias.unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::with_quote('"', called.clone()),
        columns: Vec::new(),
        at: None,
    });
    let default = folded(&alias.name);
    let mut names = alias.columns.iter().map(|column| folded(&column.name));
    let typed: Vec<(String, SqlType)> =
        alias.columns.iter().filter_map(|column| Some((folded(&column.name), column.data_type.clone()?))).collect();
    let table = TableAlias { columns: Vec::new(), at: None, explicit: true, name: alias.name.clone() };
    let mut items: Vec<(String, Expr)> = Vec::new();
    if !typed.is_empty() {
        items = record(&called, &args, &typed)?;
    } else if let Some(columns) = populated(&called, &args, known)? {
        let columns = record(&called, &args, &columns)?;
        items.extend(columns.into_iter().map(|(name, value)| (names.next().unwrap_or(name), value)));
    } else if let Some(columns) = columns_of(&called) {
        if let (false, Some(bounds)) = (ordinality, constant_bounds(&called, &args)) {
            let name = names.next().unwrap_or(default);
            return Ok(wrapped(series_relation(&bounds?, &name)?, table, false));
        }
        let of = |column: &Column| match column.list {
            None => args.iter().map(|arg| vec![arg.clone()]).collect(),
            Some(_) => vec![args.clone()],
        };
        let lists: Vec<(Option<&str>, Expr, Option<&str>)> = columns
            .iter()
            .flat_map(|column| {
                of(column).into_iter().filter_map(|args| Some((column.name, list(column, args)?, column.marker)))
            })
            .collect();
        let single = lists.len() == 1;
        for (name, list, marker) in &lists {
            let name = names.next().unwrap_or_else(|| match name {
                Some(name) => (*name).to_owned(),
                None if single => default.clone(),
                None => called.clone(),
            });
            items.push((name, marked(unnest(list.clone()), *marker)));
        }
        if ordinality {
            let lists = lists.into_iter().map(|(_, list, _)| list).collect();
            let name = names.next().unwrap_or_else(|| "ordinality".to_owned());
            items.push((name, unnest(function(rows::ORDINALS, lists))));
        }
    } else {
        items.push((names.next().unwrap_or(default), function_of(name.clone(), args)));
        if ordinality {
            let one = Expr::Value(Value::Number("1".to_owned(), false).into());
            items.push((names.next().unwrap_or_else(|| "ordinality".to_owned()), cast(one, SqlType::BigInt(None))));
        }
    }
    if typed.is_empty() && names.next().is_some() {
        let message = format!(
            "table \"{}\" has {} columns available but {} columns specified",
            alias.name.value,
            items.len(),
            alias.columns.len()
        );
        return Err(SqlError::new("42P10", message));
    }
    let mut made = query("SELECT 1")?;
    if let SetExpr::Select(select) = made.body.as_mut() {
        select.projection = apart(items);
    }
    Ok(wrapped(made, table, true))
}

fn wrapped(query: Query, alias: TableAlias, lateral: bool) -> TableFactor {
    TableFactor::Derived { lateral, subquery: Box::new(query), alias: Some(alias), sample: None }
}

/// Items with their names; equal names are kept apart.
fn apart(items: Vec<(String, Expr)>) -> Vec<SelectItem> {
    let mut taken: Vec<String> = Vec::new();
    items
        .into_iter()
        .map(|(name, expr)| {
            let copies = taken.iter().filter(|taken| **taken == name).count();
            taken.push(name.clone());
            let alias = if copies == 0 { name } else { format!("{name}{APART}{copies}") };
            SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) }
        })
        .collect()
}
