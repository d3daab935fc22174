//! From the first byte to ReadyForQuery: TLS, parameters, authentication, and cancel requests, which want nothing of these.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    connection::{Connection, End, Socket},
    frame::{self, Body, Frame, Opening, STARTUP_BYTES_MAX},
    reply, scram,
    server::{self, Listening},
};
use crate::session::{Session, SqlError, Startup, state};

/// Time for everything before ReadyForQuery.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(60);
/// The first byte of a TLS handshake: a client that does not ask first (sslnegotiation=direct).
const TLS_HANDSHAKE: u8 = 0x16;
const NEWEST_MINOR: u16 = 2;

/// Takes a new connection through its start and serves it to its end.
pub(super) async fn open(socket: TcpStream, listening: &Arc<Listening>, client: &str) -> Result<(), End> {
    let mut first = [0];
    let direct = tokio::time::timeout(AUTHENTICATION_TIMEOUT, socket.peek(&mut first)).await;
    if matches!(direct, Ok(Ok(1))) && first[0] == TLS_HANDSHAKE {
        return over_tls(socket, listening, client).await;
    }
    let mut socket = Socket::new(socket);
    loop {
        let opening = match within(opening(&mut socket)).await {
            Ok(opening) => opening,
            Err(End::Fatal(error)) => {
                socket.fatal(&error).await;
                return Err(End::Fatal(error));
            }
            Err(End::Gone) => return Err(End::Gone),
        };
        match opening {
            Opening::Ssl if listening.tls.is_some() => {
                socket.write_raw(b"S").await?;
                // What came before the handshake was not encrypted and may be anybody's.
                if !socket.is_drained() {
                    let error = SqlError::new(state::PROTOCOL_VIOLATION, "received unencrypted data after SSL request");
                    return Err(End::Fatal(error));
                }
                return over_tls(socket.into_inner(), listening, client).await;
            }
            Opening::Ssl | Opening::Gss => socket.write_raw(b"N").await?,
            opening => return with_opening(socket, opening, listening, client, false).await,
        }
    }
}

async fn over_tls(socket: TcpStream, listening: &Arc<Listening>, client: &str) -> Result<(), End> {
    let Some(acceptor) = &listening.tls else { return Err(End::Gone) };
    let accepted = tokio::time::timeout(AUTHENTICATION_TIMEOUT, acceptor.accept(socket)).await;
    let Ok(Ok(stream)) = accepted else { return Err(End::Gone) };
    let mut socket = Socket::new(stream);
    let opening = within(opening(&mut socket)).await?;
    with_opening(socket, opening, listening, client, true).await
}

async fn within<T>(work: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    match tokio::time::timeout(AUTHENTICATION_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(End::Fatal(SqlError::new(state::CONNECTION_FAILURE, "canceling authentication due to timeout"))),
    }
}

async fn opening<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Opening, End> {
    loop {
        if let Some(opening) = frame::opening(&mut socket.input)? {
            return Ok(opening);
        }
        socket.fill().await?;
    }
}

async fn with_opening<S>(
    mut socket: Socket<S>,
    opening: Opening,
    listening: &Arc<Listening>,
    client: &str,
    encrypted: bool,
) -> Result<(), End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (minor, parameters) = match opening {
        Opening::Cancel { pid, secret } => {
            listening.shared.registry.cancel(pid, secret);
            return Ok(());
        }
        Opening::Startup { minor, parameters } => (minor, parameters),
        Opening::Ssl | Opening::Gss => {
            return Err(End::Fatal(SqlError::new(state::PROTOCOL_VIOLATION, "TLS is on already")));
        }
    };
    let started = within(start(&mut socket, minor, &parameters, listening, client, encrypted)).await;
    match started {
        Ok(session) => server::run(Connection::new(socket, session, listening.shutdown.clone())).await,
        Err(End::Fatal(error)) => {
            socket.fatal(&error).await;
            Err(End::Fatal(error))
        }
        Err(End::Gone) => Err(End::Gone),
    }
}

