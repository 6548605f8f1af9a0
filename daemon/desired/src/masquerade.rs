//! Masquerade and forwarding of cluster traffic, in our nftables table `inet towline` or in chains
//! of our own in iptables; and in that table the rejection of what the data path marked.

mod iptables;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ebpf_shared::hook::MARK_REJECT;
use ebpf_shared::protocol::TCP;
use ipnetwork::IpNetwork;
use netstate::nft::{
    Addresses, Base, Chain, Family, Hook, Mark, Match, Reject, Rule, Set, Table, Verdict,
};
use netstate::route::masked;

pub use self::iptables::{FORWARD_CHAIN, POSTROUTING_CHAIN, iptables};
use crate::cluster::{Announced, Cluster};

/// The table's name.
pub const TABLE: &str = "towline";

/// `NF_IP_PRI_FILTER`.
const PRIORITY_FILTER: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const PRIORITY_SOURCE_NAT: i32 = 100;

/// What is masqueraded, and what else the rules do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Pod traffic that leaves the cluster gets the node's address (flannel's `--ip-masq`).
    pub masquerade: bool,
    /// What goes to nodes gets it too, as with flannel.
    pub nodes: bool,
    /// Source ports are chosen at random.
    pub random_fully: bool,
    /// Pod traffic is accepted where packets are forwarded (`--iptables-forward-rules`).
    pub forward: bool,
}

/// The whole nftables table.
///
/// With `masquerade` unset sources are left alone and the rest stays.
///
/// Pod traffic leaves the cluster under the node's address: source in this node's pod prefix,
/// destination neither in a pod network, nor an address of a node, nor multicast. A pod that talks
/// to a pod or a node keeps its address, so that policy and logs there see who it is.
#[must_use]
pub fn masquerade(cluster: &Cluster, options: &Options) -> Table {
    let mut table = refusals();
    let mut source_nat = Vec::new();
    let mut accept = Vec::new();
    for family in [Family::V4, Family::V6] {
        let networks = pod_networks(cluster, family);
        if networks.is_empty() {
            continue;
        }
        let inside = inside(cluster, family, options);
        let names = SetNames::of(family);
        table
            .sets
            .insert(names.pods.to_owned(), interval_set(family, networks));
        table
            .sets
            .insert(names.inside.to_owned(), interval_set(family, inside));
        accept.extend(accept_cluster(names.pods));
        let own = own_subnets(cluster, family).into_iter();
        source_nat.extend(own.map(|pods| leave_cluster(pods, &names, options.random_fully)));
    }
    let mut hook = |name: &str, base, rules| {
        table
            .chains
            .insert(name.to_owned(), Chain::base(base, rules));
    };
    if options.forward {
        let base = Base::filter(Hook::Forward, PRIORITY_FILTER);
        hook("forward", base, accept);
    }
    if options.masquerade {
        let base = Base::nat(Hook::Postrouting, PRIORITY_SOURCE_NAT);
        hook("postrouting", base, source_nat);
    }
    table
}

/// The nftables table where iptables does the rest: only what the data path marked is rejected.
#[must_use]
pub fn refusals() -> Table {
    let mut table = Table::new(TABLE);
    // Before routing, because there need not be a route to a service's address.
    let base = Base::filter(Hook::Prerouting, PRIORITY_FILTER);
    let chain = Chain::base(base, reject_marked().into());
    table.chains.insert("prerouting".to_owned(), chain);
    table
}

fn pod_networks(cluster: &Cluster, family: Family) -> BTreeSet<IpNetwork> {
    let networks = cluster.pod_networks.iter().copied().map(masked);
    networks.filter(|one| Family::of(one) == family).collect()
}

/// Destinations that pods talk to under their own address.
fn inside(cluster: &Cluster, family: Family, options: &Options) -> BTreeSet<IpNetwork> {
    let mut inside = pod_networks(cluster, family);
    if !options.nodes {
        inside.extend(node_addresses(cluster).filter(|one| Family::of(one) == family));
    }
    inside
}

fn own_subnets(cluster: &Cluster, family: Family) -> Vec<IpNetwork> {
    let lease = cluster.own_lease().into_iter();
    let subnets = lease.flat_map(|lease| lease.subnets).map(masked);
    subnets.filter(|one| Family::of(one) == family).collect()
}

struct SetNames {
    /// The pod networks.
    pods: &'static str,
    /// The pod networks and the nodes.
    inside: &'static str,
    multicast: IpNetwork,
}

impl SetNames {
    fn of(family: Family) -> Self {
        let v4 = std::net::Ipv4Addr::new(224, 0, 0, 0);
        let v6 = std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);
        let prefix = |address: IpAddr, length| {
            IpNetwork::new(address, length).unwrap_or_else(|_| IpNetwork::from(address))
        };
        match family {
            Family::V4 => Self {
                pods: "pods4",
                inside: "inside4",
                multicast: prefix(v4.into(), 4),
            },
            Family::V6 => Self {
                pods: "pods6",
                inside: "inside6",
                multicast: prefix(v6.into(), 8),
            },
        }
    }
}

fn node_addresses(cluster: &Cluster) -> impl Iterator<Item = IpNetwork> + '_ {
    let nodes = cluster
        .nodes
        .values()
        .flat_map(|node| node.addresses.iter());
    let leases = cluster.leases().into_iter();
    let announced = leases.flat_map(|lease| lease.announced.into_iter());
    let announced = announced.flat_map(Announced::addresses);
    nodes
        .chain(&cluster.this_node.addresses)
        .copied()
        .chain(announced)
        .map(IpNetwork::from)
}

fn interval_set(family: Family, elements: BTreeSet<IpNetwork>) -> Set {
    Set {
        family,
        interval: true,
        elements,
    }
}

fn leave_cluster(pods: IpNetwork, names: &SetNames, random_fully: bool) -> Rule {
    let matches = vec![
        Match::Source(Addresses::Prefix(pods)),
        Match::NotDestination(Addresses::Set(names.inside.to_owned())),
        Match::NotDestination(Addresses::Prefix(names.multicast)),
    ];
    Rule::new(matches, Verdict::Masquerade { random_fully })
        .comment("pods leave the cluster under the node's address")
}

fn accept_cluster(pods: &str) -> [Rule; 2] {
    let set = || Addresses::Set(pods.to_owned());
    [
        Rule::new(vec![Match::Source(set())], Verdict::Accept),
        Rule::new(vec![Match::Destination(set())], Verdict::Accept),
    ]
}

fn reject_marked() -> [Rule; 2] {
    let marked = || {
        Match::Mark(Mark {
            mask: MARK_REJECT,
            value: MARK_REJECT,
        })
    };
    let tcp = vec![marked(), Match::Protocol(TCP)];
    [
        Rule::new(tcp, Verdict::Reject(Reject::TcpReset)).comment("service without endpoints"),
        Rule::new(vec![marked()], Verdict::Reject(Reject::PortUnreachable))
            .comment("service without endpoints"),
    ]
}

#[cfg(test)]
mod tests;
