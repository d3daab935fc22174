//! The view of rules.

use tidemill_query::SqlError;

use super::{
    Rows,
    rows::{
        Cell,
        Kind::{self, Boolean, Float, Int, Text, Time},
    },
};
use crate::server::{instance::Instance, rules};

pub(super) const RULES: &[(&str, Kind)] = &[
    ("name", Text),
    ("pipeline", Text),
    ("metric", Text),
    ("range", Text),
    ("hold_s", Float),
    ("action", Text),
    ("is_default", Boolean),
    ("enabled", Boolean),
    ("fired", Int),
    ("fired_at", Time),
    ("fired_on", Text),
    ("error", Text),
];

pub(super) fn rules(instance: &Instance) -> Result<Rows, SqlError> {
    let definitions = instance.catalog.definitions();
    let mut rows: Rows = rules::OF_PIPELINES
        .iter()
        .map(|[name, metric, range, action]| {
            vec![
                (*name).into(),
                Cell::Null,
                (*metric).into(),
                (*range).into(),
                Cell::Null,
                (*action).into(),
                true.into(),
                true.into(),
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Null,
            ]
        })
        .collect();
    for rule in rules::all(&definitions) {
        let fired = instance.rules.fired(&rule.name);
        let pipeline = rule.pipeline.and_then(|id| definitions.pipelines.get(&id));
        rows.push(vec![
            rule.name.as_str().into(),
            pipeline.map(|pipeline| pipeline.name.as_str()).into(),
            rule.metric.as_str().into(),
            format!("{} {}", rule.comparison, rule.written).into(),
            Cell::Float(rule.hold_us as f64 / 1e6),
            rule.action.to_string().into(),
            (rule.oid == 0).into(),
            rule.enabled.into(),
            fired.count.into(),
            fired.at_us.map_or(Cell::Null, Cell::Time),
            fired.pipeline.into(),
            fired.error.into(),
        ]);
    }
    Ok(rows)
}