async fn start<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    minor: u16,
    parameters: &[(String, String)],
    listening: &Arc<Listening>,
    client: &str,
    encrypted: bool,
) -> Result<Session, End> {
    if listening.require_tls && !encrypted {
        return Err(SqlError::new(state::INVALID_AUTHORIZATION, "this server takes only connections with TLS")
            .with_hint("connect with sslmode=require")
            .into());
    }
    let unknown: Vec<String> =
        parameters.iter().map(|(name, _)| name).filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if minor > NEWEST_MINOR || !unknown.is_empty() {
        reply::negotiate_protocol(&mut socket.output, u32::from(minor.min(NEWEST_MINOR)), &unknown);
    }
    let startup = startup(parameters, client)?;
    if !listening.users.is_empty() {
        authenticate(socket, &startup.user, listening).await?;
    }
    let session = Session::open(&listening.shared, &startup)?;
    reply::authentication_ok(&mut socket.output);
    for (name, value) in session.reported_settings() {
        reply::parameter_status(&mut socket.output, name, &value);
    }
    let entry = session.entry();
    reply::backend_key(&mut socket.output, entry.pid, entry.secret);
    Ok(session)
}

fn startup(parameters: &[(String, String)], client: &str) -> Result<Startup, SqlError> {
    let mut startup = Startup { client: client.to_owned(), ..Startup::default() };
    for (name, value) in parameters {
        match name.as_str() {
            "user" => startup.user.clone_from(value),
            "database" => startup.database.clone_from(value),
            "options" => startup.settings.extend(options(value)?),
            "replication" => {
                if !["0", "off", "false", "no"].contains(&value.to_lowercase().as_str()) {
                    return Err(SqlError::unsupported("replication connections are not supported"));
                }
            }
            name if name.starts_with("_pq_.") => {}
            _ => startup.settings.push((name.clone(), value.clone())),
        }
    }
    if startup.user.is_empty() {
        return Err(SqlError::new(state::INVALID_AUTHORIZATION, "no PostgreSQL user name specified in startup packet"));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

/// `-c name=value`, `-cname=value`, `--name=value`; a backslash makes the next character part of a word.
fn options(text: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.get_or_insert_default().extend(characters.next()),
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).map(str::to_owned)
        };
        let pair = setting.as_deref().and_then(|setting| setting.split_once('='));
        let (name, value) = pair.ok_or_else(|| {
            SqlError::syntax(format!("invalid command-line argument for server process: {word}"))
                .with_hint("options are given as -c name=value")
        })?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    user: &str,
    listening: &Listening,
) -> Result<(), End> {
    reply::authentication_sasl(&mut socket.output, scram::MECHANISM);
    socket.flush().await?;
    let mut body = Body(password(socket).await?);
    let mechanism = body.string()?;
    if mechanism != scram::MECHANISM {
        return Err(SqlError::new(
            state::PROTOCOL_VIOLATION,
            "client selected an invalid SASL authentication mechanism",
        )
        .into());
    }
    let length = body.i32()?;
    let first = text(&body.bytes(length)?)?;
    let verifier = listening.users.get(user);
    let (exchange, answer) = scram::Exchange::begin(user, verifier, &first, &listening.secret)?;
    reply::authentication_sasl_step(&mut socket.output, false, &answer);
    socket.flush().await?;
    let last = text(&password(socket).await?)?;
    let answer = exchange.finish(user, &last)?;
    reply::authentication_sasl_step(&mut socket.output, true, &answer);
    Ok(())
}

async fn password<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> Result<Bytes, End> {
    loop {
        match frame::decode(&mut socket.input, STARTUP_BYTES_MAX)? {
            Some(Frame::Password(data)) => return Ok(data),
            Some(Frame::Terminate) => return Err(End::Gone),
            Some(_) => {
                return Err(SqlError::new(state::PROTOCOL_VIOLATION, "expected SASL response").into());
            }
            None => socket.fill().await?,
        }
    }
}

fn text(bytes: &[u8]) -> Result<String, SqlError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| SqlError::new(state::PROTOCOL_VIOLATION, "malformed SCRAM message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options_as_libpq_sends_them() {
        let read = |text: &str| options(text).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read("-c statement_timeout=400"), [pair("statement_timeout", "400")]);
        assert_eq!(
            read("-cgeqo=off  --search-path=a\\ b -c a.b=c=d"),
            [pair("geqo", "off"), pair("search_path", "a b"), pair("a.b", "c=d")]
        );
        assert_eq!(read(""), []);
        assert!(options("-c").is_err());
        assert!(options("nonsense").is_err());
    }
}
