//! `host-local` as a runtime sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::collections::BTreeSet;

use node::{Answer, Node, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn config(node: &Node, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge",
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": subnet },
    })
}

fn call(node: &Node, command: &str, config: &Value, id: &str) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", id),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
    ];
    node.call("host-local", command, config, &variables)
}

fn address(answer: &Answer) -> String {
    answer.result()["ips"][0]["address"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_hundred_parallel_adds_get_distinct_addresses() {
    node(|node| {
        let config = config(node, "10.1.0.0/24");
        let given: BTreeSet<String> = std::thread::scope(|scope| {
            let add = |n| {
                let config = &config;
                scope.spawn(move || address(&call(node, "ADD", config, &format!("c{n}"))))
            };
            let threads: Vec<_> = (0..100).map(add).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(given.len(), 100);
        assert_eq!(node.reservations("net").len(), 100);
    });
}

#[test]
fn addresses_go_round_and_are_freed() {
    node(|node| {
        let config = config(node, "10.1.0.0/29");
        for expected in ["10.1.0.2/29", "10.1.0.3/29"] {
            assert_eq!(address(&call(node, "ADD", &config, "c1")), expected);
            assert_eq!(call(node, "ADD", &config, "c1").error().0, 999);
            call(node, "CHECK", &config, "c1").ok();
            call(node, "DEL", &config, "c1").ok();
            call(node, "DEL", &config, "c1").ok();
            assert_eq!(call(node, "CHECK", &config, "c1").error().0, 999);
        }
    });
}

#[test]
fn an_exhausted_range_fails_and_says_so_beforehand() {
    node(|node| {
        let config = config(node, "10.1.0.0/30");
        let path = [("CNI_COMMAND", "STATUS")];
        node.call("host-local", "STATUS", &config, &path).ok();
        assert_eq!(address(&call(node, "ADD", &config, "c1")), "10.1.0.2/30");
        let (_, message) = call(node, "ADD", &config, "c2").error();
        assert_eq!(
            message,
            "host-local has no free address left in 10.1.0.1-10.1.0.2"
        );
        for plugin in ["host-local", "bridge"] {
            assert_eq!(node.call(plugin, "STATUS", &config, &path).error().0, 50);
        }
    });
}

#[test]
fn gc_frees_all_but_the_valid_and_nothing_unless_told() {
    node(|node| {
        let mut config = config(node, "10.1.0.0/24");
        for id in ["c1", "c2", "c3"] {
            call(node, "ADD", &config, id).result();
        }
        node.call("bridge", "GC", &config, &[]).ok();
        assert_eq!(node.reservations("net").len(), 3);
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "c2", "ifname": "eth0" }]);
        node.call("bridge", "GC", &config, &[]).ok();
        assert_eq!(node.reservations("net"), ["10.1.0.3"]);
        config["cni.dev/valid-attachments"] = json!([]);
        node.call("bridge", "GC", &config, &[]).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn requested_addresses_are_given_or_nothing_is() {
    node(|node| {
        let mut config = config(node, "10.1.0.0/24");
        config["runtimeConfig"] = json!({ "ips": ["10.1.0.77/24"] });
        assert_eq!(address(&call(node, "ADD", &config, "c1")), "10.1.0.77/24");
        for (ip, message) in [
            (
                "10.1.0.77",
                "requested address 10.1.0.77 is taken; request another",
            ),
            (
                "10.1.0.1",
                "requested address 10.1.0.1 is the gateway's; request another",
            ),
            (
                "10.9.0.1",
                "requested addresses 10.9.0.1 are in no range of their own",
            ),
            ("x", "requested address \"x\" is no IP address"),
        ] {
            config["runtimeConfig"] = json!({ "ips": [ip] });
            assert_eq!(
                call(node, "ADD", &config, "c2").error(),
                (7, message.to_owned())
            );
            assert_eq!(node.reservations("net"), ["10.1.0.77"]);
        }
    });
}
