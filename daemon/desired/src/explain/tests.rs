//! Whole explanations from whole snapshots.

use pretty_assertions::assert_eq;

use super::*;
use crate::cluster::{Rule, TrafficPolicy};
use crate::fixture::{
    cluster, namespace, node, pod, policy as named, port, service as fixture_service, slice,
};
use crate::names::Protocol::{Tcp, Udp};

fn shop() -> Cluster {
    let mut remote = pod("shop/db-1", "10.244.2.5", &["app=db"]);
    remote.node = Some("n2".parse().unwrap());
    cluster("n1")
        .with_namespace(namespace("shop", &[]))
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
        .with_local_pod(pod("shop/web", "10.244.1.4", &["app=web"]), 6)
        .with_local_pod(pod("shop/db-0", "10.244.1.5", &["app=db", "old=yes"]), 7)
        .with_pod(remote)
        .with_service(fixture_service("shop/db", "10.96.0.5").with_port("", Tcp, 5432))
        .with_slice(
            slice("shop/db-x", "db")
                .with_port("", Tcp, 15432)
                .with_ready("10.244.1.5", "n1")
                .with_ready("10.244.2.5", "n2"),
        )
}

fn ask(cluster: &Cluster, source: &str, destination: &str) -> Explanation {
    why(
        cluster,
        &source.parse().unwrap(),
        &destination.parse().unwrap(),
    )
    .unwrap()
}

/// `address:port egress/ingress open` for every path.
fn paths(explanation: &Explanation) -> Vec<String> {
    let short = |decision: &Option<Decision>| match decision {
        None => "-".to_owned(),
        Some(Decision::NotIsolated) => "open".to_owned(),
        Some(Decision::OwnNode) => "own node".to_owned(),
        Some(Decision::Allowed { rule }) => rule.to_string(),
        Some(Decision::Denied { policies }) => format!("denied by {policies:?}")
            .replace("PolicyName", "")
            .replace("NamespaceName", "")
            .replace("ObjectName", ""),
    };
    explanation
        .paths
        .iter()
        .map(|path| {
            let port = path.port.map_or("icmp".to_owned(), |port| port.to_string());
            let (egress, ingress) = (short(&path.egress), short(&path.ingress));
            format!(
                "{}:{port} {egress} / {ingress} {}",
                path.destination.address, path.open
            )
        })
        .collect()
}

#[test]
fn a_service_leads_to_its_endpoints_and_their_policies() {
    let explanation = ask(&shop(), "shop/web", "shop/db:5432");
    let end = |address: &str, pod: Option<&str>, node: Option<&str>, in_force| End {
        address: address.parse().unwrap(),
        pod: pod.map(|pod| pod.parse().unwrap()),
        node: node.map(|node| node.parse().unwrap()),
        in_force,
    };
    assert_eq!(
        explanation.source,
        end("10.244.1.4", Some("shop/web"), Some("n1"), Some(true))
    );
    assert_eq!(explanation.dialled, end("10.96.0.5", None, None, None));
    let frontend = explanation.frontend.clone().unwrap();
    assert_eq!(frontend.service.to_string(), "shop/db:/TCP");
    assert_eq!(frontend.endpoints.len(), 2);
    assert_eq!(
        paths(&explanation),
        [
            "10.244.1.5:15432 open / open true",
            "10.244.2.5:15432 open / open true"
        ]
    );
    assert_eq!(explanation.verdict, Verdict::Allowed);
    assert_eq!(
        explanation.paths[1].destination.in_force, None,
        "not this node's to know"
    );
}

#[test]
fn the_rule_that_decides_is_named_on_both_sides() {
    let out = named("shop/out", &["app=web"]).egress([
        Rule::any().ports(Udp, 53, 53),
        Rule::any().pods(&["app=db"]),
    ]);
    let into = named("shop/in", &["old=yes"]).ingress([]);
    let cluster = shop().with_policy(out).with_policy(into);
    let explanation = ask(&cluster, "shop/web", "10.96.0.5:5432");
    assert_eq!(
        paths(&explanation),
        [
            "10.244.1.5:15432 shop/out egress[1] / denied by \
             [ { namespace: (\"shop\"), name: (\"in\") }] false",
            "10.244.2.5:15432 shop/out egress[1] / open true",
        ]
    );
    assert_eq!(explanation.verdict, Verdict::Partly);
    let json = serde_json::to_value(&explanation.paths[1].egress).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"decision": "allowed",
            "rule": {"policy": "shop/out", "direction": "egress", "index": 1}})
    );
}

