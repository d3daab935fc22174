//! What clients write about the catalogs that the planner has no word for, put into words that it has.
//!
//! | written | planned as |
//! |---|---|
//! | `a OPERATOR(pg_catalog.~) b` | `a ~ b` |
//! | `a COLLATE pg_catalog.default` | `a` |
//! | `x::regclass`, `::regtype`, `::regproc`, `::regnamespace`, `::regrole` | a function: text → oid, oid → text |
//! | `x::regclass::text` | the name, whatever x is |
//! | `x::oid`, `::name`, `::"char"`, `::pg_catalog.text` | the plain type of the same values |
//! | `ARRAY(SELECT e FROM …)` | `(SELECT array_agg(e) FROM …)`, the empty array when there is no row |
//! | `(SELECT e FROM <catalog> WHERE <correlated>)` | `(SELECT first_value(e) FROM …)`: such a look-up by oid has one row at most |
//! | `x.tableoid` of a catalog | the catalog's oid |
//! | the collation look-up of psql's `\d` | NULL: every column has its type's collation |
//! | `p.oid = t.typreceive` | `p.oid = <oid of the function of that name>`: such columns are kept as names |
//! | `(information_schema._pg_expandarray(a)).n`, `.x` | the numbers of the items of a, `unnest(a)` |
//! | subqueries over relations that hold nothing here | what they give, see [`nothing`] |
//!
//! Only statements whose text mentions such things are touched (see [`rewrite`]).

use std::{collections::HashSet, ops::ControlFlow, sync::LazyLock};

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, ObjectName, ObjectNamePart,
    OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Statement, TableFactor, TableWithJoins, Value, Visit,
    VisitMut, Visitor, VisitorMut, helpers::attached_token::AttachedToken,
};
use datafusion::sql::sqlparser::{dialect::PostgreSqlDialect, parser::Parser};

use super::{definitions, nothing, tableoid};

pub(super) const REGCLASS: &str = "tidemill_regclass";
pub(super) const REGTYPE: &str = "tidemill_regtype";
pub(super) const REGPROC: &str = "tidemill_regproc";
pub(super) const REGNAMESPACE: &str = "tidemill_regnamespace";
pub(super) const REGROLE: &str = "tidemill_regrole";
/// Function name → oid in `pg_proc`.
pub(super) const PROC_OID: &str = "tidemill_proc_oid";
pub(super) const OID_ARRAY: &str = "tidemill_oid_array";
pub(super) const EMPTY_ARRAY: &str = "tidemill_empty_array_if_null";

