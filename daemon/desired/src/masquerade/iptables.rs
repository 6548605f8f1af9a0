//! The same in iptables: chains of our own, each with one jump to it.

use std::collections::BTreeMap;

use netstate::iptables::{Owned, Rule};
use netstate::nft::Family;

use super::{Options, SetNames, inside, own_subnets, pod_networks};
use crate::cluster::Cluster;

/// Our chain in table `nat`.
pub const POSTROUTING_CHAIN: &str = "TOWLINE-POSTRTG";
/// Our chain in table `filter`.
pub const FORWARD_CHAIN: &str = "TOWLINE-FWD";

/// What the two tables of a family hold of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IptablesTables {
    /// In table `nat`.
    pub nat: Owned,
    /// In table `filter`.
    pub filter: Owned,
}

/// The rules of `family`; none without a pod network of it. There is one rule for each node, and
/// only the first packet of a connection from a pod meets it.
#[must_use]
pub fn iptables(cluster: &Cluster, options: &Options, family: Family) -> IptablesTables {
    let networks = pod_networks(cluster, family);
    let mut tables = IptablesTables::default();
    if networks.is_empty() {
        return tables;
    }
    if options.masquerade {
        let rules = source_nat(cluster, options, family);
        tables.nat = owned(
            "POSTROUTING",
            "towline masquerade",
            POSTROUTING_CHAIN,
            rules,
        );
    }
    if options.forward {
        let both =
            |network| ["-s", "-d"].map(|side| Rule::of(&format!("{side} {network} -j ACCEPT")));
        let rules = networks.iter().flat_map(both).collect();
        tables.filter = owned("FORWARD", "towline forward", FORWARD_CHAIN, rules);
    }
    tables
}

fn source_nat(cluster: &Cluster, options: &Options, family: Family) -> Vec<Rule> {
    // A node has at most one subnet of a family.
    let Some(pods) = own_subnets(cluster, family).first().copied() else {
        return Vec::new();
    };
    let inside = inside(cluster, family, options);
    let mut rules = vec![Rule::of(&format!("! -s {pods} -j RETURN"))];
    let kept = inside
        .iter()
        .copied()
        .chain([SetNames::of(family).multicast]);
    rules.extend(kept.map(|network| Rule::of(&format!("-d {network} -j RETURN"))));
    let masquerade = Rule::default().jump("MASQUERADE");
    rules.push(match options.random_fully {
        true => masquerade.and(["--random-fully"]),
        false => masquerade,
    });
    rules
}

fn owned(from: &str, comment: &str, chain: &str, rules: Vec<Rule>) -> Owned {
    let jump = Rule::default().comment(comment).jump(chain);
    Owned {
        chains: BTreeMap::from([(chain.to_owned(), rules)]),
        jumps: BTreeMap::from([(from.to_owned(), vec![jump])]),
    }
}
