//! Messages from a client, cut out of the bytes it sends and checked.
//!
//! Read here and not by the `pgwire` crate, whose decoder reads past the end of a message and panics on one that is cut short. What always
//! holds: no bytes panic; nothing is allocated on the word of a length that the bytes do not bear out.

use bytes::{Buf, Bytes, BytesMut};

use crate::session::error::{Result, SqlError, state};

/// Bytes of one message.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Bytes of one message before the client is known.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// A message of a connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe {
        portal: bool,
        name: String,
    },
    Execute {
        portal: String,
        limit: u32,
    },
    Close {
        portal: bool,
        name: String,
    },
    Flush,
    Sync,
    CopyData(Bytes),
    CopyDone,
    CopyFail(String),
    /// A password, or a step of SASL: what it is depends on what was asked.
    Password(Bytes),
    Terminate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub portal: String,
    pub statement: String,
    /// None, one for all, or one each: 0 text, 1 binary.
    pub formats: Vec<i16>,
    pub values: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

/// What a connection begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    Ssl,
    Gss,
    Cancel { pid: i32, secret: i32 },
    Startup { minor: u16, parameters: Vec<(String, String)> },
}

fn violation(message: impl Into<String>) -> SqlError {
    SqlError::new(state::PROTOCOL_VIOLATION, message)
}

/// The length field at `at`, which counts itself; the whole message's bytes from there.
fn length(buffer: &[u8], at: usize, least: usize, most: usize) -> Result<Option<usize>> {
    let Some(bytes) = buffer.get(at..at + 4) else { return Ok(None) };
    let length = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    match usize::try_from(length) {
        Ok(length) if (least..=most).contains(&length) => Ok(Some(length)),
        _ => Err(violation(format!("invalid message length {length}"))),
    }
}

/// The first message of a connection; `None` when more bytes are needed.
pub fn opening(buffer: &mut BytesMut) -> Result<Option<Opening>> {
    let Some(length) = length(buffer, 0, 8, STARTUP_BYTES_MAX)? else { return Ok(None) };
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = Body(buffer.split_to(length).freeze());
    body.0.advance(4);
    let (major, minor) = (body.u16()?, body.u16()?);
    Ok(Some(match (major, minor) {
        (1234, 5678) => {
            let pid = body.i32()?;
            // Keys of up to 256 bytes may come; ours have four.
            let secret = body.i32()?;
            Opening::Cancel { pid, secret }
        }
        (1234, 5679) => Opening::Ssl,
        (1234, 5680) => Opening::Gss,
        (3, minor) => {
            let mut parameters = Vec::new();
            loop {
                let name = body.string()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, body.string()?));
            }
            body.end("startup packet")?;
            Opening::Startup { minor, parameters }
        }
        (major, minor) => {
            return Err(SqlError::unsupported(format!(
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
            )));
        }
    }))
}

/// The next message; `None` when more bytes are needed. An error ends the connection: where the next message begins is not known any more.
pub fn decode(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Frame>> {
    let Some(kind) = buffer.first().copied() else { return Ok(None) };
    if !b"QPBDECHSdcfpX".contains(&kind) {
        return Err(match kind {
            b'F' => SqlError::unsupported("function calls through the protocol are not supported"),
            kind => violation(format!("invalid frontend message type {kind}")),
        });
    }
    let Some(length) = length(buffer, 1, 4, bytes_max)? else { return Ok(None) };
    if buffer.len() < length + 1 {
        return Ok(None);
    }
    let mut body = Body(buffer.split_to(length + 1).freeze());
    body.0.advance(5);
    let frame = match kind {
        b'Q' => Frame::Query(body.string()?),
        b'P' => {
            let name = body.string()?;
            let sql = body.string()?;
            let count = body.count(4)?;
            let types = (0..count).map(|_| body.i32().map(|oid| oid as u32)).collect::<Result<_>>()?;
            Frame::Parse { name, sql, types }
        }
        b'B' => {
            let portal = body.string()?;
            let statement = body.string()?;
            let formats = body.formats()?;
            let count = body.count(4)?;
            let mut values = Vec::with_capacity(count);
            for _ in 0..count {
                values.push(match body.i32()? {
                    -1 => None,
                    length => Some(body.bytes(length)?),
                });
            }
            Frame::Bind(Bind { portal, statement, formats, values, result_formats: body.formats()? })
        }
        b'D' | b'C' => {
            let portal = match body.u8()? {
                b'P' => true,
                b'S' => false,
                other => return Err(violation(format!("invalid message subtype {other}"))),
            };
            let name = body.string()?;
            if kind == b'D' { Frame::Describe { portal, name } } else { Frame::Close { portal, name } }
        }
        b'E' => {
            let portal = body.string()?;
            // Zero and below mean no limit.
            Frame::Execute { portal, limit: u32::try_from(body.i32()?).unwrap_or(0) }
        }
        b'H' => Frame::Flush,
        b'S' => Frame::Sync,
        b'd' => Frame::CopyData(std::mem::take(&mut body.0)),
        b'c' => Frame::CopyDone,
        b'f' => Frame::CopyFail(body.string()?),
        b'p' => Frame::Password(std::mem::take(&mut body.0)),
        _ => Frame::Terminate,
    };
    body.end("message")?;
    Ok(Some(frame))
}

/// What is left of one message.
pub struct Body(pub Bytes);

impl Body {
    fn short() -> SqlError {
        violation("invalid message format: the message is too short")
    }

    pub fn u8(&mut self) -> Result<u8> {
        self.0.try_get_u8().map_err(|_| Self::short())
    }

    fn u16(&mut self) -> Result<u16> {
        self.0.try_get_u16().map_err(|_| Self::short())
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.0.try_get_i32().map_err(|_| Self::short())
    }

    /// Up to the next zero byte.
    pub fn string(&mut self) -> Result<String> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or_else(Self::short)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.to_vec()).map_err(|_| {
            SqlError::new(state::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\"")
        })
    }

    pub fn bytes(&mut self, length: i32) -> Result<Bytes> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len()).ok_or_else(Self::short)?;
        Ok(self.0.split_to(length))
    }

    /// A number of things of at least `each` bytes.
    fn count(&mut self, each: usize) -> Result<usize> {
        let count = usize::from(self.u16()?);
        if count * each > self.0.len() { Err(Self::short()) } else { Ok(count) }
    }

    fn formats(&mut self) -> Result<Vec<i16>> {
        let count = self.count(2)?;
        (0..count)
            .map(|_| match self.u16()? {
                format @ (0 | 1) => Ok(format as i16),
                format => Err(violation(format!("unsupported format code: {format}"))),
            })
            .collect()
    }

    fn end(&self, what: &str) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(violation(format!("invalid message format: {what} has bytes after its end")))
        }
    }
}
