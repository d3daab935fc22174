//! Messages to a client: the `pgwire` crate's, written into the output buffer.

use bytes::{Bytes, BytesMut};
use pgwire::messages::{
    Message,
    copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse},
    data::{FORMAT_CODE_BINARY, FORMAT_CODE_TEXT, FieldDescription, NoData, ParameterDescription, RowDescription},
    extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended},
    response::{
        CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, NotificationResponse, ReadyForQuery,
        TransactionStatus,
    },
    startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey},
};

use crate::session::{Column, Delivered, Notice, SqlError, Status, value::encode::Format};

fn write(out: &mut BytesMut, message: &impl Message) {
    // Encoding fails only for messages that clients send.
    if let Err(error) = message.encode(out) {
        tracing::error!(%error, "a message could not be written");
    }
}

/// A zero byte would end a string early; text of ours has none, values of users may.
fn string(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').collect()
}

pub(super) fn authentication_ok(out: &mut BytesMut) {
    write(out, &Authentication::Ok);
}

pub(super) fn authentication_sasl(out: &mut BytesMut, mechanism: &str) {
    write(out, &Authentication::SASL(vec![mechanism.to_owned()]));
}

/// `last`: the exchange's final step.
pub(super) fn authentication_sasl_step(out: &mut BytesMut, last: bool, data: &str) {
    let data = Bytes::copy_from_slice(data.as_bytes());
    write(out, &if last { Authentication::SASLFinal(data) } else { Authentication::SASLContinue(data) });
}

pub(super) fn negotiate_protocol(out: &mut BytesMut, minor: u32, unknown: &[String]) {
    let newest = ((3 << 16) | minor) as i32;
    write(out, &NegotiateProtocolVersion::new(newest, unknown.iter().map(|name| string(name)).collect()));
}

pub(super) fn backend_key(out: &mut BytesMut, pid: i32, secret: i32) {
    write(out, &BackendKeyData::new(pid, SecretKey::I32(secret)));
}

pub(super) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    write(out, &ParameterStatus::new(string(name), string(value)));
}

pub(super) fn ready(out: &mut BytesMut, status: Status) {
    write(
        out,
        &ReadyForQuery::new(match status {
            Status::Idle => TransactionStatus::Idle,
            Status::Open => TransactionStatus::Transaction,
            Status::Failed => TransactionStatus::Error,
        }),
    );
}

pub(super) fn error(out: &mut BytesMut, fatal: bool, error: &SqlError) {
    let severity = if fatal { "FATAL" } else { "ERROR" };
    let mut fields = vec![
        (b'S', severity.to_owned()),
        (b'V', severity.to_owned()),
        (b'C', error.state.to_owned()),
        (b'M', string(&error.message)),
    ];
    for (kind, text) in [(b'D', &error.detail), (b'H', &error.hint), (b'W', &error.context)] {
        fields.extend(text.as_ref().map(|text| (kind, string(text))));
    }
    fields.extend(error.position.map(|position| (b'P', position.to_string())));
    write(out, &ErrorResponse::new(fields));
}

pub(super) fn notice(out: &mut BytesMut, notice: &Notice) {
    let severity = if notice.warning { "WARNING" } else { "NOTICE" };
    write(
        out,
        &NoticeResponse::new(vec![
            (b'S', severity.to_owned()),
            (b'V', severity.to_owned()),
            (b'C', notice.state.to_owned()),
            (b'M', string(&notice.message)),
        ]),
    );
}

/// What another session, or this one, said to a channel.
pub(super) fn notification(out: &mut BytesMut, delivered: &Delivered) {
    let said = &delivered.notification;
    write(out, &NotificationResponse::new(delivered.pid, string(&said.channel), string(&said.payload)));
}

/// `formats`: one per column.
pub(super) fn row_description(out: &mut BytesMut, columns: &[Column], formats: impl Fn(usize) -> Format) {
    let fields = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            FieldDescription::new(
                string(&column.name),
                column.table_oid as i32,
                column.table_column,
                column.pg_type.oid(),
                column.pg_type.length(),
                column.modifier,
                match formats(index) {
                    Format::Text => FORMAT_CODE_TEXT,
                    Format::Binary => FORMAT_CODE_BINARY,
                },
            )
        })
        .collect();
    write(out, &RowDescription::new(fields));
}

pub(super) fn parameter_description(out: &mut BytesMut, oids: impl ExactSizeIterator<Item = u32>) {
    write(out, &ParameterDescription::new(oids.collect()));
}

pub(super) fn command_complete(out: &mut BytesMut, tag: &str) {
    write(out, &CommandComplete::new(string(tag)));
}

pub(super) fn copy_response(out: &mut BytesMut, incoming: bool, binary: bool, columns: usize) {
    let format = i8::from(binary);
    let formats = vec![i16::from(binary); columns];
    if incoming {
        write(out, &CopyInResponse::new(format, columns as i16, formats));
    } else {
        write(out, &CopyOutResponse::new(format, columns as i16, formats));
    }
}

pub(super) fn copy_data(out: &mut BytesMut, data: &[u8]) {
    write(out, &CopyData::new(Bytes::copy_from_slice(data)));
}

/// Messages without a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plain {
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    PortalSuspended,
    EmptyQuery,
    CopyDone,
}

pub(super) fn plain(out: &mut BytesMut, which: Plain) {
    match which {
        Plain::ParseComplete => write(out, &ParseComplete::new()),
        Plain::BindComplete => write(out, &BindComplete::new()),
        Plain::CloseComplete => write(out, &CloseComplete::new()),
        Plain::NoData => write(out, &NoData::new()),
        Plain::PortalSuspended => write(out, &PortalSuspended::new()),
        Plain::EmptyQuery => write(out, &EmptyQueryResponse::new()),
        Plain::CopyDone => write(out, &CopyDone::new()),
    }
}
