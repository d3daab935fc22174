//! Functions that tell of, or change, the session: `version()`, `current_setting`, `set_config`, `pg_backend_pid`, …

use std::{any::Any, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, StringViewArray},
    datatypes::{DataType, Int32Type},
};
use datafusion::{
    common::config::{ConfigEntry, ConfigExtension, ExtensionOptions},
    error::DataFusionError,
    logical_expr::{ScalarUDF, Volatility},
    scalar::ScalarValue,
};
use tidemill_storage::schema::UTC;

use super::simple::{Call, Returns, Simple, any, any_of};
use crate::{SqlError, catalog::DATABASE, exec::work::StopFlag, rules::types, session::SessionShared};

/// The PostgreSQL whose behaviour is followed.
pub const SERVER_VERSION: &str = "15.0";

/// The session, for functions: it travels in the configuration that every function call is given.
#[derive(Clone, Debug)]
pub(crate) struct SessionFacts {
    pub(crate) shared: Arc<SessionShared>,
    /// When the statement began: what `now()` says all through it.
    pub(crate) statement_us: Option<i64>,
    /// Raised when the statement is to stop: for functions that work long.
    pub(crate) stop: StopFlag,
}

impl SessionFacts {
    pub(crate) fn now_us(&self) -> i64 {
        self.statement_us.unwrap_or_else(|| self.clock_us())
    }

    fn clock_us(&self) -> i64 {
        self.shared.engine.upgrade().map_or(0, |engine| engine.clock.now_us())
    }
}

impl ConfigExtension for SessionFacts {
    const PREFIX: &'static str = "tidemill";
}

