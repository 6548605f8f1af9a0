//! Follows one resource type: a complete list, then every change, and a new list when the history no
//! longer reaches back to where the watch had stopped.

use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::object::ResourceType;
use super::snapshot::Observation;
use crate::client::{Client, Handle, WatchEvent};
use crate::registry::{Resource, Verbs};
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::WatchError;

/// What an informer reports.
pub(crate) type Report = (ResourceType, Observation);

/// The resource type of a registry entry.
pub(crate) fn type_of(resource: &Resource) -> ResourceType {
    ResourceType {
        group: resource.group,
        plural: resource.plural,
        version: resource.version,
        kind: resource.kind,
    }
}

/// Every resource type that keeps objects, once each even if served by several groups.
pub(crate) fn kept_types(client: &Client) -> Vec<ResourceType> {
    let mut seen = std::collections::HashSet::new();
    client
        .resources()
        .iter()
        .filter(|resource| resource.verbs == Verbs::All && seen.insert(resource.storage.clone()))
        .map(|resource| type_of(resource))
        .collect()
}

/// Untyped access to a resource type.
///
/// # Errors
/// 404 when it is not served.
pub(crate) fn handle(client: &Client, resource: ResourceType) -> Result<Handle<Value>, ApiError> {
    client.untyped(resource.group, resource.plural)
}

/// Reports until nobody listens any more or the store is closed.
///
/// # Errors
/// When the resource type is not served or an object cannot be read.
pub(crate) async fn follow(
    client: Client,
    resource: ResourceType,
    reports: mpsc::Sender<Report>,
) -> Result<(), ApiError> {
    let handle = handle(&client, resource)?;
    loop {
        let (objects, revision) = handle.list(None, &Selector::default())?;
        let listed = Observation::Listed { objects, revision };
        if reports.send((resource, listed)).await.is_err() {
            return Ok(());
        }
        match follow_from(&handle, resource, revision, &reports).await {
            WatchError::Expired { asked, oldest } => {
                tracing::info!(
                    resource = resource.plural,
                    asked,
                    oldest,
                    "watch expired; listing again"
                );
            }
            WatchError::Closed => return Ok(()),
        }
    }
}

/// Reports the changes since a revision and says why it stopped.
async fn follow_from(
    handle: &Handle<Value>,
    resource: ResourceType,
    revision: u64,
    reports: &mpsc::Sender<Report>,
) -> WatchError {
    let mut events = match handle.watch(revision) {
        Ok(events) => events,
        Err(error) => return error,
    };
    while let Some(event) = events.next().await {
        let observation = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                Observation::Changed(object)
            }
            Ok(WatchEvent::Deleted(object)) => Observation::Deleted(object),
            Err(error) => return error,
        };
        if reports.send((resource, observation)).await.is_err() {
            break;
        }
    }
    WatchError::Closed
}
