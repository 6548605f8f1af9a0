//! Carries out actions through the API and reports what was written, so that the next reconcile sees
//! it without waiting for the watch.

use serde_json::{Value, json};
use std::time::Duration;

use super::action::{Action, Deletion};
use super::informer::{handle, kept_types};
use super::object::{Key, ResourceType};
use crate::client::Client;
use crate::patch::Patch;
use crate::rest::{DeleteOptions, Propagation};
use crate::selector::Selector;
use crate::status::ApiError;

/// One effect on the store.
pub(crate) enum Effect {
    /// The object as it is after the write.
    Written(ResourceType, Value),
    /// The object of this uid is gone.
    Removed(Key, String),
}

/// What came of a round of actions.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Effects, in order.
    pub(crate) effects: Vec<Effect>,
    /// The shortest recheck asked for.
    pub(crate) recheck: Option<Duration>,
    /// What ended the round early.
    pub(crate) error: Option<ApiError>,
}

/// Executes the actions in order up to the first that fails.
pub(crate) async fn execute(client: &Client, actions: Vec<Action>) -> Outcome {
    let mut outcome = Outcome::default();
    for action in actions {
        if let Action::Recheck(pause) = action {
            let shortest = outcome.recheck.map_or(pause, |known| known.min(pause));
            outcome.recheck = Some(shortest);
            continue;
        }
        match execute_one(client, action).await {
            Ok(effect) => outcome.effects.extend(effect),
            Err(error) => {
                outcome.error = Some(error);
                break;
            }
        }
    }
    outcome
}

async fn execute_one(client: &Client, action: Action) -> Result<Option<Effect>, ApiError> {
    match action {
        Action::Create { resource, object } => {
            let created = handle(client, resource)?.create(&object).await?;
            Ok(Some(Effect::Written(resource, created)))
        }
        Action::Patch {
            key,
            subresource,
            patch,
        } => {
            let handle = handle(client, key.resource)?;
            let patch = Patch::Merge(patch);
            let patched = match subresource {
                None => handle.patch(&key.namespace, &key.name, &patch).await?,
                Some(_) => {
                    handle
                        .patch_status(&key.namespace, &key.name, &patch)
                        .await?
                }
            };
            Ok(Some(Effect::Written(key.resource, patched)))
        }
        Action::Delete { key, uid, how } => delete(client, key, uid, how).await.map(Some),
        Action::IfAbsent { absent, then } => {
            for (key, uid) in &absent {
                if exists(client, key, uid.as_deref())? {
                    return Ok(None);
                }
            }
            Box::pin(execute_one(client, *then)).await
        }
        Action::Bind { pod, uid, node } => {
            client
                .bind(&pod.namespace, &pod.name, Some(&uid), &node)
                .await?;
            read(client, &pod)
        }
        Action::FinalizeNamespace { name } => finalize(client, name).await,
        Action::Recheck(_) => Ok(None),
    }
}

fn exists(client: &Client, key: &Key, uid: Option<&str>) -> Result<bool, ApiError> {
    let found = handle(client, key.resource)?.get(&key.namespace, &key.name)?;
    Ok(found.is_some_and(|object| uid.is_none_or(|uid| object["metadata"]["uid"] == uid)))
}

fn read(client: &Client, key: &Key) -> Result<Option<Effect>, ApiError> {
    let found = handle(client, key.resource)?.get(&key.namespace, &key.name)?;
    Ok(found.map(|object| Effect::Written(key.resource, object)))
}

async fn delete(client: &Client, key: Key, uid: String, how: Deletion) -> Result<Effect, ApiError> {
    let options = DeleteOptions {
        grace_seconds: how.grace_seconds.map(u64::from),
        propagation: how.propagation.map(|policy| match policy {
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            _ => Propagation::Background,
        }),
        uid: Some(uid.clone()),
        ..DeleteOptions::default()
    };
    let handle = handle(client, key.resource)?;
    match handle.delete(&key.namespace, &key.name, &options).await {
        Ok(true) => return Ok(Effect::Removed(key, uid)),
        Ok(false) => {}
        Err(error) if error.code == 404 => return Ok(Effect::Removed(key, uid)),
        // Another object has taken the name: the one meant is gone.
        Err(error) if error.code == 409 => {
            if !exists(client, &key, Some(&uid))? {
                return Ok(Effect::Removed(key, uid));
            }
            return Err(error);
        }
        Err(error) => return Err(error),
    }
    // The object may have gone between the deletion and this read.
    Ok(read(client, &key)?.unwrap_or(Effect::Removed(key, uid)))
}

async fn finalize(client: &Client, name: String) -> Result<Option<Effect>, ApiError> {
    for resource in kept_types(client) {
        let handle = handle(client, resource)?;
        if handle.resource().namespaced {
            let (objects, _) = handle.list(Some(&name), &Selector::default())?;
            // What is left will report its own removal, and the namespace is looked at again.
            if !objects.is_empty() {
                return Ok(None);
            }
        }
    }
    let Some(mut namespace) = client.untyped("", "namespaces")?.get("", &name)? else {
        return Ok(None);
    };
    namespace["spec"]["finalizers"] = json!([]);
    client.finalize_namespace(namespace).await?;
    Ok(None)
}
