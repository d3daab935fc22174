//! GET and POST over plain HTTP/1.1, from a thread that may wait.

use std::{
    cell::{Cell, RefCell},
    fmt,
    pin::Pin,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::{Either, join_all, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    client::conn::http1::{SendRequest, handshake},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Runtime, sync::Notify};

/// How often a client that waits looks whether it is to give up.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where a service is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Name or address, without brackets.
    host: String,
    port: u16,
    /// host:port as in the URL.
    authority: String,
    /// Before each path; empty or beginning with a slash.
    pub(crate) prefix: String,
    /// The Authorization header.
    authorization: Option<String>,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// It is one of https.
    Https,
    Malformed,
    /// The user is in the text, and was given beside it.
    TwoUsers,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Address {
    /// Without names and passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl Address {
    /// Reads `http://[user:password@]host[:port][/path]`; `user_info` is `user:password` said elsewhere.
    pub(crate) fn parse(url: &str, user_info: Option<&str>) -> Result<Self, NoAddress> {
        let rest = match url.trim().split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => return Err(NoAddress::Https),
            _ => return Err(NoAddress::Malformed),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (in_url, authority) = match authority.rsplit_once('@') {
            Some((user_info, authority)) => (Some(user_info), authority),
            None => (None, authority),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| NoAddress::Malformed)?),
            _ => (authority, 80),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_plain(authority) || !is_plain(path) || path.contains(['?', '#']) {
            return Err(NoAddress::Malformed);
        }
        if in_url.is_some() && user_info.is_some() {
            return Err(NoAddress::TwoUsers);
        }
        let authorization = in_url.or(user_info).map(|info| format!("Basic {}", STANDARD.encode(info)));
        Ok(Self {
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            prefix: path.trim_end_matches('/').to_owned(),
            authorization,
        })
    }

    /// Host, port and path.
    pub(crate) fn place(&self) -> (&str, u16, &str) {
        (&self.host, self.port, &self.prefix)
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> (&str, u16, &str, Option<&str>) {
        (&self.host, self.port, &self.prefix, self.authorization.as_deref())
    }
}

/// How requests are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// The value of the Accept header.
    pub(crate) accept: &'static str,
    /// Longest answer that is read.
    pub(crate) body_bytes_max: usize,
    /// How long one request may take.
    pub(crate) timeout: Duration,
}

/// Status and body of an answer; `None` for a body that is longer than allowed. Or what went wrong, for a person.
pub(crate) type Answer = Result<(u16, Option<Bytes>), String>;

/// What is asked.
#[derive(Clone, Copy)]
struct Asked<'a> {
    path: &'a str,
    /// Its type and its bytes: a POST.
    body: Option<(&'static str, &'a Bytes)>,
}

/// A request that is made again when it failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Persistence {
    pub(crate) tries: u32,
    /// Before the second try; before each later one it is twice as long, up to `pause_max`.
    pub(crate) pause: Duration,
    pub(crate) pause_max: Duration,
    /// Whether an answer is a failure.
    pub(crate) is_failure: fn(&Answer) -> bool,
}

/// Asks one service, over connections that are kept.
pub(crate) struct Client {
    address: Address,
    manner: Manner,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    idle: Vec<Connection>,
}

