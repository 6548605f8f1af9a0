//! Nodes as their objects describe them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::cluster::Announced;
use crate::names::NodeName;

/// One Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: NodeName,
    /// `spec.podCIDRs`, at most one per family.
    pub pod_cidrs: Vec<IpNetwork>,
    /// `status.addresses` of type InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// How its pods are reached, when its annotations say so.
    pub announced: Option<Announced>,
}

impl Node {
    /// A node of which only the name is known.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            pod_cidrs: Vec::new(),
            addresses: Vec::new(),
            announced: None,
        }
    }
}
