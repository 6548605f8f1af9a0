//! A node changes over: pods made by one side are checked, deleted and collected by the other.

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::chain::{self, Chain};
use crate::node::Node;
use crate::observe::{leftovers, settle};
use crate::traffic::{inside, outside, pings};
use crate::world::{Maker, world};

/// What is taken over.
struct Kind {
    name: &'static str,
    plugins: fn(&Node) -> Vec<Value>,
    /// What stays when the reference plugins delete what ours made.
    rolled_back: &'static [&'static str],
    /// What the reference plugins themselves always leave.
    always: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "bridge",
        plugins: |node| vec![chain::bridge(node)],
        rolled_back: &[],
        always: &[],
    },
    Kind {
        name: "ptp",
        plugins: |node| vec![json!({ "type": "ptp", "ipam": chain::addresses(node) })],
        rolled_back: &[],
        always: &[],
    },
    Kind {
        name: "macvlan",
        plugins: |node| {
            let macvlan = json!({
                "type": "macvlan", "master": "out0", "ipam": chain::addresses(node),
            });
            vec![macvlan]
        },
        rolled_back: &[],
        always: &[],
    },
];

fn masqueraded(mut config: Value) -> Value {
    config["ipMasq"] = true.into();
    config
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
                assert_eq!(leftovers(node), kind.always, "{}", kind.name);
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
                first.forget();
                pod.destroy();
                settle(1);
                let first = first.without_netns();
                first.del(node).expect("DEL");
                second.check(node).expect("CHECK after the other pod's DEL");
                second.del(node).expect("DEL of the second");
                assert_eq!(leftovers(node), kind.always, "{}", kind.name);
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
                chain.del(node).expect("DEL");
                assert!(!pod.has_link("eth0"), "{}: eth0 is left", kind.name);
            }
            assert_eq!(leftovers(node), kind.rolled_back, "{}", kind.name);
        });
    }
}
