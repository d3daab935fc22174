//! Subqueries that no row will ever ask, because they, or what they are asked for, read relations that hold nothing here.
//!
//! psql and others look up policies, publications and the like row by row, with subqueries that the planner cannot take out of their
//! correlation. There are no policies here, so nothing is lost when such a subquery is written as what it always gives: NULL, or the
//! empty array for `ARRAY(SELECT …)`. Nor are there domains, so that asyncpg's walk from a domain to its base type, a recursive query for
//! each type, begins nowhere.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, JoinOperator, ObjectName, Query, Select, SetExpr, TableFactor, Value, Visit, VisitMut, Visitor,
    VisitorMut,
};

use super::rewrite::{part, unnested};

/// Relations for which this server has no counterpart.
pub(super) const EMPTY_RELATIONS: &[&str] = &[
    "pg_default_acl",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_inherits",
    "pg_policy",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_sequence",
    "pg_statistic_ext",
    "pg_subscription",
    "pg_trigger",
    "pg_user_mapping",
];

/// Array columns that are NULL in every row.
const NULL_ARRAYS: &[&str] =
    &["reloptions", "attoptions", "attfdwoptions", "evttags", "extconfig", "prattrs", "polroles"];

/// Takes the subqueries out of a select list that is never computed.
pub(super) fn simplify(select: &mut Select) {
    if gives_no_row(select) {
        let _ = VisitMut::visit(&mut select.projection, &mut Forget);
    }
}

/// What stands for `expr` when it is a subquery that finds no row.
pub(super) fn replacement(expr: &Expr) -> Option<Expr> {
    let found = |query: &Query| {
        query.with.is_none()
            && match query.body.as_ref() {
                SetExpr::Select(select) => gives_no_row(select) && !super::rewrite::aggregates(select),
                _ => false,
            }
    };
    match expr {
        Expr::Subquery(query) if found(query) => Some(null()),
        Expr::Function(function) if array_query(function).is_some_and(found) => Some(empty_array()),
        Expr::Case { operand: None, conditions, else_result, .. } => match conditions.as_slice() {
            [domain] if is_domain(&domain.condition) && asks_catalogs(&domain.result) => {
                Some(else_result.as_deref().filter(|other| !is_null(other)).map_or_else(null_oid, Expr::clone))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `t.typtype = 'd'`, which holds of no type.
fn is_domain(condition: &Expr) -> bool {
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = unnested(condition) else { return false };
    let column = match unnested(left) {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    };
    column.is_some_and(|name| name.value.eq_ignore_ascii_case("typtype"))
        && matches!(unnested(right), Expr::Value(value)
            if matches!(&value.value, Value::SingleQuotedString(kind) if kind == "d"))
}

/// Whether `expr` is a subquery over relations of the catalogs alone.
fn asks_catalogs(expr: &Expr) -> bool {
    struct Foreign {
        own: Vec<String>,
    }
    impl Visitor for Foreign {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let tables = query.with.iter().flat_map(|with| &with.cte_tables);
            self.own.extend(tables.map(|table| table.alias.name.value.to_lowercase()));
            ControlFlow::Continue(())
        }

        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            let name = relation.0.last().and_then(part).unwrap_or_default().to_lowercase();
            if name.starts_with("pg_") || self.own.contains(&name) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        }
    }
    matches!(unnested(expr), Expr::Subquery(_)) && Visit::visit(expr, &mut Foreign { own: Vec::new() }).is_continue()
}

struct Forget;

impl VisitorMut for Forget {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Subquery(_) => *expr = null(),
            Expr::Function(function) if array_query(function).is_some() => *expr = empty_array(),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::Null))
}

/// What is looked up of a domain is its base type's oid.
fn null_oid() -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(null()),
        data_type: DataType::Int(None),
        array: false,
        format: None,
    }
}

fn empty_array() -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Array(Array { elem: Vec::new(), named: true })),
        data_type: DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None)),
        array: false,
        format: None,
    }
}

/// The query of `ARRAY(SELECT …)`.
pub(super) fn array_query(function: &Function) -> Option<&Query> {
    let [name] = function.name.0.as_slice() else { return None };
    match &function.args {
        FunctionArguments::Subquery(query) if part(name)?.eq_ignore_ascii_case("array") => Some(query),
        _ => None,
    }
}

/// Whether one of the relations that make up the rows of `select` is always empty.
fn gives_no_row(select: &Select) -> bool {
    select.from.iter().any(|from| {
        let inner = from.joins.iter().all(|join| {
            matches!(
                join.join_operator,
                JoinOperator::Join(_)
                    | JoinOperator::Inner(_)
                    | JoinOperator::CrossJoin(_)
                    | JoinOperator::Left(_)
                    | JoinOperator::LeftOuter(_)
            )
        });
        let joined = from.joins.iter().filter(|join| {
            matches!(join.join_operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
        });
        inner && (is_empty(&from.relation) || joined.map(|join| &join.relation).any(is_empty))
    })
}

fn is_empty(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => {
            let schema_ok = match name.0.as_slice() {
                [_] => true,
                [.., schema, _] => part(schema).is_some_and(|schema| schema.eq_ignore_ascii_case("pg_catalog")),
                [] => false,
            };
            schema_ok
                && name
                    .0
                    .last()
                    .and_then(part)
                    .is_some_and(|name| EMPTY_RELATIONS.contains(&name.to_lowercase().as_str()))
        }
        TableFactor::Table { name, args: Some(arguments), .. } => {
            name.0.last().and_then(part).is_some_and(|name| name.eq_ignore_ascii_case("unnest"))
                && matches!(arguments.args.as_slice(),
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] if is_null_array(argument))
        }
        TableFactor::Function { name, args, .. } => {
            name.0.last().and_then(part).is_some_and(|name| name.eq_ignore_ascii_case("unnest"))
                && matches!(args.as_slice(),
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] if is_null_array(argument))
        }
        TableFactor::UNNEST { array_exprs, .. } => matches!(array_exprs.as_slice(), [array] if is_null_array(array)),
        _ => false,
    }
}

fn is_null_array(expr: &Expr) -> bool {
    let name = match unnested(expr) {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(names) => match names.last() {
            Some(name) => name,
            None => return false,
        },
        _ => return false,
    };
    NULL_ARRAYS.contains(&name.value.to_lowercase().as_str())
}
