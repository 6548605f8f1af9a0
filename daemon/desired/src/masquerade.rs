//! Our nftables table `inet towline`: masquerade, forwarding of cluster traffic, and rejection of
//! what the data path marked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ebpf_shared::hook::MARK_REJECT;
use ebpf_shared::protocol::TCP;
use ipnetwork::IpNetwork;
use netstate::nft::{
    Addresses, Base, Chain, Family, Hook, Mark, Match, Reject, Rule, Set, Table, Verdict,
};
use netstate::route::masked;

use crate::cluster::{Announced, Cluster};

/// The table's name.
pub const TABLE: &str = "towline";

/// `NF_IP_PRI_FILTER`.
const PRIORITY_FILTER: i32 = 0;
/// `NF_IP_PRI_NAT_SRC`.
const PRIORITY_SOURCE_NAT: i32 = 100;

/// The whole table.
///
/// With `masquerade` unset (flannel's `--ip-masq=false`) sources are left alone and the rest stays.
///
/// Pod traffic leaves the cluster under the node's address: source in this node's pod prefix,
/// destination neither in a pod network, nor an address of a node, nor multicast. A pod that talks
/// to a pod or a node keeps its address, so that policy and logs there see who it is.
#[must_use]
pub fn masquerade(cluster: &Cluster, masquerade: bool) -> Table {
    let mut table = Table::new(TABLE);
    let mut source_nat = Vec::new();
    let mut accept = Vec::new();
    for family in [Family::V4, Family::V6] {
        let of_family = |network: &IpNetwork| Family::of(network) == family;
        let networks: BTreeSet<_> = cluster
            .pod_networks
            .iter()
            .copied()
            .map(masked)
            .filter(of_family)
            .collect();
        if networks.is_empty() {
            continue;
        }
        let inside: BTreeSet<_> = networks
            .iter()
            .copied()
            .chain(node_addresses(cluster))
            .filter(of_family)
            .collect();
        let names = SetNames::of(family);
        table
            .sets
            .insert(names.pods.to_owned(), interval_set(family, networks));
        table
            .sets
            .insert(names.inside.to_owned(), interval_set(family, inside));
        accept.extend(accept_cluster(names.pods));
        let own = cluster
            .own_lease()
            .into_iter()
            .flat_map(|lease| lease.subnets);
        let own = own.map(masked).filter(of_family);
        source_nat.extend(own.map(|pods| leave_cluster(pods, &names)));
    }
    // Before routing, because there need not be a route to a service's address.
    let mut hook = |name: &str, base, rules| {
        table
            .chains
            .insert(name.to_owned(), Chain::base(base, rules));
    };
    hook(
        "prerouting",
        Base::filter(Hook::Prerouting, PRIORITY_FILTER),
        reject_marked().into(),
    );
    hook(
        "forward",
        Base::filter(Hook::Forward, PRIORITY_FILTER),
        accept,
    );
    if masquerade {
        let base = Base::nat(Hook::Postrouting, PRIORITY_SOURCE_NAT);
        hook("postrouting", base, source_nat);
    }
    table
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

fn leave_cluster(pods: IpNetwork, names: &SetNames) -> Rule {
    let matches = vec![
        Match::Source(Addresses::Prefix(pods)),
        Match::NotDestination(Addresses::Set(names.inside.to_owned())),
        Match::NotDestination(Addresses::Prefix(names.multicast)),
    ];
    Rule::new(matches, Verdict::Masquerade { random_fully: true })
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
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::fixture::{cluster, node};

    fn text(set: &Set) -> Vec<String> {
        set.elements.iter().map(ToString::to_string).collect()
    }

    fn networked() -> Cluster {
        cluster("n1")
            .with_node(node(
                "n1",
                "10.244.1.0/24",
                "02:00:00:00:00:01",
                "172.30.0.1",
            ))
            .with_node(node(
                "n2",
                "10.244.2.0/24",
                "02:00:00:00:00:02",
                "172.30.0.2",
            ))
    }

    #[test]
    fn pods_leave_under_the_nodes_address_and_talk_to_pods_and_nodes_under_their_own() {
        let table = masquerade(&networked(), true);
        assert_eq!(text(&table.sets["pods4"]), ["10.244.0.0/16"]);
        assert_eq!(
            text(&table.sets["inside4"]),
            ["10.244.0.0/16", "172.30.0.1/32", "172.30.0.2/32"]
        );
        let matches = vec![
            Match::Source(Addresses::Prefix("10.244.1.0/24".parse().unwrap())),
            Match::NotDestination(Addresses::Set("inside4".to_owned())),
            Match::NotDestination(Addresses::Prefix("224.0.0.0/4".parse().unwrap())),
        ];
        let rule = Rule::new(matches, Verdict::Masquerade { random_fully: true })
            .comment("pods leave the cluster under the node's address");
        let base = Base::nat(Hook::Postrouting, 100);
        assert_eq!(table.chains["postrouting"], Chain::base(base, vec![rule]));
        assert_eq!(table.sets.len(), 2, "no IPv6 pod network, no IPv6 set");
    }

    #[test]
    fn what_the_data_path_marked_is_refused_in_the_way_of_its_protocol() {
        let table = masquerade(&networked(), true);
        let verdicts: Vec<_> = table.chains["prerouting"]
            .rules
            .iter()
            .map(|rule| (rule.matches[0].clone(), rule.verdict.clone()))
            .collect();
        let marked = Match::Mark(Mark {
            mask: MARK_REJECT,
            value: MARK_REJECT,
        });
        assert_eq!(
            verdicts,
            [
                (marked.clone(), Some(Verdict::Reject(Reject::TcpReset))),
                (marked, Some(Verdict::Reject(Reject::PortUnreachable))),
            ]
        );
    }

    #[test]
    fn without_masquerade_sources_are_left_alone_and_the_rest_stays() {
        let table = masquerade(&networked(), false);
        assert_eq!(
            table.chains.keys().collect::<Vec<_>>(),
            ["forward", "prerouting"]
        );
        let accepted: Vec<_> = table.chains["forward"]
            .rules
            .iter()
            .map(|rule| rule.matches.clone())
            .collect();
        let pods = || Addresses::Set("pods4".to_owned());
        assert_eq!(
            accepted,
            [
                vec![Match::Source(pods())],
                vec![Match::Destination(pods())]
            ]
        );
    }

    #[test]
    fn a_second_family_has_its_own_sets_and_rule() {
        let mut cluster = networked();
        cluster.pod_networks.push("fd00::/48".parse().unwrap());
        let mut own = cluster.own_node().unwrap().clone();
        own.pod_cidrs.push("fd00:0:0:1::/64".parse().unwrap());
        let table = masquerade(&cluster.with_node(own), true);
        assert_eq!(text(&table.sets["inside6"]), ["fd00::/48"]);
        assert_eq!(table.chains["postrouting"].rules.len(), 2);
        assert_eq!(table.chains["forward"].rules.len(), 4);
    }
}
