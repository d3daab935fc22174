//! The extended protocol: Parse, Bind, Describe, Execute, Close.
//!
//! A portal that returns rows is a [`Cursor`]: Execute takes as many rows as it asks for and leaves the rest unread, so nothing is
//! gathered on the way.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    connection::{Connection, End, watched},
    frame::{Bind, Frame},
    reply::{self, Plain},
};
use crate::session::{
    Column, ColumnBuilder, Cursor, PgType, Prepared, Response, RowsTag, Session, SqlError, Status, state,
    statement::{self, Step},
    value::encode::Format,
};

/// Portals of one session.
const PORTALS_MAX: usize = 1_000;

/// A statement with its parameters.
struct Portal {
    prepared: Option<Arc<Prepared>>,
    values: Vec<ScalarValue>,
    result_formats: Vec<i16>,
    state: PortalState,
}

enum PortalState {
    New,
    Open { cursor: Cursor, tag: RowsTag },
    Done,
}

/// The portals of one session.
#[derive(Default)]
pub(super) struct Portals {
    portals: HashMap<String, Portal>,
}

impl Portals {
    pub(super) fn clear_unnamed(&mut self) {
        self.portals.remove("");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// One message; an error makes the rest up to Sync be passed over.
    pub(super) async fn extended(&mut self, frame: Frame) -> Result<(), End> {
        let done = match frame {
            Frame::Parse { name, sql, types } => self.parse(&name, &sql, &types).await?,
            Frame::Bind(bind) => self.bind(bind).await?,
            Frame::Describe { portal: false, name } => self.describe_statement(&name),
            Frame::Describe { portal: true, name } => self.describe_portal(&name),
            Frame::Execute { portal, limit } => self.execute(&portal, limit).await?,
            Frame::Close { portal, name } => {
                if portal {
                    self.portals.portals.remove(&name);
                } else {
                    self.session.forget_prepared(&name);
                }
                reply::plain(&mut self.socket.output, Plain::CloseComplete);
                Ok(())
            }
            Frame::Flush => return self.flush().await,
            _ => Ok(()),
        };
        if let Err(error) = done {
            self.skips_to_sync = true;
            self.failed(&error)?;
            // A client may send Sync only after it has read the error.
            return self.flush().await;
        }
        Ok(())
    }

    /// The implicit transaction of the messages since the last Sync ends.
    pub(super) fn sync(&mut self) {
        self.session.end_implicit();
        if self.session.status() == Status::Idle {
            self.portals.portals.clear();
        }
    }

    async fn parse(&mut self, name: &str, sql: &str, oids: &[u32]) -> Result<Result<(), SqlError>, End> {
        let prepared = match watched(&mut self.socket, prepare(&self.session, sql, oids)).await? {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.session.keep_prepared(name, prepared).map(|()| {
            reply::plain(&mut self.socket.output, Plain::ParseComplete);
        }))
    }

    async fn bind(&mut self, bind: Bind) -> Result<Result<(), SqlError>, End> {
        let bound = watched(&mut self.socket, bound(&self.session, &bind)).await?;
        let portals = &mut self.portals.portals;
        let kept = bound.and_then(|portal| {
            if !bind.portal.is_empty() && portals.contains_key(&bind.portal) {
                let message = format!("cursor \"{}\" already exists", bind.portal);
                return Err(SqlError::new(state::DUPLICATE_CURSOR, message));
            }
            if portals.len() >= PORTALS_MAX {
                let message = format!("a session can have {PORTALS_MAX} portals");
                return Err(
                    SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message).with_hint("close those that are not needed")
                );
            }
            portals.insert(bind.portal, portal);
            Ok(())
        });
        Ok(kept.map(|()| reply::plain(&mut self.socket.output, Plain::BindComplete)))
    }

    fn describe_statement(&mut self, name: &str) -> Result<(), SqlError> {
        let prepared = self.session.prepared(name)?;
        let out = &mut self.socket.output;
        reply::parameter_description(out, prepared.parameters.iter().map(|pg_type| pg_type.oid()));
        match &prepared.columns {
            Some(columns) => reply::row_description(out, columns, |_| Format::Text),
            None => reply::plain(out, Plain::NoData),
        }
        Ok(())
    }

