//! What exactly is in the tables.

use std::collections::BTreeSet;

use ebpf_shared::policy::{
    CLASS_FIRST, CLASS_NODE, EGRESS, EGRESS_ISOLATED, INGRESS, INGRESS_ISOLATED, MAX_INTERVALS,
    PROTO_ANY, PodKey, PodNetnsKey,
};
use pretty_assertions::assert_eq;

use super::*;
use crate::cluster::Rule;
use crate::fixture::{address, cluster, local_endpoint, namespace, node, pod, policy as named};
use crate::names::Protocol::{Tcp, Udp};
use crate::policy::{RULE_NODE, policy};

/// The tables as a person would draw them; identifiers give way to what they stand for.
fn drawn(tables: &PolicyTables) -> Vec<String> {
    let mut classes: Vec<(u32, String)> = Vec::new();
    for (key, value) in &tables.v4.classes {
        classes.push((value.class, IpAddr::from(key.addr).to_string()));
    }
    for (key, value) in &tables.v4.cidr_classes {
        classes.push((
            value.class,
            format!("{}/{}", IpAddr::from(key.addr), key.prefix),
        ));
    }
    let members = |class: u32| {
        let of_class = classes.iter().filter(|(id, _)| *id == class);
        let members: Vec<_> = of_class.map(|(_, member)| member.as_str()).collect();
        match class {
            0 => format!("others {}", members.join(" ")),
            CLASS_NODE => "this node".to_owned(),
            _ => members.join(" "),
        }
    };
    let mut lines: Vec<_> = tables
        .verdicts
        .iter()
        .map(|(key, value)| {
            let direction = if key.direction == INGRESS {
                "from"
            } else {
                "to"
            };
            let intervals: Vec<_> = value
                .used()
                .iter()
                .map(|interval| {
                    let rule = tables.rules.get(&interval.rule).map(ToString::to_string);
                    let rule = rule.unwrap_or_else(|| format!("#{}", interval.rule));
                    format!(
                        "{}:{}-{} by {rule}",
                        interval.proto, interval.from, interval.to
                    )
                })
                .collect();
            format!(
                "{direction} {}: {}",
                members(key.class),
                intervals.join(", ")
            )
        })
        .collect();
    lines.sort();
    lines
}

fn shop() -> Cluster {
    cluster("n1")
        .with_namespace(namespace("shop", &[]))
        .with_namespace(namespace("lab", &["team=x"]))
        .with_local_pod(
            pod("shop/db", "10.244.1.5", &["app=db"]).with_port("sql", Tcp, 5432),
            7,
        )
        .with_pod(pod("shop/web", "10.244.2.5", &["app=web"]))
        .with_pod(pod("lab/probe", "10.244.2.6", &["app=web"]))
}

#[test]
fn without_policies_pods_are_open_and_nothing_else_is_written() {
    let tables = tables(&shop());
    assert_eq!(drawn(&tables), Vec::<String>::new());
    let pod = tables.pods[&PodKey { ifindex: 7 }];
    assert_eq!((pod.addr4, pod.addr6), ([10, 244, 1, 5], [0; 16]));
    assert_eq!((pod.policy_set, pod.flags), (0, 0));
    assert_eq!(
        tables.pod_netns[&PodNetnsKey { cookie: 1007 }].addr4,
        [10, 244, 1, 5]
    );
    assert_eq!(tables.problems, []);
}

#[test]
fn one_policy_makes_the_classes_it_speaks_of() {
    let rule = Rule::any()
        .pods(&["app=web"])
        .block("10.244.2.0/24", &["10.244.2.6/32"]);
    let allow = named("shop/db", &["app=db"]).ingress([
        rule.port(Tcp, crate::cluster::PortMatch::Named("sql".to_owned())),
        Rule::any().pods_in(&["team=x"], &[]).ports(Udp, 50, 60),
    ]);
    let tables = tables(&shop().with_policy(allow));
    assert_eq!(
        drawn(&tables),
        [
            "from 10.244.2.0/24: 6:5432-5432 by shop/db ingress[0]",
            "from 10.244.2.5: 6:5432-5432 by shop/db ingress[0]",
            "from 10.244.2.6: 17:50-60 by shop/db ingress[1]",
            "from this node: 0:0-65535 by #1",
        ]
    );
    assert_eq!(
        tables.class(address("10.244.2.200")),
        tables.class(address("10.244.2.77"))
    );
    assert_eq!(tables.class(address("10.244.9.9")), 0);
    assert_eq!(tables.class(address("172.30.0.1")), CLASS_NODE);
    assert!(
        tables
            .v4
            .classes
            .values()
            .all(|value| value.class >= CLASS_FIRST || value.class == CLASS_NODE)
    );
    let pod = tables.pods[&PodKey { ifindex: 7 }];
    assert_eq!(pod.flags, INGRESS_ISOLATED);
    let policies = BTreeSet::from(["shop/db".parse().unwrap()]);
    assert_eq!(
        tables.policy_sets.into_iter().collect::<Vec<_>>(),
        [(pod.policy_set, policies)]
    );
}

