//! The snapshot as people and programs read it: plain JSON values, computed on demand.

use std::collections::BTreeMap;

use desired::cluster::{Cluster, NetworkPolicy, Pod, Service, ServiceType};
use desired::names::ServiceName;
use desired::services::{Endpoint, Readiness, endpoints_of, is_programmed};
use jiff::Timestamp;
use serde::Serialize;

use super::lease_views::LeaseView;
use crate::board::LoopStatus;
use crate::config::{Config, Datapath};
use crate::health;

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
    /// What it waits for otherwise, and what else is wrong.
    #[serde(flatten)]
    pub readiness: health::Readiness,
    /// What is done beside the overlay.
    #[serde(flatten)]
    pub features: Features,
    /// This node's lease, once there is one.
    pub lease: Option<LeaseView>,
    /// Objects in the snapshot by kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// The loops by name.
    pub loops: BTreeMap<&'static str, LoopStatus>,
}

/// What is done beside the overlay.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// What carries Services and policy.
    pub datapath: &'static str,
    /// Whether Services are programmed.
    pub services: bool,
    /// Whether NetworkPolicy is enforced.
    pub policy: bool,
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

// === impl Features ===

impl Features {
    /// What `config` asks for.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let carried = config.datapath != Datapath::None;
        Self {
            datapath: match config.datapath {
                Datapath::Ebpf => "ebpf",
                Datapath::None => "none",
            },
            services: config.services && carried,
            policy: config.policy && carried,
        }
    }
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
