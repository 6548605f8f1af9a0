//! A node changes over: pods made by one side are checked, deleted and collected by the other.

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::chain::{self, Chain};
use crate::node::Node;
use crate::observe::{leftovers, settle};
use crate::scaffolding;
use crate::traffic::{inside, outside, pings};
use crate::world::{Maker, world};

/// What is taken over.
struct Kind {
    name: &'static str,
    plugins: fn(&Node) -> Vec<Value>,
    /// What stays of a pod of the reference of which only container and interface are known any
    /// more, `IP` being its address.
    lost: &'static [&'static str],
    /// What stays when the reference plugins delete two pods that ours made.
    rolled_back: &'static [&'static str],
}

/// These rules do not say whose they are; only prevResult knows the address.
const FIREWALL_LOST: &[&str] = &[
    "iptables filter -A CNI-FORWARD -d IP/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "iptables filter -A CNI-FORWARD -s IP/32 -j ACCEPT",
];

const KINDS: &[Kind] = &[
    Kind {
        name: "bridge",
        plugins: |node| vec![chain::bridge(node)],
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "bridge with ipMasq",
        plugins: |node| vec![masqueraded(chain::bridge(node), "")],
        lost: &[],
        // Two rules for two pods: the reference knows no nftables.
        rolled_back: &["nft table inet cni_plugins_masquerade, 5 rules"],
    },
    Kind {
        name: "bridge with ipMasq by iptables",
        plugins: |node| vec![masqueraded(chain::bridge(node), "iptables")],
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "ptp with ipMasq by iptables",
        plugins: |node| {
            let ptp = json!({ "type": "ptp", "ipam": chain::addresses(node) });
            vec![masqueraded(ptp, "iptables")]
        },
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "tuning",
        plugins: |node| vec![chain::bridge(node), chain::tuning(node)],
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "portmap",
        plugins: |node| vec![chain::bridge(node), chain::portmap(8080)],
        lost: &[],
        // Three rules for each of two pods: the reference knows no nftables.
        rolled_back: &["nft table ip cni_hostport, 10 rules"],
    },
    Kind {
        name: "portmap by iptables",
        plugins: |node| vec![chain::bridge(node), by_iptables(chain::portmap(8080))],
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "firewall by iptables",
        plugins: |node| vec![chain::bridge(node), by_iptables(chain::firewall())],
        lost: FIREWALL_LOST,
        // Notes of whose the rules were, which no packet passes.
        rolled_back: &[
            "iptables filter -A CNI-FORWARD-OWNERS -s 10.1.0.2/32 -m comment --comment \"#-#, net: net, \
             if: eth0, id: c1\"",
            "iptables filter -A CNI-FORWARD-OWNERS -s 10.1.0.3/32 -m comment --comment \"#-#, net: net, \
             if: eth0, id: c2\"",
        ],
    },
    Kind {
        name: "firewall",
        plugins: |node| vec![chain::bridge(node), chain::firewall()],
        lost: FIREWALL_LOST,
        // Two rules for two pods: the reference knows no nftables.
        rolled_back: &["nft table inet cni_firewall, 7 rules"],
    },
    Kind {
        name: "bandwidth",
        plugins: |node| vec![chain::bridge(node), chain::bandwidth()],
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "ptp",
        plugins: |node| vec![json!({ "type": "ptp", "ipam": chain::addresses(node) })],
        lost: &[],
        rolled_back: &[],
    },
    Kind {
        name: "macvlan",
        plugins: |node| {
            let macvlan = json!({
                "type": "macvlan", "master": "out0", "ipam": chain::addresses(node),
            });
            vec![macvlan]
        },
        lost: &[],
        rolled_back: &[],
    },
];

fn by_iptables(mut config: Value) -> Value {
    config["backend"] = "iptables".into();
    config
}

fn masqueraded(mut config: Value, backend: &str) -> Value {
    config["ipMasq"] = true.into();
    config["ipMasqBackend"] = backend.into();
    config
}

