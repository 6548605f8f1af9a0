//! Other nodes' pod prefixes: routes, neighbours and forwarding entries of the overlay device.
//!
//! The shape is flannel's: the peer's overlay device has the first address of its pod prefix, so
//! `PREFIX via .0 dev flannel.1 onlink`, a permanent neighbour `.0` at the peer's MAC, and a
//! forwarding entry from that MAC to the peer's public address.
//!
//! Routes to pods of this node are not here: the CNI plugin makes them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netstate::{FdbEntry, FdbKey, IfName, MacAddr, Neighbour, NeighbourKey, Route, RouteKey, Vni};
use thiserror::Error;

use crate::cluster::{Cluster, VxlanPeer};
use crate::names::NodeName;

/// This node's overlay devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// `flannel.<VNI>`, when the cluster has an IPv4 pod network.
    pub v4: Option<OverlayDevice<Ipv4Addr>>,
    /// `flannel-v6.<VNI>`, when the cluster has an IPv6 pod network.
    pub v6: Option<OverlayDevice<Ipv6Addr>>,
}

/// One overlay device as it is on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayDevice<Address> {
    /// The device's name.
    pub name: IfName,
    /// Its network identifier.
    pub vni: Vni,
    /// Its hardware address.
    pub mac: MacAddr,
    /// The address that this node announces to others.
    pub public_ip: Address,
}

/// What the kernel must hold for the overlay. Put routes last, so that no packet finds a route
/// whose neighbour is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTables {
    /// A peer's MAC to the address of its node.
    pub fdb: BTreeMap<FdbKey, FdbEntry>,
    /// A peer's overlay address to its MAC.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// A peer's pod prefix to its overlay address.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Nodes that could not be reached, and why. They are left out; all others are served.
    pub problems: Vec<RouteProblem>,
}

/// Why a node is left out of the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteProblem {
    /// It speaks another network identifier.
    #[error("node {node}: VNI {theirs} differs from ours, {ours}: use one VNI in net-conf.json")]
    OtherVni {
        /// The node.
        node: NodeName,
        /// Its identifier.
        theirs: Vni,
        /// This node's identifier.
        ours: Vni,
    },
    /// It announces an address or MAC that another node (perhaps this one) has already.
    #[error("node {node}: {what} {value} is also that of node {other}: give each node its own")]
    Duplicate {
        /// The node that is left out: the later one by name.
        node: NodeName,
        /// `public-ip`, `VtepMAC` or `podCIDR`.
        what: &'static str,
        /// The value both have.
        value: String,
        /// The node that keeps it.
        other: NodeName,
    },
}

/// Everything needed to reach the pods of all other nodes over the overlay.
///
/// Nodes without a pod prefix or without announcement of a VXLAN endpoint are no problem: they
/// have not joined yet.
#[must_use]
pub fn routes(cluster: &Cluster, overlay: &Overlay) -> RouteTables {
    let mut tables = RouteTables::default();
    if let Some(device) = &overlay.v4 {
        let peers = cluster.nodes.values().filter_map(|node| {
            let prefix = node.pod_cidr_v4()?;
            Some(Candidate {
                node: &node.name,
                prefix: prefix.into(),
                peer: node.vxlan?,
            })
        });
        add_family(cluster, device, peers, &mut tables);
    }
    if let Some(device) = &overlay.v6 {
        let peers = cluster.nodes.values().filter_map(|node| {
            let prefix = node.pod_cidr_v6()?;
            Some(Candidate {
                node: &node.name,
                prefix: prefix.into(),
                peer: node.vxlan_v6?,
            })
        });
        add_family(cluster, device, peers, &mut tables);
    }
    tables
}

struct Candidate<'a, Address> {
    node: &'a NodeName,
    prefix: IpNetwork,
    peer: VxlanPeer<Address>,
}

/// What each value must be unique for: the first node to have it keeps it.
struct Taken<'a, Address> {
    public_ip: BTreeMap<Address, &'a NodeName>,
    mac: BTreeMap<MacAddr, &'a NodeName>,
    prefix: BTreeMap<IpNetwork, &'a NodeName>,
}

