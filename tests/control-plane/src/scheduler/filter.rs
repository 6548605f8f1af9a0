//! Which nodes can take a pod.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorTerm, Pod, Taint, Toleration};
use std::net::IpAddr;

use super::affinity::Topology;
use super::resources;
use crate::controllers::labels::{holds, matches_all};
use crate::controllers::object::name_of;
use crate::controllers::pod_state;
use crate::controllers::snapshot::Snapshot;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";

/// Why the node cannot take the pod: of the first rule that speaks against it all reasons; empty when
/// it can. The wording is Kubernetes' own.
pub(super) fn refusals(
    pod: &Pod,
    node: &Node,
    snapshot: &Snapshot,
    topology: &Topology,
) -> Vec<String> {
    let one = |reason: &str| vec![reason.to_owned()];
    let tolerations = tolerations(pod);
    let spec = node.spec.as_ref();
    let closed = taint(UNSCHEDULABLE, "NoSchedule");
    if spec.and_then(|spec| spec.unschedulable) == Some(true) && !tolerated(&closed, tolerations) {
        return one("node(s) were unschedulable");
    }
    if !matches_node_rules(pod, node) {
        return one("node(s) didn't match Pod's node affinity/selector");
    }
    let taints = taints(node);
    let repelling = taints
        .iter()
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .find(|taint| !tolerated(taint, tolerations));
    if let Some(taint) = repelling {
        let value = taint.value.as_deref().unwrap_or_default();
        return vec![format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        )];
    }
    let name = name_of(&node.metadata);
    let neighbours = || {
        let pods = snapshot
            .pods_on(name)
            .filter(|pod| !pod_state::is_terminal(pod));
        pods.map(|pod| pod.as_ref())
    };
    if ports_taken(pod, neighbours()) {
        return one("node(s) didn't have free ports for the requested pod ports");
    }
    let short = shortages(pod, node, neighbours());
    if !short.is_empty() {
        return short;
    }
    topology.refusal(node).map(one).unwrap_or_default()
}

/// Whether the pod's node selector and required node affinity admit the node.
pub(super) fn matches_node_rules(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else {
        return true;
    };
    let labels = node.metadata.labels.as_ref();
    let selected = spec
        .node_selector
        .as_ref()
        .is_none_or(|selector| matches_all(selector, labels));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected && required.is_none_or(|selector| matches_node_selector(selector, node))
}

fn matches_node_selector(selector: &NodeSelector, node: &Node) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|term| matches_node_term(term, node))
}

/// Whether a node selector term matches; an empty term matches nothing.
pub(super) fn matches_node_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    let name = [(
        "metadata.name".to_owned(),
        name_of(&node.metadata).to_owned(),
    )]
    .into();
    let held = |required: &k8s_openapi::api::core::v1::NodeSelectorRequirement, of| {
        let values = required.values.as_deref().unwrap_or_default();
        holds(&required.key, &required.operator, values, of)
    };
    expressions.iter().all(|required| held(required, labels))
        && fields.iter().all(|required| held(required, Some(&name)))
}

/// The pod's tolerations.
pub(super) fn tolerations(pod: &Pod) -> &[Toleration] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default()
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: effect.to_owned(),
        ..Taint::default()
    }
}

/// The node's taints, with those that its conditions imply before anybody has written them.
pub(super) fn taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let mut taints = spec
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let condition = |type_: &str| {
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        let found = conditions
            .iter()
            .find(|condition| condition.type_ == type_)?;
        Some(found.status.as_str())
    };
    if condition("Ready") != Some("True") {
        taints.push(taint(NOT_READY, "NoSchedule"));
    }
    if condition("NetworkUnavailable") == Some("True") {
        taints.push(taint(NETWORK_UNAVAILABLE, "NoSchedule"));
    }
    taints
}

/// Whether one of the tolerations covers the taint.
pub(super) fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && exists)
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

/// Host ports a pod binds: address (`None` for all), protocol and number.
fn host_ports(pod: &Pod) -> impl Iterator<Item = (Option<IpAddr>, &str, i32)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let address: Option<IpAddr> = port
            .host_ip
            .as_ref()
            .and_then(|address| address.parse().ok());
        let address = address.filter(|address| !address.is_unspecified());
        Some((address, port.protocol.as_deref().unwrap_or("TCP"), number))
    })
}

fn ports_taken<'a>(pod: &Pod, neighbours: impl Iterator<Item = &'a Pod>) -> bool {
    if host_ports(pod).next().is_none() {
        return false;
    }
    let taken: Vec<_> = neighbours.flat_map(host_ports).collect();
    host_ports(pod).any(|(address, protocol, number)| {
        taken.iter().any(|(other, other_protocol, other_number)| {
            let meet = address.is_none() || other.is_none() || address == *other;
            meet && protocol == *other_protocol && number == *other_number
        })
    })
}

fn shortages<'a>(pod: &Pod, node: &Node, neighbours: impl Iterator<Item = &'a Pod>) -> Vec<String> {
    let offered = resources::allocatable(node);
    let occupied = resources::occupied(neighbours);
    resources::requests(pod)
        .into_iter()
        .filter(|(name, amount)| {
            let offered = offered.get(name).copied().unwrap_or_default();
            let occupied = occupied.get(name).copied().unwrap_or_default();
            *amount > 0 && occupied + amount > offered
        })
        .map(|(name, _)| match name.as_str() {
            "pods" => "Too many pods".to_owned(),
            name => format!("Insufficient {name}"),
        })
        .collect()
}
