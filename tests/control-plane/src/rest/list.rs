//! Lists.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::{Api, Target};
use crate::registry::Resource;
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::{ObjectName, Snapshot, Stored, WatchError};

/// Options of a list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Which objects.
    pub selector: Selector,
    /// Most objects in one answer.
    pub limit: Option<usize>,
    /// Where the last answer ended.
    pub resume: Option<String>,
    /// The revision asked for.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
}

/// One answer to a list.
#[derive(Debug)]
pub struct Page {
    /// Revision of the view.
    pub revision: u64,
    /// The objects.
    pub objects: Vec<Arc<Stored>>,
    /// Token for the next page.
    pub resume: Option<String>,
    /// Objects after this page, when that is known.
    pub remaining: Option<usize>,
}

impl Page {
    /// The list object.
    ///
    /// # Errors
    /// 500 when stored bytes are damaged.
    pub fn to_json(&self, resource: &Resource) -> Result<Bytes, ApiError> {
        let size: usize = self
            .objects
            .iter()
            .map(|object| object.body.len() + 1)
            .sum();
        let mut out = BytesMut::with_capacity(size + 256);
        let head = json!({
            "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
        });
        let head = head.to_string();
        out.put_slice(head.trim_end_matches('}').as_bytes());
        out.put_slice(b",\"metadata\":");
        out.put_slice(self.metadata().to_string().as_bytes());
        out.put_slice(b",\"items\":[");
        for (index, object) in self.objects.iter().enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            out.put_slice(&Api::serve(resource, object)?);
        }
        out.put_slice(b"]}\n");
        Ok(out.freeze())
    }

    /// `ListMeta`.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if let Some(resume) = &self.resume {
            metadata["continue"] = resume.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

impl Api {
    /// Lists objects of one namespace, or of all.
    ///
    /// # Errors
    /// 400 for bad options, 410 when the revision asked for is forgotten, 504 when it is to come.
    pub fn list(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page, ApiError> {
        let after = options.resume.as_deref().filter(|token| !token.is_empty());
        let after = after.map(parse_token).transpose()?;
        let view = self.view(resource, namespace, options, after.as_ref())?;
        let mut objects = view.objects;
        if let Some((_, last)) = &after {
            objects.drain(..objects.partition_point(|object| object.key.object <= *last));
        }
        if !options.selector.is_everything() {
            objects.retain(|object| options.selector.matches(object));
        }
        let mut page = Page {
            revision: view.revision,
            objects,
            resume: None,
            remaining: None,
        };
        if let Some(limit) = options
            .limit
            .filter(|limit| *limit > 0 && *limit < page.objects.len())
        {
            let left = page.objects.len() - limit;
            page.objects.truncate(limit);
            page.remaining = options.selector.is_everything().then_some(left);
            let last = page.objects.last().map(|object| &object.key.object);
            page.resume = last.map(|last| token(page.revision, last));
        }
        Ok(page)
    }

    fn view(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &ListOptions,
        after: Option<&(u64, ObjectName)>,
    ) -> Result<Snapshot, ApiError> {
        let expired = |error: WatchError| ApiError::expired(error.to_string());
        if let Some((revision, last)) = after {
            if *revision == 0 {
                return Ok(self.store.list(&resource.storage, namespace));
            }
            return self.store.list_at(&resource.storage, namespace, *revision).map_err(|_| {
                let mut error = ApiError::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.");
                error.resume = Some(token(0, last));
                error
            });
        }
        let asked = self.asked_revision(options)?;
        let exact = options.resource_version_match.as_deref() == Some("Exact");
        match asked {
            Some(revision) if exact => self
                .store
                .list_at(&resource.storage, namespace, revision)
                .map_err(expired),
            _ => Ok(match (options.selector.name(), namespace) {
                // One name in one place needs no walk.
                (Some(name), place) if place.is_some() || !resource.namespaced => {
                    let target = Target::new(resource, place.unwrap_or_default(), name);
                    let revision = self.store.revision();
                    let objects = self.store.get(&target.key()).into_iter().collect();
                    Snapshot { revision, objects }
                }
                _ => self.store.list(&resource.storage, namespace),
            }),
        }
    }

    /// Checks `resourceVersion` and `resourceVersionMatch` of a list.
    fn asked_revision(&self, options: &ListOptions) -> Result<Option<u64>, ApiError> {
        let given = options
            .resource_version
            .as_deref()
            .filter(|version| !version.is_empty());
        let matching = options
            .resource_version_match
            .as_deref()
            .filter(|text| !text.is_empty());
        match (given, matching) {
            (None, Some(_)) => Err(ApiError::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
            (_, Some(other)) if !matches!(other, "Exact" | "NotOlderThan") => {
                Err(ApiError::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
                )))
            }
            (Some("0"), Some("Exact")) => Err(ApiError::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            )),
            (None, None) => Ok(None),
            (Some(version), _) => self.parse_revision(version).map(Some),
        }
    }

    /// Reads a `resourceVersion` and refuses one from the future.
    ///
    /// # Errors
    /// 400 when it is no number, 504 when the store has not come that far.
    pub fn parse_revision(&self, version: &str) -> Result<u64, ApiError> {
        let revision: u64 = version.parse().map_err(|_| {
            ApiError::bad_request(format!(
                "resourceVersion: Invalid value: \"{version}\": must be a number"
            ))
        })?;
        let current = self.store.revision();
        if revision <= current {
            return Ok(revision);
        }
        let message = format!("Too large resource version: {revision}, current: {current}");
        let mut error = ApiError::new(504, "Timeout", message);
        error.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        Err(error)
    }
}

/// `revision` 0 means "whatever is now".
fn token(revision: u64, last: &ObjectName) -> String {
    let token = json!({"v": 1, "rv": revision, "ns": last.namespace, "name": last.name});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn parse_token(token: &str) -> Result<(u64, ObjectName), ApiError> {
    let parse = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let namespace = value["ns"].as_str()?.to_owned();
        let name = value["name"].as_str()?.to_owned();
        Some((value["rv"].as_u64()?, ObjectName { namespace, name }))
    };
    parse().ok_or_else(|| {
        ApiError::bad_request(
            "continue key is not valid: take it from the previous list's metadata.continue",
        )
    })
}
