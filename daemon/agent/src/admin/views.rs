//! The snapshot as people and programs read it: plain JSON values, computed on demand.

use std::collections::BTreeMap;

use desired::cluster::{
    self, Announced, Cluster, LeaseId, NetworkPolicy, Node, Pod, Service, ServiceType,
};
use desired::names::{NodeName, ServiceName};
use desired::services::{Endpoint, Readiness, endpoints_of, is_programmed};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::Serialize;

use crate::board::LoopStatus;
use crate::lease::Lease;

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// Version of the daemon.
    pub version: &'static str,
    /// This node.
    pub node: String,
    /// When the daemon started.
    pub started: Timestamp,
    /// Whether the node carries pods.
    pub ready: bool,
    /// What it waits for otherwise.
    pub waiting_for: Vec<String>,
    /// What carries Services and policy.
    pub datapath: &'static str,
    /// Whether Services are programmed.
    pub services: bool,
    /// Whether NetworkPolicy is enforced.
    pub policy: bool,
    /// This node's lease, once there is one.
    pub lease: Option<LeaseView>,
    /// Objects in the snapshot by kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// The loops by name.
    pub loops: BTreeMap<&'static str, LoopStatus>,
}

/// A lease: subnets and how their node is reached.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseView {
    /// The node's pods' addresses.
    pub subnets: Vec<String>,
    /// The node, when one of the cluster's has the address.
    pub node: Option<String>,
    /// Whether it is this node's.
    pub own: bool,
    /// Where packets for its pods go, at most one address per family.
    #[serde(rename = "publicIPs")]
    pub public_ips: Vec<String>,
    /// What carries them.
    pub backend: String,
    /// The backend's data, such as VXLAN network and MAC, per family.
    pub data: Vec<String>,
    /// Why this node does not send there.
    pub problem: Option<String>,
}

/// One entry of `GET /v1/nodes`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    name: String,
    this_node: bool,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    addresses: Vec<String>,
    overlay: Option<LeaseView>,
    problem: Option<String>,
}

/// `GET /v1/routes`: what this node holds to reach the others.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutesView {
    routes: Vec<RouteView>,
    problems: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteView {
    destination: String,
    gateway: Option<String>,
    device: Option<String>,
    neighbour_mac: Option<String>,
    node_address: Option<String>,
}

/// One entry of `GET /v1/services`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    programmed: bool,
    cluster_ips: Vec<String>,
    ports: Vec<ServicePortView>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServicePortView {
    name: String,
    protocol: String,
    port: u16,
    node_port: Option<u16>,
    endpoints: Vec<EndpointView>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView {
    address: String,
    node: Option<String>,
    pod: Option<String>,
    local: bool,
    readiness: Readiness,
}

/// One entry of `GET /v1/pods`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    name: String,
    uid: String,
    node: Option<String>,
    addresses: Vec<String>,
    host_network: bool,
    terminated: bool,
    interface: Option<String>,
    policies: Vec<String>,
}

/// One entry of `GET /v1/policies`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    name: String,
    pod_selector: String,
    ingress_rules: Option<usize>,
    egress_rules: Option<usize>,
    local_pods: Vec<String>,
}

/// How many objects of each kind `cluster` has.
#[must_use]
pub fn objects(cluster: &Cluster) -> BTreeMap<&'static str, usize> {
    BTreeMap::from([
        ("nodes", cluster.nodes.len()),
        ("namespaces", cluster.namespaces.len()),
        ("pods", cluster.pods.len()),
        ("services", cluster.services.len()),
        ("endpointSlices", cluster.endpoint_slices.len()),
        ("networkPolicies", cluster.network_policies.len()),
        ("localEndpoints", cluster.local_endpoints.len()),
    ])
}

