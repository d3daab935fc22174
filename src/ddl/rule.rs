//! CREATE, ALTER and DROP RULE.

use super::pipeline::{check_options, undefined_pipeline};
use crate::{
    catalog::{
        Definitions,
        definition::{PipelineOptions, RuleDefinition},
    },
    server::{
        instance::Instance,
        rules::{
            self,
            metrics::{METRICS, Metric},
        },
    },
    session::error::{Result, SqlError, state},
    sql::ast::{AlterRule, CreateRule, Name},
    suggest,
};

pub(super) fn create(instance: &Instance, statement: CreateRule) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let name = &statement.name;
    if rules::is_of_pipelines(&name.value) {
        return Err(of_pipelines(name));
    }
    let before = definitions.rule_named(&name.value);
    let is_shipped = before.is_none() && rules::shipped().iter().any(|rule| rule.name == name.value);
    if (before.is_some() || is_shipped) && !statement.or_replace {
        let message = format!("rule \"{}\" already exists", name.value);
        return match statement.if_not_exists {
            true => Ok(vec![format!("{message}, skipping")]),
            false => Err(SqlError::new(state::DUPLICATE_OBJECT, message)
                .at(name.position)
                .with_hint("CREATE OR REPLACE RULE gives it other bounds")),
        };
    }
    let pipeline = match &statement.pipeline {
        Some(name) => {
            Some(definitions.pipeline_named(&name.value).ok_or_else(|| undefined_pipeline(&definitions, name))?)
        }
        None => None,
    };
    let metric = metric(&statement.metric)?;
    let invalid = |message: String| SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(statement.bound_position);
    let bound = metric.unit.parse(&statement.bound).map_err(|error| invalid(format!("{}: {error}", metric.name)))?;
    let options = pipeline.map_or_else(PipelineOptions::default, |pipeline| pipeline.options.clone());
    check_options(&options, &statement.options)?;
    let mut rule = RuleDefinition {
        oid: 0,
        name: name.value.clone(),
        version: 1,
        pipeline: pipeline.map(|pipeline| pipeline.id),
        metric: metric.name.to_owned(),
        comparison: statement.comparison,
        bound,
        written: statement.bound.clone(),
        hold_us: statement.hold_us,
        action: statement.action.clone(),
        enabled: true,
        created_at_us: instance.clock.now_us(),
    };
    if let Some(before) = before {
        (rule.oid, rule.version, rule.created_at_us) = (before.oid, before.version + 1, before.created_at_us);
    }
    put(instance, rule)
}

fn put(instance: &Instance, mut rule: RuleDefinition) -> Result<Vec<String>> {
    instance.catalog.change(|change| {
        if rule.oid == 0 {
            rule.oid = change.new_oid()?;
        }
        change.put_rule(&rule)
    })?;
    Ok(Vec::new())
}

fn metric(name: &Name) -> Result<&'static Metric> {
    Metric::named(&name.value).ok_or_else(|| {
        let names = METRICS.iter().map(|metric| metric.name);
        let known = format!("there are {}", names.clone().collect::<Vec<_>>().join(", "));
        let message = format!("pipelines have no metric \"{}\"", name.value);
        let error = SqlError::new(state::UNDEFINED_COLUMN, message).at(name.position).with_detail(known);
        match suggest::hint(&name.value, names) {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

pub(super) fn alter(instance: &Instance, statement: AlterRule) -> Result<Vec<String>> {
    let definitions = instance.catalog.definitions();
    let name = &statement.name;
    if rules::is_of_pipelines(&name.value) {
        return Err(of_pipelines(name));
    }
    let Some(rule) = rules::all(&definitions).into_iter().find(|rule| rule.name == name.value) else {
        let error = undefined_rule(&definitions, name);
        return match statement.if_exists {
            true => Ok(vec![format!("{}, skipping", error.message)]),
            false => Err(error),
        };
    };
    if rule.enabled == statement.enabled {
        return Ok(Vec::new());
    }
    put(instance, RuleDefinition { enabled: statement.enabled, version: rule.version + 1, ..(*rule).clone() })
}

/// Takes a rule away; of one that stood in the place of one of every server, that one is back.
pub(super) fn drop_rule(instance: &Instance, name: &Name) -> Result<()> {
    let definitions = instance.catalog.definitions();
    let Some(rule) = definitions.rule_named(&name.value) else { return Ok(()) };
    Ok(instance.catalog.change(|change| change.remove_rule(rule))?)
}

pub(super) fn undefined_rule(definitions: &Definitions, name: &Name) -> SqlError {
    if rules::is_of_pipelines(&name.value) {
        return of_pipelines(name);
    }
    if rules::shipped().iter().any(|rule| rule.name == name.value) {
        let message = format!("rule \"{}\" is one that every server has, and cannot be dropped", name.value);
        return SqlError::new(state::WRONG_OBJECT_TYPE, message)
            .at(name.position)
            .with_hint(format!("ALTER RULE {} DISABLE", name.value));
    }
    let message = format!("rule \"{}\" does not exist", name.value);
    let error = SqlError::new(state::UNDEFINED_OBJECT, message).at(name.position);
    match suggest::hint(&name.value, definitions.rules.values().map(|rule| rule.name.as_str())) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn of_pipelines(name: &Name) -> SqlError {
    let message = format!("rule \"{}\" is one that pipelines follow by themselves", name.value);
    SqlError::new(state::WRONG_OBJECT_TYPE, message)
        .at(name.position)
        .with_hint("ALTER PIPELINE … SET (stuck_after = '…') says how long one may do nothing about what waits for it; '0': for ever")
}
