//! What only `bridge` does: the bridge itself, its addresses, its ports' addresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::setup::{assert_talk, dual_stack};
use node::{Pod, node};
use pretty_assertions::assert_eq;
use serde_json::json;

#[test]
fn a_bridge_without_addresses_is_made_checked_and_left() {
    node(|node| {
        let mut config =
            json!({ "cniVersion": "1.1.0", "name": "l2", "type": "bridge", "bridge": "br0" });
        let pod = node.pod("c1");
        let result = node.attachment("bridge", "ADD", &config, &pod).result();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        config["prevResult"] = result;
        node.attachment("bridge", "CHECK", &config, &pod).ok();
        node.attachment("bridge", "DEL", &config, &pod).ok();
    });
}

#[test]
fn parallel_adds_share_one_new_bridge() {
    node(|node| {
        let config = dual_stack(node, "bridge");
        let pods: Vec<Pod> = (0..50).map(|n| node.pod(&format!("c{n}"))).collect();
        let own = hostnet::Netns::current().unwrap();
        let addresses: std::collections::BTreeSet<String> = std::thread::scope(|scope| {
            let add = |pod| {
                let (config, own) = (&config, &own);
                scope.spawn(move || {
                    let _inside = own.enter().unwrap();
                    let result = node.attachment("bridge", "ADD", config, pod).result();
                    result["ips"][0]["address"].as_str().unwrap().to_owned()
                })
            };
            let threads: Vec<_> = pods.iter().map(add).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(addresses.len(), 50);
        let found = hostnet::Netlink::open()
            .unwrap()
            .addresses(&"br0".parse().unwrap())
            .unwrap();
        let mut global: Vec<_> = found
            .iter()
            .filter(|a| a.scope == 0)
            .map(|a| a.ip.to_string())
            .collect();
        global.sort();
        assert_eq!(global, ["10.1.0.1/24", "fd00:1::1/64"]);
    });
}

#[test]
fn a_bridges_other_address_is_refused_or_replaced() {
    node(|node| {
        let mut config = dual_stack(node, "bridge");
        let pod = node.pod("c1");
        let mut host = hostnet::Netlink::open().unwrap();
        let br0: netstate::IfName = "br0".parse().unwrap();
        host.create_link(&netstate::Link::new(br0.clone(), netstate::LinkKind::Bridge).up())
            .unwrap();
        let other: ipnetwork::IpNetwork = "10.7.0.1/24".parse().unwrap();
        host.add_address(&br0, &netstate::Address::new(other))
            .unwrap();
        let (code, message) = node.attachment("bridge", "ADD", &config, &pod).error();
        assert_eq!(
            (code, message.as_str()),
            (
                7,
                "bridge br0 has address 10.7.0.1/24, which is not 10.1.0.1/24; remove it, or set forceAddress"
            )
        );
        assert_eq!(node.reservations("net"), [""; 0]);
        config["forceAddress"] = true.into();
        node.attachment("bridge", "ADD", &config, &pod).result();
        assert!(
            host.addresses(&br0)
                .unwrap()
                .iter()
                .all(|address| address.ip != other)
        );
    });
}

#[test]
fn mac_addresses_come_from_the_strongest_source() {
    node(|node| {
        let mut config = dual_stack(node, "bridge");
        config["runtimeConfig"] = json!({ "mac": "02:00:00:00:00:03" });
        config["args"] = json!({ "cni": { "mac": "02:00:00:00:00:02" } });
        let pod = node.pod("c1");
        let netns = pod.path.to_str().unwrap();
        let variables = [
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns),
            ("CNI_ARGS", "MAC=02:00:00:00:00:01"),
        ];
        for expected in [
            "02:00:00:00:00:03",
            "02:00:00:00:00:02",
            "02:00:00:00:00:01",
        ] {
            let result = node.call("bridge", "ADD", &config, &variables).result();
            assert_eq!(result["interfaces"][2]["mac"], expected);
            node.call("bridge", "DEL", &config, &variables).ok();
            if config
                .as_object_mut()
                .unwrap()
                .remove("runtimeConfig")
                .is_none()
            {
                config.as_object_mut().unwrap().remove("args");
            }
        }
        config["args"] = json!({ "cni": { "mac": "no" } });
        assert_eq!(node.call("bridge", "ADD", &config, &variables).error().0, 7);
        assert!(!pod.has_link("eth0"));
    });
}

/// The node asks for a pod's Ethernet address from the bridge's link-local address, which nobody has
/// before duplicate address detection is over: three seconds later such a packet is given up.
#[test]
fn what_the_node_forwards_to_the_first_pod_of_a_bridge_arrives_at_once() {
    node(|node| {
        let detection = "/proc/sys/net/ipv6/conf/default/dad_transmits";
        std::fs::write(detection, "10").unwrap();
        let attach = |number: u8| {
            let pod = node.pod(&format!("c{number}"));
            let config = json!({
                "cniVersion": "1.1.0", "name": format!("net{number}"), "type": "bridge",
                "bridge": format!("br{number}"), "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": node.path("state"),
                    "ranges": [[{ "subnet": format!("fd00:{number}::/64") }]],
                    "routes": [{ "dst": "::/0" }],
                },
            });
            node.attachment("bridge", "ADD", &config, &pod).result();
            pod
        };
        let (one, other) = (attach(1), attach(2));
        assert_talk(&one, &other, "fd00:2::2");
    });
}
