//! Functions that give rows, on the syntax tree: each becomes `unnest` of a function that gives an array.
//!
//! | written | planned as |
//! |---|---|
//! | `SELECT generate_series(1, 3)` | `SELECT unnest(<series>(1, 3))`; several go in step, the shorter ones end in NULLs |
//! | `FROM jsonb_array_elements(t.doc) AS e` | `FROM LATERAL (SELECT unnest(<elements>(t.doc)) AS "value") AS e`, and `e` alone is `e.value` |
//! | `FROM unnest(a, b) WITH ORDINALITY AS u(x, y, n)` | `LATERAL (SELECT unnest(a) AS x, unnest(b) AS y, unnest(<ordinals>(a, b)) AS n) AS u` |
//! | `FROM generate_series(1, 1000000) AS i` | a relation that makes its rows as they are read, since the bounds are constant |
//! | `FROM jsonb_to_recordset(d) AS r(a int)` | `LATERAL (SELECT CAST(unnest(<elements>(d)) ->> 'a' AS int) AS a) AS r` |
//! | `FROM now()` | `LATERAL (SELECT now() AS now) AS now` |
//!
//! What refers to relations before it in FROM is settled by [`super::lateral`].

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, DataType as SqlType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName, OrderByKind, Query, Select,
    SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableFunctionArgs, TableWithJoins, Value, VisitMut,
    VisitorMut,
};

use super::syntax::{APART, folded, function, function_of, last_part, query};
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

/// Rewrites `statement` in place. `is_relation` says which functions of FROM are relations already.
pub(crate) fn rewrite(statement: &mut Statement, is_relation: &dyn Fn(&str) -> bool) -> Result<(), SqlError> {
    match VisitMut::visit(statement, &mut Rewriter { is_relation }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter<'a> {
    is_relation: &'a dyn Fn(&str) -> bool,
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
        let aliases = aliases.into_iter().filter(|alias| !shown.contains(alias)).collect();
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
            if columns_of(&name).is_none() && (self.is_relation)(&name) {
                return ControlFlow::Continue(());
            }
        }
        match relation(factor) {
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

// ---- in FROM -------------------------------------------------------------------------------------------------------------

/// The derived table that stands for a function in FROM.
fn relation(factor: &mut TableFactor) -> Result<Option<TableFactor>, SqlError> {
    let argument = |expr: &Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr.clone()));
    match factor {
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            let args = array_exprs.iter().map(argument).collect();
            derived(&ObjectName::from(vec![Ident::new("unnest")]), args, *with_ordinality, alias.take()).map(Some)
        }
        TableFactor::Table { name, alias, args: Some(TableFunctionArgs { args, .. }), with_ordinality, .. } => {
            derived(name, std::mem::take(args), *with_ordinality, alias.take()).map(Some)
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            derived(name, std::mem::take(args), *with_ordinality, alias.take()).map(Some)
        }
        _ => Ok(None),
    }
}

fn derived(
    name: &ObjectName,
    args: Vec<FunctionArg>,
    ordinality: bool,
    alias: Option<TableAlias>,
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

fn list(column: &Column, mut args: Vec<FunctionArg>) -> Option<Expr> {
    match column.list {
        Some(name) => Some(function_of(ObjectName::from(vec![Ident::new(name)]), args)),
        None => match args.pop()? {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        },
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

/// `jsonb_to_recordset(doc) AS r(a int, b text)`: each column is the member of its name.
fn record(name: &str, args: &[FunctionArg], columns: &[(String, SqlType)]) -> Result<Vec<(String, Expr)>, SqlError> {
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(document))] = args else {
        return Err(SqlError::new("42883", format!("function {name} of these arguments does not exist")));
    };
    let row = match name {
        "jsonb_to_recordset" | "json_to_recordset" => unnest(function(rows::JSON_ELEMENTS, vec![document.clone()])),
        "jsonb_to_record" | "json_to_record" => cast(document.clone(), SqlType::JSONB),
        _ => {
            return Err(SqlError::new(
                "42601",
                "a column definition list is only allowed for functions returning \"record\"",
            ));
        }
    };
    Ok(columns
        .iter()
        .map(|(name, data_type)| {
            let is_json = matches!(data_type, SqlType::JSON | SqlType::JSONB);
            let member = Expr::BinaryOp {
                left: Box::new(row.clone()),
                op: if is_json { BinaryOperator::Arrow } else { BinaryOperator::LongArrow },
                right: Box::new(text(name)),
            };
            (name.clone(), if is_json { member } else { cast(member, data_type.clone()) })
        })
        .collect())
}

/// Bounds of whole numbers that stand in the text.
struct Bounds {
    start: i64,
    stop: i64,
    step: i64,
    is_int4: bool,
}

fn constant_bounds(name: &str, args: &[FunctionArg]) -> Option<Result<Bounds, SqlError>> {
    if name != "generate_series" || !(2..=3).contains(&args.len()) {
        return None;
    }
    let numbers = args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => constant(expr),
            _ => None,
        })
        .collect::<Option<Vec<(i64, bool)>>>()?;
    let step = numbers.get(2).map_or(1, |(step, _)| *step);
    if step == 0 {
        return Some(Err(SqlError::invalid_parameter("step size cannot equal zero")));
    }
    let is_int4 = numbers.iter().all(|(_, is_int4)| *is_int4);
    Some(Ok(Bounds { start: numbers[0].0, stop: numbers[1].0, step, is_int4 }))
}