/// A connection, and what has to be driven beside each exchange over it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Connections are of the runtime. A look-up of the host's name may still wait; nobody waits for it.
        self.idle.clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Client {
    pub(crate) fn new(address: Address, manner: Manner) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no connection can be made: {error}"))?;
        Ok(Self { address, manner, runtime: Some(runtime), idle: Vec::new() })
    }

    /// Status and body of the answer. Blocks; not for async code.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        let persistence =
            Persistence { tries: 1, pause: Duration::ZERO, pause_max: Duration::ZERO, is_failure: |_| false };
        let mut answer = Err("it was not asked".to_owned());
        self.get_all(&[path.to_owned()], 1, persistence, &|| false, |_, given| answer = given);
        answer
    }

    /// The same for a POST. It may be made twice where a connection that was kept turned out to be closed. Blocks; not for async code.
    pub(crate) fn post(&mut self, path: &str, content_type: &'static str, body: Bytes) -> Answer {
        let Some(runtime) = &self.runtime else { return Err("it was not asked".to_owned()) };
        let asked = Asked { path, body: Some((content_type, &body)) };
        let persistence =
            Persistence { tries: 1, pause: Duration::ZERO, pause_max: Duration::ZERO, is_failure: |_| false };
        let mut connection = self.idle.pop();
        let answer = runtime.block_on(persistent(&self.address, self.manner, &mut connection, asked, persistence));
        self.idle.extend(connection);
        answer
    }

    /// Asks for many paths, `at_once` of them beside each other, and gives each answer by the place of its path as it comes. The first that is still a failure after
    /// its last try ends all: what was not answered by then is not given. So does `is_stopping`. Blocks; not for async code.
    pub(crate) fn get_all(
        &mut self,
        paths: &[String],
        at_once: usize,
        persistence: Persistence,
        is_stopping: &dyn Fn() -> bool,
        given: impl FnMut(usize, Answer),
    ) {
        let Some(runtime) = &self.runtime else { return };
        let (next, ends) = (Cell::new(0), Notify::new());
        let (given, idle) = (RefCell::new(given), RefCell::new(std::mem::take(&mut self.idle)));
        let (address, manner) = (&self.address, self.manner);
        let worker = async || {
            let mut connection = idle.borrow_mut().pop();
            while let Some(path) = paths.get(next.get()) {
                let at = next.replace(next.get() + 1);
                let answer =
                    persistent(address, manner, &mut connection, Asked { path, body: None }, persistence).await;
                let is_failure = (persistence.is_failure)(&answer);
                given.borrow_mut()(at, answer);
                if is_failure {
                    next.set(paths.len());
                    ends.notify_one();
                }
            }
            idle.borrow_mut().extend(connection);
        };
        runtime.block_on(async {
            let workers = join_all((0..at_once.min(paths.len())).map(|_| worker()));
            let stopped = async {
                while !is_stopping() {
                    if tokio::time::timeout(LOOK_EVERY, ends.notified()).await.is_ok() {
                        return;
                    }
                }
            };
            select(std::pin::pin!(workers), std::pin::pin!(stopped)).await;
        });
        self.idle = idle.into_inner();
    }
}

async fn persistent(
    address: &Address,
    manner: Manner,
    connection: &mut Option<Connection>,
    asked: Asked<'_>,
    persistence: Persistence,
) -> Answer {
    let mut pause = persistence.pause;
    let mut tries = 1;
    loop {
        let answer = match tokio::time::timeout(manner.timeout, once(address, manner, connection, asked)).await {
            Ok(answer) => answer,
            Err(_) => {
                *connection = None;
                Err(format!("there was no answer within {} ms", manner.timeout.as_millis()))
            }
        };
        if tries >= persistence.tries || !(persistence.is_failure)(&answer) {
            return answer;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(persistence.pause_max);
        tries += 1;
    }
}

async fn once(address: &Address, manner: Manner, kept: &mut Option<Connection>, asked: Asked<'_>) -> Answer {
    // A connection that was kept may have been closed meanwhile, which shows only when it is used.
    if let Some(connection) = kept.take()
        && let Ok(answer) = exchange(address, manner, connection, kept, asked).await
    {
        return Ok(answer);
    }
    let stream = TcpStream::connect((&*address.host, address.port)).await.map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = Connection { sender, driver: Box::pin(async { _ = driver.await }) };
    exchange(address, manner, connection, kept, asked).await
}

/// One request and its answer. The connection is kept if it can be used again.
async fn exchange(
    address: &Address,
    manner: Manner,
    connection: Connection,
    kept: &mut Option<Connection>,
    asked: Asked<'_>,
) -> Answer {
    let Connection { mut sender, mut driver } = connection;
    let request = if asked.body.is_some() { Request::post(asked.path) } else { Request::get(asked.path) };
    let mut request = request.header(HOST, &address.authority).header(ACCEPT, manner.accept);
    if let Some(authorization) = &address.authorization {
        let mut value = HeaderValue::from_str(authorization).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if let Some((content_type, _)) = asked.body {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let body = asked.body.map_or_else(Bytes::new, |(_, body)| body.clone());
    let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
    let exchanged = async {
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        match Limited::new(response.into_body(), manner.body_bytes_max).collect().await {
            Ok(body) => Ok((status, Some(body.to_bytes()))),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok((status, None)),
            Err(error) => Err(format!("the answer cannot be read: {error}")),
        }
    };
    let (answer, is_open) = match select(std::pin::pin!(exchanged), &mut driver).await {
        Either::Left((answer, _)) => (answer, true),
        // It may end before its last bytes are looked at.
        Either::Right(((), exchanged)) => (exchanged.await, false),
    };
    if is_open && matches!(answer, Ok((_, Some(_)))) {
        *kept = Some(Connection { sender, driver });
    }
    answer
}

/// A name as one part of a path.
pub(crate) fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_path() {
        assert_eq!(escaped("a/b c-value.ü"), "a%2Fb%20c-value.%C3%BC");
    }
}
