//! Random clusters: the compiled tables must say what the policies say, word for word.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::cluster::{NetworkPolicy, Peer, Pod, PodPeer, PortMatch, Rule};
use crate::fixture::{cluster, namespace, pod, policy as named, port};
use crate::ip_block::IpBlock;
use crate::labels::{Condition, LabelSelector};
use crate::policy::evaluate::{Decision, Flow, decide};
use crate::policy::{RULE_NODE, RuleName};

fn selectors() -> impl Strategy<Value = LabelSelector> {
    let set = |values: &[&str]| {
        values
            .iter()
            .map(|&value| value.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let everything = LabelSelector::everything;
    prop_oneof![
        Just(everything()),
        Just(everything().with_label("app", "a")),
        Just(
            everything()
                .with_label("app", "b")
                .with("tier", Condition::Exists)
        ),
        Just(everything().with("app", Condition::NotIn(set(&["a"])))),
        Just(everything().with("app", Condition::In(set(&["a", "c"])))),
        Just(everything().with("tier", Condition::DoesNotExist)),
    ]
}

fn blocks() -> impl Strategy<Value = IpBlock> {
    let nested = [
        ("0.0.0.0/0", "10.0.0.0/8"),
        ("10.244.0.0/16", "10.244.1.0/24"),
        ("10.244.1.0/24", "10.244.1.0/30"),
        ("10.244.1.2/32", ""),
        ("192.0.2.0/24", "192.0.2.128/25"),
        ("172.30.0.0/24", "172.30.0.2/32"),
    ];
    (0..nested.len(), any::<bool>()).prop_map(move |(index, with_except)| {
        let (cidr, except) = nested[index];
        let except = Some(except).filter(|except| with_except && !except.is_empty());
        IpBlock::new(
            cidr.parse().unwrap(),
            except.map(|except| except.parse().unwrap()),
        )
        .unwrap()
    })
}

fn peers() -> impl Strategy<Value = Peer> {
    prop_oneof![
        (prop::option::of(selectors()), selectors())
            .prop_map(|(namespaces, pods)| Peer::Pods(PodPeer { namespaces, pods })),
        blocks().prop_map(Peer::IpBlock),
    ]
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop::sample::select(&Protocol::ALL)
}

fn rules() -> impl Strategy<Value = Rule> {
    let matches = prop_oneof![
        Just(PortMatch::Any),
        (1..5u16, 0..3u16).prop_map(|(from, more)| PortMatch::Range(port(from), port(from + more))),
        prop::sample::select(&["x", "y"]).prop_map(|name| PortMatch::Named(name.to_owned())),
    ];
    let peers = prop::option::of(prop::collection::vec(peers(), 0..3));
    let ports = prop::option::of(prop::collection::vec((protocols(), matches), 0..4));
    (peers, ports).prop_map(|(peers, ports)| {
        let empty = Rule {
            peers,
            ports: ports.as_ref().map(|_| Vec::new()),
        };
        ports
            .into_iter()
            .flatten()
            .fold(empty, |rule, (protocol, port)| rule.port(protocol, port))
    })
}

pub(super) fn policies() -> impl Strategy<Value = Vec<NetworkPolicy>> {
    let lists = || prop::option::of(prop::collection::vec(rules(), 0..3));
    let one = (
        prop::sample::select(&["n", "m"]),
        selectors(),
        lists(),
        lists(),
    );
    prop::collection::vec(one, 0..5).prop_map(|policies| {
        let built = policies.into_iter().enumerate();
        built
            .map(
                |(index, (namespace, pod_selector, ingress, egress))| NetworkPolicy {
                    pod_selector,
                    ingress,
                    egress,
                    ..named(&format!("{namespace}/p{index}"), &[])
                },
            )
            .collect()
    })
}

/// A pod's namespace, labels, named ports, and whether it runs here, is over, or uses the host.
pub(super) fn pods() -> impl Strategy<Value = Vec<(Pod, bool)>> {
    let app = prop::sample::select(&["app=a", "app=b", "app=c"]);
    let ports = prop::collection::vec(
        (prop::sample::select(&["x", "y"]), protocols(), 1..6u16),
        0..3,
    );
    let one = (
        prop::sample::select(&["n", "m", "unknown"]),
        app,
        any::<bool>(),
        ports,
        0..8u8,
    );
    prop::collection::vec(one, 1..7).prop_map(|pods| {
        let built = pods.into_iter().enumerate();
        built
            .map(|(index, (namespace, app, tier, ports, kind))| {
                let labels = if tier { vec![app, "tier=1"] } else { vec![app] };
                let name = format!("{namespace}/p{index}");
                let mut built = pod(&name, &format!("10.244.{}.{index}", kind % 2 + 1), &labels);
                for (name, protocol, number) in ports {
                    built = built.with_port(name, protocol, number);
                }
                built.terminated = kind == 6;
                built.host_network = kind == 7;
                (built, kind < 4)
            })
            .collect()
    })
}

pub(super) fn clusters() -> impl Strategy<Value = Cluster> {
    (pods(), policies()).prop_map(|(pods, policies)| {
        let mut built = cluster("n1")
            .with_namespace(namespace("n", &["app=a"]))
            .with_namespace(namespace("m", &["app=b", "tier=1"]));
        for (ifindex, (pod, here)) in (10..).zip(pods) {
            built = if here {
                built.with_local_pod(pod, ifindex)
            } else {
                built.with_pod(pod)
            };
        }
        policies.into_iter().fold(built, Cluster::with_policy)
    })
}

/// Pods, both nodes, strangers within and without the blocks.
pub(super) fn addresses(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let strangers = [
        "172.30.0.1",
        "172.30.0.2",
        "192.0.2.1",
        "192.0.2.200",
        "8.8.8.8",
        "10.9.9.9",
        "10.244.1.200",
        "10.244.2.200",
    ];
    let pods = cluster
        .pods
        .values()
        .flat_map(|pod| &pod.addresses)
        .copied();
    pods.chain(strangers.map(|address| address.parse().unwrap()))
        .collect()
}

#[derive(Debug, PartialEq)]
enum Said {
    Open,
    Node,
    Rule(RuleName),
    Denied,
}

fn said_by_tables(tables: &PolicyTables, answer: Answer) -> Said {
    match answer {
        Answer::NotIsolated => Said::Open,
        Answer::Node | Answer::Allowed { rule: RULE_NODE } => Said::Node,
        Answer::Allowed { rule } => Said::Rule(tables.rules[&rule].clone()),
        Answer::Denied { .. } => Said::Denied,
        Answer::NotReady => panic!("every local pod has an entry"),
    }
}

fn said_by_policies(decision: Decision) -> Said {
    match decision {
        Decision::NotIsolated => Said::Open,
        Decision::OwnNode => Said::Node,
        Decision::Allowed { rule } => Said::Rule(rule),
        Decision::Denied { .. } => Said::Denied,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn tables_say_what_policies_say(cluster in clusters()) {
        let tables = tables(&cluster);
        prop_assert_eq!(&tables.problems, &[]);
        let owners = cluster.pods_by_address();
        for endpoint in cluster.local_endpoints.values() {
            let subject = cluster.pod_of(endpoint).unwrap();
            let key = PodKey { ifindex: endpoint.host_ifindex };
            for peer in addresses(&cluster) {
                let peer_pod = owners.get(&peer).copied();
                let own = peer_pod.is_none() && cluster.this_node.addresses.contains(&peer);
                for direction in [Direction::Ingress, Direction::Egress] {
                    for protocol in [6, 17, 132, 1] {
                        for port in [0, 1, 2, 3, 4, 5, 6, 7, 65_535] {
                            let flow = Flow { subject, direction, peer, peer_pod,
                                peer_is_own_node: own, protocol, port };
                            let wanted = said_by_policies(decide(&cluster, &flow));
                            let answer = tables.answer(key, direction, peer, protocol, port);
                            prop_assert_eq!(said_by_tables(&tables, answer), wanted, "{:?}", flow);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn equal_snapshots_have_equal_tables(cluster in clusters()) {
        let first = tables(&cluster);
        prop_assert_eq!(&tables(&cluster.clone()), &first);
        // Objects that came in another order, as after a restart, make the same snapshot.
        let mut again = cluster.clone();
        again.pods = cluster.pods.iter().rev().map(|(k, v)| (k.clone(), v.clone())).collect();
        prop_assert_eq!(&tables(&again), &first);
    }
}
