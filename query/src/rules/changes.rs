//! UPDATE and DELETE, on the syntax tree: as queries for the rows that they change.
//!
//! ```text
//! DELETE FROM t USING u WHERE p            ⇒  SELECT t.segment, t.position FROM rows.t AS t, u WHERE p      what is returned comes first
//! UPDATE t SET b = e FROM u WHERE p        ⇒  INSERT INTO rows.t (a, b, …, segment, position)
//!                                             SELECT t.a, e, …, t.segment, t.position FROM rows.t AS t, u WHERE p
//! ```
//!
//! `rows.t` is `t` with the address of each row in two more columns; its name and theirs begin with a byte that no text of a statement has. What is
//! planned as an INSERT is cast, checked and typed as one.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::{
    ast::{
        Assignment, AssignmentTarget, Delete, Expr, FromTable, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
        Insert, ObjectName, Query, SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableObject,
        TableWithJoins, Update, UpdateTableFromKind, Value,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};
use tidemill_storage::{
    scan::{POSITION_NAME, SEGMENT_NAME},
    schema::TableSchema,
};

use super::{
    defaults::is_default,
    returning::{self, Clause},
    subqueries,
    syntax::folded,
};
use crate::{
    SqlError, TableHandle,
    catalog::{PUBLIC, ROWS, TableCatalog},
    error::nearest,
    pg_catalog::default_sql,
    plan::WriteKind,
};

/// What a statement changes.
pub(super) struct Changing {
    pub(super) table: TableHandle,
    pub(super) kind: WriteKind,
    /// RETURNING of UPDATE.
    pub(super) returning: Option<Clause>,
    /// DELETE has a RETURNING: its items are the first ones of the query.
    pub(super) returns: bool,
    /// Other tables may be named in it.
    pub(super) has_others: bool,
}

/// Puts a query in the place of UPDATE and DELETE. `None` for other statements; the WITH of an INSERT goes to what it inserts.
pub(super) fn rewrite(statement: &mut Statement, tables: &dyn TableCatalog) -> Result<Option<Changing>, SqlError> {
    // WITH … DELETE is a query whose body is one.
    let with = match statement {
        Statement::Query(query) => match query.body.as_mut() {
            SetExpr::Update(inner) | SetExpr::Delete(inner) => {
                let (inner, with) = (inner.clone(), query.with.take());
                *statement = inner;
                with
            }
            SetExpr::Insert(inner) => {
                let (inner, with) = (inner.clone(), query.with.take());
                *statement = inner;
                let Statement::Insert(Insert { source: Some(source), .. }) = statement else { return Ok(None) };
                source.with = match (with, source.with.take()) {
                    (Some(mut outer), Some(inner)) => {
                        outer.recursive |= inner.recursive;
                        outer.cte_tables.extend(inner.cte_tables);
                        Some(outer)
                    }
                    (outer, inner) => outer.or(inner),
                };
                return Ok(None);
            }
            _ => return Ok(None),
        },
        Statement::Update(_) | Statement::Delete(_) => None,
        _ => return Ok(None),
    };
    let (mut changing, mut made) = match statement {
        Statement::Update(update) => update_as_insert(update, tables)?,
        Statement::Delete(delete) => delete_as_query(delete, tables)?,
        _ => return Ok(None),
    };
    if with.is_some()
        && let Some(query) = query_of(&mut made)
    {
        query.with = with;
    }
    *statement = made;
    if changing.has_others
        && let Some(clause) = &mut changing.returning
        && clause.items.iter().any(|item| matches!(item, SelectItem::Wildcard(_)))
    {
        return Err(SqlError::not_supported("RETURNING * of UPDATE with FROM")
            .with_hint(format!("Write {}.*, the columns of the table that is changed.", changing.table.name)));
    }
    Ok(Some(changing))
}

type Made = (Changing, Statement);

fn delete_as_query(delete: &Delete, tables: &dyn TableCatalog) -> Result<Made, SqlError> {
    let refused = [
        (!delete.order_by.is_empty(), "ORDER BY"),
        (delete.limit.is_some(), "LIMIT"),
        (!delete.tables.is_empty() || delete.output.is_some(), "this form"),
    ];
    refuse("DELETE", &refused)?;
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [target] = from.as_slice() else { return Err(SqlError::not_supported("DELETE from several tables")) };
    let target = Target::of(target, tables, "delete from")?;
    let others = || delete.using.iter().flatten();
    let mut items = match &delete.returning {
        Some(items) => returning::of_deleted(items, &target.table, &target.alias, others())?,
        None => Vec::new(),
    };
    items.extend([target.column(SEGMENT_NAME), target.column(POSITION_NAME)]);
    let mut statement = template("SELECT 1 FROM x")?;
    fill(&mut statement, items, &target, others(), delete.selection.as_ref())?;
    let changing = Changing {
        table: target.table,
        kind: WriteKind::Delete,
        returning: None,
        returns: delete.returning.is_some(),
        has_others: others().next().is_some(),
    };
    Ok((changing, statement))
}

