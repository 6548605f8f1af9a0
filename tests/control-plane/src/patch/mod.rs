//! Patches: JSON (RFC 6902), merge (RFC 7386), strategic merge.

mod keys;
mod strategic;

use serde_json::Value;

use crate::registry::Resource;
use crate::status::ApiError;

/// A parsed patch.
#[derive(Clone, Debug)]
pub enum Patch {
    /// A list of operations.
    Json(json_patch::Patch),
    /// Fields to set; null removes.
    Merge(Value),
    /// As merge, but lists are merged by key.
    Strategic(Value),
    /// The whole new object (PUT of a subresource).
    Replace(Value),
}

impl Patch {
    /// Parses a request body by its media type (without parameters).
    ///
    /// # Errors
    /// 415 for another media type, 400 for a body that is not such a patch.
    pub fn parse(media_type: &str, body: &[u8]) -> Result<Self, ApiError> {
        let bad = |error: serde_json::Error| {
            ApiError::bad_request(format!("the body is not a patch of {media_type}: {error}"))
        };
        match media_type {
            "application/json-patch+json" => {
                serde_json::from_slice(body).map(Self::Json).map_err(bad)
            }
            "application/merge-patch+json" => {
                serde_json::from_slice(body).map(Self::Merge).map_err(bad)
            }
            "application/strategic-merge-patch+json" => serde_json::from_slice(body)
                .map(Self::Strategic)
                .map_err(bad),
            other => Err(ApiError::new(
                415,
                "UnsupportedMediaType",
                format!(
                    "the body of the request was in an unknown format ({other}) - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
                ),
            )),
        }
    }

    /// Applies the patch to an object of `resource`.
    ///
    /// # Errors
    /// 422 when a JSON patch's path does not exist or its test fails, 400 when a strategic patch
    /// does not fit.
    pub fn apply(&self, resource: &Resource, mut object: Value) -> Result<Value, ApiError> {
        match self {
            Self::Json(patch) => {
                json_patch::patch(&mut object, patch).map_err(|error| {
                    ApiError::new(
                        422,
                        "Invalid",
                        format!(
                            "the server rejected our request due to an error in our request: {error}"
                        ),
                    )
                })?;
                Ok(object)
            }
            Self::Merge(patch) => {
                json_patch::merge(&mut object, patch);
                Ok(object)
            }
            Self::Strategic(patch) => {
                strategic::merge(&mut object, patch, resource.kind)
                    .map_err(|error| ApiError::bad_request(error.to_string()))?;
                Ok(object)
            }
            Self::Replace(object) => Ok(object.clone()),
        }
    }
}