fn add_family<'a, Address: Copy + Ord + Into<IpAddr>>(
    cluster: &'a Cluster,
    device: &OverlayDevice<Address>,
    candidates: impl Iterator<Item = Candidate<'a, Address>>,
    tables: &mut RouteTables,
) {
    let own = &cluster.this_node.name;
    let own_prefixes = cluster
        .own_node()
        .into_iter()
        .flat_map(|node| &node.pod_cidrs);
    let mut taken = Taken {
        public_ip: BTreeMap::from([(device.public_ip, own)]),
        mac: BTreeMap::from([(device.mac, own)]),
        prefix: own_prefixes.map(|&prefix| (prefix, own)).collect(),
    };
    for candidate in candidates.filter(|candidate| candidate.node != own) {
        match taken.admit(&candidate, device.vni) {
            Ok(()) => add_peer(&device.name, &candidate, tables),
            Err(problem) => tables.problems.push(problem),
        }
    }
}

impl<'a, Address: Copy + Ord + Into<IpAddr>> Taken<'a, Address> {
    fn admit(&mut self, candidate: &Candidate<'a, Address>, ours: Vni) -> Result<(), RouteProblem> {
        let (node, peer, prefix) = (candidate.node, candidate.peer, candidate.prefix);
        if peer.vni != ours {
            return Err(RouteProblem::OtherVni {
                node: node.clone(),
                theirs: peer.vni,
                ours,
            });
        }
        let duplicate = |what, value: String, other: &NodeName| {
            Err(RouteProblem::Duplicate {
                node: node.clone(),
                what,
                value,
                other: other.clone(),
            })
        };
        if let Some(other) = self.public_ip.get(&peer.public_ip) {
            return duplicate("public-ip", peer.public_ip.into().to_string(), other);
        }
        if let Some(other) = self.mac.get(&peer.vtep_mac) {
            return duplicate("VtepMAC", peer.vtep_mac.to_string(), other);
        }
        if let Some(other) = self.prefix.get(&prefix) {
            return duplicate("podCIDR", prefix.to_string(), other);
        }
        self.public_ip.insert(peer.public_ip, node);
        self.mac.insert(peer.vtep_mac, node);
        self.prefix.insert(prefix, node);
        Ok(())
    }
}

