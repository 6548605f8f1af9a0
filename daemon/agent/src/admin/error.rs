//! The one error body of the socket API: `{"code", "msg", "details"}` with CNI's codes.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::endpoint::BadRegistration;

/// CNI: invalid configuration.
const INVALID: u32 = 7;
/// CNI: input/output failure.
const IO_FAILURE: u32 = 5;
/// CNI: try again later.
const TRY_AGAIN: u32 = 11;

/// An answer that is no success.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct Body {
    code: u32,
    msg: String,
    details: String,
}

// === impl ApiError ===

impl ApiError {
    fn new(status: StatusCode, code: u32, msg: &str, details: String) -> Self {
        let msg = msg.to_owned();
        Self {
            status,
            body: Body { code, msg, details },
        }
    }

    /// 400: a field is wrong.
    #[must_use]
    pub fn bad_request(details: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, "invalid request", details)
    }

    /// 404: there is no such object.
    #[must_use]
    pub fn not_found(details: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, "not found", details)
    }

    /// 409: it would do harm.
    #[must_use]
    pub fn conflict(details: String) -> Self {
        Self::new(StatusCode::CONFLICT, INVALID, "refused", details)
    }

    /// 503: the daemon cannot answer yet.
    #[must_use]
    pub fn not_ready(details: String) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            TRY_AGAIN,
            "not ready",
            details,
        )
    }

    /// 504: the policy timeout has passed.
    #[must_use]
    pub fn timed_out(details: String) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            TRY_AGAIN,
            "policy timeout",
            details,
        )
    }

    /// 500: files or kernel refused.
    #[must_use]
    pub fn internal(details: String) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            IO_FAILURE,
            "internal error",
            details,
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<BadRegistration> for ApiError {
    fn from(error: BadRegistration) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}
