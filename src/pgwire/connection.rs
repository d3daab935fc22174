//! A connection after its start: reads messages, runs them, writes answers.

use std::{future::Future, sync::Arc};

use arrow::array::RecordBatch;
use bytes::BytesMut;
use futures::{FutureExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

use super::{
    extended::Portals,
    frame::{self, FRAME_BYTES_MAX, Frame},
    reply::{self, Plain},
};
use crate::session::{
    Batches, Column, CopyIn, CopyOut, Interrupt, Response, Session, SqlError, Status, interrupted, state,
    value::encode::{ColumnEncoder, Format, Style},
};

/// Bytes of answers that are gathered before they are sent.
const OUTPUT_BYTES: usize = 64 << 10;
/// Bytes that are read ahead while a statement runs.
const INPUT_AHEAD_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 16 << 10;
/// Above this an emptied buffer is given back.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// The client went away, by word or without.
    Gone,
    /// The client is told, then the connection is closed.
    Fatal(SqlError),
}

impl From<SqlError> for End {
    fn from(error: SqlError) -> Self {
        Self::Fatal(error)
    }
}

/// The two buffers around a stream.
pub(super) struct Socket<S> {
    stream: S,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), output: BytesMut::new() }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    pub(super) fn is_drained(&self) -> bool {
        self.input.is_empty()
    }

    /// Reads more. Loses nothing when dropped half way.
    pub(super) async fn fill(&mut self) -> Result<(), End> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output).await.map_err(|_| End::Gone)?;
            self.output.clear();
            if self.output.capacity() > BUFFER_KEPT_BYTES {
                self.output = BytesMut::new();
            }
        }
        self.stream.flush().await.map_err(|_| End::Gone)
    }

    pub(super) async fn write_raw(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.stream.write_all(bytes).await.map_err(|_| End::Gone)
    }

    /// Tells the client why it ends, if it still listens.
    pub(super) async fn fatal(&mut self, error: &SqlError) {
        reply::error(&mut self.output, true, error);
        let said = async {
            let _ = self.flush().await;
            let _ = self.stream.shutdown().await;
        };
        // A client that reads nothing is not waited for.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), said).await;
    }
}

