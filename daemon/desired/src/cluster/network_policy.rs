//! NetworkPolicy v1 with its defaults resolved.

use crate::cluster::Pod;
use crate::ip_block::IpBlock;
use crate::labels::LabelSelector;
use crate::names::{PolicyName, PortNumber, Protocol};

/// One NetworkPolicy. `policyTypes` is resolved: a direction that is `None` is not isolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub name: PolicyName,
    /// `spec.podSelector`, within the policy's namespace.
    pub pod_selector: LabelSelector,
    /// What may come in; no rule at all denies everything.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out; no rule at all denies everything.
    pub egress: Option<Vec<Rule>>,
}

impl NetworkPolicy {
    /// Whether it applies to a pod. One with the node's network is never selected.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        !pod.host_network
            && self.name.namespace == pod.name.namespace
            && self.pod_selector.matches(&pod.labels)
    }
}

/// One entry of `ingress` or `egress`: any peer of `peers` on any port of `ports`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `from` / `to`; `None` (missing or empty in the object) is any peer, external ones too.
    pub peers: Option<Vec<Peer>>,
    /// `ports`; `None` (missing or empty in the object) is any port of any protocol.
    pub ports: Option<Vec<PolicyPort>>,
}

/// One entry of `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// `podSelector` and/or `namespaceSelector`.
    Pods(PodPeer),
    /// `ipBlock`.
    IpBlock(IpBlock),
}

/// Pods by selectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPeer {
    /// `namespaceSelector`; `None` is the policy's own namespace.
    pub namespaces: Option<LabelSelector>,
    /// `podSelector`; when left out, everything.
    pub pods: LabelSelector,
}

/// One entry of a rule's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyPort {
    /// `protocol`, TCP when left out.
    pub protocol: Protocol,
    /// `port` and `endPort`.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortMatch {
    /// `port` left out: all of them.
    Any,
    /// `port` to `endPort` (or to itself), both included.
    Range(PortNumber, PortNumber),
    /// A name that the destination pod's containers give to a port.
    Named(String),
}
