//! flanneld and towlined in one cluster: three nodes with a pod each, in namespaces on one network,
//! with leases in a real etcd. flanneld is the model of it, down to the kernel. Needs root and etcd.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod kernel;
mod node;
mod pings;
mod place;
mod process;
mod streams;
mod traffic;

use std::time::Duration;

use cluster::Cluster;
use kernel::State;
use node::Node;
use place::until;
use pretty_assertions::assert_eq;
use serde_json::json;
use traffic::{Flow, Traffic};

fn states(cluster: &Cluster) -> Vec<State> {
    let places = cluster.nodes.iter().map(|node| &node.place);
    places.map(State::of).collect()
}

/// Waits until a node is as `expected`.
#[track_caller]
fn becomes(node: &Node, expected: &State) {
    until(|| match State::of(&node.place) {
        now if now == *expected => Ok(()),
        now => Err(format!("node {}: {now:#?}", node.number)),
    });
}

/// Every flanneld runs, and none has lost sight of anybody or failed at anything.
#[track_caller]
fn no_flanneld_has_noticed(cluster: &mut Cluster) {
    for flanneld in cluster.nodes.iter_mut().flat_map(|node| &mut node.flanneld) {
        flanneld.alive();
        let said = flanneld.said();
        let bad = |line: &str| line.starts_with("removed") || line.starts_with("error");
        assert!(!said.lines().any(bad), "{said}");
    }
}

#[test]
fn every_pod_reaches_every_pod_every_node_and_the_world() {
    let mut cluster = Cluster::new();
    cluster.nodes[0].start_flanneld(&[]);
    cluster.nodes[1].start_towlined();
    cluster.nodes[2].start_flanneld(&[]);
    cluster.nodes.iter_mut().for_each(Node::add_pod);
    Traffic::start(&cluster).must_be_unharmed();
    no_flanneld_has_noticed(&mut cluster);
}

#[test]
fn renewals_remove_nobody() {
    let mut cluster = Cluster::new();
    // A day in miniature: flanneld renews when 9 of 12 seconds are left. towlined keeps the lease
    // that it takes over, of the same length.
    let short = ["--ttl=12", "--renew-margin=9"];
    for node in &mut cluster.nodes {
        node.start_flanneld(&short);
    }
    cluster.nodes.iter_mut().for_each(Node::add_pod);
    let traffic = Traffic::start(&cluster);
    let leases = cluster.leases();
    let mut states = states(&cluster);
    cluster.nodes[1].kill_flanneld();
    cluster.nodes[1].start_towlined();
    states[1] = states[1].succeeded();
    for node in &mut cluster.nodes {
        if let Some(flanneld) = &mut node.flanneld {
            // Longer than any lease lives by itself.
            let renewals = |said: &str| said.lines().filter(|line| *line == "renewed").count();
            let before = renewals(&flanneld.said());
            until(|| {
                let said = flanneld.said();
                match renewals(&said) >= before + 5 {
                    true => Ok(()),
                    false => Err(said),
                }
            });
        }
    }
    assert_eq!(cluster.leases(), leases);
    for (node, state) in cluster.nodes.iter().zip(states) {
        becomes(node, &state);
    }
    assert_eq!(cluster.nodes[1].differences(), json!([]));
    no_flanneld_has_noticed(&mut cluster);
    traffic.must_be_unharmed();
}

