//! Making responses.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::status::ApiError;

/// Body of every response.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) const JSON: &str = "application/json";

/// A response of some bytes.
pub(super) fn bytes(code: u16, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    respond(code, media_type, Full::new(body.into()).boxed_unsync())
}

/// A response with any body.
pub(super) fn respond(code: u16, media_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    let audit = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
    if let Ok(audit) = audit {
        headers.insert(HeaderName::from_static("audit-id"), audit);
    }
    response
}

/// A JSON response.
pub(super) fn json(code: u16, body: &Value) -> Response<Body> {
    bytes(code, JSON, body.to_string())
}

/// A `Status` response.
pub(super) fn error(error: &ApiError) -> Response<Body> {
    json(error.code, &error.status())
}

/// Adds warnings for people at the client's terminal.
pub(super) fn warn(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let text = warning.replace(['\\', '"'], "'");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response
                .headers_mut()
                .append(HeaderName::from_static("warning"), value);
        }
    }
    response
}