/// All nodes; why one is left out of the overlay is in `problem`.
#[must_use]
pub fn nodes(cluster: &Cluster, lease: Option<&Lease>) -> Vec<NodeView> {
    let leases = leases(cluster, lease);
    let view = |node: &Node| {
        let name = node.name.to_string();
        let overlay = leases.iter().find(|one| one.node.as_ref() == Some(&name));
        NodeView {
            this_node: node.name == cluster.this_node.name,
            pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            overlay: overlay.cloned(),
            problem: overlay.and_then(|lease| lease.problem.clone()),
            name,
        }
    };
    cluster.nodes.values().map(|node| view(node)).collect()
}

/// All leases whose nodes have said how they are reached.
#[must_use]
pub fn leases(cluster: &Cluster, lease: Option<&Lease>) -> Vec<LeaseView> {
    let tables = lease.map(|lease| desired::routes::routes(cluster, &lease.overlay));
    let problems = tables.map(|tables| tables.problems).unwrap_or_default();
    let own = cluster.own_lease().map(|lease| lease.id);
    let view = |one: &cluster::Lease<'_>| {
        let problem = problems.iter().find(|problem| *problem.lease() == one.id);
        let view = lease_view(&one.subnets, one.announced?);
        Some(LeaseView {
            node: holder(cluster, one).map(ToString::to_string),
            own: own.as_ref() == Some(&one.id),
            problem: problem.map(ToString::to_string),
            ..view
        })
    };
    cluster.leases().iter().filter_map(view).collect()
}

fn lease_view(subnets: &[IpNetwork], announced: &Announced) -> LeaseView {
    let attributes = announced.attributes();
    let data = [attributes.backend_data, attributes.backend_v6_data];
    let data = data.iter().flatten().map(|json| json.as_str().to_owned());
    LeaseView {
        subnets: subnets.iter().map(ToString::to_string).collect(),
        node: None,
        own: false,
        public_ips: announced.addresses().map(|ip| ip.to_string()).collect(),
        backend: announced.backend.name().to_owned(),
        data: data.collect(),
        problem: None,
    }
}

/// The node that holds a lease: by name, or by an address that its object has too.
fn holder<'a>(cluster: &'a Cluster, lease: &'a cluster::Lease<'_>) -> Option<&'a NodeName> {
    if let LeaseId::Node(name) = &lease.id {
        return Some(name);
    }
    if cluster.own_lease().is_some_and(|own| own.id == lease.id) {
        return Some(&cluster.this_node.name);
    }
    let addresses: Vec<_> = lease.announced?.addresses().collect();
    let has = |node: &Node| node.addresses.iter().any(|ip| addresses.contains(ip));
    let mut nodes = cluster.nodes.values();
    nodes.find(|node| has(node)).map(|node| &node.name)
}

/// The lease this node holds, as it has set it up.
#[must_use]
pub fn own_lease(cluster: &Cluster, lease: &Lease) -> LeaseView {
    LeaseView {
        node: Some(cluster.this_node.name.to_string()),
        own: true,
        ..lease_view(&lease.subnets, &lease.announced)
    }
}

/// The routes this node wants, each with the neighbour and tunnel end behind it.
#[must_use]
pub fn routes(cluster: &Cluster, lease: Option<&Lease>) -> RoutesView {
    let Some(lease) = lease else {
        return RoutesView::default();
    };
    let tables = desired::routes::routes(cluster, &lease.overlay);
    let neighbours = tables.neighbours.values();
    let macs: BTreeMap<_, _> = neighbours.map(|one| (one.key.ip, one.mac)).collect();
    let fdb = tables.fdb.values();
    let remotes: BTreeMap<_, _> = fdb.map(|one| (one.key.mac, one.remote)).collect();
    let routes = tables.routes.values().map(|route| {
        let mac = route.gateway.and_then(|gateway| macs.get(&gateway));
        let remote = mac.and_then(|mac| remotes.get(mac));
        RouteView {
            destination: route.key.destination.to_string(),
            gateway: route.gateway.map(|gateway| gateway.to_string()),
            device: route.device.as_ref().map(ToString::to_string),
            neighbour_mac: mac.map(ToString::to_string),
            node_address: remote.map(ToString::to_string),
        }
    });
    RoutesView {
        routes: routes.collect(),
        problems: tables.problems.iter().map(ToString::to_string).collect(),
    }
}