#[test]
fn a_cluster_is_succeeded_node_by_node_and_back_and_no_packet_is_lost() {
    let mut cluster = Cluster::new();
    for node in &mut cluster.nodes {
        node.start_flanneld(&[]);
    }
    cluster.nodes.iter_mut().for_each(Node::add_pod);
    let traffic = Traffic::start(&cluster);
    let leases = cluster.leases();
    let flannels = states(&cluster);
    let files: Vec<_> = cluster.nodes.iter().map(Node::subnet_env).collect();

    for (at, before) in flannels.iter().enumerate() {
        let node = &mut cluster.nodes[at];
        // Once towlined comes while flanneld still runs, whose rules are left alone then.
        if at == 1 {
            node.start_towlined();
            let rules = State::of(&node.place).rules;
            assert_eq!(rules, before.rules);
            node.kill_flanneld();
        } else {
            node.kill_flanneld();
            node.start_towlined();
        }
        becomes(node, &before.succeeded());
        assert_eq!(node.differences(), json!([]));
        // What passes the IPv6 device, too.
        let mut file = files[at].clone();
        file.insert("FLANNEL_MTU".to_owned(), "1430".to_owned());
        assert_eq!(node.subnet_env(), file);
        assert_eq!(cluster.leases(), leases);
        no_flanneld_has_noticed(&mut cluster);
    }

    for at in [2, 0, 1] {
        let node = &mut cluster.nodes[at];
        node.stop_towlined();
        node.start_flanneld(&[]);
        // Not before: there is always one that masquerades.
        node.place.tool("nft delete table inet towline");
        becomes(node, &flannels[at]);
        assert_eq!(node.subnet_env(), files[at]);
        assert_eq!(cluster.leases(), leases);
        no_flanneld_has_noticed(&mut cluster);
    }
    traffic.must_be_unharmed();
}

#[test]
fn a_route_that_is_away_for_a_moment_is_noticed() {
    let mut cluster = Cluster::new();
    for node in &mut cluster.nodes {
        node.start_flanneld(&[]);
    }
    cluster.nodes.iter_mut().for_each(Node::add_pod);
    let traffic = Traffic::start(&cluster);
    let place = &cluster.nodes[0].place;
    let route = State::of(place).routes.remove(0);
    place.ip(&format!("route delete {route} dev flannel.1"));
    // The length of the outage: some thirty pings.
    std::thread::sleep(Duration::from_millis(300));
    place.ip(&format!("route add {route} dev flannel.1"));
    let harmed = traffic.stop();
    let pinged = |flow: &&Flow| flow.name.starts_with("pod1 to pod") && !flow.lost.is_empty();
    assert_eq!(harmed.iter().filter(pinged).count(), 1, "{harmed:#?}");
}

#[test]
fn routes_to_nodes_that_left_while_neither_ran_stay_until_they_are_flushed() {
    let mut cluster = Cluster::new();
    let (key, gone) = ("10.5.2.0-24&fc00:5:0:2::-64", "10.5.2.0/24 via 10.5.2.0");
    let peer = r#"{"PublicIP":"172.30.0.9","PublicIPv6":"fd99::9","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:0a"}}"#;
    let state = |cluster: &Cluster| State::of(&cluster.nodes[0].place);
    cluster.put_lease(key, peer);
    cluster.nodes[0].start_flanneld(&[]);
    until(|| match state(&cluster) {
        now if now.routes.len() == 2 => Ok(()),
        now => Err(format!("{now:#?}")),
    });
    cluster.nodes[0].kill_flanneld();
    cluster.delete_lease(key);
    cluster.nodes[0].start_towlined();
    let left = state(&cluster);
    assert_eq!(left.routes[0], format!("{gone} onlink"));
    assert_eq!((left.routes.len(), left.peers.len()), (2, 0));

    cluster.put_lease(key, peer);
    until(|| match state(&cluster).routes {
        routes if routes.iter().all(|route| route.contains("proto 84")) => Ok(()),
        routes => Err(format!("{routes:#?}")),
    });
    cluster.nodes[0].stop_towlined();
    cluster.delete_lease(key);
    cluster.nodes[0].start_flanneld(&[]);
    assert_eq!(state(&cluster).routes[0], format!("{gone} proto 84 onlink"));
    for family in ["-4", "-6"] {
        let place = &cluster.nodes[0].place;
        place.ip(&format!("{family} route flush proto 84"));
    }
    assert_eq!(state(&cluster).routes, [""; 0]);
}
