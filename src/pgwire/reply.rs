//! Messages to a client, written into the output buffer.

use bytes::{BufMut, BytesMut};

use crate::session::{Column, Notice, SqlError, Status, value::encode::Format};

/// Writes a message: its letter, its length, what `body` writes.
fn message(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = (out.len() - start) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn string(out: &mut BytesMut, text: &str) {
    // A zero byte would end the string early; text of ours has none, values of users may.
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.put_u8(0);
}

pub fn authentication_ok(out: &mut BytesMut) {
    message(out, b'R', |out| out.put_i32(0));
}

pub fn authentication_sasl(out: &mut BytesMut, mechanism: &str) {
    message(out, b'R', |out| {
        out.put_i32(10);
        string(out, mechanism);
        out.put_u8(0);
    });
}

/// `last`: the exchange's final step.
pub fn authentication_sasl_step(out: &mut BytesMut, last: bool, data: &str) {
    message(out, b'R', |out| {
        out.put_i32(if last { 12 } else { 11 });
        out.put_slice(data.as_bytes());
    });
}

pub fn negotiate_protocol(out: &mut BytesMut, minor: u32, unknown: &[String]) {
    message(out, b'v', |out| {
        out.put_u32((3 << 16) | minor);
        out.put_i32(unknown.len() as i32);
        unknown.iter().for_each(|name| string(out, name));
    });
}

pub fn backend_key(out: &mut BytesMut, pid: i32, secret: i32) {
    message(out, b'K', |out| {
        out.put_i32(pid);
        out.put_i32(secret);
    });
}

pub fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'S', |out| {
        string(out, name);
        string(out, value);
    });
}

pub fn ready(out: &mut BytesMut, status: Status) {
    message(out, b'Z', |out| {
        out.put_u8(match status {
            Status::Idle => b'I',
            Status::Open => b'T',
            Status::Failed => b'E',
        });
    });
}

pub fn error(out: &mut BytesMut, fatal: bool, error: &SqlError) {
    message(out, b'E', |out| {
        let severity = if fatal { "FATAL" } else { "ERROR" };
        let mut field = |kind: u8, text: &str| {
            out.put_u8(kind);
            string(out, text);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', error.state);
        field(b'M', &error.message);
        for (kind, text) in [(b'D', &error.detail), (b'H', &error.hint), (b'W', &error.context)] {
            if let Some(text) = text {
                field(kind, text);
            }
        }
        if let Some(position) = error.position {
            field(b'P', &position.to_string());
        }
        out.put_u8(0);
    });
}

pub fn notice(out: &mut BytesMut, notice: &Notice) {
    message(out, b'N', |out| {
        let severity = if notice.warning { "WARNING" } else { "NOTICE" };
        for (kind, text) in [(b'S', severity), (b'V', severity), (b'C', notice.state), (b'M', &notice.message)] {
            out.put_u8(kind);
            string(out, text);
        }
        out.put_u8(0);
    });
}

/// `formats`: one per column.
pub fn row_description(out: &mut BytesMut, columns: &[Column], formats: impl Fn(usize) -> Format) {
    message(out, b'T', |out| {
        out.put_i16(columns.len() as i16);
        for (index, column) in columns.iter().enumerate() {
            string(out, &column.name);
            out.put_u32(column.table_oid);
            out.put_i16(column.table_column);
            out.put_u32(column.pg_type.oid());
            out.put_i16(column.pg_type.length());
            out.put_i32(column.modifier);
            out.put_i16(match formats(index) {
                Format::Text => 0,
                Format::Binary => 1,
            });
        }
    });
}

pub fn parameter_description(out: &mut BytesMut, oids: impl ExactSizeIterator<Item = u32>) {
    message(out, b't', |out| {
        out.put_u16(oids.len() as u16);
        oids.for_each(|oid| out.put_u32(oid));
    });
}

pub fn command_complete(out: &mut BytesMut, tag: &str) {
    message(out, b'C', |out| string(out, tag));
}

pub fn copy_response(out: &mut BytesMut, incoming: bool, binary: bool, columns: usize) {
    message(out, if incoming { b'G' } else { b'H' }, |out| {
        out.put_u8(binary.into());
        out.put_i16(columns as i16);
        (0..columns).for_each(|_| out.put_i16(binary.into()));
    });
}

pub fn copy_data(out: &mut BytesMut, data: &[u8]) {
    message(out, b'd', |out| out.put_slice(data));
}

/// Messages without a body.
#[derive(Clone, Copy, Debug)]
pub enum Plain {
    ParseComplete,
    BindComplete,
    CloseComplete,
    NoData,
    PortalSuspended,
    EmptyQuery,
    CopyDone,
}

pub fn plain(out: &mut BytesMut, which: Plain) {
    let kind = match which {
        Plain::ParseComplete => b'1',
        Plain::BindComplete => b'2',
        Plain::CloseComplete => b'3',
        Plain::NoData => b'n',
        Plain::PortalSuspended => b's',
        Plain::EmptyQuery => b'I',
        Plain::CopyDone => b'c',
    };
    message(out, kind, |_| {});
}
