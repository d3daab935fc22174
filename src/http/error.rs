//! Errors over HTTP: a status, and the SQLSTATE, message, hint and position as JSON.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::session::SqlError;

#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: Value,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, sqlstate: &str, message: impl Into<String>) -> Self {
        Self { status, body: json!({ "sqlstate": sqlstate, "message": message.into() }) }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "22023", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "42704", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "42501", message)
    }

    pub(super) fn starting() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the server is starting: tables are being opened")
    }

    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.body[key] = value;
        self
    }

    pub(super) fn body(&self) -> Value {
        json!({ "error": self.body })
    }
}

impl From<SqlError> for ApiError {
    fn from(error: SqlError) -> Self {
        let status = match error.state {
            "42P01" | "42704" => StatusCode::NOT_FOUND,
            "42501" => StatusCode::FORBIDDEN,
            "57P01" | "57P03" => StatusCode::SERVICE_UNAVAILABLE,
            "57014" => StatusCode::REQUEST_TIMEOUT,
            "08001" | "08006" => StatusCode::BAD_GATEWAY,
            state => match &state[..2] {
                "53" => StatusCode::SERVICE_UNAVAILABLE,
                "58" | "XX" => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            },
        };
        let body = json!({
            "sqlstate": error.state,
            "message": error.message,
            "detail": error.detail,
            "hint": error.hint,
            "position": error.position,
        });
        Self { status, body }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
