//! `sbr` as a runtime sees it: a pod with two interfaces answers each by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use netstate::route::MAIN_TABLE;
use netstate::{IfName, Route, RouteKey, SourceRule};
use node::{Answer, Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn bridge(node: &Node, number: u8) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": format!("net{number}"), "type": "bridge",
        "bridge": format!("br{number}"), "isGateway": true,
        "ipam": {
            "type": "host-local", "dataDir": node.path("state"),
            "ranges": [
                [{ "subnet": format!("10.{number}.0.0/24") }],
                [{ "subnet": format!("fd00:{number}::/64") }],
            ],
        },
    })
}

fn call(node: &Node, plugin: &str, command: &str, config: &Value, pod: &Pod, name: &str) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_IFNAME", name),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
    ];
    node.call(plugin, command, config, &variables)
}

/// A pod with `eth0` and the default routes there, and `net1`; what ADD said about `net1`.
fn two_interfaces(node: &Node) -> (Pod, Value) {
    let pod = node.pod("c1");
    let mut first = bridge(node, 1);
    first["isDefaultGateway"] = true.into();
    call(node, "bridge", "ADD", &first, &pod, "eth0").result();
    let result = call(node, "bridge", "ADD", &bridge(node, 2), &pod, "net1").result();
    (pod, result)
}

