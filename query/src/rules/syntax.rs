//! What is settled on the syntax tree, before names and types are known: PostgreSQL's names of unnamed result columns, `pg_catalog.f()`
//! and `OPERATOR(pg_catalog.~)` as plain `f()` and `~`, ANY and ALL of arrays as functions, COLLATE that changes nothing.

use std::{collections::HashSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, CharacterLength, DataType as SqlType, DuplicateTreatment, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Interval, NamedWindowDefinition,
    NamedWindowExpr, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Statement, TableFactor,
    UnaryOperator, Value, VisitMut, VisitorMut, WindowFrameBound, WindowSpec, WindowType,
};

use super::{casts_apart, output_names};
use crate::{
    SqlError,
    functions::{like, text::CUT},
};

/// What keeps equal column names apart while a statement is planned; [`shown_name`] takes it off.
pub(super) const APART: char = '\u{1}';

/// Rewrites `statement` in place.
pub(crate) fn rewrite(statement: &mut Statement) {
    let _ = VisitMut::visit(statement, &mut Rewriter);
    if let Statement::Query(query) = statement {
        output_names::rewrite(query);
    }
}

/// The length of `varchar(n)` or `char(n)`, and the type without it.
fn limited(data_type: &SqlType) -> Option<(u64, SqlType)> {
    let length = |length: &CharacterLength| match length {
        CharacterLength::IntegerLength { length, .. } => Some(*length),
        CharacterLength::Max => None,
    };
    Some(match data_type {
        SqlType::Varchar(Some(n)) | SqlType::CharacterVarying(Some(n)) | SqlType::CharVarying(Some(n)) => {
            (length(n)?, SqlType::Varchar(None))
        }
        SqlType::Char(Some(n)) | SqlType::Character(Some(n)) => (length(n)?, SqlType::Char(None)),
        _ => return None,
    })
}

/// Offsets of a frame that are casts of texts to intervals as INTERVAL literals, which are all that the planner takes.
fn frame_offsets(window: &mut WindowSpec) {
    let Some(frame) = &mut window.window_frame else { return };
    for bound in std::iter::once(&mut frame.start_bound).chain(&mut frame.end_bound) {
        if let WindowFrameBound::Preceding(Some(offset)) | WindowFrameBound::Following(Some(offset)) = bound
            && let Expr::Cast { expr, data_type: SqlType::Interval { .. }, .. } = offset.as_ref()
            && let Expr::Value(value) = expr.as_ref()
            && matches!(value.value, Value::SingleQuotedString(_))
        {
            let value = expr.clone();
            **offset = Expr::Interval(Interval {
                value,
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            });
        }
    }
}

fn is_power(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::PGExp, .. })
}

fn negate_base(power: &mut Expr) {
    match power {
        Expr::BinaryOp { op: BinaryOperator::PGExp, left, .. } => negate_base(left),
        base => {
            let inner = std::mem::replace(base, null());
            *base = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(inner) };
        }
    }
}