#[test]
fn blocks_nest_and_exceptions_win_over_shorter_prefixes() {
    let allow = named("shop/db", &[]).egress([
        Rule::any()
            .block("10.0.0.0/8", &["10.1.0.0/16"])
            .ports(Tcp, 1, 1),
        Rule::any().block("10.1.2.0/24", &[]).ports(Tcp, 2, 2),
        Rule::any()
            .block("0.0.0.0/0", &["10.0.0.0/8"])
            .ports(Tcp, 3, 3),
    ]);
    let tables = tables(&shop().with_policy(allow));
    assert_eq!(
        drawn(&tables),
        [
            "to 0.0.0.0/0: 6:3-3 by shop/db egress[2]",
            "to 10.0.0.0/8: 6:1-1 by shop/db egress[0]",
            "to 10.1.2.0/24: 6:2-2 by shop/db egress[1]",
            // The node's address is in 0.0.0.0/0 and not only "the node", so it has a class.
            "to 172.30.0.1: 6:3-3 by shop/db egress[2]",
        ]
    );
    assert_eq!(tables.class(address("10.1.9.9")), 0);
    assert_eq!(tables.v4.cidr_classes.len(), 4);
}

#[test]
fn the_nodes_own_class_is_let_in_and_is_ordinary_on_the_way_out() {
    let both = named("shop/all", &[])
        .ingress([Rule::any().block("172.30.0.0/24", &[]).ports(Tcp, 1, 1)])
        .egress([Rule::any().block("172.30.0.0/24", &[]).ports(Tcp, 2, 2)]);
    let tables = tables(&shop().with_policy(both));
    assert_eq!(
        drawn(&tables),
        [
            "from 172.30.0.0/24: 6:1-1 by shop/all ingress[0]",
            &format!("from 172.30.0.1: {PROTO_ANY}:0-65535 by #{RULE_NODE}"),
            &format!("from this node: {PROTO_ANY}:0-65535 by #{RULE_NODE}"),
            "to 172.30.0.0/24: 6:2-2 by shop/all egress[0]",
            "to 172.30.0.1: 6:2-2 by shop/all egress[0]",
        ]
    );
}

#[test]
fn overlapping_rules_are_cut_and_the_first_is_named() {
    let allow = named("shop/db", &[]).ingress([
        Rule::any().ports(Tcp, 10, 20),
        Rule::any().ports(Tcp, 5, 30),
        Rule::any().ports(Tcp, 31, 31).ports(Tcp, 32, 40),
        Rule::any(),
        Rule::any().ports(Udp, 1, 1),
    ]);
    assert_eq!(
        drawn(&tables(&shop().with_policy(allow))),
        [
            "from others : 0:0-65535 by shop/db ingress[3], 6:5-9 by shop/db ingress[1], \
             6:10-20 by shop/db ingress[0], 6:21-30 by shop/db ingress[1], \
             6:31-40 by shop/db ingress[2]",
            "from this node: 0:0-65535 by #1",
        ]
    );
}

#[test]
fn egress_names_of_ports_are_resolved_at_the_peer() {
    let named_port = crate::cluster::PortMatch::Named("http".to_owned());
    let allow = named("shop/out", &[]).egress([Rule::any().port(Tcp, named_port)]);
    let cluster = shop()
        .with_pod(pod("shop/a", "10.244.3.1", &[]).with_port("http", Tcp, 80))
        .with_pod(pod("shop/b", "10.244.3.2", &[]).with_port("http", Tcp, 8080))
        .with_pod(pod("shop/c", "10.244.3.3", &[]).with_port("http", Udp, 80))
        .with_policy(allow);
    assert_eq!(
        drawn(&tables(&cluster)),
        [
            "to 10.244.3.1: 6:80-80 by shop/out egress[0]",
            "to 10.244.3.2: 6:8080-8080 by shop/out egress[0]",
        ]
    );
}

