//! Nodes: pod prefixes, addresses and the VXLAN endpoint they announce.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use netstate::{MacAddr, Vni};

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
    /// Where its IPv4 VXLAN endpoint is, when its annotations announce one.
    pub vxlan: Option<VxlanPeer<Ipv4Addr>>,
    /// Where its IPv6 VXLAN endpoint is, when its annotations announce one.
    pub vxlan_v6: Option<VxlanPeer<Ipv6Addr>>,
}

impl Node {
    /// A node of which only the name is known.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            pod_cidrs: Vec::new(),
            addresses: Vec::new(),
            vxlan: None,
            vxlan_v6: None,
        }
    }

    /// Every address that it has itself: those in its status, those it announces for the overlay,
    /// and the first two of each pod prefix (the overlay device's and the pods' gateway).
    #[must_use]
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let v4 = self.vxlan.map(|peer| IpAddr::from(peer.public_ip));
        let v6 = self.vxlan_v6.map(|peer| IpAddr::from(peer.public_ip));
        let in_prefixes = self
            .pod_cidrs
            .iter()
            .flat_map(|prefix| prefix.iter().take(2));
        self.addresses
            .iter()
            .copied()
            .chain(v4)
            .chain(v6)
            .chain(in_prefixes)
            .collect()
    }

    /// Its IPv4 pod prefix.
    #[must_use]
    pub fn pod_cidr_v4(&self) -> Option<Ipv4Network> {
        self.pod_cidrs.iter().find_map(|cidr| match cidr {
            IpNetwork::V4(v4) => Some(*v4),
            IpNetwork::V6(_) => None,
        })
    }

    /// Its IPv6 pod prefix.
    #[must_use]
    pub fn pod_cidr_v6(&self) -> Option<Ipv6Network> {
        self.pod_cidrs.iter().find_map(|cidr| match cidr {
            IpNetwork::V4(_) => None,
            IpNetwork::V6(v6) => Some(*v6),
        })
    }
}

/// A VXLAN endpoint as flannel's annotations (`backend-data`, `public-ip`) describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanPeer<Address> {
    /// The network identifier; only peers with our own are reachable.
    pub vni: Vni,
    /// The hardware address of the peer's overlay device.
    pub vtep_mac: MacAddr,
    /// The address that encapsulated packets go to.
    pub public_ip: Address,
}
