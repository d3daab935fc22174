//! Views of queries and settings.

use tidemill_query::{
    SqlError,
    registry::{QueryRecord, QueryState},
};

use super::{
    Cell,
    Kind::{self, Boolean, Float, Int, Text, Time},
    Rows,
};
use crate::{config, server::instance::Instance};

pub(super) const QUERIES: &[(&str, Kind)] = &[
    ("id", Int),
    ("pid", Int),
    ("user", Text),
    ("state", Text),
    ("started_at", Time),
    ("elapsed_ms", Float),
    ("rows", Int),
    ("query", Text),
];

pub(super) fn queries(instance: &Instance) -> Result<Rows, SqlError> {
    let Ok(engine) = instance.engine() else { return Ok(Rows::new()) };
    Ok(engine.queries().running().into_iter().map(query_row).collect())
}

pub(super) const QUERY_LOG: &[(&str, Kind)] = &[
    ("id", Int),
    ("pid", Int),
    ("user", Text),
    ("state", Text),
    ("started_at", Time),
    ("elapsed_ms", Float),
    ("rows", Int),
    ("query", Text),
    ("sqlstate", Text),
    ("error", Text),
];

pub(super) fn query_log(instance: &Instance) -> Result<Rows, SqlError> {
    let Ok(engine) = instance.engine() else { return Ok(Rows::new()) };
    let ended = engine.queries().log().into_iter().filter(|record| record.state != QueryState::Running);
    Ok(ended
        .map(|record| {
            let (sqlstate, error) =
                record.error.clone().map_or((Cell::Null, Cell::Null), |(state, error)| (state.into(), error.into()));
            let mut row = query_row(record);
            row.extend([sqlstate, error]);
            row
        })
        .collect())
}

fn query_row(record: QueryRecord) -> Vec<Cell> {
    vec![
        record.id.into(),
        i64::from(record.pid).into(),
        record.user.into(),
        record.state.name().into(),
        Cell::Time(record.started_us),
        Cell::Float(record.elapsed_us as f64 / 1_000.0),
        record.rows.into(),
        record.sql.as_ref().into(),
    ]
}

pub(super) const SETTINGS: &[(&str, Kind)] = &[
    ("name", Text),
    ("value", Text),
    ("is_default", Boolean),
    ("environment", Text),
    ("flag", Text),
    ("description", Text),
];

pub(super) fn settings(instance: &Instance) -> Result<Rows, SqlError> {
    Ok(config::SETTINGS
        .iter()
        .map(|setting| {
            vec![
                setting.path().into(),
                instance.config.value(setting).into(),
                (!instance.config.given.contains_key(&setting.path())).into(),
                setting.environment().into(),
                format!("--{}", setting.flag()).into(),
                setting.help.into(),
            ]
        })
        .collect())
}
