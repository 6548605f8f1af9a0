//! EndpointSlices: for every Service with a selector, the addresses of its pods.

mod desired;
mod pack;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::sync::Arc;

use super::action::Action;
use super::controller::Controller;
use super::labels::matches_all;
use super::object::{Change, Key, namespace_of};
use super::pod_state;
use super::snapshot::Snapshot;

pub(crate) use desired::{Port, desired_groups};

/// Label that names the Service of a slice.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names who maintains a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label of slices (and Endpoints) of headless Services.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the change happened that led to the last write.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// This controller, as [`MANAGED_BY`] says.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller.
pub(crate) struct EndpointSlices;

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpoint-slice"
    }

    fn width(&self) -> usize {
        4
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        if change.key.is::<Service>() {
            return vec![change.key.clone()];
        }
        if change.key.is::<EndpointSlice>() {
            return slice_services(change);
        }
        if change.key.is::<Node>() && place_changed(change) {
            return services_on_node(&change.key.name, snapshot);
        }
        services_of_pod(change, snapshot)
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let Some(service) = snapshot.services.get(&key.namespace, &key.name) else {
            return Vec::new();
        };
        // A Service without selector has its slices written by somebody else; one that is going
        // loses them by its owner references.
        if selector(service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Vec::new();
        }
        let groups = desired_groups(service, snapshot);
        let existing: Vec<&Arc<EndpointSlice>> = snapshot
            .endpoint_slices
            .in_namespace(&key.namespace)
            .filter(|slice| is_ours(slice, &key.name))
            .filter(|slice| slice.metadata.deletion_timestamp.is_none())
            .collect();
        pack::pack(service, groups, &existing)
    }
}

/// The selector of a Service whose endpoints are pods.
pub(crate) fn selector(service: &Service) -> Option<&super::labels::Labels> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
}

/// The pods whose addresses may be endpoints of the Service.
pub(crate) fn selected_pods<'a>(
    service: &'a Service,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a Arc<Pod>> {
    let selector = selector(service);
    snapshot
        .pods
        .in_namespace(namespace_of(&service.metadata))
        .filter(move |pod| {
            selector.is_some_and(|selector| matches_all(selector, pod.metadata.labels.as_ref()))
                && !pod_state::is_terminal(pod)
        })
}

fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    let labels = slice.metadata.labels.as_ref()?;
    labels.get(name).map(String::as_str)
}

fn is_ours(slice: &EndpointSlice, service: &str) -> bool {
    label(slice, MANAGED_BY) == Some(MANAGER) && label(slice, SERVICE_NAME) == Some(service)
}

fn slice_services(change: &Change) -> Vec<Key> {
    let mut keys: Vec<Key> = change
        .sides::<EndpointSlice>()
        .filter(|slice| label(slice, MANAGED_BY) == Some(MANAGER))
        .filter_map(|slice| label(slice, SERVICE_NAME))
        .map(|service| Key::new::<Service>(&change.key.namespace, service))
        .collect();
    keys.dedup();
    keys
}

/// Whether a node came, went or moved to another zone; its heartbeats are of no interest.
fn place_changed(change: &Change) -> bool {
    fn zone(node: &Node) -> Option<&String> {
        node.metadata.labels.as_ref()?.get(ZONE)
    }
    change.before::<Node>().map(zone) != change.after::<Node>().map(zone)
}

fn services_on_node(node: &str, snapshot: &Snapshot) -> Vec<Key> {
    let mut keys: Vec<Key> = snapshot
        .pods_on(node)
        .flat_map(|pod| services_selecting(pod, snapshot))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The Services that select a pod, before or after its change.
pub(crate) fn services_of_pod(change: &Change, snapshot: &Snapshot) -> Vec<Key> {
    let mut keys: Vec<Key> = change
        .sides::<Pod>()
        .flat_map(|pod| services_selecting(pod, snapshot))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn services_selecting<'a>(pod: &'a Pod, snapshot: &'a Snapshot) -> impl Iterator<Item = Key> + 'a {
    snapshot
        .services
        .in_namespace(namespace_of(&pod.metadata))
        .filter(|service| {
            selector(service)
                .is_some_and(|selector| matches_all(selector, pod.metadata.labels.as_ref()))
        })
        .map(|service| Key::of(service.as_ref()))
}