impl ExtensionOptions for SessionFacts {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<(), DataFusionError> {
        Err(SqlError::new("42704", format!("unrecognized configuration parameter \"{key}\"")).into())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

pub(crate) fn udfs() -> Vec<Arc<ScalarUDF>> {
    use Volatility::{Stable, Volatile};
    let text = || Returns::Type(DataType::Utf8View);
    let instant = || Returns::Type(types::timestamptz());
    vec![
        Simple::udf("version", any(0, Stable), text(), |call| {
            let version = call
                .session()
                .and_then(|session| session.shared.engine.upgrade())
                .map_or_else(String::new, |engine| engine.config.version.clone());
            one_text(call, format!("PostgreSQL {SERVER_VERSION} (Tidemill {version})"))
        }),
        Simple::udf("current_database", any(0, Stable), text(), |call| one_text(call, DATABASE.to_owned())),
        Simple::aliased("current_catalog", &[], any(0, Stable), text(), |call| one_text(call, DATABASE.to_owned())),
        Simple::udf("current_schema", any(0, Stable), text(), |call| {
            let path = call.session().map(|session| session.shared.settings.lock().search_path()).unwrap_or_default();
            let first = path.into_iter().find(|schema| schema != "pg_catalog");
            repeated(call, ScalarValue::Utf8View(first))
        }),
        Simple::aliased("current_user", &["session_user", "user", "current_role"], any(0, Stable), text(), |call| {
            one_text(call, call.session().map(|session| session.shared.user.clone()).unwrap_or_default())
        }),
        Simple::udf("pg_backend_pid", any(0, Stable), Returns::Type(DataType::Int32), |call| {
            repeated(call, ScalarValue::Int32(call.session().map(|session| session.shared.pid)))
        }),
        Simple::aliased(
            "now",
            &["current_timestamp", "transaction_timestamp", "statement_timestamp"],
            any_of(&[0, 1], Stable),
            instant(),
            |call| {
                let now = call.session().map(SessionFacts::now_us);
                repeated(call, ScalarValue::TimestampMicrosecond(now, Some(UTC.into())))
            },
        ),
        Simple::udf("clock_timestamp", any(0, Volatile), instant(), |call| {
            let now = call.session().map(SessionFacts::clock_us);
            repeated(call, ScalarValue::TimestampMicrosecond(now, Some(UTC.into())))
        }),
        Simple::udf("localtimestamp", any_of(&[0, 1], Stable), Returns::Type(types::timestamp()), |call| {
            let zone = call.zone()?;
            let now = call.session().map(|session| zone.to_local(session.now_us()));
            repeated(call, ScalarValue::TimestampMicrosecond(now, None))
        }),
        Simple::aliased("current_date", &["today"], any(0, Stable), Returns::Type(DataType::Date32), |call| {
            let zone = call.zone()?;
            let today = call.session().map(|session| zone.to_local(session.now_us()).div_euclid(86_400_000_000) as i32);
            repeated(call, ScalarValue::Date32(today))
        }),
        Simple::udf("current_setting", any_of(&[1, 2], Stable), text(), current_setting),
        Simple::udf("set_config", any(3, Volatile), text(), set_config),
        Simple::udf("pg_cancel_backend", any(1, Volatile), Returns::Type(DataType::Boolean), |call| {
            let pids = call.cast(0, &DataType::Int32)?;
            let engine = call.session().and_then(|session| session.shared.engine.upgrade());
            let cancelled = pids
                .as_primitive::<Int32Type>()
                .iter()
                .map(|pid| pid.map(|pid| engine.as_ref().is_some_and(|engine| engine.queries().cancel_backend(pid))));
            Ok(Arc::new(cancelled.collect::<BooleanArray>()))
        }),
        Simple::udf("pg_notify", any(2, Volatile), text(), |call| {
            let (channels, payloads) = (call.text(0)?, call.text(1)?);
            let session = call.session().ok_or_else(|| SqlError::internal("a session is needed"))?;
            let mut outbox = session.shared.outbox.lock();
            for (channel, payload) in channels.iter().zip(&payloads) {
                outbox.push(channel.unwrap_or_default(), payload.unwrap_or_default())?;
            }
            one_text(call, String::new())
        }),
        Simple::udf("pg_typeof", any(1, Stable), text(), |call| one_text(call, types::name(&call.fields[0]))),
    ]
}

pub(crate) fn repeated(call: &Call<'_>, value: ScalarValue) -> Result<ArrayRef, DataFusionError> {
    value.to_array_of_size(call.rows)
}

fn one_text(call: &Call<'_>, text: String) -> Result<ArrayRef, DataFusionError> {
    repeated(call, ScalarValue::Utf8View(Some(text)))
}

fn current_setting(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let names = call.text(0)?;
    let missing_ok =
        call.arrays.len() == 2 && call.cast(1, &DataType::Boolean)?.as_boolean().iter().any(|ok| ok == Some(true));
    let session = call.session().ok_or_else(|| SqlError::internal("a session is needed"))?;
    let settings = session.shared.settings.lock();
    let mut out = Vec::with_capacity(names.len());
    for name in &names {
        out.push(match name.map(|name| settings.show(name)) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(_)) if missing_ok => None,
            Some(Err(error)) => return Err(error.into()),
        });
    }
    Ok(Arc::new(out.into_iter().collect::<StringViewArray>()))
}

fn set_config(call: &Call<'_>) -> Result<ArrayRef, DataFusionError> {
    let (names, values, local) = (call.text(0)?, call.text(1)?, call.cast(2, &DataType::Boolean)?);
    let session = call.session().ok_or_else(|| SqlError::internal("a session is needed"))?;
    let mut settings = session.shared.settings.lock();
    let mut out = Vec::with_capacity(names.len());
    for (row, name) in names.iter().enumerate() {
        let name = name.ok_or_else(|| SqlError::new("22004", "SET requires parameter name"))?;
        let local = local.is_valid(row) && local.as_boolean().value(row);
        match values.is_null(row) {
            true => settings.reset(name)?,
            false => settings.set(name, values.value(row), local)?,
        }
        out.push(Some(settings.show(name)?));
    }
    Ok(Arc::new(out.into_iter().collect::<StringViewArray>()))
}
