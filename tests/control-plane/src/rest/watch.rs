//! Watches with selectors.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::Api;
use crate::registry::Resource;
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::{Event, EventKind, Stored, Watch, WatchError};

/// A watch of one resource that shows only what is selected.
#[derive(Debug)]
pub struct ResourceWatch {
    watch: Watch,
    resource: Arc<Resource>,
    namespace: Option<String>,
    selector: Selector,
}

/// A change as one watcher sees it.
#[derive(Clone, Debug)]
pub struct Filtered {
    /// What it means for the watcher.
    pub kind: EventKind,
    event: Arc<Event>,
}

impl Filtered {
    /// The object to show. When it left the selection this is its last selected version.
    pub fn object(&self) -> &Arc<Stored> {
        match (self.left(), &self.event.previous) {
            (true, Some(previous)) => previous,
            _ => &self.event.object,
        }
    }

    /// Revision of the change.
    pub fn revision(&self) -> u64 {
        self.event.revision()
    }

    fn left(&self) -> bool {
        self.kind == EventKind::Deleted && self.event.kind == EventKind::Modified
    }

    /// The object as a value, carrying the revision of the change.
    ///
    /// # Errors
    /// 500 when stored bytes are damaged.
    pub fn value(&self, resource: &Resource) -> Result<Value, ApiError> {
        let mut value = Api::value(resource, self.object())?;
        if self.left() {
            value["metadata"]["resourceVersion"] = self.revision().to_string().into();
        }
        Ok(value)
    }

    /// The line of a JSON watch stream.
    ///
    /// # Errors
    /// 500 when stored bytes are damaged.
    pub fn line(&self, resource: &Resource) -> Result<Bytes, ApiError> {
        if resource.conversion.is_none() && self.kind == self.event.kind {
            return Ok(self.event.line());
        }
        if resource.conversion.is_none() && !self.left() {
            return Ok(self.kind.line(&self.event.object.body));
        }
        Ok(self.kind.line(&super::to_bytes(&self.value(resource)?)?))
    }
}

impl Api {
    /// Watches a resource from (not including) `revision`.
    ///
    /// # Errors
    /// [`WatchError::Expired`] when that is too long ago.
    pub fn watch(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        selector: Selector,
        revision: u64,
    ) -> Result<ResourceWatch, WatchError> {
        let watch = self.store.watch(&resource.storage, revision)?;
        let namespace = namespace.map(str::to_owned);
        Ok(ResourceWatch {
            watch,
            resource: resource.clone(),
            namespace,
            selector,
        })
    }
}

impl ResourceWatch {
    /// The changes since the last call, waiting for at least one in the resource; the answer is
    /// empty when none of them is selected.
    ///
    /// # Errors
    /// When the watcher fell too far behind, or the store was closed.
    pub async fn next(&mut self) -> Result<Vec<Filtered>, WatchError> {
        let events = self.watch.next().await?;
        Ok(events
            .into_iter()
            .filter_map(|event| self.filter(event))
            .collect())
    }

    /// Revision up to which everything was shown.
    pub fn revision(&self) -> u64 {
        self.watch.revision()
    }

    /// Moves on to the store's revision without waiting; fit before a bookmark.
    ///
    /// # Errors
    /// As [`ResourceWatch::next`].
    pub fn drain(&mut self) -> Result<Vec<Filtered>, WatchError> {
        let events = self.watch.drain()?;
        Ok(events
            .into_iter()
            .filter_map(|event| self.filter(event))
            .collect())
    }

    /// The resource watched.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    fn filter(&self, event: Arc<Event>) -> Option<Filtered> {
        if let Some(namespace) = &self.namespace
            && event.object.key.object.namespace != *namespace
        {
            return None;
        }
        if self.selector.is_everything() {
            return Some(Filtered {
                kind: event.kind,
                event,
            });
        }
        let before = event
            .previous
            .as_ref()
            .is_some_and(|old| self.selector.matches(old));
        let now = event.kind != EventKind::Deleted && self.selector.matches(&event.object);
        let kind = match (before, now) {
            (false, false) => return None,
            (false, true) => EventKind::Added,
            (true, true) => EventKind::Modified,
            (true, false) => EventKind::Deleted,
        };
        Some(Filtered { kind, event })
    }
}