/// All services, or the one called `only`.
#[must_use]
pub fn services(cluster: &Cluster, only: Option<&ServiceName>) -> Vec<ServiceView> {
    let chosen = cluster.services.values();
    let chosen = chosen.filter(|service| only.is_none_or(|name| service.name == *name));
    chosen
        .map(|service| service_view(cluster, service))
        .collect()
}

fn service_view(cluster: &Cluster, service: &Service) -> ServiceView {
    let endpoint = |one: &Endpoint| EndpointView {
        address: std::net::SocketAddr::new(one.address, one.port.get()).to_string(),
        node: one.node.as_ref().map(ToString::to_string),
        pod: one.pod.as_ref().map(ToString::to_string),
        local: one.local,
        readiness: one.readiness,
    };
    let endpoints = endpoints_of(cluster, &service.name);
    let ports = service
        .ports
        .iter()
        .zip(endpoints)
        .map(|(port, (_, endpoints))| ServicePortView {
            name: port.name.clone(),
            protocol: port.protocol.to_string(),
            port: port.port.get(),
            node_port: port.node_port.map(desired::names::PortNumber::get),
            endpoints: endpoints.iter().map(endpoint).collect(),
        });
    ServiceView {
        name: service.name.to_string(),
        kind: match service.service_type {
            ServiceType::ClusterIp => "ClusterIP",
            ServiceType::NodePort => "NodePort",
            ServiceType::LoadBalancer => "LoadBalancer",
            ServiceType::ExternalName => "ExternalName",
        },
        programmed: is_programmed(service),
        cluster_ips: service
            .cluster_ips
            .iter()
            .map(ToString::to_string)
            .collect(),
        ports: ports.collect(),
    }
}

/// All pods, or those called `only` (`namespace/name`).
#[must_use]
pub fn pods(cluster: &Cluster, only: Option<&desired::names::PodName>) -> Vec<PodView> {
    let interfaces: BTreeMap<_, _> = cluster
        .local_endpoints
        .values()
        .map(|endpoint| (&endpoint.pod, &endpoint.host_interface))
        .collect();
    let chosen = cluster.pods.values();
    let chosen = chosen.filter(|pod| only.is_none_or(|name| pod.name == *name));
    let view = |pod: &Pod| PodView {
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
        node: pod.node.as_ref().map(ToString::to_string),
        addresses: pod.addresses.iter().map(ToString::to_string).collect(),
        host_network: pod.host_network,
        terminated: pod.terminated,
        interface: interfaces.get(&pod.name).map(ToString::to_string),
        policies: cluster
            .network_policies
            .values()
            .filter(|policy| selects(policy, pod))
            .map(|policy| policy.name.to_string())
            .collect(),
    };
    chosen.map(|pod| view(pod)).collect()
}

/// All policies with the pods of this node that they select.
#[must_use]
pub fn policies(cluster: &Cluster) -> Vec<PolicyView> {
    let local = |policy: &NetworkPolicy| {
        let endpoints = cluster.local_endpoints.values();
        let pods = endpoints.filter_map(|endpoint| cluster.pod_of(endpoint));
        pods.filter(|pod| selects(policy, pod))
            .map(|pod| pod.name.to_string())
            .collect()
    };
    let view = |policy: &NetworkPolicy| PolicyView {
        name: policy.name.to_string(),
        pod_selector: policy.pod_selector.to_string(),
        ingress_rules: policy.ingress.as_ref().map(Vec::len),
        egress_rules: policy.egress.as_ref().map(Vec::len),
        local_pods: local(policy),
    };
    cluster
        .network_policies
        .values()
        .map(|policy| view(policy))
        .collect()
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    policy.name.namespace == pod.name.namespace
        && !pod.host_network
        && policy.pod_selector.matches(&pod.labels)
}
