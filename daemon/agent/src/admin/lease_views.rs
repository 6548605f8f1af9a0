//! Leases, nodes and routes as people and programs read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use desired::cluster::{self, Announced, Cluster, LeaseId, Leases, Node};
use desired::lease::LeaseKey;
use desired::names::NodeName;
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::Serialize;

use crate::findings::Findings;
use crate::lease::etcd::Expiry;
use crate::lease::{Ages, Lease};
use crate::store::Kind;
use crate::translate::TranslateError;

/// A lease: subnets and how their node is reached.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseView {
    /// The node's pods' addresses.
    pub subnets: Vec<String>,
    /// The node, when one of the cluster's has the address.
    pub node: Option<String>,
    /// Whether it is this node's.
    pub own: bool,
    /// Where packets for its pods go, at most one address per family.
    #[serde(rename = "publicIPs")]
    pub public_ips: Vec<String>,
    /// What carries them.
    pub backend: String,
    /// The backend's data, such as VXLAN network and MAC, per family.
    pub data: Vec<String>,
    /// `own`, `ok`, `unannounced` (nobody has said how it is reached) or `problem`.
    pub state: &'static str,
    /// Why this node does not send there.
    pub problem: Option<String>,
    /// Since when this daemon knows it as it is.
    pub since: Option<Timestamp>,
    /// Seconds after which it is free again unless its node keeps it, or `never`; absent where
    /// leases do not expire or nobody was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry: Option<ExpiryView>,
}

/// When a lease ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ExpiryView {
    /// After so many seconds.
    Seconds(i64),
    /// `never`: it is reserved.
    Word(&'static str),
}

/// `GET /v1/leases`: all leases, and what the store they are kept in says of itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeasesView {
    /// `kube` or `etcd`.
    pub store: &'static str,
    /// Whether the store is being followed.
    pub connected: bool,
    /// What goes wrong with it.
    pub trouble: Option<String>,
    /// Since when.
    pub trouble_since: Option<Timestamp>,
    /// Why this node holds no lease, or not safely.
    pub obstacle: Option<String>,
    /// Until when this node's lease lasts, should the store not be reached any more.
    pub own_expires: Option<Timestamp>,
    /// Why no expiry is shown.
    pub expiry_unknown: Option<String>,
    /// What cannot be read; subnets in it count as taken.
    pub unreadable: Vec<String>,
    /// All leases, by name.
    pub leases: Vec<LeaseView>,
}

/// One entry of `GET /v1/nodes`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    name: String,
    this_node: bool,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    addresses: Vec<String>,
    overlay: Option<LeaseView>,
    problem: Option<String>,
}

/// `GET /v1/routes`: what this node holds to reach the others.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutesView {
    routes: Vec<RouteView>,
    problems: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteView {
    destination: String,
    gateway: Option<String>,
    device: Option<String>,
    neighbour_mac: Option<String>,
    node_address: Option<String>,
}

/// What leases and nodes are shown from.
pub struct Known {
    /// The snapshot.
    pub cluster: Arc<Cluster>,
    /// What this node has set up.
    pub lease: Option<Lease>,
    /// What is wrong with what the API server tells.
    pub findings: Findings,
    /// When leases came.
    pub ages: Arc<Ages>,
}

/// All nodes; why one is left out of the overlay is in `problem`.
#[must_use]
pub fn nodes(known: &Known) -> Vec<NodeView> {
    let leases = leases(known);
    let view = |node: &Node| {
        let name = node.name.to_string();
        let overlay = leases.iter().find(|one| one.node.as_ref() == Some(&name));
        let problem = overlay.and_then(|lease| lease.problem.clone());
        NodeView {
            this_node: node.name == known.cluster.this_node.name,
            pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
            addresses: node.addresses.iter().map(ToString::to_string).collect(),
            overlay: overlay.cloned(),
            problem: problem.or_else(|| misread(known, &node.name)),
            name,
        }
    };
    let nodes = known.cluster.nodes.values();
    nodes.map(|node| view(node)).collect()
}

/// All leases.
#[must_use]
pub fn leases(known: &Known) -> Vec<LeaseView> {
    let cluster = &known.cluster;
    let tables = known
        .lease
        .as_ref()
        .map(|lease| desired::routes::routes(cluster, &lease.overlay));
    let problems = tables.map(|tables| tables.problems).unwrap_or_default();
    let own = cluster.own_lease().map(|lease| lease.id);
    let view = |one: &cluster::Lease<'_>| {
        let left_out = problems.iter().find(|problem| *problem.lease() == one.id);
        let misread = match &one.id {
            LeaseId::Node(name) => misread(known, name),
            LeaseId::Key(_) => None,
        };
        let own = own.as_ref() == Some(&one.id);
        let problems = [
            left_out.map(ToString::to_string),
            misread.clone(),
            outside(cluster, one),
        ];
        let problems: Vec<String> = problems.into_iter().flatten().collect();
        LeaseView {
            node: holder(cluster, one).map(ToString::to_string),
            own,
            state: match one.announced {
                _ if left_out.is_some() => "problem",
                _ if own => "own",
                None if misread.is_some() => "problem",
                None => "unannounced",
                Some(_) => "ok",
            },
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
            since: known.ages.since(&one.id).and_then(whole_seconds),
            ..lease_view(&one.subnets, one.announced)
        }
    };
    let mut all = cluster.leases();
    // A Node without a subnet has no lease.
    all.retain(|one| !one.subnets.is_empty() || one.announced.is_some());
    all.iter().map(view).collect()
}

