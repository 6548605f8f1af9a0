//! Every moment of a change-over, table by table.

use std::collections::BTreeSet;

use ebpf_shared::policy::{CLASS_NODE, CLASS_WORLD, ClassKey, PodKey};
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::reference::{addresses, clusters, policies};
use super::*;
use crate::cluster::Rule;
use crate::fixture::{cluster, namespace, pod, policy as named};
use crate::names::Protocol::Tcp;
use crate::policy::bridge;

/// What is in the kernel at three moments: verdicts and classes put; pods put too; and before any
/// deletion everything of both.
fn moments(previous: &PolicyTables, next: &PolicyTables) -> [PolicyTables; 3] {
    let mut verdicts = previous.clone();
    verdicts.verdicts.extend(next.verdicts.clone());
    verdicts.verdicts.extend(bridge(previous, next));
    let mut classes = verdicts.clone();
    classes.v4.classes.extend(next.v4.classes.clone());
    classes.v4.cidr_classes.extend(next.v4.cidr_classes.clone());
    let mut pods = classes.clone();
    pods.pods.extend(next.pods.clone());
    [verdicts, classes, pods]
}

fn allowed(tables: &PolicyTables, pod: PodKey, direction: Direction, peer: IpAddr) -> [bool; 4] {
    [(6, 1), (6, 3), (17, 2), (1, 0)].map(|(protocol, port)| {
        !matches!(
            tables.answer(pod, direction, peer, protocol, port),
            Answer::Denied { .. } | Answer::NotReady
        )
    })
}

/// Whether the peer's class here is new, and all who share it share one class there, too.
fn renamed(
    here: &PolicyTables,
    there: &PolicyTables,
    peers: &BTreeSet<IpAddr>,
    peer: IpAddr,
) -> bool {
    let class = here.class(peer);
    let together = peers.iter().filter(|&&other| here.class(other) == class);
    let classes: BTreeSet<_> = together.map(|&other| there.class(other)).collect();
    let known = [CLASS_WORLD, CLASS_NODE].contains(&class)
        || peers.iter().any(|&other| there.class(other) == class);
    classes.len() == 1 && (!known || classes.contains(&class))
}

#[test]
fn a_new_policy_that_allows_the_same_peers_never_denies_them() {
    let before = cluster("n1")
        .with_namespace(namespace("shop", &[]))
        .with_local_pod(pod("shop/db", "10.244.1.5", &["app=db"]), 7)
        .with_pod(pod("shop/web", "10.244.2.5", &["app=web", "tier=1"]))
        .with_policy(named("shop/a", &[]).ingress([Rule::any().pods(&["app=web"])]));
    let after = before
        .clone()
        .with_policy(named("shop/b", &[]).ingress([Rule::any().pods(&["tier=1"])]));
    let (previous, next) = (tables(&before), tables(&after));
    let web = "10.244.2.5".parse().unwrap();
    let pod = PodKey { ifindex: 7 };
    assert_ne!(
        previous.class(web),
        next.class(web),
        "the peer changes its class"
    );
    for moment in moments(&previous, &next) {
        assert_eq!(allowed(&moment, pod, Direction::Ingress, web), [true; 4]);
    }
    let mut without = moments(&previous, &next)[1].clone();
    without
        .verdicts
        .retain(|key, _| !bridge(&previous, &next).contains_key(key));
    assert_eq!(
        allowed(&without, pod, Direction::Ingress, web),
        [false; 4],
        "the bridge is needed"
    );
}

#[test]
fn a_peer_that_loses_its_entry_is_judged_until_it_is_gone() {
    let before = cluster("n1")
        .with_namespace(namespace("shop", &[]))
        .with_local_pod(pod("shop/db", "10.244.1.5", &["app=db"]), 7)
        .with_pod(pod("shop/web", "10.244.2.5", &["app=web"]))
        .with_policy(named("shop/a", &[]).ingress([Rule::any().pods(&["app=web"])]));
    let after = before
        .clone()
        .with_policy(named("shop/a", &[]).ingress([Rule::any()]));
    let (previous, next) = (tables(&before), tables(&after));
    let web: IpAddr = "10.244.2.5".parse().unwrap();
    assert!(!next.v4.classes.contains_key(&ClassKey {
        addr: [10, 244, 2, 5]
    }));
    for moment in moments(&previous, &next) {
        assert!(passes_at(&moment, web));
    }
}

#[test]
fn an_exception_that_joins_the_world_does_not_let_the_world_in() {
    let with = |rule| {
        tables(
            &cluster("n1")
                .with_local_pod(pod("shop/db", "10.244.1.5", &["app=db"]), 7)
                .with_policy(named("shop/a", &[]).ingress([rule])),
        )
    };
    let previous = with(Rule::any().block("10.0.0.0/8", &[]));
    let next = with(Rule::any().block("0.0.0.0/1", &["10.0.0.0/8"]));
    for moment in moments(&previous, &next) {
        assert!(!passes_at(&moment, "198.51.100.1".parse().unwrap()));
    }
}

fn passes_at(tables: &PolicyTables, peer: IpAddr) -> bool {
    let answer = tables.answer(
        PodKey { ifindex: 7 },
        Direction::Ingress,
        peer,
        Tcp.number(),
        80,
    );
    matches!(answer, Answer::Allowed { .. })
}

#[test]
fn nothing_to_change_needs_no_bridge() {
    let same = cluster("n1")
        .with_local_pod(pod("shop/db", "10.244.1.5", &["app=db"]), 7)
        .with_policy(named("shop/a", &[]).ingress([Rule::any().block("10.0.0.0/8", &[])]));
    assert!(bridge(&tables(&same), &tables(&same)).is_empty());
    assert!(bridge(&PolicyTables::default(), &tables(&same)).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn at_every_moment_a_flow_is_judged_by_old_rules_or_by_new_ones(
        before in clusters(),
        policies in policies(),
    ) {
        let mut after = before.clone();
        after.network_policies.clear();
        let after = policies.into_iter().fold(after, Cluster::with_policy);
        let (previous, next) = (tables(&before), tables(&after));
        let peers = addresses(&before);
        let exact: BTreeSet<_> = peers
            .iter()
            .copied()
            .filter(|&peer| renamed(&next, &previous, &peers, peer))
            .filter(|&peer| renamed(&previous, &next, &peers, peer))
            .collect();
        for moment in moments(&previous, &next) {
            for &pod in previous.pods.keys() {
                for direction in [Direction::Ingress, Direction::Egress] {
                    for &peer in &peers {
                        let exact = exact.contains(&peer);
                        let now = allowed(&moment, pod, direction, peer);
                        let old = allowed(&previous, pod, direction, peer);
                        let new = allowed(&next, pod, direction, peer);
                        for ((now, old), new) in now.into_iter().zip(old).zip(new) {
                            prop_assert!(!now || old || new, "nobody allows {peer}");
                            prop_assert!(now || !old || !new || !exact, "both allow {peer}");
                        }
                    }
                }
            }
        }
    }
}
