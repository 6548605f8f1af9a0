//! NetworkPolicy v1, sentence by sentence, asked of the compiled tables.

use crate::cluster::{NetworkPolicy, Peer, PodPeer, PortMatch, Rule};
use crate::fixture::{cluster, namespace, pod, policy as named, selector};
use crate::labels::LabelSelector;
use crate::names::Protocol::{Sctp, Tcp, Udp};
use crate::policy::Direction::{Egress, Ingress};

use super::*;

/// The subject's interface.
const DB: u32 = 7;
/// A pod of the subject's namespace.
const WEB: &str = "10.244.2.5";
/// A pod with the same label in another namespace, whose label is team=x.
const PROBE: &str = "10.244.2.6";
/// Nobody in the cluster.
const OUTSIDE: &str = "198.51.100.7";

fn with(policies: impl IntoIterator<Item = NetworkPolicy>) -> Cluster {
    let cluster = cluster("n1")
        .with_namespace(namespace("shop", &[]))
        .with_namespace(namespace("lab", &["team=x"]))
        .with_local_pod(
            pod("shop/db", "10.244.1.5", &["app=db"]).with_port("sql", Tcp, 5432),
            DB,
        )
        .with_pod(pod("shop/web", WEB, &["app=web"]).with_port("http", Tcp, 8080))
        .with_pod(pod("lab/probe", PROBE, &["app=web"]));
    policies.into_iter().fold(cluster, Cluster::with_policy)
}

/// Which of web, probe and outside reach the subject at TCP 80.
fn reached(cluster: &Cluster) -> [bool; 3] {
    [WEB, PROBE, OUTSIDE].map(|peer| passes(cluster, DB, Ingress, peer, Tcp, 80))
}

fn allow(rule: Rule) -> NetworkPolicy {
    named("shop/p", &["app=db"]).ingress([rule])
}

#[test]
fn directions_are_isolated_apart() {
    let ingress = with([named("shop/p", &[]).ingress([])]);
    assert!(!passes(&ingress, DB, Ingress, WEB, Tcp, 80));
    assert!(passes(&ingress, DB, Egress, WEB, Tcp, 80));
    let egress = with([named("shop/p", &[]).egress([])]);
    assert!(passes(&egress, DB, Ingress, WEB, Tcp, 80));
    assert!(!passes(&egress, DB, Egress, WEB, Tcp, 80));
    let elsewhere = with([
        named("shop/p", &["app=other"]).ingress([]),
        named("lab/p", &[]).ingress([]),
    ]);
    assert_eq!(reached(&elsewhere), [true; 3]);
}

#[test]
fn policies_union() {
    let deny = named("shop/a", &[]).ingress([]);
    let web = named("shop/b", &[]).ingress([Rule::any().pods(&["app=web"])]);
    let outside = named("shop/c", &[]).ingress([Rule::any().block("198.51.100.0/24", &[])]);
    assert_eq!(reached(&with([deny, web, outside])), [true, false, true]);
}

#[test]
fn peers_by_selectors() {
    let any_pod = LabelSelector::everything;
    let peer = |namespaces, pods| Rule::any().peer(Peer::Pods(PodPeer { namespaces, pods }));
    assert_eq!(reached(&with([allow(Rule::any())])), [true; 3]);
    let no_peer = Rule {
        peers: Some(vec![]),
        ports: None,
    };
    assert_eq!(reached(&with([allow(no_peer)])), [false; 3]);
    assert_eq!(
        reached(&with([allow(peer(None, any_pod()))])),
        [true, false, false]
    );
    assert_eq!(
        reached(&with([allow(peer(Some(any_pod()), any_pod()))])),
        [true, true, false]
    );
    let team = || Some(selector(&["team=x"]));
    assert_eq!(
        reached(&with([allow(peer(team(), any_pod()))])),
        [false, true, false]
    );
    assert_eq!(
        reached(&with([allow(peer(team(), selector(&["app=db"])))])),
        [false; 3]
    );
    let by_name = Some(selector(&["kubernetes.io/metadata.name=lab"]));
    assert_eq!(
        reached(&with([allow(peer(by_name, any_pod()))])),
        [false, true, false]
    );
    let either = Rule::any().pods(&["app=web"]).pods_in(&["team=x"], &[]);
    assert_eq!(reached(&with([allow(either)])), [true, true, false]);
}

#[test]
fn blocks_match_pods_and_another_peer_may_allow_what_one_excepts() {
    let block = || Rule::any().block("10.244.0.0/16", &["10.244.2.5/32"]);
    assert_eq!(reached(&with([allow(block())])), [false, true, false]);
    let again = block().block("10.244.2.5/32", &[]);
    assert_eq!(reached(&with([allow(again)])), [true, true, false]);
}

#[test]
fn ports_ranges_and_protocols() {
    let passes =
        |rule: Rule, protocol, port| passes(&with([allow(rule)]), DB, Ingress, WEB, protocol, port);
    let range = || Rule::any().ports(Tcp, 80, 90);
    for (port, expected) in [(79, false), (80, true), (90, true), (91, false)] {
        assert_eq!(passes(range(), Tcp, port), expected, "{port}");
    }
    assert!(!passes(range(), Udp, 80));
    assert!(
        !passes(Rule::any().ports(Sctp, 80, 80), Tcp, 80),
        "SCTP is never TCP, and isolates"
    );
    let all_udp = || Rule::any().port(Udp, PortMatch::Any);
    assert!(passes(all_udp(), Udp, 0) && passes(all_udp(), Udp, 65_535));
    assert!(!passes(all_udp(), Tcp, 80));
    let no_port = Rule {
        peers: None,
        ports: Some(vec![]),
    };
    assert!(!passes(no_port, Tcp, 80));
}

