//! HTTP: the console, the API, metrics and health.
//!
//! | path | what |
//! |---|---|
//! | `/` | the console: one page, nothing fetched from elsewhere |
//! | `/api/v1/query` | SQL in, JSON, NDJSON or CSV out |
//! | `/api/v1/tables`, `/api/v1/tables/{table}` | what there is |
//! | `/api/v1/tables/{table}/rows` | NDJSON in, acknowledged after fsync |
//! | `/api/v1/pipelines/…` | the life of pipelines, as their statements have it |
//! | `/api/v1/schemas/…` | the schema registry, as clients of Confluent's know it |
//! | `/api/v1/openapi.json` | all of it, described |
//! | `/metrics`, `/healthz`, `/readyz` | for machines |
//!
//! There is no authentication yet, so the listener is bound to loopback (`config` refuses anything else), and requests that a browser
//! sends on behalf of another site are refused: by their Origin, and by a Host that is not this machine.

mod api;
mod cell;
mod error;
pub mod metrics;
mod pipelines;
mod query;
mod rows;
mod schemas;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::watch};

use self::error::ApiError;
use crate::{server::instance::Instance, session::Shared};

/// Bytes of one request.
const BODY_BYTES_MAX: usize = 64 << 20;

const CONSOLE: &str = include_str!("console.html");

/// What all requests share.
pub struct State {
    instance: Arc<Instance>,
    shared: Arc<Shared>,
    metrics: metrics::Metrics,
    ready: AtomicBool,
}

impl State {
    pub fn new(instance: Arc<Instance>, shared: Arc<Shared>, metrics: metrics::Metrics) -> Self {
        Self { instance, shared, metrics, ready: AtomicBool::new(false) }
    }

    /// All tables are open.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    fn check_ready(&self) -> Result<(), ApiError> {
        if self.ready.load(Ordering::SeqCst) { Ok(()) } else { Err(ApiError::starting()) }
    }
}

/// Serves until `stop` turns true and the requests at hand are answered.
pub async fn serve(listener: TcpListener, state: Arc<State>, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router(state)).with_graceful_shutdown(stopped).await
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(async || page()))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::render))
        .route("/api/v1/query", post(query::post))
        .route("/api/v1/tables", get(api::tables))
        .route("/api/v1/tables/{table}", get(api::table))
        .route("/api/v1/tables/{table}/rows", post(rows::post))
        .nest("/api/v1/pipelines", pipelines::router())
        .nest("/api/v1/schemas", schemas::router())
        .route("/api/v1/openapi.json", get(api::openapi))
        .fallback(async || ApiError::not_found("there is nothing here; see /api/v1/openapi.json"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "0A000", "this method is not allowed here")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(same_site))
        .with_state(state)
}

fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-cache")], Html(CONSOLE))
}

async fn readyz(axum::extract::State(state): axum::extract::State<Arc<State>>) -> Result<&'static str, ApiError> {
    state.check_ready().map(|()| "ready\n")
}

/// Refuses what another site's page makes a browser send here.
async fn same_site(request: Request, next: Next) -> Response {
    match check_site(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_site(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or("");
    // An address cannot be rebound to another one; a name can, except the machine's own.
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let is_ours =
        name.is_empty() || name == "localhost" || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    if !is_ours {
        return Err(ApiError::forbidden("the Host header names another machine; use localhost or an address"));
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(_) => Err(ApiError::forbidden("requests from other sites are refused")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_site_s_pages_may_ask() {
        let check = |pairs: &[(header::HeaderName, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            check_site(&headers).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&[(header::HOST, "127.0.0.1:8433")]));
        assert!(check(&[(header::HOST, "[::1]:8433")]));
        assert!(check(&[(header::HOST, "localhost:1"), (header::ORIGIN, "http://localhost:1")]));
        assert!(!check(&[(header::HOST, "evil.example:8433")]));
        assert!(!check(&[(header::HOST, "127.0.0.1:8433"), (header::ORIGIN, "http://evil.example")]));
        assert!(!check(&[(header::HOST, "127.0.0.1:8433"), (header::ORIGIN, "null")]));
    }

    #[test]
    fn the_console_fetches_nothing_from_elsewhere() {
        for marker in ["http://", "https://", "//cdn", "src=\"", "@import"] {
            assert!(!CONSOLE.replace("http://www.w3.org/2000/svg", "").contains(marker), "{marker}");
        }
    }
}
