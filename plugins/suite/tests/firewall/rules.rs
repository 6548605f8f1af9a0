//! The rules of both backends: none twice, none left, all checked.

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use crate::node::{Pod, node};
use crate::{BACKENDS, behind, firewall, rules, run};

#[test]
fn a_pod_goes_without_a_previous_result_and_its_bridge_with_the_last() {
    for backend in BACKENDS {
        node(|node| {
            let (a, b) = (node.pod("a"), node.pod("b"));
            let extra = json!({ "backend": backend, "ingressPolicy": "isolated", "iptablesAdminChainName": "MINE" });
            let ips = ["10.1.0.2/24", "fd00::2/64"];
            run("ip link add br0 type bridge");
            let first = firewall("net", &behind("br0", &ips), extra.clone());
            let second = firewall(
                "net",
                &behind("br0", &["10.1.0.3/24", "fd00::3/64"]),
                extra.clone(),
            );
            node.attachment("firewall", "ADD", &first, &a).result();
            node.attachment("firewall", "DEL", &first, &a).ok();
            let nobody = rules();
            assert!(
                !nobody.contains("10.1.0.2") && !nobody.contains("br0"),
                "{nobody}"
            );
            node.attachment("firewall", "ADD", &first, &a).result();
            let one = rules();
            assert!(one.contains("10.1.0.2") && one.contains("br0"), "{one}");
            node.attachment("firewall", "ADD", &first, &a).result();
            assert_eq!(rules(), one, "a repeated ADD adds nothing");
            node.attachment("firewall", "ADD", &second, &b).result();
            let mut bare = second.clone();
            bare.as_object_mut().unwrap().remove("prevResult");
            b.destroy();
            node.attachment("firewall", "DEL", &bare, &b).ok();
            assert_eq!(rules(), one);
            let bare = json!({ "cniVersion": "1.1.0", "name": "net", "type": "firewall" });
            node.attachment("firewall", "DEL", &bare, &a).ok();
            assert_eq!(rules(), nobody);
        });
    }
}

#[test]
fn parallel_adds_leave_every_shared_rule_once() {
    for backend in BACKENDS {
        node(|node| {
            let pods: Vec<Pod> = (2..22).map(|n| node.pod(&format!("c{n}"))).collect();
            let extra = json!({ "backend": backend, "ingressPolicy": "same-bridge" });
            let each = |command: &'static str| {
                std::thread::scope(|scope| {
                    let calls = pods.iter().zip(2..).map(|(pod, n)| {
                        let before = behind("br0", &[&format!("10.1.0.{n}/24")]);
                        let config = firewall("net", &before, extra.clone());
                        scope.spawn(move || {
                            node.attachment("firewall", command, &config, pod).success
                        })
                    });
                    let calls: Vec<_> = calls.collect();
                    assert!(
                        calls.into_iter().all(|call| call.join().unwrap()),
                        "{command}"
                    );
                });
            };
            each("ADD");
            let text = rules();
            let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
            lines.retain(|line| !line.is_empty() && *line != "}");
            lines.sort_unstable();
            let twice = lines.windows(2).find(|pair| pair[0] == pair[1]);
            assert_eq!(twice, None);
            each("CHECK");
            each("DEL");
            let text = rules();
            assert!(!text.contains("10.1.0.") && !text.contains("br0"), "{text}");
        });
    }
}

#[test]
fn garbage_collection_keeps_the_valid_and_other_networks() {
    for backend in BACKENDS {
        node(|node| {
            let extra = json!({ "backend": backend, "ingressPolicy": "same-bridge" });
            let add = |network: &str, id: &str, ip: &str| {
                let config = firewall(network, &behind(network, &[ip]), extra.clone());
                let pod = node.pod(id);
                node.attachment("firewall", "ADD", &config, &pod).result();
                pod
            };
            let _pods = [
                add("net", "kept", "10.1.0.2/24"),
                add("net", "stale", "10.1.0.3/24"),
                add("other", "foreign", "10.2.0.2/24"),
            ];
            let before = rules();
            let gc = |valid: Option<Value>| {
                let mut config =
                    json!({ "cniVersion": "1.1.0", "name": "net", "type": "firewall" });
                if let Some(valid) = valid {
                    config["cni.dev/valid-attachments"] = valid;
                }
                node.call("firewall", "GC", &config, &[]).ok();
                rules()
            };
            assert_eq!(gc(None), before);
            let after = gc(Some(json!([{ "containerID": "kept", "ifname": "eth0" }])));
            assert!(after.contains("10.1.0.2") && after.contains("10.2.0.2"));
            assert!(!after.contains("10.1.0.3"), "{after}");
            let after = gc(Some(json!([])));
            assert!(
                !after.contains("10.1.0.") && !after.contains("\"net\""),
                "{after}"
            );
            assert!(after.contains("10.2.0.2") && after.contains("other"));
        });
    }
}