/// The name that the client sees.
pub(crate) fn shown_name(name: &str) -> &str {
    name.split(APART).next().unwrap_or(name)
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        name_items(select);
        casts_apart::rewrite(select);
        for NamedWindowDefinition(_, window) in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(window) = window {
                frame_offsets(window);
            }
        }
        ControlFlow::Continue(())
    }

    /// Functions in FROM are looked up by the first part of their name; ours have a schema at most.
    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor
            && name.0.len() == 2
            && matches!(name.0[0].to_string().trim_matches('"').to_lowercase().as_str(), "rt" | "pg_catalog")
        {
            name.0.remove(0);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => {
                plain_name(&mut function.name);
                if let Some(WindowType::WindowSpec(window)) = &mut function.over {
                    frame_offsets(window);
                }
            }
            Expr::Cast { expr: inner, data_type, .. } => {
                if let Some((length, plain)) = limited(data_type) {
                    let text = Expr::Cast {
                        kind: CastKind::Cast,
                        expr: Box::new(std::mem::replace(inner.as_mut(), null())),
                        data_type: SqlType::Text,
                        array: false,
                        format: None,
                    };
                    let length = Expr::Value(Value::Number(length.to_string(), false).into());
                    **inner = function(CUT, vec![text, length]);
                    *data_type = plain;
                }
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let zone = std::mem::replace(time_zone.as_mut(), null());
                let time = std::mem::replace(timestamp.as_mut(), null());
                *expr = function("timezone", vec![zone, time]);
            }
            Expr::Interval(interval) => {
                if let Some(text) = interval_text(interval) {
                    *expr = cast_text(text, SqlType::Interval { fields: None, precision: None });
                }
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } if is_power(inner) => {
                // PostgreSQL: the sign is the base's.
                let mut power = std::mem::replace(inner.as_mut(), null());
                negate_base(&mut power);
                *expr = power;
            }
            // Beyond what numeric holds here.
            Expr::Value(value) => {
                if let Value::Number(text, _) = &value.value
                    && let Some((_, exponent)) = text.split_once(['e', 'E'])
                    && exponent.parse::<i32>().is_ok_and(|exponent| !(-30..=30).contains(&exponent))
                {
                    *expr = cast_text(text.clone(), SqlType::DoublePrecision);
                }
            }
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                    && let Some(plain) = parts.last().and_then(|last| operator(last))
                {
                    *op = plain;
                }
            }
            Expr::Collate { expr: inner, .. } => {
                let inner = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
                *expr = inner;
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }
                if escape_char.is_some() =>
            {
                if let Some(escape) = escape_char.take() {
                    let written = std::mem::replace(pattern.as_mut(), Expr::Value(Value::Null.into()));
                    **pattern = function(like::PATTERN, vec![written, Expr::Value(escape)]);
                }
            }
            Expr::AnyOp { left, compare_op, right, .. } if !matches!(right.as_ref(), Expr::Subquery(_)) => {
                *expr = call("tidemill_any", compare_op, left, right);
            }
            Expr::AllOp { left, compare_op, right } if !matches!(right.as_ref(), Expr::Subquery(_)) => {
                *expr = call("tidemill_all", compare_op, left, right);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Functions are looked up without their schema, those of `rt` excepted.
fn plain_name(name: &mut ObjectName) {
    if name.0.len() == 2 && name.0[0].to_string().trim_matches('"').eq_ignore_ascii_case("pg_catalog") {
        name.0.remove(0);
    }
}

fn operator(text: &str) -> Option<BinaryOperator> {
    Some(match text {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn cast_text(text: String, data_type: SqlType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::SingleQuotedString(text).into())),
        data_type,
        array: false,
        format: None,
    }
}

/// The literal of `INTERVAL '5' MINUTE` with its unit, and of `INTERVAL '1 day'`.
fn interval_text(interval: &Interval) -> Option<String> {
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let text = match &value.value {
        Value::SingleQuotedString(text) | Value::Number(text, _) => text,
        _ => return None,
    };
    match (&interval.leading_field, &interval.last_field) {
        (None, None) => Some(text.clone()),
        (Some(unit), None) if text.trim().parse::<f64>().is_ok() => Some(format!("{text} {unit}")),
        _ => None,
    }
}

fn call(name: &str, op: &BinaryOperator, left: &mut Expr, right: &mut Expr) -> Expr {
    let arguments = [
        Expr::Value(Value::SingleQuotedString(op.to_string()).into()),
        std::mem::replace(left, null()),
        std::mem::replace(right, null()),
    ];
    function(name, arguments.to_vec())
}

pub(super) fn function(name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    function_of(ObjectName::from(vec![Ident::new(name)]), arguments)
}

/// The query that `text`, which is ours, is.
pub(super) fn query(text: &str) -> Result<Query, SqlError> {
    match crate::parse::parse(text)?.pop() {
        Some(Statement::Query(query)) => Ok(*query),
        _ => Err(SqlError::internal("a query of ours is none")),
    }
}

/// The expression that an argument without a name is.
pub(super) fn plain(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

pub(super) fn function_of(name: ObjectName, args: Vec<FunctionArg>) -> Expr {
    Expr::Function(Function {
        name,
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None::<DuplicateTreatment>,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Gives each unnamed item PostgreSQL's name, and keeps equal names apart.
fn name_items(select: &mut Select) {
    let mut taken = HashSet::new();
    let mut qualified = HashSet::new();
    let mut every_column = false;
    for item in &select.projection {
        match item {
            SelectItem::Wildcard(_) => every_column = true,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                qualified.insert(vec![last_part(name)]);
            }
            _ => {}
        }
    }
    for item in &mut select.projection {
        let (expr, name) = match item {
            // A column that `*` or an earlier item gives too stands apart from it.
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => {
                let name = folded(ident);
                if every_column {
                    taken.insert(name.clone());
                } else if taken.insert(name.clone()) {
                    continue;
                }
                (Expr::Identifier(ident.clone()), name)
            }
            // A qualified column keeps its qualifier, by which it stays distinct.
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                let path: Vec<String> = parts.iter().map(folded).collect();
                let name = path.last().cloned().unwrap_or_default();
                let of_relation = path.len().checked_sub(2).map(|at| vec![path[at].clone()]);
                let repeated = every_column || of_relation.is_some_and(|relation| qualified.contains(&relation));
                if qualified.insert(path) && !repeated {
                    continue;
                }
                taken.insert(name.clone());
                (Expr::CompoundIdentifier(parts.clone()), name)
            }
            SelectItem::UnnamedExpr(expr) => (expr.clone(), column_name(expr)),
            SelectItem::ExprWithAlias { expr, alias } => {
                if taken.insert(folded(alias)) {
                    continue;
                }
                (expr.clone(), folded(alias))
            }
            _ => continue,
        };
        let mut alias = name.clone();
        let mut copy = 1;
        while !taken.insert(alias.clone()) {
            alias = format!("{name}{APART}{copy}");
            copy += 1;
        }
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) };
    }
}

pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

pub(super) fn last_part(name: &ObjectName) -> String {
    name.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase()).unwrap_or_default()
}