    fn describe_portal(&mut self, name: &str) -> Result<(), SqlError> {
        let Some(portal) = self.portals.portals.get(name) else {
            // What DECLARE opened is a portal, too.
            let cursor = self.session.cursor(name).map_err(|_| no_portal(name))?;
            let format = if cursor.binary { Format::Binary } else { Format::Text };
            reply::row_description(&mut self.socket.output, &cursor.columns, |_| format);
            return Ok(());
        };
        let out = &mut self.socket.output;
        match portal.prepared.as_ref().and_then(|prepared| prepared.columns.as_ref()) {
            Some(columns) => {
                let formats = formats(&portal.result_formats, columns.len())?;
                reply::row_description(out, columns, |index| formats[index]);
            }
            None => reply::plain(out, Plain::NoData),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, limit: u32) -> Result<Result<(), SqlError>, End> {
        // Taken out for the time it runs, so that an error leaves no half-read portal behind.
        let Some(mut portal) = self.portals.portals.remove(name) else { return Ok(Err(no_portal(name))) };
        let done = self.execute_portal(&mut portal, limit).await?;
        self.session.end();
        if done.is_ok() {
            self.portals.portals.insert(name.to_owned(), portal);
        }
        Ok(done)
    }

    async fn execute_portal(&mut self, portal: &mut Portal, limit: u32) -> Result<Result<(), SqlError>, End> {
        let Some(prepared) = portal.prepared.clone() else {
            reply::plain(&mut self.socket.output, Plain::EmptyQuery);
            return Ok(Ok(()));
        };
        if let Err(error) = self.session.begin(&prepared.statement) {
            return Ok(Err(error));
        }
        if matches!(portal.state, PortalState::New) {
            let values = std::mem::take(&mut portal.values);
            let run = self.session.execute(&prepared, values);
            let response = match watched(&mut self.socket, run).await? {
                Ok(response) => response,
                Err(error) => return Ok(Err(error.shifted(prepared.statement.offset))),
            };
            match response {
                Response::Rows(rows) => {
                    let cursor = Cursor::new(rows.schema, rows.columns, rows.batches, false, rows.binary, false)
                        .of_live(rows.live);
                    portal.state = PortalState::Open { cursor, tag: rows.tag };
                }
                other => {
                    portal.state = PortalState::Done;
                    return self.respond(other).await;
                }
            }
        }
        match &portal.state {
            PortalState::Open { cursor, tag } => {
                let tag = *tag;
                let formats = match formats(&portal.result_formats, cursor.columns.len()) {
                    Ok(formats) => formats,
                    Err(error) => return Ok(Err(error)),
                };
                let (columns, schema): (Arc<[Column]>, SchemaRef) =
                    (Arc::clone(&cursor.columns), Arc::clone(&cursor.schema));
                let mut batches = match cursor.fetch(Step::Forward((limit > 0).then_some(limit.into()))) {
                    Ok(batches) => batches,
                    Err(error) => return Ok(Err(error)),
                };
                let count = match self.rows(&columns, &schema, &formats, &mut batches, cursor.live).await? {
                    Ok(count) => count,
                    Err(error) => return Ok(Err(error)),
                };
                if limit > 0 && count == u64::from(limit) {
                    reply::plain(&mut self.socket.output, Plain::PortalSuspended);
                } else {
                    self.said_beside();
                    reply::command_complete(&mut self.socket.output, &tag.complete(count));
                }
                Ok(Ok(()))
            }
            _ => Ok(Err(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, "the portal was executed already"))),
        }
    }
}

async fn prepare(session: &Session, sql: &str, oids: &[u32]) -> Result<Prepared, SqlError> {
    let types = oids
        .iter()
        .map(|oid| match *oid {
            // Not given, or "unknown": inferred.
            0 | 705 => Ok(None),
            oid => PgType::of_oid(oid).map(Some).ok_or_else(|| {
                SqlError::new(state::UNDEFINED_OBJECT, format!("type with OID {oid} does not exist"))
                    .with_hint("leave the type of the parameter open (OID 0)")
            }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut statements = statement::parse(sql)?.into_iter();
    let Some(first) = statements.next() else {
        return Ok(Prepared::empty());
    };
    if statements.next().is_some() {
        return Err(SqlError::syntax("cannot insert multiple commands into a prepared statement"));
    }
    session.allowed(&first)?;
    let offset = first.offset;
    session.prepare(first, types).await.map_err(|error| error.shifted(offset))
}

async fn bound(session: &Session, bind: &Bind) -> Result<Portal, SqlError> {
    let prepared = session.prepared(&bind.statement)?;
    session.allowed(&prepared.statement)?;
    let prepared = session.current(&prepared).await?;
    let wanted = prepared.parameters.len();
    if bind.values.len() != wanted {
        return Err(SqlError::new(
            state::PROTOCOL_VIOLATION,
            format!(
                "bind message supplies {} parameters, but prepared statement \"{}\" requires {wanted}",
                bind.values.len(),
                bind.statement
            ),
        ));
    }
    let formats = formats(&bind.formats, wanted)?;
    let style = session.read_style();
    let mut values = Vec::with_capacity(wanted);
    for (index, (value, pg_type)) in bind.values.iter().zip(&prepared.parameters).enumerate() {
        let mut builder = ColumnBuilder::for_parameter(*pg_type, style);
        let read = match (value, formats[index]) {
            (None, _) => {
                builder.append_null();
                Ok(())
            }
            (Some(bytes), Format::Binary) => builder.append_binary(bytes),
            (Some(bytes), Format::Text) => {
                crate::session::value::binary::text(bytes, "text").and_then(|text| builder.append_text(text))
            }
        };
        read.map_err(|error| error.with_context(format!("unnamed portal parameter ${}", index + 1)))?;
        values.push(ScalarValue::try_from_array(&builder.finish()?, 0)?);
    }
    if let Some(columns) = &prepared.columns {
        self::formats(&bind.result_formats, columns.len())?;
    }
    let prepared = (!prepared.is_empty()).then_some(prepared);
    Ok(Portal { prepared, values, result_formats: bind.result_formats.clone(), state: PortalState::New })
}

/// None given: text; one: for all; else one each.
fn formats(given: &[i16], count: usize) -> Result<Vec<Format>, SqlError> {
    let format = |code: i16| if code == 1 { Format::Binary } else { Format::Text };
    match given {
        [] => Ok(vec![Format::Text; count]),
        [one] => Ok(vec![format(*one); count]),
        all if all.len() == count => Ok(all.iter().copied().map(format).collect()),
        all => Err(SqlError::new(
            state::PROTOCOL_VIOLATION,
            format!("bind message has {} formats but {count} are needed", all.len()),
        )),
    }
}

fn no_portal(name: &str) -> SqlError {
    SqlError::new(state::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
