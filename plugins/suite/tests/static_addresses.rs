//! `static` as a runtime sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::{Answer, Node, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn config() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0",
        "ipam": {
            "type": "static",
            "addresses": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1" },
                          { "address": "fd00:1::5/64" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": { "nameservers": ["10.1.0.1"] },
        },
    })
}

fn call(node: &Node, command: &str, config: &Value, args: &str) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_ARGS", args),
    ];
    node.call("static", command, config, &variables)
}

/// The addresses of an ADD, each with its gateway.
fn given(node: &Node, config: &Value, args: &str) -> Vec<String> {
    let result = call(node, "ADD", config, args).result();
    let shown = |ip: &Value| {
        let text = |key: &str| ip[key].as_str().unwrap_or("-").to_owned();
        format!("{} {}", text("address"), text("gateway"))
    };
    result["ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(shown)
        .collect()
}

#[test]
fn what_is_configured_is_given() {
    node(|node| {
        assert_eq!(
            call(node, "ADD", &config(), "").result(),
            json!({
                "cniVersion": "1.1.0",
                "ips": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1" },
                        { "address": "fd00:1::5/64" }],
                "routes": [{ "dst": "0.0.0.0/0" }],
                "dns": { "nameservers": ["10.1.0.1"] },
            })
        );
    });
}

#[test]
fn the_environment_adds_and_the_runtime_replaces() {
    node(|node| {
        let mut config = config();
        let args = "IP=10.2.0.7/24, fd00:1::5/64;GATEWAY=10.2.0.1,fd00:1::1";
        assert_eq!(
            given(node, &config, args),
            [
                "10.1.0.5/24 10.1.0.1",
                "fd00:1::5/64 fd00:1::1",
                "10.2.0.7/24 10.2.0.1"
            ]
        );
        config["args"] = json!({ "cni": { "ips": ["10.3.0.3/24"] } });
        assert_eq!(given(node, &config, args), ["10.3.0.3/24 -"]);
        config["runtimeConfig"] = json!({ "ips": ["10.4.0.4/24", "fd00:4::4/64"] });
        assert_eq!(
            given(node, &config, args),
            ["10.4.0.4/24 -", "fd00:4::4/64 -"]
        );
    });
}

#[test]
fn what_is_no_address_is_named() {
    node(|node| {
        let refusal = |config: &Value, args: &str| call(node, "ADD", config, args).error();
        let cidr = |field: &str, text: &str| {
            let msg = format!(
                "{field}: {text:?} is not in CIDR notation; write an address such as 10.1.0.5/24"
            );
            (7, msg)
        };
        let good = config();
        assert_eq!(
            refusal(&good, "IP=10.1.0.9"),
            cidr("CNI_ARGS IP", "10.1.0.9")
        );
        assert_eq!(
            refusal(&good, "GATEWAY=x"),
            (7, "CNI_ARGS GATEWAY: \"x\" is no IP address".to_owned())
        );
        let mut bad = config();
        bad["ipam"]["addresses"][0]["address"] = "10.1.0.5/33".into();
        assert_eq!(
            refusal(&bad, ""),
            cidr("ipam.addresses: address", "10.1.0.5/33")
        );
        let mut bad = config();
        bad["ipam"]["addresses"][0]["gateway"] = "fd00::1".into();
        assert_eq!(refusal(&bad, "").0, 7);
        for field in ["args", "runtimeConfig"] {
            let mut bad = config();
            let ips = json!({ "ips": ["10.1.0.9"] });
            bad[field] = match field {
                "args" => json!({ "cni": ips }),
                _ => ips,
            };
            assert_eq!(refusal(&bad, "").0, 7, "{field}");
        }
        let mut bad = config();
        bad.as_object_mut().unwrap().remove("ipam");
        assert_eq!(
            refusal(&bad, ""),
            (7, "ipam is missing; configure static".to_owned())
        );
        assert_eq!(call(node, "STATUS", &bad, "").error().0, 7);
        call(node, "STATUS", &good, "").ok();
        // There is nothing to free, so a configuration that cannot be read is no obstacle.
        call(node, "DEL", &bad, "").ok();
    });
}

#[test]
fn an_old_result_holds_one_address_of_each_family() {
    node(|node| {
        let mut config = config();
        config["cniVersion"] = "0.2.0".into();
        let result = call(node, "ADD", &config, "").result();
        assert_eq!(result["ip4"]["ip"], "10.1.0.5/24");
        assert_eq!(result["ip6"]["ip"], "fd00:1::5/64");
        assert_eq!(call(node, "ADD", &config, "IP=10.2.0.7/24").error().0, 2);
    });
}

#[test]
fn check_misses_addresses_and_gateways() {
    node(|node| {
        let mut config = config();
        let result = call(node, "ADD", &config, "").result();
        assert_eq!(call(node, "CHECK", &config, "").error().0, 7);
        config["prevResult"] = result;
        call(node, "CHECK", &config, "").ok();
        config["prevResult"]["ips"][0]["gateway"] = "10.1.0.9".into();
        assert_eq!(
            call(node, "CHECK", &config, "").error().1,
            "static: address 10.1.0.5/24 has gateway 10.1.0.9, not 10.1.0.1"
        );
        config["prevResult"]["ips"] = json!([]);
        assert_eq!(
            call(node, "CHECK", &config, "").error().1,
            "static: the attachment does not have address 10.1.0.5/24"
        );
        let empty = json!({
            "cniVersion": "1.1.0", "name": "net", "cni.dev/valid-attachments": [],
        });
        node.call("static", "GC", &empty, &[]).ok();
    });
}

#[test]
fn a_pod_is_attached_with_static_addresses() {
    node(|node| {
        let mut config = config();
        config["isGateway"] = true.into();
        let pod = node.pod("c1");
        let result = node.attachment("bridge", "ADD", &config, &pod).result();
        assert_eq!(result["dns"], json!({ "nameservers": ["10.1.0.1"] }));
        assert_eq!(
            pod.routes(),
            [
                "0.0.0.0/0 via 10.1.0.1",
                "10.1.0.0/24 src 10.1.0.5",
                "fd00:1::/64"
            ]
        );
        config["prevResult"] = result;
        node.attachment("bridge", "CHECK", &config, &pod).ok();
        node.attachment("bridge", "DEL", &config, &pod).ok();
        assert!(!pod.has_link("eth0"));
    });
}
