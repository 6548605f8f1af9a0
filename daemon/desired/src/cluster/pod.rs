//! Pods and namespaces, as far as policy needs them.

use std::net::IpAddr;

use crate::labels::Labels;
use crate::names::{NamespaceName, NodeName, PodName, PodUid, PortNumber, Protocol};

/// One Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: NamespaceName,
    /// `metadata.labels`, `kubernetes.io/metadata.name` included.
    pub labels: Labels,
}

/// A declared container port; its name is what policies refer to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerPort {
    /// `name`, when it has one.
    pub name: Option<String>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `containerPort`.
    pub number: PortNumber,
}

/// One Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: PodName,
    /// `metadata.uid`.
    pub uid: PodUid,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nodeName`, once scheduled.
    pub node: Option<NodeName>,
    /// `status.podIPs`: none before the sandbox exists.
    pub addresses: Vec<IpAddr>,
    /// `spec.hostNetwork`: the pod has the node's addresses, and policy does not select it.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its addresses may belong to another pod by now.
    pub terminated: bool,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `metadata.creationTimestamp` in seconds since 1970.
    pub created: i64,
    /// Ports of all containers (sidecars too).
    pub ports: Vec<ContainerPort>,
}

impl Pod {
    /// A pod that runs nowhere yet and declares nothing.
    #[must_use]
    pub fn new(name: PodName, uid: PodUid) -> Self {
        Self {
            name,
            uid,
            labels: Labels::new(),
            node: None,
            addresses: Vec::new(),
            host_network: false,
            terminated: false,
            deleting: false,
            created: 0,
            ports: Vec::new(),
        }
    }

    /// Whether its addresses are its own, now: neither the node's nor perhaps another pod's.
    #[must_use]
    pub fn has_own_addresses(&self) -> bool {
        !self.host_network && !self.terminated
    }

    /// The numbers that a named port stands for in this pod.
    pub fn named_port<'pod>(
        &'pod self,
        name: &'pod str,
        protocol: Protocol,
    ) -> impl Iterator<Item = PortNumber> + 'pod {
        self.ports
            .iter()
            .filter(move |port| port.protocol == protocol && port.name.as_deref() == Some(name))
            .map(|port| port.number)
    }

    pub(super) fn claim_on_address(&self) -> (bool, i64, &PodUid) {
        (!self.deleting, self.created, &self.uid)
    }
}