/// Rewrites `statement` in place when its text, `sql`, says that it may need it.
pub(crate) fn rewrite(statement: &mut Statement, sql: &str) {
    let lower = sql.to_ascii_lowercase();
    let catalog = lower.contains("pg_") || lower.contains("information_schema");
    let words = [
        "operator", "collate", "::reg", "as reg", "::oid", "as oid", "::name", "as name", "array(", "array (",
        "\"char\"", "'char'", "::char",
    ];
    if catalog || words.iter().any(|word| lower.contains(word)) {
        let _ = statement.visit(&mut Rewriter);
    }
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        nothing::simplify(select);
        tableoid::settle(select);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(simple) = nothing::replacement(expr) {
            *expr = simple;
        }
        // Nested casts are seen from the outside first: `x::regclass::text` is one thing.
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && let Expr::Cast { expr: value, data_type: alias, .. } = unnested(inner)
            && let Some(function) = reg_function(alias)
        {
            if is_text(data_type) {
                // Through the oid and back: the canonical name.
                let oid = call(function, vec![value.as_ref().clone()]);
                *expr = match value.as_ref() {
                    Expr::Value(value)
                        if matches!(value.value, Value::SingleQuotedString(_)) && function != REGPROC =>
                    {
                        call(function, vec![oid])
                    }
                    _ => oid,
                };
            } else {
                *expr = call(function, vec![value.as_ref().clone()]);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = inner.as_ref().clone(),
            Expr::BinaryOp { op, left, right } => {
                if let BinaryOperator::PGCustomBinaryOperator(name) = op
                    && let Some(known) = name.last().and_then(|name| operator(name))
                {
                    *op = known;
                }
                if matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq) {
                    if is_function_column(left) && is_oid(right) {
                        **left = call(PROC_OID, vec![left.as_ref().clone()]);
                    } else if is_function_column(right) && is_oid(left) {
                        **right = call(PROC_OID, vec![right.as_ref().clone()]);
                    }
                }
            }
            Expr::Cast { kind: CastKind::DoubleColon | CastKind::Cast, expr: inner, data_type, .. } => {
                if let Some(function) = reg_function(data_type) {
                    *expr = call(function, vec![inner.as_ref().clone()]);
                } else if let Some(plain) = plain_type(data_type) {
                    *data_type = plain;
                }
            }
            Expr::Function(function) => {
                if is_array_of_oids(function) {
                    *expr = call(OID_ARRAY, vec![expr.clone()]);
                } else if let Some(subquery) = array_of(function) {
                    *expr = call(EMPTY_ARRAY, vec![Expr::Subquery(subquery)]);
                }
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let Some(items) = expanded(root, access_chain) {
                    *expr = items;
                }
            }
            Expr::Subquery(query) => {
                if is_collation_lookup(query) {
                    *expr = Expr::Value(Value::Null.into());
                } else if let Some(outer) = one_row(query) {
                    *expr = Expr::Case {
                        case_token: AttachedToken::empty(),
                        end_token: AttachedToken::empty(),
                        operand: None,
                        conditions: vec![CaseWhen { condition: outer, result: expr.clone() }],
                        else_result: None,
                    };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor
            && name.0.len() == 2
            && part(&name.0[0]).is_some_and(|schema| schema.eq_ignore_ascii_case("pg_catalog"))
        {
            name.0.remove(0);
        }
        ControlFlow::Continue(())
    }
}

pub(super) fn unnested(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// `f.prorettype`'s last name.
fn column(expr: &Expr) -> Option<&str> {
    match unnested(expr) {
        Expr::Identifier(name) => Some(&name.value),
        Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.as_str()),
        _ => None,
    }
}

/// Whether `expr` is a column of type regproc.
fn is_function_column(expr: &Expr) -> bool {
    static COLUMNS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
        let columns = definitions::all().iter().flat_map(|definition| &definition.columns);
        columns.filter(|column| column.type_name == "regproc").map(|column| column.name.as_str()).collect()
    });
    column(expr).is_some_and(|name| COLUMNS.contains(name.to_lowercase().as_str()))
}

fn is_oid(expr: &Expr) -> bool {
    column(expr).is_some_and(|name| name.eq_ignore_ascii_case("oid"))
        || matches!(unnested(expr), Expr::Value(value) if matches!(value.value, Value::Number(..)))
}

pub(super) fn part(part: &ObjectNamePart) -> Option<&str> {
    part.as_ident().map(|ident| ident.value.as_str())
}

fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// The type's name without `pg_catalog.`, in lower case.
fn type_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Custom(name, modifiers) if modifiers.is_empty() => {
            let parts: Vec<_> = name.0.iter().filter_map(part).collect();
            match parts.as_slice() {
                [name] => Some(name.to_lowercase()),
                [schema, name] if schema.eq_ignore_ascii_case("pg_catalog") => Some(name.to_lowercase()),
                _ => None,
            }
        }
        DataType::Regclass => Some("regclass".into()),
        _ => None,
    }
}

fn reg_function(data_type: &DataType) -> Option<&'static str> {
    Some(match type_name(data_type)?.as_str() {
        "regclass" => REGCLASS,
        "regtype" => REGTYPE,
        "regproc" | "regprocedure" | "regoper" | "regoperator" => REGPROC,
        "regnamespace" => REGNAMESPACE,
        "regrole" => REGROLE,
        _ => return None,
    })
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_))
        || type_name(data_type).is_some_and(|name| ["text", "name", "varchar"].contains(&name.as_str()))
}

/// Type names of the catalogs that are other names for plain types.
fn plain_type(data_type: &DataType) -> Option<DataType> {
    if let DataType::Array(_) = data_type {
        return None;
    }
    Some(match type_name(data_type)?.as_str() {
        "oid" | "xid" | "cid" | "int4" => DataType::Int(None),
        "int2" => DataType::SmallInt(None),
        "int8" => DataType::BigInt(None),
        "bool" => DataType::Boolean,
        "float4" => DataType::Real,
        "float8" => DataType::DoublePrecision,
        "name" | "text" | "char" | "cstring" | "varchar" | "bpchar" | "pg_node_tree" | "aclitem" => DataType::Text,
        _ => return None,
    })
}