/// What cannot be understood of a Node, in one line.
fn misread(known: &Known, node: &NodeName) -> Option<String> {
    if let Leases::InStore { .. } = known.cluster.leases {
        return None;
    }
    let found = known.findings.object(Kind::Node, node.as_str());
    let lines: Vec<String> = found.iter().map(said).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Without the object, which is beside it.
fn said(found: &TranslateError) -> String {
    format!("{} {:?}: {}", found.field, found.value, found.remedy)
}

/// A subnet that rules know nothing of.
fn outside(cluster: &Cluster, lease: &cluster::Lease<'_>) -> Option<String> {
    let within = |subnet: &IpNetwork| {
        let mut networks = cluster.pod_networks.iter();
        networks.any(|network| {
            network.contains(subnet.network()) && network.prefix() <= subnet.prefix()
        })
    };
    let subnet = lease.subnets.iter().find(|subnet| !within(subnet))?;
    let networks: Vec<String> = cluster
        .pod_networks
        .iter()
        .map(ToString::to_string)
        .collect();
    Some(format!(
        "subnet {subnet} is not within this node's Network {}: make net-conf.json the same on every node",
        networks.join(", ")
    ))
}

/// Nodes of which something cannot be understood and that have no lease to show it at.
#[must_use]
pub fn unreadable(known: &Known) -> Vec<String> {
    let shown = |found: &TranslateError| {
        let mut nodes = known.cluster.nodes.keys();
        nodes.any(|name| found.object == format!("Node {name}"))
    };
    let nodes = known.findings.of_kind(Kind::Node);
    nodes
        .filter(|found| !shown(found))
        .map(ToString::to_string)
        .collect()
}

fn whole_seconds(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

/// Adds when each lease ends.
pub fn expire(leases: &mut [LeaseView], known: &BTreeMap<LeaseKey, Expiry>) {
    let subnets = |key: &LeaseKey| key.subnets().map(|subnet| subnet.to_string()).collect();
    let known = known.iter().map(|(key, expiry)| (subnets(key), *expiry));
    let known: BTreeMap<Vec<String>, Expiry> = known.collect();
    for lease in leases {
        lease.expiry = known.get(&lease.subnets).map(|expiry| match expiry {
            Expiry::Seconds(seconds) => ExpiryView::Seconds(*seconds),
            Expiry::Never => ExpiryView::Word("never"),
        });
    }
}

fn lease_view(subnets: &[IpNetwork], announced: Option<&Announced>) -> LeaseView {
    let attributes = announced.map(Announced::attributes);
    let data = attributes.map(|one| [one.backend_data, one.backend_v6_data]);
    let data = data.iter().flatten().flatten();
    let data = data.map(|json| json.as_str().to_owned());
    let public_ips = announced.into_iter().flat_map(Announced::addresses);
    LeaseView {
        subnets: subnets.iter().map(ToString::to_string).collect(),
        node: None,
        own: false,
        public_ips: public_ips.map(|ip| ip.to_string()).collect(),
        backend: announced.map_or("-", backend_name).to_owned(),
        data: data.collect(),
        state: "own",
        problem: None,
        since: None,
        expiry: None,
    }
}

/// `alloc` has no name in the store.
fn backend_name(announced: &Announced) -> &str {
    match announced.backend.name() {
        "" => "alloc",
        name => name,
    }
}

/// The node that holds a lease: by name, or by an address that its object has too.
fn holder<'a>(cluster: &'a Cluster, lease: &'a cluster::Lease<'_>) -> Option<&'a NodeName> {
    if let LeaseId::Node(name) = &lease.id {
        return Some(name);
    }
    if cluster.own_lease().is_some_and(|own| own.id == lease.id) {
        return Some(&cluster.this_node.name);
    }
    let addresses: Vec<_> = lease.announced?.addresses().collect();
    let has = |node: &Node| node.addresses.iter().any(|ip| addresses.contains(ip));
    let mut nodes = cluster.nodes.values();
    nodes.find(|node| has(node)).map(|node| &node.name)
}

/// The lease this node holds, as it has set it up.
#[must_use]
pub fn own_lease(cluster: &Cluster, lease: &Lease) -> LeaseView {
    LeaseView {
        node: Some(cluster.this_node.name.to_string()),
        own: true,
        ..lease_view(&lease.subnets, Some(&lease.announced))
    }
}

/// The routes this node wants, each with the neighbour and tunnel end behind it.
#[must_use]
pub fn routes(cluster: &Cluster, lease: Option<&Lease>) -> RoutesView {
    let Some(lease) = lease else {
        return RoutesView::default();
    };
    let tables = desired::routes::routes(cluster, &lease.overlay);
    let neighbours = tables.neighbours.values();
    let macs: BTreeMap<_, _> = neighbours.map(|one| (one.key.ip, one.mac)).collect();
    let fdb = tables.fdb.values();
    let remotes: BTreeMap<_, _> = fdb.map(|one| (one.key.mac, one.remote)).collect();
    let routes = tables.routes.values().map(|route| {
        let mac = route.gateway.and_then(|gateway| macs.get(&gateway));
        let remote = mac.and_then(|mac| remotes.get(mac));
        RouteView {
            destination: route.key.destination.to_string(),
            gateway: route.gateway.map(|gateway| gateway.to_string()),
            device: route.device.as_ref().map(ToString::to_string),
            neighbour_mac: mac.map(ToString::to_string),
            node_address: remote.map(ToString::to_string),
        }
    });
    RoutesView {
        routes: routes.collect(),
        problems: tables.problems.iter().map(ToString::to_string).collect(),
    }
}