#[test]
fn too_many_intervals_deny_and_are_reported() {
    let spread = |count: u16| {
        let rule = (0..count).fold(Rule::any(), |rule, n| {
            rule.ports(Tcp, 10 * n + 1, 10 * n + 1)
        });
        named("shop/many", &["app=db"])
            .ingress([rule])
            .egress([Rule::any()])
    };
    let most = u16::try_from(MAX_INTERVALS).unwrap();
    let fits = tables(&shop().with_policy(spread(most)));
    assert_eq!(fits.problems, []);
    let over = tables(&shop().with_policy(spread(most + 1)));
    assert_eq!(
        over.problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "policies shop/many: ingress needs 65 port intervals, 64 are possible, so pods shop/db are \
          denied all ingress: use endPort or fewer ports"
        ]
    );
    assert!(over.verdicts.keys().all(|key| key.direction == EGRESS));
    let pod = over.pods[&PodKey { ifindex: 7 }];
    assert_eq!(pod.flags, INGRESS_ISOLATED | EGRESS_ISOLATED);
}

#[test]
fn many_rules_for_neighbouring_ports_are_joined_before_they_are_too_many() {
    let rules = (1..=200).map(|port| Rule::any().ports(Tcp, port, port));
    let tables = tables(&shop().with_policy(named("shop/many", &[]).ingress(rules)));
    assert_eq!(tables.problems, []);
    assert!(drawn(&tables).contains(&"from others : 6:1-200 by shop/many ingress[0]".to_owned()));
}

#[test]
fn an_incomplete_snapshot_and_an_unknown_pod_stay_closed() {
    let mut incomplete = shop();
    incomplete.complete = false;
    assert_eq!(policy(&incomplete), None);

    let mut unknown = shop();
    unknown.pods.clear();
    let tables = tables(&unknown);
    assert_eq!((tables.pods.len(), tables.pod_netns.len()), (0, 1));

    // A pod of the same name with another uid is another pod.
    let mut replaced = shop();
    let mut endpoint = local_endpoint(&pod("shop/db", "10.244.1.5", &[]), 7);
    endpoint.uid = Some("an-older-one".parse().unwrap());
    replaced
        .local_endpoints
        .insert(endpoint.id.clone(), endpoint.into());
    assert_eq!(super::tables(&replaced).pods.len(), 0);
}

#[test]
fn revisions_follow_what_decides_on_a_pod() {
    let revision = |cluster: &Cluster| {
        let tables = tables(cluster);
        (
            tables.revision,
            tables.pods[&PodKey { ifindex: 7 }].revision,
        )
    };
    let open = revision(&shop());
    let elsewhere = shop().with_policy(named("lab/p", &[]).ingress([]));
    assert_eq!(
        revision(&elsewhere),
        open,
        "a policy of pods elsewhere changes nothing here"
    );
    let denied = shop().with_policy(named("shop/p", &[]).ingress([]));
    assert_ne!(revision(&denied).1, open.1);
    let allow = named("shop/p", &[]).ingress([Rule::any().pods(&["app=web"])]);
    let allowed = shop().with_policy(allow);
    assert_ne!(revision(&allowed), revision(&denied));
    let moved = allowed
        .clone()
        .with_pod(pod("shop/web", "10.244.2.9", &["app=web"]));
    assert_ne!(revision(&moved), revision(&allowed));
}

#[test]
fn pods_with_the_same_rules_share_a_set_and_policies_of_other_nodes_make_no_class() {
    let allow = named("shop/p", &[]).ingress([Rule::any().pods(&["app=web"])]);
    let elsewhere = named("lab/p", &[]).ingress([Rule::any().pods(&["app=db"])]);
    let cluster = shop()
        .with_local_pod(pod("shop/db-1", "10.244.1.6", &["app=db"]), 8)
        .with_policy(allow)
        .with_policy(elsewhere)
        .with_node(node(
            "n1",
            "10.244.1.0/24",
            "02:00:00:00:00:01",
            "172.30.0.1",
        ));
    let tables = tables(&cluster);
    assert_eq!(
        tables.pods[&PodKey { ifindex: 7 }].policy_set,
        tables.pods[&PodKey { ifindex: 8 }].policy_set
    );
    assert_eq!(
        drawn(&tables),
        [
            "from 10.244.2.5: 0:0-65535 by shop/p ingress[0]",
            "from this node: 0:0-65535 by #1"
        ]
    );
    let own: Vec<_> = tables
        .v4
        .classes
        .keys()
        .map(|key| IpAddr::from(key.addr))
        .collect();
    let expected = ["10.244.1.0", "10.244.1.1", "10.244.2.5", "172.30.0.1"].map(address);
    assert_eq!(own, expected);
}
