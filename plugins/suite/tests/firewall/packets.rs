//! Real packets: forwarded, overridden, kept apart.

use std::net::UdpSocket;
use std::time::Duration;

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::node::setup::{assert_talk, dual_stack, outside};
use crate::node::{Node, Pod, node};
use crate::{BACKENDS, firewall, run};

/// Sends a datagram that must not arrive.
#[track_caller]
fn assert_blocked(from: &Pod, to: &Pod, address: &str) {
    let bind = || UdpSocket::bind((address, 7001)).unwrap();
    let server = to.open().run_in(bind).unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(150)))
        .unwrap();
    let any = if address.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let client = from
        .open()
        .run_in(|| UdpSocket::bind(any).unwrap())
        .unwrap();
    client.send_to(b"ping", (address, 7001)).unwrap();
    let received = server.recv_from(&mut [0; 8]);
    assert!(received.is_err(), "a datagram got to {address}");
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    let bare = |ip: &Value| {
        ip["address"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned()
    };
    ips.map(bare).collect()
}

#[test]
fn pods_are_forwarded_where_iptables_drops_and_the_administrator_comes_first() {
    node(|node| {
        for iptables in ["iptables", "ip6tables"] {
            run(&format!("{iptables} -P FORWARD DROP"));
        }
        let (far, pod) = (outside(node), node.pod("a"));
        let interface = dual_stack(node, "ptp");
        let before = node.attachment("ptp", "ADD", &interface, &pod).result();
        assert_blocked(&pod, &far, "192.0.2.2");

        let config = firewall("net", &before, json!({}));
        let result = node.attachment("firewall", "ADD", &config, &pod).result();
        assert_eq!(result, before);
        assert_talk(&pod, &far, "192.0.2.2");
        assert_blocked(&far, &pod, &addresses(&before)[0]);
        node.attachment("firewall", "CHECK", &config, &pod).ok();

        run("iptables -A CNI-ADMIN -s 10.1.0.2 -j DROP");
        assert_blocked(&pod, &far, "192.0.2.2");
        run("iptables -F CNI-ADMIN");
        assert_talk(&pod, &far, "192.0.2.2");

        node.attachment("firewall", "DEL", &config, &pod).ok();
        node.attachment("firewall", "DEL", &config, &pod).ok();
        assert_blocked(&pod, &far, "192.0.2.2");
        assert_eq!(run("nft list tables").matches("cni_firewall").count(), 0);
    });
}

#[test]
fn nothing_of_iptables_means_one_table_whose_admin_chain_is_never_emptied() {
    node(|node| {
        let (far, a, b) = (outside(node), node.pod("a"), node.pod("b"));
        let interface = dual_stack(node, "ptp");
        let before = node.attachment("ptp", "ADD", &interface, &a).result();
        let config = firewall("net", &before, json!({}));
        node.attachment("firewall", "ADD", &config, &a).result();
        assert_talk(&a, &far, "192.0.2.2");
        let comment = "a4861f4ae9f7d238-";
        let text = run("nft list table inet cni_firewall");
        assert_eq!(text.matches(comment).count(), 2, "{text}");
        let without_hash = text.lines().filter(|line| !line.contains(comment));
        assert_eq!(
            without_hash.collect::<Vec<_>>().join("\n"),
            include_str!("table.nft").trim_end()
        );

        run("nft add rule inet cni_firewall CNI-ADMIN ip saddr 10.1.0.2 drop");
        assert_blocked(&a, &far, "192.0.2.2");
        let second = node.attachment("ptp", "ADD", &interface, &b).result();
        let second = firewall("net", &second, json!({}));
        node.attachment("firewall", "ADD", &second, &b).result();
        assert_blocked(&a, &far, "192.0.2.2");
        assert_talk(&b, &far, "192.0.2.2");
        node.attachment("firewall", "CHECK", &config, &a).ok();
        node.attachment("firewall", "DEL", &second, &b).ok();
        run("nft flush chain inet cni_firewall CNI-ADMIN");
        assert_eq!(run("nft list table inet cni_firewall"), text);
        assert_eq!(run("iptables-save"), "", "iptables was not touched");
    });
}

/// Two pods on each of two bridges, chained with `firewall`.
fn two_bridges(node: &Node, backend: &str, policy: &str) -> Vec<(Pod, Vec<String>)> {
    let mut pods = Vec::new();
    for bridge in [1, 2] {
        for pod in ["a", "b"] {
            let name = format!("net{bridge}");
            let interface = json!({
                "cniVersion": "1.1.0", "name": name, "type": "bridge",
                "bridge": format!("br{bridge}"), "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": node.path("state"),
                    "ranges": [[{ "subnet": format!("10.1.{bridge}.0/24") }],
                               [{ "subnet": format!("fd00:{bridge}::/64") }]],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
                },
            });
            let pod = node.pod(&format!("{pod}{bridge}"));
            let before = node.attachment("bridge", "ADD", &interface, &pod).result();
            let extra = json!({ "backend": backend, "ingressPolicy": policy });
            let config = firewall(&name, &before, extra);
            node.attachment("firewall", "ADD", &config, &pod).result();
            node.attachment("firewall", "CHECK", &config, &pod).ok();
            pods.push((pod, addresses(&before)));
        }
    }
    pods
}

#[test]
fn policies_keep_bridges_and_pods_apart() {
    for backend in BACKENDS {
        for policy in ["open", "same-bridge", "isolated"] {
            node(|node| {
                let pods = two_bridges(node, backend, policy);
                for (from, (source, _)) in pods.iter().enumerate() {
                    for (to, (target, addresses)) in pods.iter().enumerate() {
                        let same_bridge = from / 2 == to / 2;
                        let may = policy == "open" || (policy == "same-bridge" && same_bridge);
                        for address in addresses {
                            if from == to {
                            } else if may {
                                assert_talk(source, target, address);
                            } else {
                                assert_blocked(source, target, address);
                            }
                        }
                    }
                }
            });
        }
    }
}
