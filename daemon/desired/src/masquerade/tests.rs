use pretty_assertions::assert_eq;

use super::*;
use crate::fixture::{cluster, node};

const ALL: Options = Options {
    masquerade: true,
    nodes: false,
    random_fully: true,
    forward: true,
};

fn text(set: &Set) -> Vec<String> {
    set.elements.iter().map(ToString::to_string).collect()
}

fn networked() -> Cluster {
    cluster("n1")
        .with_node(node(
            "n1",
            "10.244.1.0/24",
            "02:00:00:00:00:01",
            "172.30.0.1",
        ))
        .with_node(node(
            "n2",
            "10.244.2.0/24",
            "02:00:00:00:00:02",
            "172.30.0.2",
        ))
}

#[test]
fn pods_leave_under_the_nodes_address_and_talk_to_pods_and_nodes_under_their_own() {
    let table = masquerade(&networked(), &ALL);
    assert_eq!(text(&table.sets["pods4"]), ["10.244.0.0/16"]);
    assert_eq!(
        text(&table.sets["inside4"]),
        ["10.244.0.0/16", "172.30.0.1/32", "172.30.0.2/32"]
    );
    let matches = vec![
        Match::Source(Addresses::Prefix("10.244.1.0/24".parse().unwrap())),
        Match::NotDestination(Addresses::Set("inside4".to_owned())),
        Match::NotDestination(Addresses::Prefix("224.0.0.0/4".parse().unwrap())),
    ];
    let rule = Rule::new(matches, Verdict::Masquerade { random_fully: true })
        .comment("pods leave the cluster under the node's address");
    let base = Base::nat(Hook::Postrouting, 100);
    assert_eq!(table.chains["postrouting"], Chain::base(base, vec![rule]));
    assert_eq!(table.sets.len(), 2, "no IPv6 pod network, no IPv6 set");
}

#[test]
fn what_the_data_path_marked_is_refused_in_the_way_of_its_protocol() {
    let table = masquerade(&networked(), &ALL);
    let verdicts: Vec<_> = table.chains["prerouting"]
        .rules
        .iter()
        .map(|rule| (rule.matches[0].clone(), rule.verdict.clone()))
        .collect();
    let marked = Match::Mark(Mark {
        mask: MARK_REJECT,
        value: MARK_REJECT,
    });
    assert_eq!(
        verdicts,
        [
            (marked.clone(), Some(Verdict::Reject(Reject::TcpReset))),
            (marked, Some(Verdict::Reject(Reject::PortUnreachable))),
        ]
    );
}

#[test]
fn without_masquerade_sources_are_left_alone_and_the_rest_stays() {
    let table = masquerade(
        &networked(),
        &Options {
            masquerade: false,
            ..ALL
        },
    );
    assert_eq!(
        table.chains.keys().collect::<Vec<_>>(),
        ["forward", "prerouting"]
    );
    let accepted: Vec<_> = table.chains["forward"]
        .rules
        .iter()
        .map(|rule| rule.matches.clone())
        .collect();
    let pods = || Addresses::Set("pods4".to_owned());
    assert_eq!(
        accepted,
        [
            vec![Match::Source(pods())],
            vec![Match::Destination(pods())]
        ]
    );
}

#[test]
fn a_second_family_has_its_own_sets_and_rule() {
    let mut cluster = networked();
    cluster.pod_networks.push("fd00::/48".parse().unwrap());
    let mut own = cluster.own_node().unwrap().clone();
    own.pod_cidrs.push("fd00:0:0:1::/64".parse().unwrap());
    let table = masquerade(&cluster.with_node(own), &ALL);
    assert_eq!(text(&table.sets["inside6"]), ["fd00::/48"]);
    assert_eq!(table.chains["postrouting"].rules.len(), 2);
    assert_eq!(table.chains["forward"].rules.len(), 4);
}

#[test]
fn what_was_asked_for_otherwise_is_otherwise() {
    let other = Options {
        masquerade: true,
        nodes: true,
        random_fully: false,
        forward: false,
    };
    let table = masquerade(&networked(), &other);
    assert_eq!(text(&table.sets["inside4"]), ["10.244.0.0/16"]);
    let verdict = table.chains["postrouting"].rules[0].verdict.clone();
    let random_fully = false;
    assert_eq!(verdict, Some(Verdict::Masquerade { random_fully }));
    let chains: Vec<_> = table.chains.keys().collect();
    assert_eq!(chains, ["postrouting", "prerouting"]);
}

fn lines(owned: &netstate::iptables::Owned) -> Vec<String> {
    let of = |(chain, rules): (&String, &Vec<_>)| -> Vec<String> {
        let shown = rules.iter().map(|rule| format!("{chain} {rule}"));
        shown.collect()
    };
    let all = owned.jumps.iter().chain(&owned.chains);
    all.flat_map(of).collect()
}

#[test]
fn iptables_says_the_same() {
    let tables = iptables(&networked(), &ALL, Family::V4);
    assert_eq!(
        lines(&tables.nat),
        [
            "POSTROUTING -m comment --comment \"towline masquerade\" -j TOWLINE-POSTRTG",
            "TOWLINE-POSTRTG ! -s 10.244.1.0/24 -j RETURN",
            "TOWLINE-POSTRTG -d 10.244.0.0/16 -j RETURN",
            "TOWLINE-POSTRTG -d 172.30.0.1/32 -j RETURN",
            "TOWLINE-POSTRTG -d 172.30.0.2/32 -j RETURN",
            "TOWLINE-POSTRTG -d 224.0.0.0/4 -j RETURN",
            "TOWLINE-POSTRTG -j MASQUERADE --random-fully",
        ]
    );
    assert_eq!(
        lines(&tables.filter),
        [
            "FORWARD -m comment --comment \"towline forward\" -j TOWLINE-FWD",
            "TOWLINE-FWD -s 10.244.0.0/16 -j ACCEPT",
            "TOWLINE-FWD -d 10.244.0.0/16 -j ACCEPT",
        ]
    );
    let none = iptables(&networked(), &ALL, Family::V6);
    assert!(none.nat.is_empty() && none.filter.is_empty());
    let quiet = Options {
        masquerade: false,
        forward: false,
        ..ALL
    };
    let quiet = iptables(&networked(), &quiet, Family::V4);
    assert!(quiet.nat.is_empty() && quiet.filter.is_empty());
}

#[test]
fn a_node_without_a_subnet_masquerades_nothing() {
    let tables = iptables(&cluster("n9"), &ALL, Family::V4);
    assert_eq!(lines(&tables.nat).len(), 1, "the jump alone");
}