fn add_peer<Address: Copy + Into<IpAddr>>(
    device: &IfName,
    candidate: &Candidate<'_, Address>,
    tables: &mut RouteTables,
) {
    let Candidate { prefix, peer, .. } = candidate;
    let gateway = prefix.network();
    let fdb = FdbEntry {
        key: FdbKey {
            device: device.clone(),
            mac: peer.vtep_mac,
        },
        remote: peer.public_ip.into(),
    };
    let neighbour = Neighbour {
        key: NeighbourKey {
            device: device.clone(),
            ip: gateway,
        },
        mac: peer.vtep_mac,
    };
    let route = Route::via_device(*prefix, device.clone())
        .gateway(gateway)
        .onlink();
    tables.fdb.insert(fdb.key.clone(), fdb);
    tables.neighbours.insert(neighbour.key.clone(), neighbour);
    tables.routes.insert(route.key, route);
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::fixture::{cluster, node};

    fn overlay() -> Overlay {
        let v4 = OverlayDevice {
            name: "flannel.1".parse().unwrap(),
            vni: 1.try_into().unwrap(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            public_ip: "172.30.0.1".parse().unwrap(),
        };
        Overlay {
            v4: Some(v4),
            v6: None,
        }
    }

    fn own() -> crate::cluster::Node {
        node("n1", "10.244.1.0/24", "02:00:00:00:00:01", "172.30.0.1")
    }

    fn lines(tables: &RouteTables) -> Vec<String> {
        let fdb = tables
            .fdb
            .values()
            .map(|entry| format!("{} dst {}", entry.key, entry.remote));
        let neighbours = tables
            .neighbours
            .values()
            .map(|entry| format!("{} at {}", entry.key, entry.mac));
        let routes = tables.routes.values().map(|route| {
            let gateway = route.gateway.unwrap();
            format!(
                "{} via {gateway} onlink={}",
                route.key.destination, route.onlink
            )
        });
        let problems = tables.problems.iter().map(ToString::to_string);
        fdb.chain(neighbours)
            .chain(routes)
            .chain(problems)
            .collect()
    }

    #[test]
    fn each_peer_has_a_route_a_neighbour_and_a_forwarding_entry() {
        let cluster = cluster("n1")
            .with_node(own())
            .with_node(node(
                "n2",
                "10.244.2.0/24",
                "02:00:00:00:00:02",
                "172.30.0.2",
            ))
            .with_node(crate::cluster::Node::new("n3".parse().unwrap()));
        assert_eq!(
            lines(&routes(&cluster, &overlay())),
            [
                "02:00:00:00:00:02 dev flannel.1 dst 172.30.0.2",
                "10.244.2.0 dev flannel.1 at 02:00:00:00:00:02",
                "10.244.2.0/24 via 10.244.2.0 onlink=true",
            ]
        );
        assert_eq!(
            routes(&cluster, &Overlay::default()),
            RouteTables::default()
        );
    }

    #[test]
    fn a_node_that_cannot_be_told_from_another_harms_nobody_else() {
        let mut other_vni = node("n6", "10.244.6.0/24", "02:00:00:00:00:06", "172.30.0.6");
        other_vni.vxlan.as_mut().unwrap().vni = 2.try_into().unwrap();
        let cluster = cluster("n1")
            .with_node(own())
            .with_node(node(
                "n2",
                "10.244.2.0/24",
                "02:00:00:00:00:02",
                "172.30.0.1",
            ))
            .with_node(node(
                "n3",
                "10.244.3.0/24",
                "02:00:00:00:00:03",
                "172.30.0.3",
            ))
            .with_node(node(
                "n4",
                "10.244.4.0/24",
                "02:00:00:00:00:03",
                "172.30.0.4",
            ))
            .with_node(node(
                "n5",
                "10.244.1.0/24",
                "02:00:00:00:00:05",
                "172.30.0.5",
            ))
            .with_node(other_vni);
        assert_eq!(
            lines(&routes(&cluster, &overlay())),
            [
                "02:00:00:00:00:03 dev flannel.1 dst 172.30.0.3",
                "10.244.3.0 dev flannel.1 at 02:00:00:00:00:03",
                "10.244.3.0/24 via 10.244.3.0 onlink=true",
                "node n2: public-ip 172.30.0.1 is also that of node n1: give each node its own",
                "node n4: VtepMAC 02:00:00:00:00:03 is also that of node n3: give each node its own",
                "node n5: podCIDR 10.244.1.0/24 is also that of node n1: give each node its own",
                "node n6: VNI 2 differs from ours, 1: use one VNI in net-conf.json",
            ]
        );
    }

    #[test]
    fn the_second_family_has_a_device_of_its_own() {
        let mut peer = node("n2", "10.244.2.0/24", "02:00:00:00:00:02", "172.30.0.2");
        peer.pod_cidrs.push("fd00:2::/64".parse().unwrap());
        peer.vxlan_v6 = Some(VxlanPeer {
            vni: 1.try_into().unwrap(),
            vtep_mac: "02:00:00:00:06:02".parse().unwrap(),
            public_ip: "fd99::2".parse().unwrap(),
        });
        let v6 = OverlayDevice {
            name: "flannel-v6.1".parse().unwrap(),
            vni: 1.try_into().unwrap(),
            mac: "02:00:00:00:06:01".parse().unwrap(),
            public_ip: "fd99::1".parse().unwrap(),
        };
        let cluster = cluster("n1").with_node(own()).with_node(peer);
        assert_eq!(
            lines(&routes(
                &cluster,
                &Overlay {
                    v4: None,
                    v6: Some(v6)
                }
            )),
            [
                "02:00:00:00:06:02 dev flannel-v6.1 dst fd99::2",
                "fd00:2:: dev flannel-v6.1 at 02:00:00:00:06:02",
                "fd00:2::/64 via fd00:2:: onlink=true",
            ]
        );
    }
}
