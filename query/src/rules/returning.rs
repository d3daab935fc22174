//! RETURNING, on the syntax tree: a query of the rows that are written, or more columns of the query for those that are deleted.
//!
//! ```text
//! INSERT INTO t AS a … RETURNING items       ⇒  SELECT items FROM returned.t AS a
//! UPDATE t AS a SET … RETURNING items        ⇒  the same
//! DELETE FROM t USING u … RETURNING items    ⇒  SELECT items, t.segment, t.position FROM rows.t AS t, u …
//! ```
//!
//! `returned.t` is a table of the rows that the statement is about to write, in the columns of `t`; its name begins with a byte that no text of a
//! statement has. So what is returned is what is stored, and where it cannot be computed nothing is written.

use datafusion::{
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{
        Expr, Ident, ObjectName, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias,
        TableFactor, TableWithJoins, WildcardAdditionalOptions,
    },
};

use super::{changes::template, syntax::folded};
use crate::{SqlError, TableHandle, catalog::RETURNED};

/// RETURNING of INSERT or UPDATE.
pub(super) struct Clause {
    pub(super) items: Vec<SelectItem>,
    /// What the statement calls its table.
    pub(super) alias: Option<Ident>,
}

/// Takes the clause off an INSERT, and the other name that it gives its table, which nothing else knows.
pub(super) fn of_insert(statement: &mut Statement) -> Option<Clause> {
    let Statement::Insert(insert) = statement else { return None };
    let alias = insert.table_alias.take().map(|alias| alias.alias);
    insert.returning.take().map(|items| Clause { items, alias })
}

impl Clause {
    /// The query of the rows that are written to the table.
    pub(super) fn query(self, table: &TableHandle) -> Result<Statement, SqlError> {
        let mut statement = template("SELECT 1 FROM x")?;
        let frame = || SqlError::internal("a statement's frame has no SELECT");
        let Statement::Query(query) = &mut statement else { return Err(frame()) };
        let SetExpr::Select(select) = query.body.as_mut() else { return Err(frame()) };
        let Some(TableFactor::Table { name, alias, .. }) = select.from.first_mut().map(|from| &mut from.relation)
        else {
            return Err(frame());
        };
        *name = ObjectName::from(vec![Ident::with_quote('"', RETURNED), Ident::with_quote('"', &table.name)]);
        let own = || Ident::with_quote('"', &table.name);
        *alias =
            Some(TableAlias { explicit: true, name: self.alias.unwrap_or_else(own), columns: Vec::new(), at: None });
        select.projection = self.items;
        Ok(statement)
    }
}

/// The items of DELETE's RETURNING over a table that has more columns than its own, and over `others`.
pub(super) fn of_deleted<'a>(
    items: &[SelectItem],
    table: &TableHandle,
    alias: &Ident,
    others: impl Iterator<Item = &'a TableWithJoins>,
) -> Result<Vec<SelectItem>, SqlError> {
    let schema = table.table.schema();
    let own = || {
        schema.columns.iter().map(|column| {
            let parts = vec![alias.clone(), Ident::with_quote('"', &column.name)];
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
        })
    };
    let mut made = Vec::new();
    let others: Vec<&TableWithJoins> = others.collect();
    for item in items {
        match item {
            SelectItem::Wildcard(_) => {
                made.extend(own());
                for other in &others {
                    for factor in std::iter::once(&other.relation).chain(other.joins.iter().map(|join| &join.relation))
                    {
                        let name = called(factor).ok_or_else(|| {
                            SqlError::not_supported("RETURNING * of DELETE with a relation without a name")
                                .with_hint("Give what USING names an alias, or write the columns.")
                        })?;
                        let kind = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![name]));
                        made.push(SelectItem::QualifiedWildcard(kind, WildcardAdditionalOptions::default()));
                    }
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _)
                if name.0.last().and_then(|part| part.as_ident()).is_some_and(|of| folded(of) == folded(alias)) =>
            {
                made.extend(own());
            }
            item => made.push(item.clone()),
        }
    }
    Ok(made)
}

fn called(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// RETURNING gives one row for each that is written: what would make others of them is refused, as PostgreSQL does. `plan` is as it was first made.
pub(super) fn check(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Aggregate(_) => {
                return Err(SqlError::new("42803", "aggregate functions are not allowed in RETURNING"));
            }
            LogicalPlan::Window(_) => {
                return Err(SqlError::new("42P20", "window functions are not allowed in RETURNING"));
            }
            LogicalPlan::Unnest(_) => {
                return Err(SqlError::new("0A000", "set-returning functions are not allowed in RETURNING"));
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Distinct(_) => {}
            _ => return Ok(()),
        }
        let inputs = node.inputs();
        let [input] = inputs.as_slice() else { return Ok(()) };
        node = input;
    }
}