fn sbr(fields: &Value, before: &Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net2", "type": "sbr" });
    config["prevResult"] = before.clone();
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// The device by which the pod sends from `source` to somewhere far away.
fn device_from(pod: &Pod, source: &str) -> String {
    let far = if source.contains(':') {
        "2001:db8::9"
    } else {
        "192.0.2.9"
    };
    let output = pod.exec("ip", &["route", "get", far, "from", source]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).unwrap_or("nothing").to_owned()
}

fn rules(pod: &Pod) -> Vec<SourceRule> {
    let (mut rules, _) = pod.netlink().source_rules().unwrap();
    rules.sort();
    rules
}

/// Routes of one interface as `table destination via gateway src source`, sorted.
fn routes(pod: &Pod, device: &str) -> Vec<String> {
    let device: Option<IfName> = device.parse().ok();
    let all: Vec<Route> = pod.netlink().routes(None).unwrap();
    let mut shown: Vec<String> = all
        .iter()
        .filter(|route| route.device == device)
        .map(|route| {
            let mut text = format!("{} {}", route.key.table, route.key.destination);
            for (word, ip) in [("via", route.gateway), ("src", route.source)] {
                text += &ip.map(|ip| format!(" {word} {ip}")).unwrap_or_default();
            }
            text
        })
        .collect();
    shown.sort();
    shown
}

#[test]
fn each_address_gets_a_table_and_leaves_by_its_own_interface() {
    node(|node| {
        let (pod, before) = two_interfaces(node);
        assert_eq!(device_from(&pod, "10.2.0.2"), "eth0");
        let untouched = routes(&pod, "eth0");
        let original = routes(&pod, "net1");
        let config = sbr(&json!({}), &before);
        let result = call(node, "sbr", "ADD", &config, &pod, "net1").result();
        assert_eq!(result, before);
        for (source, device) in [
            ("10.2.0.2", "net1"),
            ("fd00:2::2", "net1"),
            ("10.1.0.2", "eth0"),
            ("fd00:1::2", "eth0"),
        ] {
            assert_eq!(device_from(&pod, source), device, "{source}");
        }
        let rule = |source: &str, table| SourceRule {
            source: source.parse().unwrap(),
            table,
        };
        assert_eq!(rules(&pod), [rule("10.2.0.2", 100), rule("fd00:2::2", 101)]);
        assert_eq!(
            routes(&pod, "net1"),
            [
                "100 0.0.0.0/0 via 10.2.0.1",
                "100 10.2.0.0/24 src 10.2.0.2",
                "101 ::/0 via fd00:2::1",
                "101 fd00:2::/64",
                "254 fe80::/64",
            ]
        );
        assert_eq!(routes(&pod, "eth0"), untouched);
        call(node, "sbr", "CHECK", &config, &pod, "net1").ok();

        // A repeated ADD changes nothing.
        let (code, msg) = call(node, "sbr", "ADD", &config, &pod, "net1").error();
        assert_eq!(
            (code, msg.as_str()),
            (
                999,
                "there is a rule from 10.2.0.2 lookup 100 already; DEL it first"
            )
        );
        assert_eq!(rules(&pod).len(), 2);
        for _ in 0..2 {
            call(node, "sbr", "DEL", &config, &pod, "net1").ok();
            assert_eq!(rules(&pod), []);
        }
        assert_ne!(routes(&pod, "net1"), original);
    });
}

#[test]
fn gateways_hints_and_a_table_of_ones_own_choice() {
    node(|node| {
        let (pod, before) = two_interfaces(node);
        let fields = json!({ "gateways": ["10.2.0.9"], "addSourceHints": true });
        let config = sbr(&fields, &before);
        call(node, "sbr", "ADD", &config, &pod, "net1").result();
        assert_eq!(
            routes(&pod, "net1")[..4],
            [
                "100 0.0.0.0/0 via 10.2.0.9 src 10.2.0.2",
                "100 10.2.0.0/24 src 10.2.0.2",
                "101 ::/0 via fd00:2::1 src fd00:2::2",
                "101 fd00:2::/64 src fd00:2::2",
            ]
        );
        call(node, "sbr", "CHECK", &config, &pod, "net1").ok();
        call(node, "sbr", "DEL", &config, &pod, "net1").ok();
    });
    node(|node| {
        let (pod, before) = two_interfaces(node);
        let original = routes(&pod, "net1");
        let config = sbr(&json!({ "table": 5000 }), &before);
        call(node, "sbr", "ADD", &config, &pod, "net1").result();
        assert_eq!(routes(&pod, "net1"), original);
        let tables: Vec<u32> = rules(&pod).iter().map(|rule| rule.table).collect();
        assert_eq!(tables, [5000, 5000]);
        call(node, "sbr", "CHECK", &config, &pod, "net1").ok();
        call(node, "sbr", "DEL", &config, &pod, "net1").ok();
    });
}

#[test]
fn a_failed_add_puts_rules_and_routes_back() {
    node(|node| {
        let (pod, before) = two_interfaces(node);
        let original = routes(&pod, "net1");
        for (fields, code) in [
            (json!({ "gateways": ["203.0.113.9"] }), 999),
            (json!({ "gateways": ["10.2.0.1", "10.2.0.9"] }), 7),
            (json!({ "gateways": ["nowhere"] }), 7),
            (json!({ "table": 254 }), 7),
            (json!({ "table": -1 }), 7),
            (json!({ "prevResult": null }), 7),
            (json!({ "prevResult": { "cniVersion": "1.1.0" } }), 7),
        ] {
            let config = sbr(&fields, &before);
            let error = call(node, "sbr", "ADD", &config, &pod, "net1").error();
            assert_eq!(error.0, code, "{fields}: {error:?}");
            assert_eq!(rules(&pod), [], "{fields}");
            assert_eq!(routes(&pod, "net1"), original, "{fields}");
        }
    });
}

#[test]
fn check_finds_lost_rules_and_routes() {
    node(|node| {
        let (pod, before) = two_interfaces(node);
        let config = sbr(&json!({}), &before);
        call(node, "sbr", "ADD", &config, &pod, "net1").result();
        let found = || call(node, "sbr", "CHECK", &config, &pod, "net1").error().1;
        let mut inside = pod.netlink();
        let default = RouteKey {
            destination: "0.0.0.0/0".parse().unwrap(),
            table: 100,
            priority: 0,
        };
        inside.delete_route(&default, None, None).unwrap();
        assert_eq!(
            found(),
            "table 100 of 10.2.0.2 has lost its default route by 10.2.0.1"
        );
        inside.delete_rule(&rules(&pod)[0]).unwrap();
        assert_eq!(found(), "the rule for 10.2.0.2 is gone");
        call(node, "sbr", "DEL", &config, &pod, "net1").ok();
    });
}

#[test]
fn del_needs_neither_namespace_nor_interface_nor_prev_result() {
    node(|node| {
        let (pod, before) = two_interfaces(node);
        let config = sbr(&json!({}), &before);
        call(node, "sbr", "ADD", &config, &pod, "net1").result();
        // Without prevResult the interface says which addresses are its own.
        let mut bare = config.clone();
        bare.as_object_mut().unwrap().remove("prevResult");
        call(node, "sbr", "DEL", &bare, &pod, "net1").ok();
        assert_eq!(rules(&pod), []);

        // Without the interface prevResult does.
        let mut inside = pod.netlink();
        let rule = SourceRule {
            source: "10.2.0.2".parse().unwrap(),
            table: 100,
        };
        inside.add_rule(&rule).unwrap();
        inside.delete_link(&"net1".parse().unwrap()).unwrap();
        call(node, "sbr", "DEL", &config, &pod, "net1").ok();
        assert_eq!(rules(&pod), []);
        assert!(
            routes(&pod, "eth0")
                .iter()
                .any(|r| r.starts_with(&MAIN_TABLE.to_string()))
        );

        // Without the namespace nothing is done, and no file is made.
        pod.destroy();
        call(node, "sbr", "DEL", &config, &pod, "net1").ok();
        assert!(!pod.path.exists(), "DEL made a file");
        node.call("sbr", "GC", &bare, &[]).ok();
        node.call("sbr", "STATUS", &bare, &[]).ok();
    });
}
