//! The endpoints a Service should have, grouped by address type and by the ports they serve.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{ZONE, selected_pods};
use crate::controllers::action::object_reference;
use crate::controllers::object::{name_of, namespace_of};
use crate::controllers::pod_state;
use crate::controllers::snapshot::Snapshot;

/// Address family of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AddressType {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl AddressType {
    /// As the API writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn of(address: &str) -> Option<Self> {
        match address.parse().ok()? {
            IpAddr::V4(_) => Some(Self::V4),
            IpAddr::V6(_) => Some(Self::V6),
        }
    }
}

/// One resolved port, in an order that makes equal sets compare equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    name: String,
    number: i32,
    protocol: String,
    app_protocol: Option<String>,
}

impl Port {
    /// The port as a slice writes it.
    pub(crate) fn to_endpoint_port(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone()),
            port: Some(self.number),
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }

    /// The port that a slice wrote.
    pub(crate) fn from_endpoint_port(port: &EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            number: port.port.unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            app_protocol: port.app_protocol.clone(),
        }
    }
}

/// Which endpoints go together into slices.
pub(crate) type Group = (AddressType, Vec<Port>);

/// The endpoints wanted: for every address type of the Service at least one group, by pod uid
/// within it.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Endpoints by group and by the uid of their pod.
    pub(crate) endpoints: BTreeMap<Group, BTreeMap<String, Endpoint>>,
    /// When the newest change happened that these endpoints reflect.
    pub(crate) changed_at: Option<Timestamp>,
}

/// Computes the endpoints of a Service from its pods and their nodes.
pub(crate) fn desired_groups(service: &Service, snapshot: &Snapshot) -> Groups {
    let mut groups = Groups {
        changed_at: service
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0),
        ..Groups::default()
    };
    let address_types = address_types(service);
    for pod in selected_pods(service, snapshot) {
        let Some(endpoint) = endpoint(service, pod, snapshot) else {
            continue;
        };
        let ports = ports(service, pod);
        let ready_change = pod_state::condition(pod, "Ready")
            .and_then(|condition| condition.last_transition_time.as_ref())
            .map(|time| time.0);
        let mut used = false;
        for address_type in &address_types {
            let addresses = addresses(pod, *address_type);
            if addresses.is_empty() {
                continue;
            }
            used = true;
            let endpoint = Endpoint {
                addresses,
                ..endpoint.clone()
            };
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            groups
                .endpoints
                .entry((*address_type, ports.clone()))
                .or_default()
                .insert(uid, endpoint);
        }
        if used {
            groups.changed_at = groups.changed_at.max(ready_change);
        }
    }
    for address_type in address_types {
        if !groups
            .endpoints
            .keys()
            .any(|(found, _)| *found == address_type)
        {
            groups
                .endpoints
                .insert((address_type, Vec::new()), BTreeMap::new());
        }
    }
    groups
}

fn address_types(service: &Service) -> Vec<AddressType> {
    let spec = service.spec.as_ref();
    let families = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let mut types: Vec<AddressType> = families
        .iter()
        .map(|family| {
            if family == "IPv6" {
                AddressType::V6
            } else {
                AddressType::V4
            }
        })
        .collect();
    if types.is_empty() {
        let cluster_ip = spec
            .and_then(|spec| spec.cluster_ip.as_deref())
            .unwrap_or_default();
        types.push(AddressType::of(cluster_ip).unwrap_or(AddressType::V4));
    }
    types
}

fn addresses(pod: &Pod, address_type: AddressType) -> Vec<String> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let listed = status.pod_ips.iter().flatten().map(|address| &address.ip);
    let mut addresses: Vec<String> = listed
        .chain(&status.pod_ip)
        .filter(|address| AddressType::of(address) == Some(address_type))
        .cloned()
        .collect();
    addresses.truncate(1);
    addresses
}

fn endpoint(service: &Service, pod: &Pod, snapshot: &Snapshot) -> Option<Endpoint> {
    let spec = service.spec.as_ref()?;
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or_default();
    let node_name = pod_state::node_name(pod);
    let node = node_name.and_then(|name| snapshot.nodes.get("", name));
    // A pod on a node that is gone will be collected; until then it is no endpoint.
    if node_name.is_some() && node.is_none() && !publish_not_ready {
        return None;
    }
    let serving = pod_state::is_ready(pod);
    let terminating = pod_state::is_terminating(pod);
    let ready = publish_not_ready || (serving && !terminating);
    let zone = node
        .and_then(|node| node.metadata.labels.as_ref()?.get(ZONE))
        .cloned();
    Some(Endpoint {
        addresses: Vec::new(),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(
            spec.traffic_distribution.as_deref(),
            ready,
            zone.as_deref(),
            node_name,
        ),
        hostname: hostname(service, pod),
        node_name: node_name.map(str::to_owned),
        target_ref: Some(object_reference(pod)),
        zone,
        deprecated_topology: None,
    })
}

fn hints(
    distribution: Option<&str>,
    ready: bool,
    zone: Option<&str>,
    node: Option<&str>,
) -> Option<EndpointHints> {
    let wants_node = match distribution? {
        "PreferSameNode" => true,
        "PreferSameZone" | "PreferClose" => false,
        _ => return None,
    };
    if !ready {
        return None;
    }
    let zones = zone.map(|zone| {
        vec![ForZone {
            name: zone.to_owned(),
        }]
    });
    let nodes = node.filter(|_| wants_node).map(|node| {
        vec![ForNode {
            name: node.to_owned(),
        }]
    });
    if zones.is_none() && nodes.is_none() {
        return None;
    }
    Some(EndpointHints {
        for_nodes: nodes,
        for_zones: zones,
    })
}

fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let in_subdomain = spec.subdomain.as_deref() == Some(name_of(&service.metadata))
        && namespace_of(&pod.metadata) == namespace_of(&service.metadata);
    spec.hostname
        .clone()
        .filter(|name| in_subdomain && !name.is_empty())
}

/// The ports of the Service as this pod serves them; one that the pod does not have is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let mut resolved: Vec<Port> = ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone().unwrap_or_default(),
                number: target_port(port, pod)?,
                protocol: protocol(port).to_owned(),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    resolved.sort_unstable();
    resolved
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|found| {
            found.name.as_ref() == Some(name)
                && found.protocol.as_deref().unwrap_or("TCP") == protocol(port)
        })
        .map(|found| found.container_port)
}
