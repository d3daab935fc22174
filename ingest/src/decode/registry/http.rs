//! One GET or POST over plain HTTP/1.1, from a thread that may wait.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    client::conn::http1::handshake,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that is read.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Where to ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Name or address, without brackets.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// host:port, as a header.
    pub(super) authority: &'a str,
    /// The value of the Authorization header.
    pub(super) authorization: Option<&'a str>,
}

/// GET, or POST where there is a body. Status and body of the answer. The error tells a person what went wrong. Waits no longer than `timeout`. Blocks; not for async code.
pub(super) fn ask(
    target: Target<'_>,
    path: &str,
    body: Option<String>,
    timeout: Duration,
) -> Result<(u16, Bytes), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no connection can be made: {error}"))?;
    let answer = runtime.block_on(async {
        match tokio::time::timeout(timeout, exchange(target, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("there was no answer within {} s", timeout.as_secs())),
        }
    });
    // A look-up of the host's name may still wait; nobody waits for it.
    runtime.shutdown_background();
    answer
}

async fn exchange(target: Target<'_>, path: &str, body: Option<String>) -> Result<(u16, Bytes), String> {
    let stream = TcpStream::connect((target.host, target.port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = if body.is_some() { Request::post(path) } else { Request::get(path) };
    let mut request = request
        .header(HOST, target.authority)
        .header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
    if let Some(authorization) = target.authorization {
        let mut value = HeaderValue::from_str(authorization).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/vnd.schemaregistry.v1+json");
    }
    let request = request.body(Full::from(body.unwrap_or_default())).map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?;
        Ok((status, body.to_bytes()))
    };
    // The connection has to be driven beside the exchange; it may end before its last bytes are looked at.
    match select(std::pin::pin!(exchange), std::pin::pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, exchange)) => exchange.await,
    }
}
