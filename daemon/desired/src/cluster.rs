//! The snapshot of the cluster that everything is computed from.

mod endpoint;
mod lease;
mod network_policy;
mod node;
mod pod;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

pub use endpoint::{EndpointId, LocalEndpoint};
pub use lease::{Announced, Backend, DataError, Lease, LeaseId, Leases};
pub use network_policy::{NetworkPolicy, Peer, PodPeer, PolicyPort, PortMatch, Rule};
pub use node::{AskedAddresses, Node};
pub use pod::{ContainerPort, Namespace, Pod};
pub use service::{
    EndpointSlice, Service, ServicePort, ServiceType, SliceEndpoint, SlicePort, TrafficPolicy,
};

use crate::names::{NamespaceName, NodeName, PodName, PolicyName, ServiceName, SliceName};

/// The node that we compute for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThisNode {
    /// `metadata.name` of its Node object.
    pub name: NodeName,
    /// Every address that the node itself sends from or listens on, in the root namespace:
    /// uplinks, the overlay device, the pods' gateway. The agent reads them from the kernel.
    pub addresses: BTreeSet<IpAddr>,
}

/// Everything known of the cluster at one moment.
///
/// Objects are behind an `Arc`, so a clone copies the maps' keys and no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The node that we compute for.
    pub this_node: ThisNode,
    /// The networks all pods are in (`Network` and `IPv6Network` of net-conf.json).
    pub pod_networks: Vec<IpNetwork>,
    /// Whether every watch has delivered its first complete list. Policy is enforced from a
    /// complete snapshot only; before, new endpoints stay closed.
    pub complete: bool,
    /// Which node has which pod subnet.
    pub leases: Leases,
    /// Nodes.
    pub nodes: BTreeMap<NodeName, Arc<Node>>,
    /// Namespaces.
    pub namespaces: BTreeMap<NamespaceName, Arc<Namespace>>,
    /// Pods of all nodes, terminated ones included (they are left out where that matters).
    pub pods: BTreeMap<PodName, Arc<Pod>>,
    /// Services.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Endpoint slices.
    pub endpoint_slices: BTreeMap<SliceName, Arc<EndpointSlice>>,
    /// Network policies.
    pub network_policies: BTreeMap<PolicyName, Arc<NetworkPolicy>>,
    /// Pod interfaces on this node that the CNI plugin has registered.
    pub local_endpoints: BTreeMap<EndpointId, Arc<LocalEndpoint>>,
}

impl Cluster {
    /// A snapshot that knows nothing but its own node, and is not complete.
    #[must_use]
    pub fn new(this_node: ThisNode, pod_networks: Vec<IpNetwork>) -> Self {
        Self {
            this_node,
            pod_networks,
            complete: false,
            leases: Leases::default(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoint_slices: BTreeMap::new(),
            network_policies: BTreeMap::new(),
            local_endpoints: BTreeMap::new(),
        }
    }

    /// This node's own object, when it is known.
    #[must_use]
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&self.this_node.name).map(AsRef::as_ref)
    }

    /// All leases, by name.
    pub fn leases(&self) -> Vec<Lease<'_>> {
        match &self.leases {
            Leases::OnNodes => {
                let nodes = self.nodes.values();
                nodes.map(|node| Lease::of_node(node)).collect()
            }
            Leases::InStore { held, .. } => {
                let held = held.iter();
                held.map(|(key, announced)| Lease::of_key(*key, announced))
                    .collect()
            }
        }
    }

    /// This node's lease, when it has one.
    #[must_use]
    pub fn own_lease(&self) -> Option<Lease<'_>> {
        match &self.leases {
            Leases::OnNodes => self.own_node().map(Lease::of_node),
            Leases::InStore { held, own } => {
                let key = (*own)?;
                held.get(&key)
                    .map(|announced| Lease::of_key(key, announced))
            }
        }
    }

    /// The addresses that this node sends from: as the kernel has them, and as its object and its
    /// lease say.
    #[must_use]
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let object = self.own_node().into_iter().flat_map(|node| &node.addresses);
        let lease = self.own_lease();
        let leased = lease.iter().flat_map(Lease::node_addresses);
        let kernel = &self.this_node.addresses;
        kernel.iter().chain(object).copied().chain(leased).collect()
    }

    /// The pod behind a local endpoint, when its object is known and is the same pod (a
    /// registration that names a UID does not belong to a later pod of the same name).
    #[must_use]
    pub fn pod_of(&self, endpoint: &LocalEndpoint) -> Option<&Pod> {
        let pod = self.pods.get(&endpoint.pod)?;
        let same = endpoint.uid.as_ref().is_none_or(|uid| *uid == pod.uid);
        same.then_some(pod.as_ref())
    }

    /// Which pod owns each address: running pods with a network namespace of their own.
    ///
    /// A registration on this node says so before the pod's status does, and is never late. While
    /// an address changes hands, a pod that is being deleted gives way, then the older one does.
    #[must_use]
    pub fn pods_by_address(&self) -> BTreeMap<IpAddr, &Pod> {
        let registered = self.local_endpoints.values().filter_map(|endpoint| {
            let pod = self.pod_of(endpoint)?;
            Some((true, pod, endpoint.addresses.as_slice()))
        });
        let announced = self
            .pods
            .values()
            .map(|pod| (false, pod.as_ref(), pod.addresses.as_slice()));
        let mut owners: BTreeMap<IpAddr, (bool, &Pod)> = BTreeMap::new();
        let claims = registered
            .chain(announced)
            .filter(|(_, pod, _)| pod.has_own_addresses());
        for (here, pod, addresses) in claims {
            for &address in addresses {
                let owner = owners.entry(address).or_insert((here, pod));
                if (here, pod.claim_on_address()) > (owner.0, owner.1.claim_on_address()) {
                    *owner = (here, pod);
                }
            }
        }
        owners
            .into_iter()
            .map(|(address, (_, pod))| (address, pod))
            .collect()
    }
}
