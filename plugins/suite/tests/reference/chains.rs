//! Ours and the reference plugins in one chain: real traffic works whoever makes which link, and
//! DEL leaves nothing but what the reference plugins always leave.

use std::collections::BTreeSet;

use pretty_assertions::assert_eq;
use serde_json::Value;

use crate::chain::{self, Chain};
use crate::node::{Node, Pod};
use crate::observe::leftovers;
use crate::scaffolding;
use crate::traffic::{Server, asks, inside, is_silent, outside, pings, source_seen};
use crate::world::{Maker, run, world};

const PLUGINS: [&str; COUNT] = ["bridge", "portmap", "firewall", "bandwidth", "tuning"];
const COUNT: usize = 5;

/// The whole chain, as a runtime configures it.
pub(crate) fn full(node: &Node) -> Vec<Value> {
    let mut bridge = chain::bridge(node);
    bridge["ipMasq"] = true.into();
    let all = [
        bridge,
        chain::portmap(8080),
        chain::firewall(),
        chain::bandwidth(),
        chain::tuning(node),
    ];
    all.into_iter()
        .filter(|plugin| PLUGINS.iter().any(|name| plugin["type"] == *name))
        .collect()
}

fn other(maker: Maker) -> Maker {
    match maker {
        Maker::Ours => Maker::Reference,
        Maker::Reference => Maker::Ours,
    }
}

/// Who makes each of [`PLUGINS`]: all by one, in turn, and each single one by the other.
fn assignments() -> Vec<[Maker; COUNT]> {
    let mut all = vec![];
    for maker in [Maker::Ours, Maker::Reference] {
        all.push([maker; COUNT]);
        all.push(std::array::from_fn(|at| match at % 2 {
            0 => maker,
            _ => other(maker),
        }));
        for swapped in 0..COUNT {
            let mut assignment = [maker; COUNT];
            assignment[swapped] = other(maker);
            all.push(assignment);
        }
    }
    all
}

#[test]
fn mixed_chains_work_and_leave_nothing_at_0_4_0() {
    assignments()
        .iter()
        .for_each(|makers| mixed("0.4.0", *makers));
}

#[test]
fn mixed_chains_work_and_leave_nothing_at_1_0_0() {
    assignments()
        .iter()
        .for_each(|makers| mixed("1.0.0", *makers));
}

fn mixed(version: &str, makers: [Maker; COUNT]) {
    let made: Vec<(&str, Maker)> = PLUGINS.into_iter().zip(makers).collect();
    println!("{version}: {made:?}");
    world(Maker::Ours, |node| {
        for (plugin, maker) in &made {
            node.install(plugin, *maker);
        }
        // bridge delegates to a host-local of the other side.
        node.install("host-local", other(makers[0]));
        let far = outside(node);
        let (pod, peer) = (node.pod("c1"), node.pod("c2"));
        let mut chain = Chain::new(node, version, &full(node), &pod);
        // As on a node that lets nothing be forwarded unless it is asked for.
        run("iptables", &["-P", "FORWARD", "DROP"]);
        chain.add(node);
        let mut second = Chain::new(node, version, &full(node)[..1], &peer);
        second.add(node);
        assert_traffic(&chain, &pod, &peer, &far);
        for (plugin, outcome) in chain.checks(node) {
            match outcome {
                // It looks for IPv6 rules although the pod has no IPv6 address.
                Err(text)
                    if made.contains(&("portmap", Maker::Reference)) && plugin == "portmap" =>
                {
                    assert!(text.contains("could not check ipv6 dnat"), "{text}");
                }
                outcome => outcome.expect("CHECK"),
            }
        }
        chain.del(node).expect("DEL");
        assert!(!pod.has_link("eth0"));
        chain.del(node).expect("DEL again");
        assert_eq!(asks("127.0.0.1:8080"), "refused");
        second.check(node).expect("CHECK of the pod beside it");
        second.del(node).expect("DEL of the pod beside it");
        assert_only_scaffolding(node, &made);
    });
}

/// What is left is what the plugins of those makers always leave.
pub(crate) fn assert_only_scaffolding(node: &Node, made: &[(&str, Maker)]) {
    let allowed: BTreeSet<&str> = made
        .iter()
        .flat_map(|(plugin, maker)| scaffolding::of(plugin, *maker))
        .copied()
        .collect();
    let left: Vec<String> = leftovers(node)
        .into_iter()
        .filter(|line| !allowed.contains(line.as_str()))
        .collect();
    assert_eq!(left, [""; 0], "left behind by {made:?}");
}

/// Every link of the chain does what it is for.
pub(crate) fn assert_traffic(chain: &Chain, pod: &Pod, peer: &Pod, far: &Pod) {
    let address = chain.address();
    assert!(inside(pod, || pings("10.1.0.1")), "the gateway answers");
    let has = |plugin: &str| chain.names().iter().any(|name| name == plugin);
    if has("portmap") {
        assert_mapped(pod, peer, far);
    }
    // firewall lets the pod out where nothing else may pass; bridge masquerades it.
    assert_eq!(source_seen(pod, far, "192.0.2.2:7001"), "192.0.2.1");
    let closed = inside(far, || is_silent(&format!("{address}:7000")));
    assert!(closed, "the pod is closed to the outside");
    // bandwidth
    let shaped = run("tc", &["qdisc", "show"]);
    assert_eq!(shaped.matches("qdisc tbf").count(), 2, "{shaped}");
    if !has("tuning") {
        return;
    }
    let path = "/proc/sys/net/ipv4/conf/eth0/arp_filter";
    assert_eq!(
        inside(pod, || std::fs::read_to_string(path).unwrap()),
        "1\n"
    );
}

/// Port 8080 of the node is the pod's, wherever one comes from.
fn assert_mapped(pod: &Pod, peer: &Pod, far: &Pod) {
    inside(pod, || run("ip", &["link", "set", "lo", "up"]));
    let _server = Server::start(pod, "0.0.0.0:7000");
    let at_loopback = asks("127.0.0.1:8080");
    assert!(
        at_loopback.starts_with("seen as "),
        "127.0.0.1: {at_loopback}"
    );
    run("iptables", &["-P", "FORWARD", "ACCEPT"]);
    let from_outside = inside(far, || asks("192.0.2.1:8080"));
    assert_eq!(from_outside, "seen as 192.0.2.2", "from outside");
    let from_peer = inside(peer, || asks("192.0.2.1:8080"));
    assert!(from_peer.starts_with("seen as "), "from a pod: {from_peer}");
    let hairpin = inside(pod, || asks("192.0.2.1:8080"));
    assert!(
        hairpin.starts_with("seen as "),
        "from the pod itself: {hairpin}"
    );
    run("iptables", &["-P", "FORWARD", "DROP"]);
}