#[test]
fn protocols_without_ports_need_a_rule_for_any_port() {
    let icmp = |rule| {
        let tables = tables(&with([allow(rule)]));
        tables.answer(PodKey { ifindex: DB }, Ingress, WEB.parse().unwrap(), 1, 0)
    };
    assert!(matches!(icmp(Rule::any()), Answer::Allowed { .. }));
    assert!(matches!(
        icmp(Rule::any().port(Tcp, PortMatch::Any)),
        Answer::Denied { .. }
    ));
}

#[test]
fn names_of_ports_belong_to_the_destination_and_protocol() {
    let by_name =
        |name: &str, protocol| Rule::any().port(protocol, PortMatch::Named(name.to_owned()));
    let ingress = with([allow(by_name("sql", Tcp))]);
    assert!(passes(&ingress, DB, Ingress, OUTSIDE, Tcp, 5432));
    assert!(!passes(&ingress, DB, Ingress, OUTSIDE, Tcp, 80));
    assert!(!passes(
        &with([allow(by_name("sql", Udp))]),
        DB,
        Ingress,
        WEB,
        Udp,
        5432
    ));
    assert!(!passes(
        &with([allow(by_name("http", Tcp))]),
        DB,
        Ingress,
        WEB,
        Tcp,
        8080
    ));
    let egress = with([named("shop/p", &[]).egress([by_name("http", Tcp)])]);
    assert!(passes(&egress, DB, Egress, WEB, Tcp, 8080));
    assert!(!passes(&egress, DB, Egress, PROBE, Tcp, 8080));
    assert!(!passes(&egress, DB, Egress, OUTSIDE, Tcp, 8080));
}

#[test]
fn a_node_reaches_its_own_pods_whatever_policies_say() {
    let deny = with([named("shop/p", &[]).ingress([]).egress([])]);
    assert!(passes(&deny, DB, Ingress, "172.30.0.1", Tcp, 80));
    assert!(
        !passes(&deny, DB, Ingress, "172.30.0.2", Tcp, 80),
        "another node is no exception"
    );
    assert!(!passes(&deny, DB, Egress, "172.30.0.1", Tcp, 80));
    let out = with([named("shop/p", &[]).egress([Rule::any().block("172.30.0.0/24", &[])])]);
    assert!(passes(&out, DB, Egress, "172.30.0.1", Tcp, 80));
}

#[test]
fn changes_of_labels_and_of_pods_take_effect() {
    let policy = || allow(Rule::any().pods_in(&["team=x"], &["app=web"]));
    assert_eq!(reached(&with([policy()])), [false, true, false]);
    let relabelled = with([policy()]).with_namespace(namespace("lab", &["team=y"]));
    assert_eq!(reached(&relabelled), [false; 3]);
    let mut forgotten = with([policy()]);
    forgotten.namespaces.clear();
    assert_eq!(
        reached(&forgotten),
        [false; 3],
        "an unknown namespace has no label"
    );
}

#[test]
fn an_address_belongs_to_the_pod_that_has_it_now() {
    let policy = || allow(Rule::any().pods(&["app=web"]));
    let mut over = pod("shop/web", WEB, &["app=web"]);
    over.terminated = true;
    assert_eq!(
        reached(&with([policy()]).with_pod(over.clone())),
        [false; 3]
    );
    let reused = with([policy()])
        .with_pod(over)
        .with_pod(pod("shop/other", WEB, &["app=web"]));
    assert_eq!(reached(&reused), [true, false, false]);
    let mut going = pod("shop/web", WEB, &["app=web"]);
    going.deleting = true;
    let successor = with([policy()])
        .with_pod(going)
        .with_pod(pod("shop/a", WEB, &["app=db"]));
    assert_eq!(reached(&successor), [false; 3]);
    let mut host = pod("shop/web", OUTSIDE, &["app=web"]);
    host.host_network = true;
    assert_eq!(reached(&with([policy()]).with_pod(host)), [false; 3]);
}

#[test]
fn a_registered_pod_is_known_before_its_status_is() {
    let mut starting = pod("shop/starting", "10.244.1.8", &["app=web"]);
    let cluster = with([allow(Rule::any().pods(&["app=web"]))]).with_local_pod(starting.clone(), 8);
    starting.addresses.clear();
    let cluster = cluster.with_pod(starting);
    assert!(passes(&cluster, DB, Ingress, "10.244.1.8", Tcp, 80));
}

#[test]
fn both_families_of_a_pod_are_enforced() {
    let mut web = pod("shop/web", WEB, &["app=web"]);
    web.addresses.push("fd00::5".parse().unwrap());
    let block = Rule::any().block("fd01::/16", &["fd01:1::/32"]);
    let rules = [Rule::any().pods(&["app=web"]), block];
    let cluster = with([named("shop/p", &[]).ingress(rules)]).with_pod(web);
    assert!(passes(&cluster, DB, Ingress, "fd00::5", Tcp, 80));
    assert!(!passes(&cluster, DB, Ingress, "fd00::6", Tcp, 80));
    assert!(passes(&cluster, DB, Ingress, "fd01::6", Tcp, 80));
    assert!(!passes(&cluster, DB, Ingress, "fd01:1::6", Tcp, 80));
}