pub(super) fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(function))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `array_agg(a.atttypid)`: of columns whose type is oid.
fn is_array_of_oids(function: &Function) -> bool {
    static COLUMNS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
        let columns = definitions::all().iter().flat_map(|definition| &definition.columns);
        columns.filter(|column| column.type_name == "oid").map(|column| column.name.as_str()).collect()
    });
    let name = function.name.0.last().and_then(part).unwrap_or_default();
    let argument = arguments(function).first().and_then(|argument| column(argument)).unwrap_or_default();
    name.eq_ignore_ascii_case("array_agg")
        && function.over.is_none()
        && COLUMNS.contains(argument.to_lowercase().as_str())
}

fn numbers_of(array: &Expr) -> Expr {
    let number = |number: &str| Expr::Value(Value::Number(number.to_owned(), false).into());
    call("unnest", vec![call(crate::functions::rows::SUBSCRIPTS, vec![array.clone(), number("1")])])
}

/// A field of the rows that `_pg_expandarray` gives: the items and their numbers.
fn expanded(root: &Expr, access: &[AccessExpr]) -> Option<Expr> {
    let Expr::Function(function) = unnested(root) else { return None };
    let arguments = arguments(function);
    let ([array], [AccessExpr::Dot(Expr::Identifier(field))]) = (arguments.as_slice(), access) else {
        return None;
    };
    if !function.name.0.last().and_then(part)?.eq_ignore_ascii_case("_pg_expandarray") {
        return None;
    }
    match field.value.to_lowercase().as_str() {
        "n" => Some(numbers_of(array)),
        "x" => Some(call("unnest", vec![(*array).clone()])),
        _ => None,
    }
}

/// The query of `ARRAY(SELECT e … ORDER BY …)` with its rows gathered into one array.
fn array_of(function: &mut Function) -> Option<Box<Query>> {
    let [name] = function.name.0.as_slice() else { return None };
    if !part(name)?.eq_ignore_ascii_case("array") {
        return None;
    }
    let FunctionArguments::Subquery(query) = &mut function.args else { return None };
    let mut query = query.clone();
    let is_plain = matches!(query.body.as_ref(), SetExpr::Select(select) if select.distinct.is_none());
    if !is_plain || query.limit_clause.is_some() || query.fetch.is_some() {
        return gathered(query);
    }
    let order = query.order_by.take().and_then(|order| match order.kind {
        OrderByKind::Expressions(expressions) => Some(expressions),
        OrderByKind::All(_) => None,
    });
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let [item] = select.projection.as_mut_slice() else { return None };
    let value = match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
        _ => return None,
    };
    let Expr::Function(mut aggregate) = call("array_agg", vec![value.clone()]) else { return None };
    if let (Some(mut order), FunctionArguments::List(list)) = (order, &mut aggregate.args) {
        for by in &mut order {
            // ORDER BY 1 means the value itself.
            if let Expr::Value(number) = &by.expr
                && matches!(&number.value, Value::Number(..))
            {
                by.expr = value.clone();
            }
        }
        list.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    *item = SelectItem::UnnamedExpr(Expr::Function(aggregate));
    Some(query)
}

/// `(SELECT array_agg(item) FROM (query) AS items (item))`: of the rows that are left, in their order.
fn gathered(query: Box<Query>) -> Option<Box<Query>> {
    const TEXT: &str = "SELECT array_agg(item) FROM (SELECT 1) AS items (item)";
    const ORDERED: &str = "SELECT array_agg(item ORDER BY item) FROM (SELECT 1) AS items (item)";
    // Without a LIMIT an order inside is none outside. UNION and DISTINCT are ordered by what they select, and that is the item.
    let order = match (&query.order_by, &query.limit_clause, &query.fetch) {
        (Some(OrderBy { kind: OrderByKind::Expressions(by), .. }), None, None) => by.first().map(|by| by.options),
        _ => None,
    };
    let text = if order.is_some() { ORDERED } else { TEXT };
    let Ok(Some(Statement::Query(mut outer))) = Parser::parse_sql(&PostgreSqlDialect {}, text).map(|mut all| all.pop())
    else {
        return None;
    };
    let SetExpr::Select(select) = outer.body.as_mut() else { return None };
    if let (Some(options), Some(SelectItem::UnnamedExpr(Expr::Function(call)))) = (order, select.projection.first_mut())
        && let FunctionArguments::List(list) = &mut call.args
    {
        for clause in &mut list.clauses {
            if let FunctionArgumentClause::OrderBy(by) = clause {
                by.iter_mut().for_each(|by| by.options = options);
            }
        }
    }
    let TableFactor::Derived { subquery, .. } = &mut select.from.first_mut()?.relation else { return None };
    *subquery = query;
    Some(outer)
}