fn update_as_insert(update: &Update, tables: &dyn TableCatalog) -> Result<Made, SqlError> {
    let refused = [
        (!update.order_by.is_empty(), "ORDER BY"),
        (update.limit.is_some(), "LIMIT"),
        (update.or.is_some() || update.output.is_some(), "this form"),
    ];
    refuse("UPDATE", &refused)?;
    let target = Target::of(&update.table, tables, "update")?;
    let schema = target.table.table.schema();
    let mut values = assigned(&update.assignments, &target.table, &schema)?;
    let columns = schema.columns.iter().map(|column| column.name.as_str());
    let names: Vec<&str> = columns.chain([SEGMENT_NAME, POSITION_NAME]).collect();
    let items = names
        .iter()
        .map(|name| match values.remove(*name) {
            Some(value) => SelectItem::ExprWithAlias { expr: value, alias: Ident::with_quote('"', *name) },
            None => target.column(name),
        })
        .collect();
    let mut statement = template("INSERT INTO x SELECT 1 FROM x")?;
    let from = update.from.iter().flat_map(|from| match from {
        UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from) => from,
    });
    fill(&mut statement, items, &target, from, update.selection.as_ref())?;
    if let Statement::Insert(Insert { table, columns, .. }) = &mut statement {
        *table = TableObject::TableName(target.name());
        *columns = names.iter().map(|name| ObjectName::from(vec![Ident::with_quote('"', *name)])).collect();
    }
    let alias = target.alias;
    let changing = Changing {
        table: target.table,
        kind: WriteKind::Update,
        returning: update.returning.clone().map(|items| Clause { items, alias: Some(alias) }),
        returns: false,
        has_others: update.from.is_some(),
    };
    Ok((changing, statement))
}

/// 0A000 for the first that is there.
fn refuse(what: &str, refused: &[(bool, &str)]) -> Result<(), SqlError> {
    match refused.iter().find(|(is_there, _)| *is_there) {
        Some((_, clause)) => Err(SqlError::not_supported(format!("{what} with {clause}"))),
        None => Ok(()),
    }
}

/// The table that is changed.
struct Target {
    table: TableHandle,
    /// What the statement calls it.
    alias: Ident,
}

impl Target {
    fn of(given: &TableWithJoins, tables: &dyn TableCatalog, what: &str) -> Result<Self, SqlError> {
        let TableFactor::Table { name, alias, .. } = &given.relation else {
            return Err(SqlError::syntax(format!("cannot {what} something that is no table")));
        };
        if !given.joins.is_empty() {
            return Err(SqlError::not_supported(format!("a join in the place of the table to {what}")));
        }
        let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
        let (schema, last) = match parts.as_slice() {
            [last] => (None, folded(last)),
            [schema, last] | [_, schema, last] => (Some(folded(schema)), folded(last)),
            _ => (None, name.to_string()),
        };
        if let Some(other) = schema.filter(|schema| schema != PUBLIC) {
            return Err(SqlError::new("42501", format!("cannot {what} relation \"{other}.{last}\"")));
        }
        if tables.view(&last).is_some() {
            return Err(SqlError::new("42809", format!("cannot {what} view \"{last}\""))
                .with_hint("Change the tables that it reads."));
        }
        let Some(table) = tables.table(&last) else {
            let error = SqlError::undefined_table(&last);
            let known = tables.tables();
            return Err(match nearest(&last, known.iter().map(|table| table.name.as_str())) {
                Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                None => error,
            });
        };
        let alias = alias.as_ref().map_or_else(|| Ident::with_quote('"', last), |alias| alias.name.clone());
        Ok(Self { table, alias })
    }

    fn name(&self) -> ObjectName {
        ObjectName::from(vec![Ident::with_quote('"', ROWS), Ident::with_quote('"', &self.table.name)])
    }

    fn column(&self, name: &str) -> SelectItem {
        let parts = vec![self.alias.clone(), Ident::with_quote('"', name)];
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
    }
}

