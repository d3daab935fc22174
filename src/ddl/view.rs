//! CREATE VIEW, and what stands on what: a view keeps the relations that it reads.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::sql::sqlparser::ast;
use tidemill_query::{SessionOptions, rules::views::relations};

use super::columns::check_names;
use crate::{
    catalog::{
        Definitions,
        definition::{ViewColumnDefinition, ViewDefinition},
    },
    runtime,
    server::instance::Instance,
    session::error::{Result, SqlError, state},
    sql::ast::CreateView,
};

pub(super) async fn create(instance: &Arc<Instance>, statement: CreateView) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let before = definitions.view_named(&statement.name.value).cloned();
    if before.is_none() || !statement.or_replace {
        super::free_name(&definitions, &statement.name, false)?;
    }
    let engine = instance.engine()?;
    let session = engine.session(SessionOptions { user: "tidemill".into(), ..SessionOptions::default() });
    let query = statement.query.to_string();
    // The text is a printed one, so that positions in it say nothing to the user.
    let at = |error: tidemill_query::SqlError| SqlError {
        position: Some(statement.query_position),
        ..SqlError::from(error)
    };
    // What is planned is what will be read again.
    let printed = tidemill_query::parse::parse(&query).map_err(at)?.pop();
    let printed = printed.unwrap_or_else(|| ast::Statement::Query(statement.query.clone()));
    let plan = session.plan(&printed, &query).await.map_err(at)?;
    if !plan.parameters().is_empty() {
        return Err(SqlError::new(state::UNDEFINED_PARAMETER, "there is no parameter $1").at(statement.query_position));
    }
    if statement.columns.len() > plan.schema().fields().len() {
        return Err(
            SqlError::syntax("CREATE VIEW specifies more column names than columns").at(statement.name.position)
        );
    }
    check_names(&statement.columns)?;
    let mut names = BTreeSet::new();
    let mut columns = Vec::new();
    for (index, field) in plan.schema().fields().iter().enumerate() {
        let name = statement.columns.get(index).map_or(field.name().as_str(), |name| name.value.as_str());
        let pg_type = tidemill_query::pg_catalog::types::of_field(field);
        let unlimited = matches!(field.data_type(), arrow::datatypes::DataType::Decimal128(38, _));
        columns.push(ViewColumnDefinition {
            name: name.to_owned(),
            source: field.name().clone(),
            type_name: pg_type.name.to_owned(),
            modifier: if unlimited { -1 } else { pg_type.modifier },
        });
        let repeated = plan.schema().fields()[..index].iter().any(|other| other.name() == field.name());
        if !names.insert(name.to_owned()) || repeated {
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", field.name()),
            )
            .at(statement.query_position));
        }
    }
    let uses = relations(&statement.query, engine.tables().as_ref());
    if let Some(before) = &before {
        check_replaced(&definitions, before, &columns, &uses)?;
    }
    let mut view = ViewDefinition {
        oid: before.as_ref().map_or(0, |before| before.oid),
        name: statement.name.value.clone(),
        version: before.as_ref().map_or(1, |before| before.version + 1),
        query,
        columns,
        uses: uses.into_iter().collect(),
        created_at_us: before.as_ref().map_or_else(|| instance.clock.now_us(), |before| before.created_at_us),
    };
    let instance = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        instance.catalog.change(|change| {
            if view.version == 1 {
                view.oid = change.new_oid()?;
            }
            change.put_view(&view)
        })?;
        Ok(())
    })
    .await?;
    Ok(Vec::new())
}

/// CREATE OR REPLACE may add columns at the end; whoever reads the view finds what was there.
fn check_replaced(
    definitions: &Definitions,
    before: &ViewDefinition,
    columns: &[ViewColumnDefinition],
    uses: &BTreeSet<u32>,
) -> Result<()> {
    let refused = |message: String| Err(SqlError::new(state::INVALID_TABLE_DEFINITION, message));
    if columns.len() < before.columns.len() {
        return refused("cannot drop columns from view".into());
    }
    for (was, is) in before.columns.iter().zip(columns) {
        if was.name != is.name {
            return refused(format!("cannot change name of view column \"{}\" to \"{}\"", was.name, is.name));
        }
        if was.type_name != is.type_name {
            return refused(format!(
                "cannot change data type of view column \"{}\" from {} to {}",
                was.name, was.type_name, is.type_name
            ));
        }
    }
    let mut reached: BTreeSet<u32> = uses.clone();
    let mut open: Vec<u32> = uses.iter().copied().collect();
    while let Some(oid) = open.pop() {
        let Some(view) = definitions.views.get(&oid) else { continue };
        open.extend(view.uses.iter().filter(|used| reached.insert(**used)));
    }
    if reached.contains(&before.oid) {
        return refused(format!("infinite recursion detected in rules for relation \"{}\"", before.name));
    }
    Ok(())
}

/// The views that read the relation `oid`, directly or through others; those that nothing reads first.
pub(super) fn dependents(definitions: &Definitions, oid: u32) -> Vec<Arc<ViewDefinition>> {
    fn collect(definitions: &Definitions, oid: u32, found: &mut Vec<Arc<ViewDefinition>>) {
        for view in definitions.views.values().filter(|view| view.uses.contains(&oid)) {
            collect(definitions, view.oid, found);
            if !found.iter().any(|known| known.oid == view.oid) {
                found.push(Arc::clone(view));
            }
        }
    }
    let mut found = Vec::new();
    collect(definitions, oid, &mut found);
    found
}

/// 2BP01 when views other than those of `dropped` read the relation.
pub(super) fn check_unread(definitions: &Definitions, kind: &str, name: &str, oid: u32, dropped: &[u32]) -> Result<()> {
    let views = dependents(definitions, oid).into_iter().filter(|view| !dropped.contains(&view.oid));
    let detail: Vec<String> = views.map(|view| format!("view {} depends on {kind} {name}", view.name)).collect();
    if detail.is_empty() {
        return Ok(());
    }
    Err(SqlError::new(
        state::DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot drop {kind} {name} because other objects depend on it"),
    )
    .with_detail(detail.join("\n"))
    .with_hint("Use DROP ... CASCADE to drop the dependent objects too."))
}

/// Takes views away, in one change.
pub(super) async fn drop_views(instance: &Arc<Instance>, views: Vec<Arc<ViewDefinition>>) -> Result<()> {
    if views.is_empty() {
        return Ok(());
    }
    let instance = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        instance.catalog.change(|change| views.iter().try_for_each(|view| change.remove_view(view)))?;
        Ok(())
    })
    .await
}