#[test]
fn without_a_port_the_question_is_about_icmp() {
    let tcp_only = named("shop/in", &[]).ingress([Rule::any().ports(Tcp, 1, 9)]);
    let cluster = shop().with_policy(tcp_only);
    let explanation = ask(&cluster, "shop/web", "shop/db-0");
    assert_eq!(
        (explanation.verdict, explanation.port),
        (Verdict::Denied, None)
    );
    assert_eq!(
        ask(&cluster, "shop/web", "shop/db-0:5").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        ask(&cluster, "172.30.0.1", "shop/db-0").verdict,
        Verdict::Allowed
    );
    assert_eq!(
        paths(&ask(&cluster, "172.30.0.1", "10.244.1.5:80")),
        ["10.244.1.5:80 - / own node true"]
    );
    assert_eq!(
        ask(&cluster, "172.30.0.2", "10.244.1.5:80").verdict,
        Verdict::Denied
    );
    assert_eq!(
        ask(&cluster, "172.30.0.2", "10.244.2.5:80").verdict,
        Verdict::Allowed
    );
}

#[test]
fn services_refuse_or_drop_when_nobody_serves() {
    let mut empty = shop();
    empty.endpoint_slices.clear();
    assert_eq!(
        ask(&empty, "shop/web", "shop/db:5432").verdict,
        Verdict::Refused
    );

    let mut local = fixture_service("shop/db", "10.96.0.5").with_port("", Tcp, 5432);
    local.internal_traffic_policy = TrafficPolicy::Local;
    let remote_only = slice("shop/db-x", "db")
        .with_port("", Tcp, 15432)
        .with_ready("10.244.2.5", "n2");
    let cluster = shop().with_service(local).with_slice(remote_only);
    assert_eq!(
        ask(&cluster, "shop/web", "shop/db:5432").verdict,
        Verdict::NoLocalEndpoint
    );
    // Seen from the other node, the endpoint is local.
    assert_eq!(
        ask(&cluster, "shop/db-1", "shop/db:5432").verdict,
        Verdict::Allowed
    );
}

#[test]
fn a_pod_reaches_itself_whatever_policies_say() {
    let deny = named("shop/deny", &[]).ingress([]).egress([]);
    let explanation = ask(&shop().with_policy(deny), "shop/db-0", "shop/db:5432");
    assert_eq!(explanation.verdict, Verdict::Partly);
    assert!(explanation.paths[0].hairpin && explanation.paths[0].open);
}

#[test]
fn a_pod_whose_policy_is_not_in_force_reaches_nobody() {
    let mut cluster = shop();
    cluster
        .local_endpoints
        .retain(|_, endpoint| endpoint.host_ifindex != 6);
    let explanation = ask(&cluster, "shop/web", "8.8.8.8:53/UDP");
    assert_eq!(explanation.source.in_force, Some(false));
    assert_eq!(explanation.verdict, Verdict::Denied);
}

#[test]
fn an_unknown_port_of_a_service_address_is_no_frontend() {
    let explanation = ask(&shop(), "shop/web", "10.96.0.5:80");
    assert_eq!(explanation.frontend, None);
    assert_eq!(
        explanation.paths[0].destination.address,
        explanation.dialled.address
    );
    assert_eq!(explanation.port, Some((port(80), Tcp)));
}

#[test]
fn unknown_names_are_named() {
    let ask = |source: &str, destination: &str| {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        why(&shop(), &source, &destination).unwrap_err().to_string()
    };
    assert_eq!(
        ask("shop/nobody", "8.8.8.8"),
        "source shop/nobody: no such pod in the cluster: check namespace and name"
    );
    assert_eq!(
        ask("shop/web", "shop/nobody:80"),
        "destination shop/nobody: no such pod or service in the cluster: check namespace and name"
    );
    assert_eq!(
        ask("shop/web", "fd00::1"),
        "destination fd00::1: it has no address of the other end's family: it may not run yet, or \
         be headless"
    );
}
