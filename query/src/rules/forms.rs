//! Forms of PostgreSQL's grammar that the planner knows by another one, on the syntax tree.
//!
//! | written | planned as |
//! |---|---|
//! | `FETCH FIRST 2 ROWS ONLY`, `LIMIT '2'` | `LIMIT 2` |
//! | `VALUES (1, (SELECT 2)), …` | `SELECT column1, column2 FROM (SELECT 1 AS column1, (SELECT 2) AS column2, 0 AS place UNION ALL …) ORDER BY place` |
//! | `a BETWEEN SYMMETRIC b AND c` | `(a BETWEEN b AND c OR a BETWEEN c AND b)` |
//! | `~x`, `\|/ x`, `\|\|/ x`, `@ x` | `x # -1`, `sqrt(x)`, `cbrt(x)`, `abs(x)` |
//! | `a IS DISTINCT FROM b AND c` | `(a IS DISTINCT FROM b) AND c` |
//! | `(a, b) OVERLAPS (c, d)` | `overlaps(a, b, c, d)` |
//! | `date(x)`, `text(x)`, `int4(x)`, … | `CAST(x AS date)`, … |
//! | `locf(x, treat_null_as_missing => true)` | `locf(x, NULL, true)` ([`gapfill`]) |
//! | `first(x, t)` | `first_value(x ORDER BY t) FILTER (WHERE t IS NOT NULL)` ([`ends`]) |
//! | `x SIMILAR TO p ESCAPE e` | `x ~ <regular expression>(p, e)` |
//! | `gen_random_uuid()` | `CAST(uuid() AS uuid)` |
//! | `(a, b) IN (SELECT x, y …)` | `CASE WHEN EXISTS (SELECT 1 FROM (SELECT x, y …) AS s(c0, c1) WHERE c0 = a AND c1 = b) THEN true …` |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, DataType as SqlType, ExactNumberInfo, Expr, Fetch, Function, FunctionArguments,
    Ident, LimitClause, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, TableAlias,
    TableAliasColumnDef, TableFactor, TimezoneInfo, UnaryOperator, Value, VisitMut, VisitorMut,
    helpers::attached_token::AttachedToken,
};

use super::{
    common_types, distinct_from, ends, gapfill, merged_columns, natural, row_values,
    syntax::{function, last_part, plain, query},
};
use crate::{SqlError, functions::regexp};

/// Names of our own columns and relations, which no user's can be.
const COLUMN: &str = "\u{1}c";
const RELATION: &str = "\u{1}s";
const PLACE: &str = "\u{1}p";
/// Rows of VALUES with subqueries.
const SELECTED_ROWS_MAX: usize = 1_000;

/// Rewrites `statement` in place.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<(), SqlError> {
    distinct_from::rewrite(statement);
    // Rows to insert are typed by the table's columns.
    let inserted = matches!(statement, Statement::Insert(_));
    match VisitMut::visit(statement, &mut Rewriter { inserted }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Rewriter {
    /// Whether the next query is what an INSERT inserts.
    inserted: bool,
}

impl VisitorMut for Rewriter {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let inserted = std::mem::take(&mut self.inserted);
        let typed = if inserted { Ok(()) } else { common_types::rows(&mut query.body) };
        match typed
            .and_then(|()| fetch(query))
            .and_then(|()| quoted_limits(query))
            .and_then(|()| values(query))
            .and_then(|()| merged_columns::rewrite(query))
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        match natural::named_twice(select) {
            Some(error) => ControlFlow::Break(error),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match row_values::spelled_out(expr, row_items) {
            Ok(Some(changed)) => *expr = changed,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        match expression(expr) {
            Ok(Some(changed)) => *expr = changed,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(error),
        }
        ControlFlow::Continue(())
    }
}

fn fetch(query: &mut Query) -> Result<(), SqlError> {
    let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else { return Ok(()) };
    if with_ties || percent {
        let what = if with_ties { "WITH TIES" } else { "PERCENT" };
        return Err(SqlError::not_supported(format!("FETCH FIRST … {what}")));
    }
    let rows = quantity.unwrap_or_else(|| number("1"));
    match &mut query.limit_clause {
        None => {
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(rows), offset: None, limit_by: Vec::new() });
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(rows),
        Some(_) => return Err(SqlError::syntax("multiple LIMIT clauses not allowed")),
    }
    Ok(())
}

/// `LIMIT '7'`: the text of a number.
fn quoted_limits(query: &mut Query) -> Result<(), SqlError> {
    let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause else { return Ok(()) };
    for count in limit.iter_mut().chain(offset.iter_mut().map(|offset| &mut offset.value)) {
        if let Expr::Value(value) = count
            && let Value::SingleQuotedString(text) = &value.value
        {
            let read: i64 = text
                .trim()
                .parse()
                .map_err(|_| SqlError::new("22P02", format!("invalid input syntax for type bigint: \"{text}\"")))?;
            *count = number(&read.to_string());
        }
    }
    Ok(())
}

/// Rows of VALUES are made before any subquery has an answer: such rows are selected instead, in the order they are written.
fn values(whole: &mut Query) -> Result<(), SqlError> {
    let SetExpr::Values(values) = whole.body.as_ref() else { return Ok(()) };
    let mut selects = Vec::with_capacity(values.rows.len());
    let mut asks = Subqueries { found: false };
    let columns = values.rows.first().map_or(0, |row| row.content.len());
    for (place, row) in values.rows.iter().enumerate() {
        let mut made = query("SELECT 1")?;
        let SetExpr::Select(select) = made.body.as_mut() else { return Ok(()) };
        let mut row = row.content.clone();
        for expr in &mut row {
            let _ = VisitMut::visit(expr, &mut asks);
        }
        let named = row
            .into_iter()
            .enumerate()
            .map(|(index, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::new(format!("column{}", index + 1)) });
        let place =
            SelectItem::ExprWithAlias { expr: number(&place.to_string()), alias: Ident::with_quote('"', PLACE) };
        select.projection = named.chain([place]).collect();
        selects.push(made.body);
    }
    if !asks.found || values.rows.len() > SELECTED_ROWS_MAX {
        return Ok(());
    }
    let all = selects.into_iter().reduce(|left, right| {
        let (op, set_quantifier) = (SetOperator::Union, SetQuantifier::All);
        Box::new(SetExpr::SetOperation { op, set_quantifier, left, right })
    });
    let Some(all) = all else { return Ok(()) };
    let names: Vec<String> = (1..=columns).map(|column| format!("column{column}")).collect();
    let text = format!("SELECT {} FROM (SELECT 1) AS \"values\" ORDER BY \"{PLACE}\"", names.join(", "));
    let mut ordered = query(&text)?;
    let SetExpr::Select(select) = ordered.body.as_mut() else { return Ok(()) };
    for from in &mut select.from {
        if let TableFactor::Derived { subquery, .. } = &mut from.relation {
            subquery.body = all;
            break;
        }
    }
    whole.body = ordered.body;
    if whole.order_by.is_none() {
        whole.order_by = ordered.order_by;
    }
    Ok(())
}

/// Whether there are subqueries.
struct Subqueries {
    found: bool,
}

impl VisitorMut for Subqueries {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.found = true;
        ControlFlow::Break(())
    }
}

