//! CREATE FUNCTION and DROP FUNCTION.

use std::{ops::ControlFlow, sync::Arc};

use datafusion::sql::sqlparser::ast::{Expr, Visit, Visitor};
use tidemill_ingest::pipeline::plan;
use tidemill_query::functions::user::Language;

use super::{
    pipeline::drop_pipeline,
    view::{dependents, drop_views},
};
use crate::{
    catalog::{
        Definitions,
        definition::{FunctionArgumentDefinition, FunctionDefinition, PipelineDefinition, ViewDefinition},
    },
    runtime,
    server::{functions, instance::Instance},
    session::error::{Result, SqlError, state},
    sql::ast::{CreateFunction, Module, Name},
    suggest,
};

pub(super) async fn create(instance: &Arc<Instance>, statement: CreateFunction) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let name = &statement.name;
    let before = definitions.function_named(&name.value).cloned();
    let is_built_in = before.is_none() && instance.engine()?.has_function(&name.value);
    if is_built_in || before.is_some() && !statement.or_replace {
        let message = format!("function \"{}\" already exists", name.value);
        if statement.if_not_exists && !is_built_in {
            return Ok(vec![format!("{message}, skipping")]);
        }
        return Err(SqlError::new(state::DUPLICATE_FUNCTION, message).at(name.position).with_hint(match is_built_in {
            true => "it is one that the server has; take another name",
            false => "CREATE OR REPLACE FUNCTION gives it another body",
        }));
    }
    let arguments = statement.arguments.iter().map(|argument| FunctionArgumentDefinition {
        name: argument.name.clone(),
        data_type: argument.data_type.clone(),
    });
    let mut definition = FunctionDefinition {
        oid: 0,
        name: name.value.clone(),
        version: 1,
        arguments: arguments.collect(),
        returns: statement.returns.clone(),
        language: statement.language,
        called_on_null: statement.called_on_null,
        symbol: match statement.language {
            Language::Wasm => statement.symbol.clone().unwrap_or_else(|| name.value.clone()),
            // The one that is found to be meant.
            Language::Model => statement.symbol.clone().unwrap_or_default(),
        },
        module: String::new(),
        path: match &statement.module {
            Module::Path(path) => Some(path.clone()),
            Module::Bytes(_) => None,
        },
        created_at_us: instance.clock.now_us(),
    };
    if let Some(before) = &before {
        check_types(before, &definition).map_err(|error| error.at(name.position))?;
        check_uncalled(instance, &definitions, &name.value).map_err(|error| error.at(name.position))?;
        (definition.oid, definition.version) = (before.oid, before.version + 1);
        definition.created_at_us = before.created_at_us;
    }
    let (instance, module) = (Arc::clone(instance), statement.module);
    let made = runtime::blocking(move || -> Result<()> {
        let bytes = match module {
            Module::Path(path) => functions::read(&path)?,
            Module::Bytes(bytes) => bytes,
        };
        if definition.version == 1 {
            definition.oid = instance.catalog.change(|change| change.new_oid())?;
        }
        // What does not work is found out before anything is kept.
        let made = instance.functions.compile(&definition, &bytes)?;
        definition.symbol = made.symbol().to_owned();
        definition.module = functions::keep(&instance.directory, definition.language, &bytes)?;
        instance.catalog.change(|change| change.put_function(&definition))?;
        instance.functions.put(&instance, &made)?;
        functions::clean(&instance);
        Ok(())
    });
    made.await.map_err(|error| SqlError { position: error.position.or(Some(statement.module_position)), ..error })?;
    Ok(Vec::new())
}

/// A function keeps what it takes and gives, as in PostgreSQL: what was planned with it goes on to mean the same.
fn check_types(before: &FunctionDefinition, after: &FunctionDefinition) -> Result<()> {
    let types = |of: &FunctionDefinition| -> Vec<_> {
        of.arguments.iter().map(|argument| argument.data_type.clone()).chain([of.returns.clone()]).collect()
    };
    if types(before) == types(after) {
        return Ok(());
    }
    let message = format!("cannot change what function \"{}\" takes and gives", before.name);
    Err(SqlError::new(state::INVALID_FUNCTION_DEFINITION, message)
        .with_hint(format!("DROP FUNCTION {} first", before.name)))
}