/// The new values, by column.
fn assigned(
    assignments: &[Assignment],
    table: &TableHandle,
    schema: &TableSchema,
) -> Result<BTreeMap<String, Expr>, SqlError> {
    let mut values = BTreeMap::new();
    let mut assign = |name: &ObjectName, value: &Expr| {
        let column = match name.0.as_slice() {
            [part] => part.as_ident().map(folded),
            _ => None,
        };
        let column = column.unwrap_or_else(|| name.to_string());
        let Some(known) = schema.columns.iter().find(|known| known.name == column) else {
            let message = format!("column \"{column}\" of relation \"{}\" does not exist", table.name);
            let error = SqlError::new("42703", message);
            return Err(match nearest(&column, schema.columns.iter().map(|known| known.name.as_str())) {
                Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
                None => error,
            });
        };
        if table.table.key().is_some_and(|key| key.columns.contains(&known.id)) {
            return Err(SqlError::not_supported(format!("changing column \"{column}\" of the primary key"))
                .with_hint("DELETE the row and INSERT another."));
        }
        let value = match value {
            value if is_default(value) => match &known.default {
                None => Expr::Value(Value::Null.into()),
                Some(value) => literal(&default_sql(value, &known.data_type.to_string()))?,
            },
            Expr::Value(placeholder) if matches!(placeholder.value, Value::Placeholder(_)) => {
                typed(value, &known.data_type.to_string())?
            }
            value => value.clone(),
        };
        match values.insert(column.clone(), value) {
            None => Ok(()),
            Some(_) => Err(SqlError::syntax(format!("multiple assignments to same column \"{column}\""))),
        }
    };
    for Assignment { target, value } in assignments {
        match (target, value) {
            (AssignmentTarget::ColumnName(name), value) => assign(name, value)?,
            (AssignmentTarget::Tuple(names), Expr::Subquery(query)) => {
                let parts = subqueries::of_columns(query, names.len())?;
                let parts = parts.into_iter().map(|part| Expr::Subquery(Box::new(part)));
                names.iter().zip(parts).try_for_each(|(name, value)| assign(name, &value))?;
            }
            (AssignmentTarget::Tuple(names), value) => match row_values(value) {
                Some(given) if given.len() == names.len() => {
                    names.iter().zip(&given).try_for_each(|(name, value)| assign(name, value))?;
                }
                Some(_) => return Err(SqlError::syntax("number of columns does not match number of values")),
                None => {
                    return Err(SqlError::not_supported(
                        "a source of a multiple-column UPDATE that is no sub-SELECT and no ROW() expression",
                    ));
                }
            },
        }
    }
    Ok(values)
}

/// What stands in `(a, b)`, `(a)` and `ROW(a, b)`.
pub(super) fn row_values(value: &Expr) -> Option<Vec<Expr>> {
    match value {
        Expr::Tuple(given) => Some(given.clone()),
        Expr::Nested(one) => Some(vec![one.as_ref().clone()]),
        Expr::Function(call) if call.name.to_string().eq_ignore_ascii_case("row") => {
            let FunctionArguments::List(list) = &call.args else { return None };
            let plain = |arg: &FunctionArg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
                _ => None,
            };
            list.args.iter().map(plain).collect()
        }
        _ => None,
    }
}

/// A parameter that is a column's new value is one of its type.
fn typed(value: &Expr, data_type: &str) -> Result<Expr, SqlError> {
    Ok(match literal(&format!("CAST(1 AS {data_type})"))? {
        Expr::Cast { kind, data_type, array, format, .. } => {
            Expr::Cast { kind, expr: Box::new(value.clone()), data_type, array, format }
        }
        _ => value.clone(),
    })
}

/// An expression of our own making.
pub(super) fn literal(sql: &str) -> Result<Expr, SqlError> {
    let mut frame = template(&format!("SELECT {sql}"))?;
    match query_of(&mut frame).map(|query| query.body.as_mut()) {
        Some(SetExpr::Select(select)) => match select.projection.pop() {
            Some(SelectItem::UnnamedExpr(expr)) => Ok(expr),
            _ => Err(SqlError::internal("a default cannot be read")),
        },
        _ => Err(SqlError::internal("a default cannot be read")),
    }
}

pub(super) fn template(sql: &str) -> Result<Statement, SqlError> {
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok().and_then(|mut parsed| parsed.pop());
    parsed.ok_or_else(|| SqlError::internal("a statement's frame cannot be read"))
}

/// The query of a SELECT, or of an INSERT.
pub(super) fn query_of(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Query(query) => Some(query),
        Statement::Insert(insert) => insert.source.as_deref_mut(),
        _ => None,
    }
}

fn fill<'a>(
    statement: &mut Statement,
    items: Vec<SelectItem>,
    target: &Target,
    others: impl Iterator<Item = &'a TableWithJoins>,
    condition: Option<&Expr>,
) -> Result<(), SqlError> {
    let frame = || SqlError::internal("a statement's frame has no SELECT");
    let query = query_of(statement).ok_or_else(frame)?;
    let SetExpr::Select(select) = query.body.as_mut() else { return Err(frame()) };
    let Some(TableFactor::Table { name, alias, .. }) = select.from.first_mut().map(|from| &mut from.relation) else {
        return Err(frame());
    };
    *name = target.name();
    *alias = Some(TableAlias { explicit: true, name: target.alias.clone(), columns: Vec::new(), at: None });
    select.from.extend(others.cloned());
    select.projection = items;
    select.selection = condition.cloned();
    Ok(())
}
