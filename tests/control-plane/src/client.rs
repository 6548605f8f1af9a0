//! The API in-process: what controllers and the scheduler use.
//!
//! Every call goes through the same checks, defaults and allocators as a request over HTTP. Handles
//! are typed by a `k8s-openapi` type, or untyped (`serde_json::Value`), which keeps fields the
//! types do not know.
//!
//! ```ignore
//! let pods = client.typed::<Pod>()?;
//! let (now, revision) = pods.list(None, &Selector::default())?;
//! let mut events = pods.watch(revision)?;
//! while let Some(event) = events.next().await { /* … */ }
//! ```

use std::marker::PhantomData;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::patch::Patch;
use crate::registry::Resource;
use crate::rest::{Api, DeleteOptions, FieldValidation, ListOptions, Part, Target, WriteOptions};
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::{EventKind, WatchError};

/// The API in-process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    api: Arc<Api>,
}

/// Access to one kind, as `K` or as [`Value`].
#[derive(Debug)]
pub struct Handle<K> {
    api: Arc<Api>,
    resource: Arc<Resource>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Handle<K> {
    fn clone(&self) -> Self {
        Self {
            api: self.api.clone(),
            resource: self.resource.clone(),
            kind: PhantomData,
        }
    }
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent<K> {
    /// It appeared.
    Added(K),
    /// It changed.
    Modified(K),
    /// It is gone; this is its last version.
    Deleted(K),
}

impl Client {
    /// A client of an API.
    pub fn new(api: Arc<Api>) -> Self {
        Self { api }
    }

    /// Access to the kind `K`.
    ///
    /// # Errors
    /// 404 when the kind is not served.
    pub fn typed<K>(&self) -> Result<Handle<K>, ApiError>
    where
        K: k8s_openapi::Resource + Serialize + DeserializeOwned,
    {
        let resource = self
            .api
            .registry()
            .find(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT);
        self.handle(resource)
    }

    /// Access to a kind by group (empty for core) and plural, in its preferred version.
    ///
    /// # Errors
    /// 404 when the kind is not served.
    pub fn untyped(&self, group: &str, plural: &str) -> Result<Handle<Value>, ApiError> {
        self.handle(self.api.registry().preferred(group, plural))
    }

    fn handle<K>(&self, resource: Option<&Arc<Resource>>) -> Result<Handle<K>, ApiError> {
        let resource = resource.ok_or_else(ApiError::no_such_path)?.clone();
        Ok(Handle {
            api: self.api.clone(),
            resource,
            kind: PhantomData,
        })
    }

    /// All kinds served, for controllers that look at every object.
    pub fn resources(&self) -> &[Arc<Resource>] {
        self.api.registry().resources()
    }

    /// Revision of the last commit.
    pub fn revision(&self) -> u64 {
        self.api.store().revision()
    }

    /// Binds a pod to a node. With `uid`, only that very pod.
    ///
    /// # Errors
    /// 404, 409 when the pod is bound already or going away.
    pub async fn bind(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        node: &str,
    ) -> Result<(), ApiError> {
        let pods = self.untyped("", "pods")?;
        let binding = serde_json::json!({
            "metadata": {"name": pod, "uid": uid.unwrap_or_default()},
            "target": {"kind": "Node", "name": node},
        });
        let target = Target::new(&pods.resource, namespace, pod);
        self.api.bind(&target, &binding).await.map(drop)
    }

    /// Replaces a namespace's `spec.finalizers` by those of `namespace`; without any it goes away.
    ///
    /// # Errors
    /// 404, 409.
    pub async fn finalize_namespace(&self, namespace: Value) -> Result<(), ApiError> {
        let name = crate::json::text(&namespace, "/metadata/name").to_owned();
        let namespaces = self.untyped("", "namespaces")?;
        let target = Target::new(&namespaces.resource, "", &name);
        self.api.finalize(&target, namespace).await.map(drop)
    }
}

/// The server's own components are trusted to know the fields.
const OPTIONS: WriteOptions = WriteOptions {
    dry_run: false,
    fields: FieldValidation::Ignore,
};

fn decode<K: DeserializeOwned>(body: &[u8]) -> Result<K, ApiError> {
    serde_json::from_slice(body).map_err(ApiError::internal)
}

impl<K: Serialize + DeserializeOwned + Send + 'static> Handle<K> {
    /// The registry's entry.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    fn target(&self, namespace: &str, name: &str) -> Target {
        let namespace = if self.resource.namespaced {
            namespace
        } else {
            ""
        };
        Target::new(&self.resource, namespace, name)
    }

    /// The target an object names itself.
    fn own_target(&self, object: &Value) -> Target {
        use crate::json::text;
        self.target(
            text(object, "/metadata/namespace"),
            text(object, "/metadata/name"),
        )
    }

    fn to_value(object: &K) -> Result<Value, ApiError> {
        serde_json::to_value(object).map_err(ApiError::internal)
    }