#[test]
fn what_is_wrong_is_refused_before_any_rule() {
    node(|node| {
        let pod = node.pod("a");
        let good = behind("br0", &["10.1.0.2/24"]);
        let nameless = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.1.0.2/24" }] });
        let cases = [
            (
                json!({ "ingressPolicy": "closed" }),
                &good,
                7,
                "ingressPolicy \"closed\" is unknown; give \"open\", \"same-bridge\" or \"isolated\"",
            ),
            (
                json!({ "backend": "ebtables" }),
                &good,
                7,
                "backend \"ebtables\" is unknown; give \"nftables\", \"iptables\" or nothing",
            ),
            (
                json!({ "backend": "firewalld" }),
                &good,
                2,
                "backend \"firewalld\" is not supported; add the pods' subnet to the zone once (firewall-cmd --permanent --zone=trusted --add-source=SUBNET) and give \"nftables\"",
            ),
            (
                json!({ "iptablesAdminChainName": "a b" }),
                &good,
                7,
                "iptablesAdminChainName \"a b\" cannot be; give up to 28 letters, digits, '_', '.' and '-', and no chain that is in use otherwise",
            ),
            (
                json!({ "ingressPolicy": "isolated" }),
                &nameless,
                7,
                "ingressPolicy needs the bridge as prevResult.interfaces[0]: interface name \"\": is empty; give 1 to 15 bytes; put firewall after bridge",
            ),
            (
                json!({ "prevResult": null }),
                &good,
                7,
                "prevResult is missing; put firewall after the plugin of the interface",
            ),
        ];
        for (extra, before, code, message) in cases {
            let config = firewall("net", before, extra);
            let error = node.attachment("firewall", "ADD", &config, &pod).error();
            assert_eq!(error, (code, message.to_owned()));
        }
        assert_eq!(run("nft list ruleset"), "");
        let del = firewall(
            "net",
            &good,
            json!({ "backend": "firewalld", "ingressPolicy": "closed" }),
        );
        node.attachment("firewall", "DEL", &del, &pod).ok();
        assert_eq!(run("nft list ruleset"), "", "DEL makes nothing");
    });
}

#[test]
fn a_failed_add_leaves_no_rule() {
    for backend in BACKENDS {
        node(|node| {
            let pod = node.pod("a");
            let extra = json!({ "backend": backend, "ingressPolicy": "isolated" });
            let config = firewall("net", &behind("nobridge", &["10.1.0.2/24"]), extra);
            let error = node.attachment("firewall", "ADD", &config, &pod).error();
            assert_eq!(
                error,
                (999, "find link nobridge: does not exist".to_owned())
            );
            let left = rules();
            assert!(
                !left.contains("10.1.0.2") && !left.contains("nobridge"),
                "{left}"
            );
        });
    }
}

#[test]
fn a_damaged_rule_is_noticed() {
    let damages = [
        ("nftables", "nft flush chain inet cni_firewall pods"),
        ("nftables", "nft flush chain inet cni_firewall forward"),
        (
            "nftables",
            "nft flush chain inet cni_firewall isolation-stage-2",
        ),
        ("nftables", "nft delete table inet cni_firewall"),
        ("iptables", "iptables -D CNI-FORWARD -s 10.1.0.2 -j ACCEPT"),
        ("iptables", "iptables -F FORWARD"),
        ("iptables", "ip6tables -F CNI-ISOLATION-STAGE-1"),
        ("iptables", "iptables -D CNI-FORWARD 1"),
    ];
    for (backend, damage) in damages {
        node(|node| {
            let pod = node.pod("a");
            let extra = json!({ "backend": backend, "ingressPolicy": "same-bridge" });
            let before = behind("br0", &["10.1.0.2/24", "fd00::2/64"]);
            let config = firewall("net", &before, extra);
            node.attachment("firewall", "ADD", &config, &pod).result();
            node.attachment("firewall", "CHECK", &config, &pod).ok();
            run(damage);
            let (code, message) = node.attachment("firewall", "CHECK", &config, &pod).error();
            assert_eq!(code, 999, "{damage}: {message}");
            node.attachment("firewall", "DEL", &config, &pod).ok();
        });
    }
}
