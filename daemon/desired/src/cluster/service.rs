//! Services and endpoint slices.

use std::net::IpAddr;

use crate::names::{NodeName, PodName, PortNumber, Protocol, ServiceName, SliceName};

/// `spec.type`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// A virtual address within the cluster (or none: headless).
    #[default]
    ClusterIp,
    /// Also a port on every node.
    NodePort,
    /// Also an address given by a load balancer.
    LoadBalancer,
    /// A DNS alias; nothing to program.
    ExternalName,
}

/// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Endpoints on the node that handles the packet.
    Local,
}

/// One Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// `spec.type`.
    pub service_type: ServiceType,
    /// `spec.clusterIPs` without `None`: empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` that nodes answer for (`ipMode` VIP or unset).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// Who serves traffic from pods and nodes to the cluster address.
    pub internal_traffic_policy: TrafficPolicy,
    /// Who serves traffic to external and load-balancer addresses.
    pub external_traffic_policy: TrafficPolicy,
    /// `sessionAffinity: ClientIP`: for how many seconds a client sticks to its endpoint.
    pub affinity_seconds: Option<u32>,
    /// Label `service.kubernetes.io/service-proxy-name`: somebody else implements this Service.
    pub foreign_proxy: bool,
}

impl Service {
    /// A ClusterIP Service without address or port.
    #[must_use]
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            service_type: ServiceType::ClusterIp,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            ports: Vec::new(),
            internal_traffic_policy: TrafficPolicy::Cluster,
            external_traffic_policy: TrafficPolicy::Cluster,
            affinity_seconds: None,
            foreign_proxy: false,
        }
    }
}

/// One entry of `spec.ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// `name`; empty when the Service has one port and does not name it. Slices repeat it.
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: PortNumber,
    /// `nodePort`, when one is allocated.
    pub node_port: Option<PortNumber>,
}

/// One EndpointSlice of addresses (slices of DNS names carry no endpoint).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: SliceName,
    /// Label `kubernetes.io/service-name`.
    pub service: Option<ServiceName>,
    /// Label `service.kubernetes.io/headless`: proxies skip the slice.
    pub headless: bool,
    /// `ports`; target ports are resolved here already.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<SliceEndpoint>,
}

impl EndpointSlice {
    /// An empty slice of a service.
    #[must_use]
    pub fn new(name: SliceName, service: Option<ServiceName>) -> Self {
        Self {
            name,
            service,
            headless: false,
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }
}

/// One entry of a slice's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// `name`, equal to the Service port's; empty when unnamed.
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`; `None` means every port, which a Service cannot use.
    pub port: Option<PortNumber>,
}

/// One entry of a slice's `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// `addresses`; all are the same endpoint, proxies use the first.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`, nil read as true.
    pub ready: bool,
    /// `conditions.serving`, nil read as `ready`.
    pub serving: bool,
    /// `conditions.terminating`, nil read as false.
    pub terminating: bool,
    /// `nodeName`; without one the endpoint is nowhere local.
    pub node: Option<NodeName>,
    /// `targetRef`, when it is a Pod.
    pub pod: Option<PodName>,
}

impl SliceEndpoint {
    /// A ready endpoint.
    #[must_use]
    pub fn ready(address: IpAddr) -> Self {
        Self {
            addresses: vec![address],
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            pod: None,
        }
    }
}