    /// Reads an object; `namespace` is empty for cluster-scoped kinds. `None` when there is none.
    ///
    /// # Errors
    /// 500 when it cannot be read as `K`.
    pub fn get(&self, namespace: &str, name: &str) -> Result<Option<K>, ApiError> {
        match self.api.get(&self.target(namespace, name)) {
            Ok(object) => decode(&Api::serve(&self.resource, &object)?).map(Some),
            Err(error) if error.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists objects of a namespace, or of all, and the revision from which to watch.
    ///
    /// # Errors
    /// 500 when one cannot be read as `K`.
    pub fn list(
        &self,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Result<(Vec<K>, u64), ApiError> {
        let options = ListOptions {
            selector: selector.clone(),
            ..ListOptions::default()
        };
        let page = self.api.list(&self.resource, namespace, &options)?;
        let objects = page
            .objects
            .iter()
            .map(|object| decode(&Api::serve(&self.resource, object)?))
            .collect::<Result<_, _>>()?;
        Ok((objects, page.revision))
    }

    /// Creates an object in the namespace it names.
    ///
    /// # Errors
    /// 403, 404 for its namespace, 409 when it exists, 422 when it is not valid.
    pub async fn create(&self, object: &K) -> Result<K, ApiError> {
        let object = Self::to_value(object)?;
        let target = self.target(crate::json::text(&object, "/metadata/namespace"), "");
        decode(&self.api.create(&target, object, OPTIONS).await?.body)
    }

    /// Replaces an object; its `resourceVersion`, when given, must be current.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub async fn update(&self, object: &K) -> Result<K, ApiError> {
        self.replace(object, Part::Main).await
    }

    /// Replaces an object's status; its `resourceVersion`, when given, must be current.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub async fn update_status(&self, object: &K) -> Result<K, ApiError> {
        self.replace(object, Part::Status).await
    }

    async fn replace(&self, object: &K, part: Part) -> Result<K, ApiError> {
        let object = Self::to_value(object)?;
        let target = self.own_target(&object);
        decode(&self.api.update(&target, part, object, OPTIONS).await?.body)
    }

    /// Patches an object. A `metadata.resourceVersion` inside the patch must be current.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub async fn patch(&self, namespace: &str, name: &str, patch: &Patch) -> Result<K, ApiError> {
        let target = self.target(namespace, name);
        decode(
            &self
                .api
                .patch(&target, Part::Main, patch, OPTIONS)
                .await?
                .body,
        )
    }

    /// Patches an object's status.
    ///
    /// # Errors
    /// 404, 409, 422.
    pub async fn patch_status(
        &self,
        namespace: &str,
        name: &str,
        patch: &Patch,
    ) -> Result<K, ApiError> {
        let target = self.target(namespace, name);
        decode(
            &self
                .api
                .patch(&target, Part::Status, patch, OPTIONS)
                .await?
                .body,
        )
    }

    /// Deletes an object. The answer says whether it is gone (and not only marked).
    ///
    /// # Errors
    /// 404, 409 when a precondition does not hold.
    pub async fn delete(
        &self,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<bool, ApiError> {
        let deleted = self
            .api
            .delete(&self.target(namespace, name), options)
            .await?;
        Ok(deleted.gone)
    }

    /// Watches all namespaces from (not including) `revision`. An `Err` item is the last one: list
    /// again and watch from there.
    ///
    /// # Errors
    /// [`WatchError::Expired`] when `revision` is too long ago.
    pub fn watch(
        &self,
        revision: u64,
    ) -> Result<BoxStream<'static, Result<WatchEvent<K>, WatchError>>, WatchError> {
        let watch = self
            .api
            .watch(&self.resource, None, Selector::default(), revision)?;
        let batches = futures::stream::try_unfold(watch, |mut watch| async move {
            let batch = watch.next().await?;
            let resource = watch.resource().clone();
            let events: Vec<_> = batch
                .iter()
                .filter_map(|change| {
                    let event = change.value(&resource).map(serde_json::from_value::<K>);
                    match (event, change.kind) {
                        (Ok(Ok(object)), EventKind::Added) => Some(Ok(WatchEvent::Added(object))),
                        (Ok(Ok(object)), EventKind::Modified) => {
                            Some(Ok(WatchEvent::Modified(object)))
                        }
                        (Ok(Ok(object)), EventKind::Deleted) => {
                            Some(Ok(WatchEvent::Deleted(object)))
                        }
                        // Writes are checked against the same types: only a damaged log gets here.
                        (Ok(Err(error)), _) => {
                            tracing::error!(kind = resource.kind, %error, "object left out of a watch");
                            None
                        }
                        (Err(error), _) => {
                            tracing::error!(kind = resource.kind, %error, "object left out of a watch");
                            None
                        }
                    }
                })
                .collect();
            Ok(Some((futures::stream::iter(events), watch)))
        });
        Ok(futures::TryStreamExt::try_flatten(batches).boxed())
    }
}