/// A pipeline derives rows again after a failure, and they have to be the same ones: a function that it calls does not become another one.
fn check_uncalled(instance: &Instance, definitions: &Definitions, name: &str) -> Result<()> {
    let pipelines = pipelines_calling(instance, definitions, name);
    let Some(first) = pipelines.first() else { return Ok(()) };
    let names: Vec<String> = pipelines.iter().map(|pipeline| format!("pipeline \"{}\"", pipeline.name)).collect();
    let message = format!("cannot replace function \"{name}\" because a pipeline calls it");
    Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message)
        .with_detail(format!("{} calls it", names.join(", ")))
        .with_hint(format!(
            "create a function of another name, and CREATE OR REPLACE PIPELINE \"{}\" with a query that calls that",
            first.name
        )))
}

pub(super) fn undefined_function(definitions: &Definitions, name: &Name) -> SqlError {
    let message = format!("function \"{}\" does not exist", name.value);
    let error = SqlError::new(state::UNDEFINED_FUNCTION, message).at(name.position);
    match suggest::hint(&name.value, definitions.functions.values().map(|function| function.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn pipelines_calling(instance: &Instance, definitions: &Definitions, function: &str) -> Vec<Arc<PipelineDefinition>> {
    let pipelines = definitions.pipelines.values().filter(|pipeline| {
        // What cannot be read any more calls nothing.
        plan::parse(instance.expressions(), &pipeline.query).is_ok_and(|query| calls(&*query, function))
    });
    pipelines.cloned().collect()
}

/// The views whose text has a call of the function, without those that read these.
fn views_calling(definitions: &Definitions, function: &str) -> Vec<Arc<ViewDefinition>> {
    let views = definitions.views.values().filter(|view| {
        let statements = tidemill_query::parse::parse(&view.query).unwrap_or_default();
        statements.iter().any(|statement| calls(statement, function))
    });
    views.cloned().collect()
}

/// Whether a function is called in a query, at any depth.
fn calls(query: &impl Visit, function: &str) -> bool {
    struct Calls<'a>(&'a str);
    impl Visitor for Calls<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
            let name = call.name.0.last().and_then(|part| part.as_ident());
            let is_called = name.is_some_and(|name| match name.quote_style {
                Some(_) => name.value == self.0,
                None => name.value.to_lowercase() == self.0,
            });
            if is_called { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    query.visit(&mut Calls(function)).is_break()
}

/// Takes a function away, with CASCADE the pipelines and views that call it, too.
pub(super) async fn drop_function(
    instance: &Arc<Instance>,
    name: &Name,
    cascade: bool,
    notices: &mut Vec<String>,
) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let Some(definition) = definitions.function_named(&name.value).cloned() else { return Ok(()) };
    let pipelines = pipelines_calling(instance, &definitions, &name.value);
    let views = views_calling(&definitions, &name.value);
    let is_called = !pipelines.is_empty() || !views.is_empty();
    if is_called && !cascade {
        let of_pipelines = pipelines.iter().map(|pipeline| format!("pipeline {}", pipeline.name));
        let of_views = views.iter().map(|view| format!("view {}", view.name));
        let detail = of_pipelines.chain(of_views).map(|what| format!("{what} depends on function {}", name.value));
        let message = format!("cannot drop function {} because other objects depend on it", name.value);
        return Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message)
            .at(name.position)
            .with_detail(detail.collect::<Vec<_>>().join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    for pipeline in &pipelines {
        notices.push(format!("drop cascades to pipeline {}", pipeline.name));
        notices.extend(drop_pipeline(instance, pipeline).await?);
    }
    let mut gone: Vec<Arc<ViewDefinition>> = Vec::new();
    for view in views.into_iter().flat_map(|view| dependents(&definitions, view.oid).into_iter().chain([view])) {
        if !gone.iter().any(|known| known.oid == view.oid) {
            notices.push(format!("drop cascades to view {}", view.name));
            gone.push(view);
        }
    }
    drop_views(instance, gone).await?;
    let instance = Arc::clone(instance);
    runtime::blocking(move || -> Result<()> {
        // First it is found no more: no plan is to be made with it that is thought to be of the definitions after.
        let callable = instance.functions.take(&instance, &definition.name)?;
        if let Err(error) = instance.catalog.change(|change| change.remove_function(&definition)) {
            callable.map_or(Ok(()), |made| instance.functions.put(&instance, &made))?;
            return Err(error.into());
        }
        instance.functions.forget(&definition.name);
        functions::clean(&instance);
        Ok(())
    })
    .await
}
