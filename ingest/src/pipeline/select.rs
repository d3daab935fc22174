//! The text of `SELECT items [WHERE condition]`, taken apart.

use datafusion::{
    common::config::Dialect,
    sql::{
        parser::Statement,
        sqlparser::ast::{self, SelectItem, SetExpr},
    },
};

use super::{
    expression::{definition, plain_message},
    rules::Rules,
};
use crate::{Error, Result};

/// What a SELECT makes of each row.
#[derive(Debug)]
pub(super) struct Select {
    pub(super) items: Vec<Item>,
    pub(super) condition: Option<ast::Expr>,
}

#[derive(Debug)]
pub(super) enum Item {
    /// `*`
    Wildcard,
    Derived {
        name: String,
        expression: Box<ast::Expr>,
    },
}

impl Select {
    /// `None` is `SELECT *`.
    pub(super) fn parse(rules: &dyn Rules, text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self { items: vec![Item::Wildcard], condition: None }) };
        let statement = rules
            .state()
            .sql_to_statement(text, &Dialect::PostgreSQL)
            .map_err(|error| definition(format!("cannot read AS SELECT: {}", plain_message(&error))))?;
        let Statement::Statement(statement) = statement else { return Err(only_select("")) };
        let ast::Statement::Query(query) = *statement else { return Err(only_select("")) };
        let whole = query.to_string();
        let SetExpr::Select(select) = *query.body else {
            return Err(only_select("; UNION and VALUES are not among it"));
        };
        if !select.from.is_empty() {
            return Err(only_select("; it reads from the source alone and has no FROM"));
        }
        // Whatever else a query may have shows in its text.
        let items: Vec<String> = select.projection.iter().map(ToString::to_string).collect();
        let mut plain = format!("SELECT {}", items.join(", "));
        if let Some(condition) = &select.selection {
            plain.push_str(&format!(" WHERE {condition}"));
        }
        if plain != whole {
            return Err(only_select(""));
        }
        let items = select.projection.into_iter().map(item).collect::<Result<Vec<_>>>()?;
        Ok(Self { items, condition: select.selection })
    }
}

fn only_select(more: &str) -> Error {
    Error::Definition {
        message: format!("AS takes SELECT items [WHERE condition]{more}"),
        hint: Some("CREATE PIPELINE takes joins, aggregates and windows".into()),
    }
}

fn item(item: SelectItem) -> Result<Item> {
    match item {
        SelectItem::Wildcard(options) => {
            if options.to_string().is_empty() {
                Ok(Item::Wildcard)
            } else {
                Err(definition("* stands alone in AS SELECT, without EXCLUDE, REPLACE or RENAME"))
            }
        }
        SelectItem::ExprWithAlias { expr, alias } => {
            Ok(Item::Derived { name: identifier(&alias), expression: Box::new(expr) })
        }
        SelectItem::UnnamedExpr(expression) => {
            let name = match &expression {
                ast::Expr::Identifier(name) => identifier(name),
                other => {
                    return Err(Error::Definition {
                        message: format!("the expression {other} has no name"),
                        hint: Some("name the column of the table that it is for with AS".into()),
                    });
                }
            };
            Ok(Item::Derived { name, expression: Box::new(expression) })
        }
        other => Err(definition(format!("{other} is not understood in AS SELECT"))),
    }
}

/// Folded to lower case unless it stands in quotes.
fn identifier(name: &ast::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}
