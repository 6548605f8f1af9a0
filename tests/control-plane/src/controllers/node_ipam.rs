//! Gives every Node a pod subnet out of each cluster CIDR. The Node objects are the only record: a
//! subnet is free exactly when no Node names it, hence released with the deletion of its Node.

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::action::Action;
use super::controller::Controller;
use super::object::{Change, Key};
use super::snapshot::Snapshot;

/// One cluster CIDR and the prefix length of the subnets cut from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// The cluster CIDR.
    pub(crate) cluster: IpNetwork,
    /// Prefix length of a node's subnet.
    pub(crate) node_prefix: u8,
}

/// The controller. With an IPv4 and an IPv6 pool nodes become dual-stack, in this order.
pub(crate) struct NodeIpam {
    pools: Vec<Pool>,
}

impl NodeIpam {
    /// A controller that allocates one subnet per pool to each node.
    pub(crate) fn new(pools: Vec<Pool>) -> Self {
        Self { pools }
    }
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam"
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        let lacks = |node: &Node| subnets(node).next().is_none();
        match (change.before::<Node>(), change.after::<Node>()) {
            (_, Some(node)) if lacks(node) => vec![change.key.clone()],
            // A released subnet may serve a node that found the pool exhausted.
            (Some(_), None) => snapshot
                .nodes
                .iter()
                .filter(|node| lacks(node))
                .map(|node| Key::of(node.as_ref()))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let Some(node) = snapshot.nodes.get("", &key.name) else {
            return Vec::new();
        };
        if subnets(node).next().is_some() || node.metadata.deletion_timestamp.is_some() {
            return Vec::new();
        }
        let taken: Vec<IpNetwork> = snapshot
            .nodes
            .iter()
            .flat_map(|node| subnets(node))
            .collect();
        let allocated: Option<Vec<IpNetwork>> = self
            .pools
            .iter()
            .map(|pool| first_free(*pool, &taken))
            .collect();
        let Some(allocated) = allocated.filter(|subnets| !subnets.is_empty()) else {
            tracing::warn!(node = %key.name, pools = ?self.pools, "no pod subnet left for node");
            return Vec::new();
        };
        vec![Action::Patch {
            key: key.clone(),
            subresource: None,
            patch: json!({
                "metadata": {"uid": node.metadata.uid},
                "spec": {"podCIDR": allocated[0], "podCIDRs": allocated},
            }),
        }]
    }
}

/// The subnets a Node names; text that is not a network counts as none.
fn subnets(node: &Node) -> impl Iterator<Item = IpNetwork> {
    let spec = node.spec.as_ref();
    let single = spec.and_then(|spec| spec.pod_cidr.as_ref());
    let list = spec.and_then(|spec| spec.pod_cidrs.as_ref());
    single
        .into_iter()
        .chain(list.into_iter().flatten())
        .filter_map(|subnet| subnet.parse().ok())
}

/// The lowest subnet of the pool that overlaps none of those taken.
fn first_free(pool: Pool, taken: &[IpNetwork]) -> Option<IpNetwork> {
    let bits = match pool.cluster {
        IpNetwork::V4(_) => 32,
        IpNetwork::V6(_) => 128,
    };
    let host_bits = u32::from(bits - pool.node_prefix.min(bits));
    let subnet_bits = pool.node_prefix.checked_sub(pool.cluster.prefix())?;
    let first = number(pool.cluster.network());
    let mut used: Vec<(u128, u128)> = taken
        .iter()
        .filter(|subnet| subnet.is_ipv4() == pool.cluster.is_ipv4())
        .map(|subnet| (number(subnet.network()), number(last_address(*subnet))))
        .collect();
    used.sort_unstable();
    let count = 1_u128.checked_shl(u32::from(subnet_bits))?;
    let size = 1_u128.checked_shl(host_bits)?;
    let mut used = used.into_iter().peekable();
    for index in 0..count {
        let start = first + index * size;
        let end = start + (size - 1);
        while used.next_if(|(_, last)| *last < start).is_some() {}
        if used.peek().is_none_or(|(lowest, _)| *lowest > end) {
            return IpNetwork::new(address(start, pool.cluster.is_ipv4()), pool.node_prefix).ok();
        }
    }
    None
}

fn last_address(network: IpNetwork) -> IpAddr {
    match network {
        IpNetwork::V4(network) => IpAddr::V4(network.broadcast()),
        IpNetwork::V6(network) => IpAddr::V6(network.broadcast()),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, ipv4: bool) -> IpAddr {
    if ipv4 {
        let low = u32::try_from(number & u128::from(u32::MAX)).unwrap_or_default();
        IpAddr::V4(Ipv4Addr::from(low))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{now, snapshot};
    use super::*;
    use serde_json::Value;

    fn pool(cluster: &str, node_prefix: u8) -> Pool {
        Pool {
            cluster: cluster.parse().unwrap(),
            node_prefix,
        }
    }

    fn node(name: &str, subnets: &[&str]) -> Value {
        let spec = match subnets.first() {
            Some(first) => json!({"podCIDR": first, "podCIDRs": subnets}),
            None => json!({}),
        };
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
    }

    fn allocate(pools: Vec<Pool>, nodes: &[Value], name: &str) -> Vec<Action> {
        NodeIpam::new(pools).reconcile(&Key::new::<Node>("", name), &snapshot(nodes), now())
    }

    fn patch(actions: &[Action]) -> &Value {
        let [Action::Patch { patch, .. }] = actions else {
            panic!("one patch expected, not {actions:?}")
        };
        &patch["spec"]
    }

    #[test]
    fn the_lowest_subnet_that_overlaps_nothing_is_given() {
        let nodes = [
            node("a", &["10.244.0.0/24"]),
            node("b", &["10.244.2.0/23"]),
            node("c", &["10.244.1.0/25"]),
            node("new", &[]),
        ];
        let actions = allocate(vec![pool("10.244.0.0/16", 24)], &nodes, "new");
        assert_eq!(
            patch(&actions),
            &json!({"podCIDR": "10.244.4.0/24", "podCIDRs": ["10.244.4.0/24"]})
        );
    }

    #[test]
    fn a_released_subnet_is_given_again() {
        let nodes = [node("b", &["10.244.1.0/24"]), node("new", &[])];
        let actions = allocate(vec![pool("10.244.0.0/16", 24)], &nodes, "new");
        assert_eq!(patch(&actions)["podCIDR"], "10.244.0.0/24");
    }

    #[test]
    fn two_pools_make_a_node_dual_stack() {
        let nodes = [
            node("a", &["10.244.0.0/24", "fd00:10::/80"]),
            node("new", &[]),
        ];
        let pools = vec![pool("10.244.0.0/16", 24), pool("fd00:10::/64", 80)];
        assert_eq!(
            patch(&allocate(pools, &nodes, "new")),
            &json!({
                "podCIDR": "10.244.1.0/24",
                "podCIDRs": ["10.244.1.0/24", "fd00:10:0:0:1::/80"],
            })
        );
    }

    #[test]
    fn an_exhausted_pool_gives_nothing_and_a_node_keeps_what_it_has() {
        let nodes = [
            node("a", &["10.244.0.0/25"]),
            node("b", &["10.244.0.128/25"]),
            node("new", &[]),
        ];
        let pools = vec![pool("10.244.0.0/24", 25)];
        assert_eq!(allocate(pools.clone(), &nodes, "new"), []);
        assert_eq!(allocate(pools, &nodes, "a"), []);
    }
}