/// One client's connection.
pub(super) struct Connection<S> {
    pub(super) socket: Socket<S>,
    pub(super) session: Session,
    pub(super) portals: Portals,
    /// After an error in the extended protocol everything up to Sync is passed over.
    pub(super) skips_to_sync: bool,
    reported: Vec<(&'static str, String)>,
    /// Of the settings when they were compared with these.
    reported_version: u64,
    shutdown: watch::Receiver<bool>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    pub(super) fn new(socket: Socket<S>, session: Session, shutdown: watch::Receiver<bool>) -> Self {
        let (reported, reported_version) = (session.reported_settings(), session.settings_version());
        Self {
            socket,
            session,
            portals: Portals::default(),
            skips_to_sync: false,
            reported,
            reported_version,
            shutdown,
        }
    }

    pub(super) async fn serve(&mut self) -> Result<(), End> {
        self.ready().await?;
        loop {
            let frame = self.wait_for_frame().await?;
            match frame {
                Frame::Terminate => return Ok(()),
                Frame::Query(sql) => {
                    self.skips_to_sync = false;
                    self.simple(&sql).await?;
                    self.ready().await?;
                }
                Frame::Sync => {
                    self.skips_to_sync = false;
                    self.sync();
                    self.ready().await?;
                }
                // After a failed COPY the client may still be sending.
                Frame::CopyData(_) | Frame::CopyDone | Frame::CopyFail(_) => {}
                Frame::Password(_) => {
                    return Err(SqlError::new(state::PROTOCOL_VIOLATION, "a password was not asked for").into());
                }
                _ if self.skips_to_sync => {}
                frame => self.extended(frame).await?,
            }
        }
    }

    /// The next message; ends the connection at shutdown, at `pg_terminate_backend` and after too long a silence.
    async fn wait_for_frame(&mut self) -> Result<Frame, End> {
        loop {
            if let Some(frame) = frame::decode(&mut self.socket.input, FRAME_BYTES_MAX)? {
                return Ok(frame);
            }
            if self.socket.input.is_empty() && self.socket.input.capacity() > BUFFER_KEPT_BYTES {
                self.socket.input = BytesMut::new();
            }
            let timeout = self.session.idle_timeout();
            let idle = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep(timeout).await,
                    None => std::future::pending().await,
                }
            };
            let entry = Arc::clone(self.session.entry());
            let inbox = Arc::clone(self.session.inbox());
            let is_idle = self.session.status() == Status::Idle;
            let is_told = tokio::select! {
                biased;
                () = entry.terminated() => return Err(interrupted(Interrupt::Terminate).into()),
                _ = self.shutdown.wait_for(|stop| *stop) => {
                    return Err(shut_down().into());
                }
                filled = self.socket.fill() => {
                    filled?;
                    false
                }
                () = inbox.arrived(), if is_idle => true,
                () = idle => {
                    return Err(SqlError::new(state::IDLE_SESSION_TIMEOUT, "terminating connection due to idle-session timeout").into());
                }
            };
            if is_told {
                self.deliver();
                self.flush().await?;
            }
        }
    }

    /// Everything said, ReadyForQuery, flush.
    async fn ready(&mut self) -> Result<(), End> {
        self.said_beside();
        self.deliver();
        reply::ready(&mut self.socket.output, self.session.status());
        self.flush().await
    }

    /// Writes what was said to channels that the session listens to.
    fn deliver(&mut self) {
        for delivered in self.session.take_delivered() {
            reply::notification(&mut self.socket.output, &delivered);
        }
    }

    /// Notices, and settings that have changed.
    pub(super) fn said_beside(&mut self) {
        for notice in self.session.take_notices() {
            reply::notice(&mut self.socket.output, &notice);
        }
        let version = self.session.settings_version();
        if version == self.reported_version {
            return;
        }
        self.reported_version = version;
        let reported = self.session.reported_settings();
        if reported != self.reported {
            for (before, now) in self.reported.iter().zip(&reported) {
                if before != now {
                    reply::parameter_status(&mut self.socket.output, now.0, &now.1);
                }
            }
            self.reported = reported;
        }
    }

    /// Sends what is gathered. A client that does not read holds the statement back, and can still be terminated.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        let entry = Arc::clone(self.session.entry());
        tokio::select! {
            biased;
            flushed = self.socket.flush() => flushed,
            () = entry.terminated() => Err(End::Gone),
        }
    }

    async fn flush_if_full(&mut self) -> Result<(), End> {
        if self.socket.output.len() < OUTPUT_BYTES { Ok(()) } else { self.flush().await }
    }

    /// Reports the error of a statement.
    pub(super) fn failed(&mut self, error: &SqlError) -> Result<(), End> {
        self.session.failed();
        if self.session.entry().pending() == Some(Interrupt::Terminate) {
            return Err(End::Fatal(error.clone()));
        }
        for notice in self.session.take_notices() {
            reply::notice(&mut self.socket.output, &notice);
        }
        reply::error(&mut self.socket.output, false, error);
        Ok(())
    }

    /// Sends what a statement of the simple protocol gave. The outer error ends the connection, the inner one the statement.
    pub(super) async fn respond(&mut self, response: Response) -> Result<Result<(), SqlError>, End> {
        match response {
            Response::Command(tag) => {
                self.said_beside();
                reply::command_complete(&mut self.socket.output, &tag);
                Ok(Ok(()))
            }
            Response::Rows(mut rows) => {
                let format = if rows.binary { Format::Binary } else { Format::Text };
                reply::row_description(&mut self.socket.output, &rows.columns, |_| format);
                let formats = vec![format; rows.columns.len()];
                match self.rows(&rows.columns, &rows.schema, &formats, &mut rows.batches, rows.live).await? {
                    Ok(count) => {
                        self.said_beside();
                        reply::command_complete(&mut self.socket.output, &rows.tag.complete(count));
                        Ok(Ok(()))
                    }
                    Err(error) => Ok(Err(error)),
                }
            }
            Response::CopyIn(copy) => self.copy_in(*copy).await,
            Response::CopyOut(copy) => self.copy_out(copy).await,
        }
    }

    /// Sends rows as they come; how many there were.
    pub(super) async fn rows(
        &mut self,
        columns: &[Column],
        schema: &arrow::datatypes::SchemaRef,
        formats: &[Format],
        batches: &mut Batches,
        live: bool,
    ) -> Result<Result<u64, SqlError>, End> {
        let style = self.session.style();
        let mut count = 0;
        loop {
            let batch = match self.next_batch(batches, live).await? {
                None => return Ok(Ok(count)),
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return Ok(Err(error)),
            };
            debug_assert_eq!(columns.len(), batch.num_columns(), "a batch has the columns that were described");
            if let Err(error) = self.batch(schema, formats, style, &batch).await? {
                return Ok(Err(error));
            }
            count += batch.num_rows() as u64;
        }
    }

    /// The next rows. Of a result that never ends what is there is sent before it waits, and a server that stops does not wait for the end.
    async fn next_batch(
        &mut self,
        batches: &mut Batches,
        live: bool,
    ) -> Result<Option<Result<RecordBatch, SqlError>>, End> {
        if !live {
            return watched(&mut self.socket, batches.next()).await;
        }
        if let Some(ready) = batches.next().now_or_never() {
            return Ok(ready);
        }
        self.flush().await?;
        let stopping = self.shutdown.wait_for(|stop| *stop);
        tokio::select! {
            biased;
            next = watched(&mut self.socket, batches.next()) => next,
            _ = stopping => Err(shut_down().into()),
        }
    }

    async fn batch(
        &mut self,
        schema: &arrow::datatypes::SchemaRef,
        formats: &[Format],
        style: Style,
        batch: &RecordBatch,
    ) -> Result<Result<(), SqlError>, End> {
        let encoders: Result<Vec<_>, _> = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, column)| ColumnEncoder::new(field, column, style))
            .collect();
        let encoders = match encoders {
            Ok(encoders) => encoders,
            Err(error) => return Ok(Err(error)),
        };
        for row in 0..batch.num_rows() {
            let start = self.socket.output.len();
            if let Err(error) = data_row(&encoders, formats, row, &mut self.socket.output) {
                // Half a row must not go out.
                self.socket.output.truncate(start);
                return Ok(Err(error));
            }
            self.flush_if_full().await?;
        }
        Ok(Ok(()))
    }

    pub(super) async fn copy_out(&mut self, copy: CopyOut) -> Result<Result<(), SqlError>, End> {
        let CopyOut { writer, columns, mut batches, live } = copy;
        reply::copy_response(&mut self.socket.output, false, writer.is_binary(), columns);
        // The binary header goes with the first row, as PostgreSQL sends it and psycopg expects it; a line of names is a row of its own.
        let mut header = writer.header();
        if !writer.is_binary() && !header.is_empty() {
            reply::copy_data(&mut self.socket.output, &std::mem::take(&mut header));
        }
        let mut after_header = |bytes: &[u8], out: &mut BytesMut| match header.is_empty() {
            true => reply::copy_data(out, bytes),
            false => reply::copy_data(out, &[&std::mem::take(&mut header), bytes].concat()),
        };
        let mut count = 0;
        loop {
            let batch = match self.next_batch(&mut batches, live).await? {
                None => break,
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return Ok(Err(error)),
            };
            // In slices, so that the buffer does not grow to the size of a batch.
            for start in (0..batch.num_rows()).step_by(256) {
                let slice = batch.slice(start, 256.min(batch.num_rows() - start));
                let written = writer.rows(&slice, |row| after_header(row, &mut self.socket.output));
                if let Err(error) = written {
                    return Ok(Err(error));
                }
                self.flush_if_full().await?;
            }
            count += batch.num_rows() as u64;
        }
        let trailer = writer.trailer();
        if !trailer.is_empty() {
            after_header(&trailer, &mut self.socket.output);
        }
        reply::plain(&mut self.socket.output, Plain::CopyDone);
        reply::command_complete(&mut self.socket.output, &format!("COPY {count}"));
        Ok(Ok(()))
    }

    pub(super) async fn copy_in(&mut self, mut copy: CopyIn) -> Result<Result<(), SqlError>, End> {
        reply::copy_response(&mut self.socket.output, true, copy.is_binary(), copy.columns());
        self.flush().await?;
        let entry = Arc::clone(self.session.entry());
        loop {
            let frame = tokio::select! {
                biased;
                why = entry.interrupted() => return Ok(Err(interrupted(why))),
                frame = next_frame(&mut self.socket) => frame?,
            };
            match frame {
                Frame::CopyData(data) => {
                    if let Err(error) = copy.push(&data) {
                        return Ok(Err(error));
                    }
                }
                Frame::CopyDone => break,
                Frame::CopyFail(reason) => {
                    return Ok(Err(SqlError::new(state::QUERY_CANCELED, format!("COPY from stdin failed: {reason}"))));
                }
                Frame::Flush | Frame::Sync => {}
                Frame::Terminate => return Err(End::Gone),
                _ => {
                    let error =
                        SqlError::new(state::PROTOCOL_VIOLATION, "unexpected message type during COPY from stdin");
                    return Err(End::Fatal(error));
                }
            }
        }
        let stored = watched(&mut self.socket, self.session.finish_copy(copy)).await?;
        Ok(stored.map(|tag| reply::command_complete(&mut self.socket.output, &tag)))
    }
}