/// `expr` without the mark that the tokens of BETWEEN SYMMETRIC left at its beginning; whether there was one.
fn unmarked(expr: &mut Expr) -> bool {
    match expr {
        Expr::UnaryOp { op: UnaryOperator::PGPrefixFactorial, expr: operand } => {
            let operand = std::mem::replace(operand.as_mut(), number("0"));
            *expr = operand;
            true
        }
        Expr::BinaryOp { left: first, .. }
        | Expr::Cast { expr: first, kind: CastKind::DoubleColon, .. }
        | Expr::AtTimeZone { timestamp: first, .. }
        | Expr::Collate { expr: first, .. }
        | Expr::CompoundFieldAccess { root: first, .. } => unmarked(first),
        _ => false,
    }
}

fn number(digits: &str) -> Expr {
    Expr::Value(Value::Number(digits.to_owned(), false).into())
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn expression(expr: &mut Expr) -> Result<Option<Expr>, SqlError> {
    let taken = |expr: &mut Expr| std::mem::replace(expr, number("0"));
    Ok(match expr {
        Expr::UnaryOp { op, expr: operand } => match op {
            UnaryOperator::BitwiseNot => Some(Expr::Nested(Box::new(binary(
                taken(operand),
                BinaryOperator::PGBitwiseXor,
                Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number("1")) },
            )))),
            UnaryOperator::PGSquareRoot => Some(function("sqrt", vec![taken(operand)])),
            UnaryOperator::PGCubeRoot => Some(function("cbrt", vec![taken(operand)])),
            UnaryOperator::PGAbs => Some(function("abs", vec![taken(operand)])),
            _ => None,
        },
        // The tokenizer takes a sign behind an arrow for a part of it.
        Expr::BinaryOp { left, op: BinaryOperator::Custom(op), right } if matches!(op.as_str(), "->-" | "->>-") => {
            let arrow = if op == "->-" { BinaryOperator::Arrow } else { BinaryOperator::LongArrow };
            let place = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(taken(right)) };
            Some(binary(taken(left), arrow, place))
        }
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => match (row_items(left), row_items(right)) {
            (Some(mut left), Some(right)) if left.len() == 2 && right.len() == 2 => {
                left.extend(right);
                Some(function("overlaps", left))
            }
            _ => return Err(SqlError::syntax("wrong number of parameters on a side of OVERLAPS expression")),
        },
        Expr::Between { expr: value, negated, low, high } => {
            if !unmarked(low) {
                return Ok(None);
            }
            let between = |low: &Expr, high: &Expr| Expr::Between {
                expr: value.clone(),
                negated: false,
                low: Box::new(low.clone()),
                high: Box::new(high.clone()),
            };
            let either = binary(between(low, high), BinaryOperator::Or, between(high, low));
            let either = Expr::Nested(Box::new(either));
            Some(match negated {
                true => Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(either) })),
                false => either,
            })
        }
        Expr::Function(call) => match gapfill::settled_call(call)? {
            Some(settled) => Some(settled),
            None => ends::rewritten(call).map_or_else(|| typed(call), |settled| Ok(Some(settled)))?,
        },
        Expr::SimilarTo { negated, expr: value, pattern, escape_char } => {
            let escape = escape_char.take().map(Expr::Value);
            let pattern = function(regexp::SIMILAR, std::iter::once(taken(pattern)).chain(escape).collect());
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            Some(Expr::Nested(Box::new(binary(taken(value), op, pattern))))
        }
        Expr::InSubquery { expr: tuple, subquery, negated } => match row_items(tuple) {
            Some(items) if items.len() > 1 => Some(tuple_in(items, taken_query(subquery)?, *negated)?),
            _ => None,
        },
        _ => None,
    })
}

