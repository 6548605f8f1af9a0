//! Nodes as their objects describe them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// What an administrator has written on it about its addresses.
    pub asked: AskedAddresses,
    /// What its condition NetworkUnavailable says; `None` if it has none, or says neither.
    pub network_unavailable: Option<bool>,
}

/// Addresses that an administrator has written on a Node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedAddresses {
    /// The address to use and announce (`node-public-ip`), as `--public-ip` says it.
    pub public_ip: Option<Ipv4Addr>,
    /// The same for IPv6 (`node-public-ipv6`).
    pub public_ipv6: Option<Ipv6Addr>,
    /// The address to announce whatever is used (`public-ip-overwrite`).
    pub announced: Option<Ipv4Addr>,
    /// The same for IPv6 (`public-ipv6-overwrite`).
    pub announced_v6: Option<Ipv6Addr>,
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
            asked: AskedAddresses::default(),
            network_unavailable: None,
        }
    }
}