/// The whole number that `expr` is, and whether it is an int4.
fn constant(expr: &Expr) -> Option<(i64, bool)> {
    use datafusion::sql::sqlparser::ast::UnaryOperator;
    match expr {
        Expr::Nested(inner) => constant(inner),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => {
                let number: i64 = digits.parse().ok()?;
                Some((number, i32::try_from(number).is_ok()))
            }
            _ => None,
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            let (number, is_int4) = constant(expr)?;
            Some((number.checked_neg()?, is_int4))
        }
        Expr::Cast { expr, data_type: SqlType::BigInt(None) | SqlType::Int8(None), .. } => {
            Some((constant(expr)?.0, false))
        }
        _ => None,
    }
}

/// A relation that makes its rows as they are read.
fn series_relation(bounds: &Bounds, name: &str) -> Result<Query, SqlError> {
    let Bounds { start, stop, step, is_int4 } = *bounds;
    let (data_type, relation) = if is_int4 { ("int", rows::INT4_RELATION) } else { ("bigint", rows::INT8_RELATION) };
    let name = name.replace('"', "\"\"");
    query(&match (step > 0 && start > stop) || (step < 0 && start < stop) {
        true => format!("SELECT CAST(NULL AS {data_type}) AS \"{name}\" WHERE false"),
        false => {
            format!("SELECT value AS \"{name}\" FROM {relation}({start}, {stop}, {step})")
        }
    })
}

// ---- in the list of SELECT -----------------------------------------------------------------------------------------------

/// Replaces functions that give rows by `unnest`, this query's own only.
struct Items {
    depth: usize,
    error: Option<SqlError>,
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
struct Refused {
    clause: &'static str,
    depth: usize,
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

// ---- the alias of a function as its value --------------------------------------------------------------------------------

/// Aliases of functions in FROM whose one column has a name of its own: `jsonb_array_elements(d) AS e` gives `e.value`.
fn single_values(select: &Select) -> Vec<String> {
    fn collect(from: &TableWithJoins, aliases: &mut Vec<String>) {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            let (name, alias) = match factor {
                TableFactor::Table { name, alias: Some(alias), args: Some(_), .. } => (name, alias),
                TableFactor::Function { name, alias: Some(alias), .. } => (name, alias),
                TableFactor::NestedJoin { table_with_joins, .. } => {
                    collect(table_with_joins, aliases);
                    continue;
                }
                _ => continue,
            };
            if alias.columns.is_empty() && matches!(columns_of(&last_part(name)), Some([Column { name: Some(_), .. }]))
            {
                aliases.push(folded(&alias.name));
            }
        }
    }
    let mut aliases = Vec::new();
    for from in &select.from {
        collect(from, &mut aliases);
    }
    aliases
}

fn shown_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        _ => None,
    }
}

fn whole_rows(select: &mut Select, aliases: Vec<String>) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
            && aliases.contains(&folded(name))
        {
            let alias = Ident::with_quote('"', folded(name));
            *item = SelectItem::ExprWithAlias { expr: Expr::Identifier(name.clone()), alias };
        }
    }
    let _ = VisitMut::visit(select, &mut WholeRows { aliases });
}

struct WholeRows {
    aliases: Vec<String>,
}

impl VisitorMut for WholeRows {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && self.aliases.contains(&folded(name))
        {
            *expr = Expr::CompoundIdentifier(vec![name.clone(), Ident::new("value")]);
        }
        ControlFlow::Continue(())
    }
}