/// The name that PostgreSQL gives a result column: that of the function, the column or the type of a cast.
fn column_name(expr: &Expr) -> String {
    name_of(expr).unwrap_or_else(|| "?column?".to_owned())
}

fn name_of(expr: &Expr) -> Option<String> {
    Some(match expr {
        Expr::Identifier(ident) => folded(ident),
        Expr::CompoundIdentifier(parts) => folded(parts.last()?),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return name_of(inner),
        Expr::Function(function) => match last_part(&function.name).as_str() {
            "tidemill_any" | "tidemill_all" => return None,
            CUT => match arguments_of(function)? {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Cast { expr, .. })), ..] => return name_of(expr),
                _ => return None,
            },
            name => name.to_owned(),
        },
        Expr::Cast { expr, data_type, .. } => match name_of(expr) {
            Some(name) => name,
            None => type_name(data_type),
        },
        Expr::TypedString(typed) => type_name(&typed.data_type),
        Expr::Interval(_) => "interval".to_owned(),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(name_of) {
            Some(name) => name,
            None => "case".to_owned(),
        },
        Expr::Extract { .. } => "extract".to_owned(),
        Expr::Position { .. } => "position".to_owned(),
        Expr::Substring { shorthand: true, .. } => "substr".to_owned(),
        Expr::Substring { .. } => "substring".to_owned(),
        Expr::BinaryOp { op: BinaryOperator::Overlaps, .. } => "overlaps".to_owned(),
        Expr::Trim { trim_where, .. } => match trim_where.map(|place| place.to_string().to_lowercase()).as_deref() {
            Some("leading") => "ltrim".to_owned(),
            Some("trailing") => "rtrim".to_owned(),
            _ => "btrim".to_owned(),
        },
        Expr::Overlay { .. } => "overlay".to_owned(),
        Expr::Ceil { .. } => "ceil".to_owned(),
        Expr::Floor { .. } => "floor".to_owned(),
        Expr::Exists { negated: false, .. } => "exists".to_owned(),
        Expr::Array(_) => "array".to_owned(),
        Expr::Tuple(_) => "row".to_owned(),
        Expr::AtTimeZone { .. } => "timezone".to_owned(),
        Expr::Subquery(query) => match query.body.as_select()?.projection.first()? {
            SelectItem::ExprWithAlias { alias, .. } => folded(alias),
            SelectItem::UnnamedExpr(expr) => return name_of(expr),
            _ => return None,
        },
        Expr::CompoundFieldAccess { root, access_chain } => match access_chain.last() {
            Some(AccessExpr::Dot(Expr::Identifier(ident))) => folded(ident),
            _ => return name_of(root),
        },
        Expr::Value(value) => match &value.value {
            Value::Boolean(_) => "bool".to_owned(),
            _ => return None,
        },
        _ => return None,
    })
}

fn arguments_of(function: &Function) -> Option<&[FunctionArg]> {
    match &function.args {
        FunctionArguments::List(list) => Some(&list.args),
        _ => None,
    }
}

fn type_name(data_type: &datafusion::sql::sqlparser::ast::DataType) -> String {
    let name = data_type.to_string().to_lowercase();
    let base = name.split(['(', '[']).next().unwrap_or(&name).trim();
    match base {
        "int" | "integer" | "int4" => "int4",
        "bigint" | "int8" => "int8",
        "smallint" | "int2" => "int2",
        "double precision" | "double" | "float8" | "float" => "float8",
        "real" | "float4" => "float4",
        "boolean" => "bool",
        "decimal" | "dec" => "numeric",
        "character varying" => "varchar",
        "char" | "character" => "bpchar",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        "time without time zone" => "time",
        other => other,
    }
    .to_owned()
}