/// What is left but what belongs to no pod.
fn remains(node: &Node, chain: &Chain) -> Vec<String> {
    let names = chain.names();
    let of = |name| [Maker::Ours, Maker::Reference].map(|maker| scaffolding::of(name, maker));
    let allowed: Vec<&str> = names
        .iter()
        .flat_map(|name| of(name))
        .flatten()
        .copied()
        .collect();
    let mut left = leftovers(node);
    left.retain(|line| !allowed.contains(&line.as_str()));
    left
}

fn of_address(lines: &[&str], ip: &str) -> Vec<String> {
    lines
        .iter()
        .map(|line| line.replace("IP/", &format!("{ip}/")))
        .collect()
}

/// Makes two pods by `maker`, and passes them to `then` on a node that has the other's plugins.
fn hand_over(
    kind: &Kind,
    maker: Maker,
    then: impl FnOnce(&Node, [Chain; 2], [crate::node::Pod; 2]) + Send,
) {
    world(maker, |node| {
        let _far = outside(node);
        let pods = [node.pod("c1"), node.pod("c2")];
        let mut chains = pods
            .each_ref()
            .map(|pod| Chain::new(node, "1.0.0", &(kind.plugins)(node), pod));
        for chain in &mut chains {
            chain.add(node);
        }
        node.install_all(match maker {
            Maker::Ours => Maker::Reference,
            Maker::Reference => Maker::Ours,
        });
        then(node, chains, pods);
    });
}

#[test]
fn ours_checks_deletes_and_collects_what_the_reference_made() {
    for kind in KINDS {
        println!("{}", kind.name);
        hand_over(
            kind,
            Maker::Reference,
            |node, [first, second], [pod, other]| {
                first.check(node).expect("CHECK of the first pod");
                second.check(node).expect("CHECK of the second pod");
                first.del(node).expect("DEL");
                assert!(!pod.has_link("eth0"), "{}: eth0 is left", kind.name);
                second.check(node).expect("CHECK after the other pod's DEL");
                if kind.name != "macvlan" {
                    assert!(inside(&other, || pings("10.1.0.1")), "the second pod works");
                }
                first.del(node).expect("DEL again");
                // The second pod is lost: no DEL, and the runtime forgets it.
                other.destroy();
                settle(0);
                second.gc(node, &[]).expect("GC");
                assert_eq!(
                    remains(node, &second),
                    of_address(kind.lost, &second.address()),
                    "{}",
                    kind.name
                );
            },
        );
    }
}

#[test]
fn ours_deletes_a_lost_pod_of_the_reference_without_its_result() {
    for kind in KINDS {
        println!("{}", kind.name);
        hand_over(
            kind,
            Maker::Reference,
            |node, [mut first, second], [pod, _other]| {
                let address = first.address();
                first.forget();
                pod.destroy();
                settle(1);
                let first = first.without_netns();
                first.del(node).expect("DEL");
                second.check(node).expect("CHECK after the other pod's DEL");
                second.del(node).expect("DEL of the second");
                assert_eq!(
                    remains(node, &second),
                    of_address(kind.lost, &address),
                    "{}",
                    kind.name
                );
            },
        );
    }
}

#[test]
fn the_reference_deletes_what_ours_made() {
    for kind in KINDS {
        println!("{}", kind.name);
        hand_over(kind, Maker::Ours, |node, chains, pods| {
            for (chain, pod) in chains.iter().zip(&pods) {
                if let Err(text) = chain.del(node) {
                    // It fails where its masquerading should be, and no second time.
                    assert!(kind.name == "bridge with ipMasq", "{text}");
                    assert!(text.contains("Chain 'CNI-"), "{text}");
                    chain.del(node).expect("DEL again");
                }
                assert!(!pod.has_link("eth0"), "{}: eth0 is left", kind.name);
            }
            assert_eq!(remains(node, &chains[0]), kind.rolled_back, "{}", kind.name);
            // What the reference could not know goes when the node comes back to ours.
            node.install_all(Maker::Ours);
            chains[0].gc(node, &[]).expect("GC");
            assert_eq!(remains(node, &chains[0]), [""; 0], "{}", kind.name);
        });
    }
}
