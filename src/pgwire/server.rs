//! The accept loop: one task per connection.

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

use super::{
    connection::{Connection, End},
    scram::{self, Verifier},
    startup, tls,
};
use crate::{runtime, session::Shared};

/// Connections beside those with a session: being opened, being refused, cancel requests.
const OPENING_MAX: usize = 128;
/// How long accepting pauses when the process has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How the listener behaves.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Certificate chain and key, PEM. With them clients may ask for TLS.
    pub tls: Option<TlsFiles>,
    /// Refuse connections without TLS; needs `tls`.
    pub require_tls: bool,
    /// User name and SCRAM-SHA-256 verifier as PostgreSQL stores it ("SCRAM-SHA-256$4096:salt$stored:server"). Empty: everybody is let in.
    pub users: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Whether a server can use them: they are there, readable, PEM, and belong together.
    pub fn check(&self) -> io::Result<()> {
        super::tls::acceptor(self).map(|_| ())
    }
}

/// What every connection needs.
pub(super) struct Listening {
    pub(super) shared: Arc<Shared>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) require_tls: bool,
    /// Empty: everybody is let in.
    pub(super) users: HashMap<String, Verifier>,
    /// For the salts of users that do not exist.
    pub(super) secret: [u8; 32],
    pub(super) shutdown: watch::Receiver<bool>,
}

/// Serves until `shutdown` turns true; then no more connections are taken, idle ones are closed, running statements go on, and
/// the future ends when the last one has. Fails at once when the certificate or a verifier cannot be read.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    config: Config,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
    if config.require_tls && tls.is_none() {
        return Err(invalid("TLS is required of clients, but no certificate is configured".to_owned()));
    }
    let users = config
        .users
        .iter()
        .map(|(user, verifier)| Ok((user.clone(), Verifier::parse(verifier)?)))
        .collect::<crate::session::Result<HashMap<_, _>>>()
        .map_err(|error| invalid(error.to_string()))?;
    let mut secret = [0; 32];
    scram::random(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
    let sockets_max = shared.registry.sessions_max() + OPENING_MAX;
    let sockets = Arc::new(Semaphore::new(sockets_max));
    let listening =
        Arc::new(Listening { shared, tls, require_tls: config.require_tls, users, secret, shutdown: shutdown.clone() });
    let permits = u32::try_from(sockets_max).map_err(|_| invalid("max_connections is too large".to_owned()))?;
    loop {
        let permit = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            permit = Arc::clone(&sockets).acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            biased;
            _ = shutdown.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let listening = Arc::clone(&listening);
                runtime::spawn(async move {
                    connection(socket, listening).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // All permits are back when the last connection has ended.
    let _ = sockets.acquire_many(permits).await;
    Ok(())
}

async fn connection(socket: TcpStream, listening: Arc<Listening>) {
    let client = socket.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%client, %error, "TCP_NODELAY was refused");
    }
    match startup::open(socket, &listening, &client).await {
        Ok(()) | Err(End::Gone) => {}
        Err(End::Fatal(error)) => tracing::debug!(%client, %error, "connection ended"),
    }
}

/// Runs a connection whose client is known.
pub(super) async fn run<S>(mut connection: Connection<S>) -> Result<(), End>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    let ended = connection.serve().await;
    if let Err(End::Fatal(error)) = &ended {
        connection.socket.fatal(error).await;
    }
    ended
}