/// The names of the relations in FROM, when they are nothing but catalog tables.
fn catalog_tables(query: &Query) -> Option<Vec<String>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let mut names = Vec::new();
    for from in &select.from {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            let TableFactor::Table { name, args: None, .. } = factor else { return None };
            let table = name.0.last().and_then(part)?.to_lowercase();
            let schema_ok = name.0.len() == 1
                || part(&name.0[name.0.len() - 2]).is_some_and(|schema| schema.eq_ignore_ascii_case("pg_catalog"));
            if !schema_ok || !table.starts_with("pg_") {
                return None;
            }
            names.push(table);
        }
    }
    (!names.is_empty()).then_some(names)
}

fn is_collation_lookup(query: &Query) -> bool {
    catalog_tables(query).is_some_and(|mut names| {
        names.sort();
        names == ["pg_collation", "pg_type"]
    })
}

/// Makes a scalar subquery over the catalogs an aggregate, which is what the planner can take out of its correlation. Conditions that
/// concern only the outer row are taken out, since the planner cannot; they are returned.
fn one_row(query: &mut Query) -> Option<Expr> {
    catalog_tables(query)?;
    if query.limit_clause.is_some() || query.order_by.is_some() {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    if select.having.is_some() || select.distinct.is_some() || aggregates(select) {
        return None;
    }
    let own: Vec<String> = select.from.iter().flat_map(names).collect();
    let [item] = select.projection.as_mut_slice() else { return None };
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return None };
    *expr = call("first_value", vec![expr.clone()]);
    let (outer, inner): (Vec<Expr>, Vec<Expr>) =
        select.selection.take().into_iter().flat_map(conjuncts).partition(|condition| is_outer(condition, &own));
    let all = |conditions: Vec<Expr>| {
        conditions.into_iter().reduce(|left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        })
    };
    select.selection = all(inner);
    all(outer)
}

/// What the relations of `from` are called.
fn names(from: &TableWithJoins) -> Vec<String> {
    std::iter::once(&from.relation)
        .chain(from.joins.iter().map(|join| &join.relation))
        .filter_map(|factor| match factor {
            TableFactor::Table { alias: Some(alias), .. } => Some(alias.name.value.to_lowercase()),
            TableFactor::Table { name, .. } => name.0.last().and_then(part).map(str::to_lowercase),
            _ => None,
        })
        .collect()
}

fn conjuncts(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut all = conjuncts(*left);
            all.extend(conjuncts(*right));
            all
        }
        Expr::Nested(inner) if matches!(inner.as_ref(), Expr::BinaryOp { op: BinaryOperator::And, .. }) => {
            conjuncts(*inner)
        }
        other => vec![other],
    }
}

/// Whether `condition` names columns, and none of `own` relations. A name without a qualifier may be anybody's.
fn is_outer(condition: &Expr, own: &[String]) -> bool {
    struct Columns<'a> {
        own: &'a [String],
        outer: bool,
    }
    impl Visitor for Columns<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::CompoundIdentifier(parts) if parts.len() > 1 => {
                    if self.own.contains(&parts[parts.len() - 2].value.to_lowercase()) {
                        return ControlFlow::Break(());
                    }
                    self.outer = true;
                    ControlFlow::Continue(())
                }
                Expr::Identifier(_) | Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    let mut columns = Columns { own, outer: false };
    condition.visit(&mut columns).is_continue() && columns.outer
}

/// Whether `select` makes one row out of many.
pub(super) fn aggregates(select: &Select) -> bool {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    grouped
        || select.projection.iter().any(|item| match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => is_aggregate(expr),
            _ => false,
        })
}

fn is_aggregate(expr: &Expr) -> bool {
    match unnested(expr) {
        Expr::Function(function) => {
            let name = function.name.0.last().and_then(part).unwrap_or_default().to_lowercase();
            if name == OID_ARRAY {
                return true;
            }
            let aggregates = [
                "count",
                "sum",
                "min",
                "max",
                "avg",
                "array_agg",
                "string_agg",
                "bool_and",
                "bool_or",
                "first_value",
                "json_agg",
            ];
            aggregates.contains(&name.as_str()) || arguments(function).iter().any(|argument| is_aggregate(argument))
        }
        Expr::Cast { expr, .. } => is_aggregate(expr),
        Expr::BinaryOp { left, right, .. } => is_aggregate(left) || is_aggregate(right),
        _ => false,
    }
}

fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    list.args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect()
}
