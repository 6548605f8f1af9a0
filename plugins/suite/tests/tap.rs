//! `tap` as a runtime sees it: the built program, real devices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use hostnet::{LinkDetails, LinkInfo};
use netstate::{Link, LinkKind};
use node::{Answer, Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn config(node: &Node) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "tap",
        "ipam": {
            "type": "host-local", "dataDir": node.path("state"),
            "ranges": [[{ "subnet": "10.8.0.0/24" }], [{ "subnet": "fd00:8::/64" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })
}

fn with(config: &Value, fields: &Value) -> Value {
    let mut config = config.clone();
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    node.attachment("tap", command, config, pod)
}

fn seen(pod: &Pod) -> LinkInfo {
    let name = "eth0".parse().unwrap();
    pod.netlink().link(&name).unwrap().unwrap()
}

#[test]
fn a_tap_is_made_as_asked_and_reported_whole() {
    node(|node| {
        let pod = node.pod("c1");
        let fields = json!({
            "multiQueue": true, "owner": 1000, "group": 0, "mtu": 9000,
            "mac": "02:00:00:00:00:01", "runtimeConfig": { "mac": "02:00:00:00:00:04" },
        });
        let config = with(&config(node), &fields);
        let result = call(node, "ADD", &config, &pod).result();
        let link = seen(&pod);
        let wanted = LinkDetails::Tap {
            multi_queue: true,
            owner: Some(1000),
            group: Some(0),
        };
        assert_eq!(
            (link.kind.as_str(), link.details, link.up),
            ("tun", wanted, true)
        );
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    { "name": "eth0", "mac": "02:00:00:00:00:04", "mtu": 9000,
                      "sandbox": pod.path },
                ],
                "ips": [
                    { "interface": 0, "address": "10.8.0.2/24", "gateway": "10.8.0.1" },
                    { "interface": 0, "address": "fd00:8::2/64", "gateway": "fd00:8::1" },
                ],
                "routes": [{ "dst": "0.0.0.0/0" }],
            })
        );
        // It is there for the process to open, and nothing is on the host.
        let shown = pod.exec("ip", &["-d", "link", "show", "eth0"]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("tun type tap"), "{shown}");
        assert!(shown.contains("persist on"), "{shown}");
        assert_eq!(node.links(), [""; 0]);

        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        let other = with(&checked, &json!({ "owner": 1001 }));
        let (_, msg) = call(node, "CHECK", &other, &pod).error();
        assert!(msg.starts_with("interface eth0 is Tap {"), "{msg}");
        for _ in 0..2 {
            call(node, "DEL", &config, &pod).ok();
        }
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn a_tap_may_be_a_port_of_a_bridge_in_the_pod() {
    node(|node| {
        let pod = node.pod("c1");
        let br0 = Link::new("br0".parse().unwrap(), LinkKind::Bridge).up();
        let mut inside = pod.netlink();
        inside.create_link(&br0).unwrap();
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "tap", "bridge": "br0",
        });
        let result = call(node, "ADD", &config, &pod).result();
        assert_eq!(result.get("ips"), None);
        let bridge = inside.link_index(&br0.name).unwrap();
        assert_eq!((seen(&pod).master, seen(&pod).up), (Some(bridge), true));
        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        inside.set_master(&"eth0".parse().unwrap(), None).unwrap();
        assert_eq!(
            call(node, "CHECK", &checked, &pod).error().1,
            "interface eth0 is no port of bridge br0"
        );
        call(node, "DEL", &config, &pod).ok();

        let missing = with(&config, &json!({ "bridge": "br9" }));
        let (_, msg) = call(node, "ADD", &missing, &pod).error();
        assert_eq!(msg, "find link br9: does not exist");
        assert!(!pod.has_link("eth0"));
    });
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    node(|node| {
        let pod = node.pod("c1");
        for (fields, code) in [
            (json!({ "mtu": 65522 }), 7),
            (json!({ "mtu": -1 }), 7),
            (json!({ "mac": "ff:ff:ff:ff:ff:ff" }), 7),
            (json!({ "bridge": "no/name" }), 7),
            (json!({ "owner": "root" }), 6),
            // No SELinux, or none that knows this context.
            (json!({ "selinuxContext": "no:such:context" }), 999),
            (
                json!({ "ipam": { "type": "host-local", "dataDir": node.path("state"),
                                  "subnet": "10.8.0.0/24",
                                  "routes": [{ "dst": "0.0.0.0/0", "gw": "203.0.113.9" }] } }),
                999,
            ),
        ] {
            let refused = with(&config(node), &fields);
            let error = call(node, "ADD", &refused, &pod).error();
            assert_eq!(error.0, code, "{fields}: {error:?}");
            assert!(!pod.has_link("eth0"), "{fields}");
            assert_eq!(node.reservations("net"), [""; 0], "{fields}");
        }
    });
}

#[test]
fn del_frees_the_address_whatever_is_missing() {
    node(|node| {
        let config = config(node);
        let pod = node.pod("c1");
        call(node, "ADD", &config, &pod).result();
        pod.destroy();
        call(node, "DEL", &config, &pod).ok();
        assert!(!pod.path.exists(), "DEL made a file");
        assert_eq!(node.reservations("net"), [""; 0]);
        let pod = node.pod("c2");
        call(node, "ADD", &config, &pod).result();
        let gc = with(&config, &json!({ "cni.dev/valid-attachments": [] }));
        node.call("tap", "GC", &gc, &[]).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
        node.call("tap", "STATUS", &config, &[]).ok();
        call(node, "DEL", &config, &pod).ok();
    });
}
