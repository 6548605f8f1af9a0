//! What a reconcile wants done, as data.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

use super::object::{Identity, Key, ResourceType, uid_of};

/// One wish. Actions of a reconcile are executed in order; the first failure ends the round, and the
/// key is reconciled again after a pause.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Create the object.
    Create {
        /// Its resource type.
        resource: ResourceType,
        /// The whole object, `apiVersion` and `kind` included.
        object: Value,
    },
    /// Apply a JSON merge patch. A `resourceVersion` inside guards against lost updates.
    Patch {
        /// Which object.
        key: Key,
        /// `None` for the object itself, or for example `status`.
        subresource: Option<&'static str>,
        /// The merge patch.
        patch: Value,
    },
    /// Delete the object, provided it still has this uid.
    Delete {
        /// Which object.
        key: Key,
        /// Its uid.
        uid: String,
        /// How.
        how: Deletion,
    },
    /// Do it, provided a live read shows that none of these exists: the snapshot may be a moment
    /// behind, and absence is the one thing it cannot know for certain.
    IfAbsent {
        /// What must be absent: with a uid, that very object; without, any of this name.
        absent: Vec<(Key, Option<String>)>,
        /// What is to be done then.
        then: Box<Action>,
    },
    /// Bind a pod to a node.
    Bind {
        /// Which pod.
        pod: Key,
        /// Its uid.
        uid: String,
        /// The node's name.
        node: String,
    },
    /// Remove the last finalizer of a namespace, provided a live listing shows it to be empty.
    FinalizeNamespace {
        /// The namespace's name.
        name: String,
    },
    /// Reconcile this key again after the pause, whatever happens meanwhile.
    Recheck(Duration),
}

/// How an object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// Grace period in seconds instead of the object's own.
    pub(crate) grace_seconds: Option<u32>,
    /// `propagationPolicy`: `Background`, `Foreground` or `Orphan` instead of the type's default.
    pub(crate) propagation: Option<&'static str>,
}

impl Deletion {
    /// At once, without waiting for a node agent.
    pub(crate) const FORCED: Self = Self {
        grace_seconds: Some(0),
        propagation: None,
    };
    /// Dependents are collected later.
    pub(crate) const BACKGROUND: Self = Self {
        grace_seconds: None,
        propagation: Some("Background"),
    };
    /// Dependents first.
    pub(crate) const FOREGROUND: Self = Self {
        grace_seconds: None,
        propagation: Some("Foreground"),
    };
}

impl Action {
    /// Creation of a typed object.
    pub(crate) fn create<K: Resource + Serialize>(object: &K) -> Self {
        Self::Create {
            resource: ResourceType::of::<K>(),
            object: to_value(object),
        }
    }

    /// Deletion of a typed object in the ordinary way.
    pub(crate) fn delete<K>(object: &K, how: Deletion) -> Self
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        Self::Delete {
            key: Key::of(object),
            uid: uid_of(object.metadata()).to_owned(),
            how,
        }
    }

    /// Deletion of an object known by its identity only.
    pub(crate) fn delete_identity(key: &Key, identity: &Identity, how: Deletion) -> Self {
        Self::Delete {
            key: key.clone(),
            uid: identity.uid.clone(),
            how,
        }
    }

    /// The merge patch that turns `old` into `new`, guarded by the resource version of `old`, or
    /// `None` when nothing differs. `subresource` says where it is sent.
    pub(crate) fn update<K>(old: &K, new: &K, subresource: Option<&'static str>) -> Option<Self>
    where
        K: Resource + Metadata<Ty = ObjectMeta> + Serialize,
    {
        let mut patch = merge_patch(&to_value(old), &to_value(new))?;
        if let Some(version) = &old.metadata().resource_version {
            patch["metadata"]["resourceVersion"] = json!(version);
        }
        Some(Self::Patch {
            key: Key::of(old),
            subresource,
            patch,
        })
    }

    /// Replacement of a typed object's owner references, guarded by its resource version.
    pub(crate) fn set_owners<K>(object: &K, owners: &Value) -> Self
    where
        K: Resource + Metadata<Ty = ObjectMeta>,
    {
        let metadata = object.metadata();
        Self::Patch {
            key: Key::of(object),
            subresource: None,
            patch: json!({"metadata": {
                "ownerReferences": owners,
                "resourceVersion": metadata.resource_version,
                "uid": metadata.uid,
            }}),
        }
    }
}

/// A typed object as JSON. k8s-openapi's types serialise without fail: their maps have string keys.
pub(crate) fn to_value<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

/// The reference to an object that Events and endpoints carry.
pub(crate) fn object_reference<K>(object: &K) -> ObjectReference
where
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    let metadata = object.metadata();
    ObjectReference {
        kind: Some(K::KIND.to_owned()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The JSON merge patch (RFC 7386) from `old` to `new`; `None` when they are equal.
pub(crate) fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let removed = old
        .keys()
        .filter(|name| !new.contains_key(*name))
        .map(|name| (name.clone(), Value::Null));
    let changed = new.iter().filter_map(|(name, value)| {
        let before = old.get(name).unwrap_or(&Value::Null);
        match (before, value) {
            (Value::Null, value) => Some((name.clone(), value.clone())),
            (before, value) => merge_patch(before, value).map(|patch| (name.clone(), patch)),
        }
    });
    Some(Value::Object(removed.chain(changed).collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_holds_only_what_differs() {
        let old = json!({"a": 1, "b": {"c": [1, 2], "d": "x"}, "gone": true});
        let new = json!({"a": 1, "b": {"c": [2], "d": "x", "e": 0}, "new": {}});
        assert_eq!(
            merge_patch(&old, &new),
            Some(json!({"b": {"c": [2], "e": 0}, "gone": null, "new": {}}))
        );
        assert_eq!(merge_patch(&old, &old), None);
    }
}