fn taken_query(subquery: &mut Query) -> Result<Query, SqlError> {
    Ok(std::mem::replace(subquery, query("SELECT 1")?))
}

fn row_items(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(items) => Some(items.clone()),
        Expr::Nested(inner) => row_items(inner),
        Expr::Function(call) if last_part(&call.name) == "row" => arguments(call),
        _ => None,
    }
}

fn arguments(call: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &call.args else { return None };
    list.args.iter().map(|arg| plain(arg).cloned()).collect()
}

/// Functions that are casts by another name.
fn typed(call: &Function) -> Result<Option<Expr>, SqlError> {
    let name = last_part(&call.name);
    let Some(arguments) = arguments(call) else { return Ok(None) };
    let (value, data_type) = match (name.as_str(), arguments.as_slice()) {
        ("gen_random_uuid", []) => (function("uuid", Vec::new()), SqlType::Uuid),
        ("date", [value]) => (value.clone(), SqlType::Date),
        ("text" | "varchar", [value]) => (value.clone(), SqlType::Text),
        ("int2", [value]) => (value.clone(), SqlType::SmallInt(None)),
        ("int4", [value]) => (value.clone(), SqlType::Int(None)),
        ("int8", [value]) => (value.clone(), SqlType::BigInt(None)),
        ("float4", [value]) => (value.clone(), SqlType::Real),
        ("float8", [value]) => (value.clone(), SqlType::DoublePrecision),
        ("numeric", [value]) => (value.clone(), SqlType::Numeric(ExactNumberInfo::None)),
        ("bool", [value]) => (value.clone(), SqlType::Boolean),
        ("timestamp", [value]) => (value.clone(), SqlType::Timestamp(None, TimezoneInfo::WithoutTimeZone)),
        ("timestamptz", [value]) => (value.clone(), SqlType::Timestamp(None, TimezoneInfo::WithTimeZone)),
        _ => return Ok(None),
    };
    Ok(Some(Expr::Cast { kind: CastKind::Cast, expr: Box::new(value), data_type, array: false, format: None }))
}

/// `query` as a relation whose columns are `c0`, `c1`, ….
fn relation(query: Query, columns: usize) -> TableFactor {
    let columns = (0..columns).map(|index| TableAliasColumnDef { name: column_name(index), data_type: None }).collect();
    let alias = TableAlias { explicit: true, name: Ident::with_quote('"', RELATION), columns, at: None };
    TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None }
}

fn column_name(index: usize) -> Ident {
    Ident::with_quote('"', format!("{COLUMN}{index}"))
}

/// `SELECT item FROM from WHERE condition`.
fn select(item: Expr, from: TableFactor, condition: Option<Expr>) -> Result<Query, SqlError> {
    let mut made = query("SELECT 1 FROM t")?;
    if let SetExpr::Select(select) = made.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(item)];
        for table in &mut select.from {
            table.relation = from.clone();
        }
        select.selection = condition;
    }
    Ok(made)
}

/// True where a row is equal in all columns, else NULL where one may be, else false.
fn tuple_in(items: Vec<Expr>, query: Query, negated: bool) -> Result<Expr, SqlError> {
    let columns = items.len();
    let equal = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| binary(Expr::Identifier(column_name(index)), BinaryOperator::Eq, item))
        .reduce(|left, right| binary(left, BinaryOperator::And, right));
    let maybe = equal.clone().map(|equal| Expr::IsNull(Box::new(Expr::Nested(Box::new(equal)))));
    let some = |condition: Option<Expr>| -> Result<Expr, SqlError> {
        let subquery = Box::new(select(number("1"), relation(query.clone(), columns), condition)?);
        Ok(Expr::Exists { subquery, negated: false })
    };
    let truth = |value: bool| Expr::Value(Value::Boolean(value).into());
    let case = |condition: Expr, result: Expr| CaseWhen { condition, result };
    Ok(Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![case(some(equal)?, truth(!negated)), case(some(maybe)?, Expr::Value(Value::Null.into()))],
        else_result: Some(Box::new(truth(negated))),
    })
}
