//! Snapshots for the unit tests of the controllers.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::object::{Change, ResourceType};
use super::snapshot::{Observation, Snapshot};

/// The moment at which every test happens.
pub(crate) fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

/// An instant `seconds` before [`now`], as it stands in objects.
pub(crate) fn ago(seconds: i64) -> String {
    (now() - jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn type_of(object: &Value) -> ResourceType {
    let types = [
        ResourceType::of::<ConfigMap>(),
        ResourceType::of::<DaemonSet>(),
        ResourceType::of::<Deployment>(),
        ResourceType::of::<EndpointSlice>(),
        ResourceType::of::<Endpoints>(),
        ResourceType::of::<Lease>(),
        ResourceType::of::<Namespace>(),
        ResourceType::of::<Node>(),
        ResourceType::of::<Pod>(),
        ResourceType::of::<ReplicaSet>(),
        ResourceType::of::<ServiceAccount>(),
        ResourceType::of::<Service>(),
    ];
    let kind = object["kind"].as_str().unwrap();
    types.into_iter().find(|found| found.kind == kind).unwrap()
}

/// A snapshot that has observed these objects since long ago. An object without uid gets
/// `<name>-uid`, one without resource version gets its position, counted from 1.
pub(crate) fn snapshot(objects: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::new("2025-01-01T00:00:00Z".parse().unwrap());
    for (position, object) in objects.iter().enumerate() {
        observe(&mut snapshot, object, position as u64 + 1);
    }
    snapshot
}

/// Lets a snapshot see one more object.
pub(crate) fn observe(snapshot: &mut Snapshot, object: &Value, revision: u64) -> Vec<Change> {
    let mut object = object.clone();
    let metadata = object["metadata"].as_object_mut().unwrap();
    let uid = format!("{}-uid", metadata["name"].as_str().unwrap());
    metadata.entry("uid").or_insert(json!(uid));
    metadata
        .entry("resourceVersion")
        .or_insert(json!(revision.to_string()));
    snapshot
        .observe(type_of(&object), &Observation::Changed(object))
        .unwrap()
}