fn shut_down() -> SqlError {
    SqlError::new(state::ADMIN_SHUTDOWN, "terminating connection: the server is shutting down")
}

/// Waits for `work` and reads ahead meanwhile: a client that goes away ends the wait, and with it the work.
pub(super) async fn watched<S, T>(socket: &mut Socket<S>, work: impl Future<Output = T>) -> Result<T, End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::pin!(work);
    loop {
        let may_read = socket.input.len() < INPUT_AHEAD_BYTES;
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            filled = socket.fill(), if may_read => filled?,
        }
    }
}

async fn next_frame<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Frame, End> {
    loop {
        if let Some(frame) = frame::decode(&mut socket.input, FRAME_BYTES_MAX)? {
            return Ok(frame);
        }
        socket.fill().await?;
    }
}

fn data_row(encoders: &[ColumnEncoder], formats: &[Format], row: usize, out: &mut BytesMut) -> Result<(), SqlError> {
    use bytes::BufMut;
    out.put_u8(b'D');
    let start = out.len();
    out.put_i32(0);
    out.put_i16(encoders.len() as i16);
    for (encoder, format) in encoders.iter().zip(formats) {
        encoder.write_field(*format, row, out)?;
    }
    let length = i32::try_from(out.len() - start)
        .map_err(|_| SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "a row is larger than the protocol can carry"))?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
