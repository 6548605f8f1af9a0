//! Namespaces.

use serde_json::{Value, json};

use crate::json::map_at;

/// A new namespace is active and waits, when deleted, until its content is gone.
pub(crate) fn create(namespace: &mut Value) {
    if let Some(map) = namespace.as_object_mut() {
        map.insert("status".into(), json!({"phase": "Active"}));
        map.insert("spec".into(), json!({"finalizers": ["kubernetes"]}));
    }
}

/// The label by which selectors find a namespace by name.
pub(crate) fn fill(namespace: &mut Value) {
    let Some(metadata) = namespace.get_mut("metadata") else {
        return;
    };
    let name = metadata.get("name").cloned().unwrap_or_default();
    if let Some(labels) = map_at(metadata, "labels") {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
}
