//! Documents about the API itself: health, version, discovery, OpenAPI.

use http::header::{CACHE_CONTROL, ETAG, HeaderValue};
use http::{Method, Response};

use super::answer::{self, Body, JSON};
use super::handler::{Call, Server};
use super::negotiate;
use crate::discovery;
use crate::openapi::{self, OpenApi};
use crate::status::ApiError;

impl Server {
    /// What anybody may read.
    pub(super) fn public(&self, method: &Method, path: &str) -> Option<Response<Body>> {
        let known = matches!(path, "/healthz" | "/livez" | "/readyz" | "/version");
        if !known || method != Method::GET {
            return None;
        }
        Some(match path {
            "/version" => answer::json(200, &discovery::version()),
            _ => answer::bytes(200, "text/plain; charset=utf-8", "ok"),
        })
    }

    /// Discovery and OpenAPI.
    pub(super) fn document(
        &self,
        call: &Call,
        path: &str,
    ) -> Result<Option<Response<Body>>, ApiError> {
        let registry = self.api.registry();
        let core = path == "/api" || path == "/api/";
        let response = match path.trim_end_matches('/') {
            "/api" | "/apis" => match negotiate::aggregated(&call.headers) {
                Some(version) => {
                    let mut document = discovery::aggregated(registry, core);
                    document["apiVersion"] = format!("apidiscovery.k8s.io/{version}").into();
                    let media = format!(
                        "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                    );
                    answer::bytes(200, &media, document.to_string())
                }
                None if core => answer::json(200, &discovery::core_versions(&self.address)),
                None => answer::json(200, &discovery::groups(registry)),
            },
            "/openapi/v2" => answer::bytes(200, openapi::V2_TYPE, OpenApi::v2()),
            "/openapi/v3" => answer::json(200, self.openapi.index()),
            other => match (
                other.strip_prefix("/openapi/v3/"),
                other.strip_prefix("/apis/"),
            ) {
                (Some(path), _) => self.openapi_document(call, path)?,
                (None, Some(group)) if !group.contains('/') => {
                    let group = discovery::group(registry, group);
                    answer::json(200, &group.ok_or_else(ApiError::no_such_path)?)
                }
                _ => return Ok(None),
            },
        };
        Ok(Some(response))
    }

    fn openapi_document(&self, call: &Call, path: &str) -> Result<Response<Body>, ApiError> {
        let (hash, document) = self
            .openapi
            .document(path)
            .ok_or_else(ApiError::no_such_path)?;
        let mut response = answer::bytes(200, JSON, document.clone());
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
            response.headers_mut().insert(ETAG, tag);
        }
        if call.parameters.get("hash") == hash {
            // The address changes with the content, so clients may keep it.
            let value = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(CACHE_CONTROL, value);
        }
        Ok(response)
    }
}
