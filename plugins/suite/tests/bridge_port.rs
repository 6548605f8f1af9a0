//! A pod's port of the bridge: its switches, what it announces, what CHECK finds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use hostnet::{AddressInfo, Netlink, PortFlag};
use ipnetwork::IpNetwork;
use netstate::{IfName, Link, LinkKind};
use node::setup::{assert_talk, dual_stack, reaches};
use node::{Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// The port of an ADD's result.
fn port(result: &Value) -> IfName {
    name(result["interfaces"][1]["name"].as_str().unwrap())
}

fn layer_two() -> Value {
    json!({ "cniVersion": "1.1.0", "name": "l2", "type": "bridge", "bridge": "br0" })
}

#[test]
fn hairpin_mode_and_isolation_are_set_and_checked() {
    node(|node| {
        let mut config = dual_stack(node, "bridge");
        config["hairpinMode"] = true.into();
        config["promiscMode"] = true.into();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let error = node.attachment("bridge", "ADD", &config, &a).error();
        let message = "hairpinMode and promiscMode exclude each other; choose one";
        assert_eq!(error, (7, message.to_owned()));
        assert_eq!(node.links(), [""; 0]);
        config["promiscMode"] = false.into();
        config["portIsolation"] = true.into();
        let result = node.attachment("bridge", "ADD", &config, &a).result();
        node.attachment("bridge", "ADD", &config, &b).result();
        assert!(
            !reaches(&a, &b, "10.1.0.3"),
            "isolated pods reach each other"
        );

        let mut host = Netlink::open().unwrap();
        let port = port(&result);
        let flags = host.link(&port).unwrap().unwrap().port.unwrap();
        assert!(flags.hairpin && flags.isolated);
        config["prevResult"] = result;
        for (flag, what) in [
            (PortFlag::Hairpin, "hairpin mode"),
            (PortFlag::Isolated, "isolation"),
        ] {
            node.attachment("bridge", "CHECK", &config, &a).ok();
            host.set_port(&port, flag, false).unwrap();
            let (_, message) = node.attachment("bridge", "CHECK", &config, &a).error();
            assert_eq!(message, format!("{what} of port {port} is off"));
            host.set_port(&port, flag, true).unwrap();
        }
    });
}

#[test]
fn check_finds_a_port_moved_and_a_bridge_changed() {
    node(|node| {
        let mut config = dual_stack(node, "bridge");
        config["promiscMode"] = true.into();
        config["isDefaultGateway"] = true.into();
        config["ipam"]["routes"] = json!([]);
        let pod = node.pod("c1");
        let result = node.attachment("bridge", "ADD", &config, &pod).result();
        config["prevResult"] = result.clone();
        let (port, br0, br1, eth0) = (port(&result), name("br0"), name("br1"), name("eth0"));
        let mut host = Netlink::open().unwrap();
        host.create_link(&Link::new(br1.clone(), LinkKind::Bridge).up())
            .unwrap();
        let text = |at: usize| result["interfaces"][at]["mac"].as_str().unwrap().to_owned();
        let mac = |at: usize| text(at).parse().unwrap();
        let other = "02:00:00:00:00:99".parse().unwrap();
        let message = |damage: &mut dyn FnMut()| {
            node.attachment("bridge", "CHECK", &config, &pod).ok();
            damage();
            node.attachment("bridge", "CHECK", &config, &pod).error().1
        };
        let mut again = Netlink::open().unwrap();
        assert_eq!(
            message(&mut || host.set_master(&port, Some(&br1)).unwrap()),
            format!("the host's end {port} is no port of bridge br0")
        );
        host.set_master(&port, Some(&br0)).unwrap();
        assert_eq!(
            message(&mut || host.set_promiscuous(&br0, false).unwrap()),
            "bridge br0 does not take all frames any more"
        );
        host.set_promiscuous(&br0, true).unwrap();
        for (link, at) in [(&br0, 0), (&port, 1)] {
            assert_eq!(
                message(&mut || again.set_mac(link, other).unwrap()),
                format!("{link} has MAC 02:00:00:00:00:99, not {}", text(at))
            );
            again.set_mac(link, mac(at)).unwrap();
        }
        assert_eq!(
            message(&mut || pod.netlink().set_mac(&eth0, other).unwrap()),
            format!("interface eth0 has MAC 02:00:00:00:00:99, not {}", text(2))
        );
        pod.netlink().set_mac(&eth0, mac(2)).unwrap();
        assert_eq!(
            message(&mut || hostnet::sysctl::write("net/ipv4/ip_forward", "0").unwrap()),
            "net/ipv4/ip_forward is 0; set it to 1"
        );
        hostnet::sysctl::write("net/ipv4/ip_forward", "1").unwrap();
        let elsewhere = netstate::Route::via_device("0.0.0.0/0".parse().unwrap(), eth0)
            .gateway("10.1.0.77".parse().unwrap());
        assert_eq!(
            message(&mut || pod.netlink().replace_route(&elsewhere, 3).unwrap()),
            "route to 0.0.0.0/0 is gone from the container"
        );
    });
}

#[test]
fn a_bridge_without_addresses_is_checked_like_any_other() {
    node(|node| {
        let mut config = layer_two();
        let pod = node.pod("c1");
        config["prevResult"] = node.attachment("bridge", "ADD", &config, &pod).result();
        node.attachment("bridge", "CHECK", &config, &pod).ok();
        let mut host = Netlink::open().unwrap();
        host.delete_link(&port(&config["prevResult"])).unwrap();
        let (_, message) = node.attachment("bridge", "CHECK", &config, &pod).error();
        assert_eq!(message, "interface eth0 is gone from the container");
        node.attachment("bridge", "DEL", &config, &pod).ok();
        config["cni.dev/valid-attachments"] = json!([]);
        node.call("bridge", "GC", &config, &[]).ok();
        node.call("bridge", "STATUS", &config, &[]).ok();
        assert_eq!(node.links(), ["br0"]);
    });
}

#[test]
fn a_container_interface_that_is_not_wanted_stays_down() {
    node(|node| {
        let mut config = layer_two();
        config["disableContainerInterface"] = true.into();
        let pod = node.pod("c1");
        config["prevResult"] = node.attachment("bridge", "ADD", &config, &pod).result();
        let eth0 = name("eth0");
        assert!(!pod.netlink().link(&eth0).unwrap().unwrap().up);
        node.attachment("bridge", "CHECK", &config, &pod).ok();
        pod.netlink().set_up(&eth0).unwrap();
        let (_, message) = node.attachment("bridge", "CHECK", &config, &pod).error();
        assert_eq!(message, "interface eth0 is up in the container");
        node.attachment("bridge", "DEL", &config, &pod).ok();
        config["ipam"] = json!({ "type": "host-local", "subnet": "10.1.0.0/24" });
        config.as_object_mut().unwrap().remove("prevResult");
        assert_eq!(node.attachment("bridge", "ADD", &config, &pod).error().0, 7);
        assert!(!pod.has_link("eth0"));
    });
}

/// A dual-stack network whose pods look for duplicates of their addresses.
fn detecting(node: &Node) -> Value {
    let mut config = dual_stack(node, "bridge");
    config["enabledad"] = true.into();
    config
}

#[test]
fn duplicate_detection_has_ended_when_add_returns() {
    node(|node| {
        let config = detecting(node);
        let pod = node.pod("c1");
        node.attachment("bridge", "ADD", &config, &pod).result();
        let addresses = pod.netlink().addresses(&name("eth0")).unwrap();
        assert_eq!(still_tentative(&addresses), []);
        let fresh = hostnet::sysctl::read("net/ipv6/conf/default/accept_dad").unwrap();
        let read = || hostnet::sysctl::read("net/ipv6/conf/eth0/accept_dad").unwrap();
        assert_eq!(pod.open().run_in(read).unwrap(), fresh);
    });
}

#[test]
fn an_address_that_somebody_else_has_fails_the_add_and_leaves_nothing() {
    node(|node| {
        let config = detecting(node);
        let other = node.pod("other");
        let mut plain = layer_two();
        plain["ipam"] = json!({ "type": "static", "addresses": [{ "address": "fd00:1::2/64" }] });
        node.attachment("bridge", "ADD", &plain, &other).result();
        let pod = node.pod("c1");
        let (_, message) = node.attachment("bridge", "ADD", &config, &pod).error();
        assert_eq!(
            message,
            "await addresses of eth0: somebody else on the link has fd00:1::2"
        );
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn a_default_route_without_gateway_from_ipam_goes_to_the_bridge() {
    node(|node| {
        let mut config = dual_stack(node, "bridge");
        config["isDefaultGateway"] = true.into();
        let pod = node.pod("c1");
        node.attachment("bridge", "ADD", &config, &pod).result();
        let routes = pod.routes();
        let defaults: Vec<&String> = routes
            .iter()
            .filter(|route| route.contains("/0 "))
            .collect();
        assert_eq!(defaults, ["0.0.0.0/0 via 10.1.0.1", "::/0 via fd00:1::1"]);
        let addresses = pod.netlink().addresses(&name("eth0")).unwrap();
        assert_eq!(still_tentative(&addresses), []);
    });
}

#[test]
fn who_knew_the_pod_before_finds_the_one_that_has_its_address_now() {
    node(|node| {
        let config = |address: &str| {
            let mut config = layer_two();
            config["ipam"] =
                json!({ "type": "static", "addresses": [{ "address": format!("{address}/24") }] });
            config
        };
        let watcher = node.pod("watcher");
        node.attachment("bridge", "ADD", &config("10.1.0.9"), &watcher)
            .result();
        for round in 0..5 {
            let pod: Pod = node.pod(&format!("c{round}"));
            let config = config("10.1.0.5");
            node.attachment("bridge", "ADD", &config, &pod).result();
            // The neighbour table still has the address of the round before.
            assert!(reaches(&watcher, &pod, "10.1.0.5"), "round {round}");
            assert_talk(&watcher, &pod, "10.1.0.5");
            node.attachment("bridge", "DEL", &config, &pod).ok();
        }
    });
}

#[test]
fn dns_of_the_configuration_goes_before_ipams() {
    node(|node| {
        let resolv = node.path("resolv.conf");
        std::fs::write(&resolv, "nameserver 10.9.9.9\n").unwrap();
        for plugin in ["bridge", "ptp"] {
            let mut config = dual_stack(node, plugin);
            config["ipam"]["resolvConf"] = resolv.to_str().unwrap().into();
            let pod = node.pod("c1");
            for (dns, expected) in [
                (json!({}), json!({ "nameservers": ["10.9.9.9"] })),
                (json!({ "nameservers": [] }), Value::Null),
                (json!({ "domain": "x" }), json!({ "domain": "x" })),
            ] {
                config["dns"] = dns;
                let result = node.attachment(plugin, "ADD", &config, &pod).result();
                assert_eq!(result["dns"], expected, "{plugin}");
                node.attachment(plugin, "DEL", &config, &pod).ok();
            }
        }
    });
}

#[test]
fn a_bridge_that_somebody_else_made_keeps_its_address() {
    node(|node| {
        for plugin in ["l2", "l3"] {
            let config = match plugin {
                "l2" => layer_two(),
                _ => dual_stack(node, "bridge"),
            };
            let (mut host, br0) = (Netlink::open().unwrap(), name("br0"));
            host.create_link(&Link::new(br0.clone(), LinkKind::Bridge).up())
                .unwrap();
            let mut mac = || host.link(&br0).unwrap().unwrap().mac;
            let before = mac();
            let mut pods = Vec::new();
            // Among eight ports some have a lower address than the bridge.
            for n in 0..8 {
                let pod = node.pod(&format!("{plugin}-{n}"));
                let result = node.attachment("bridge", "ADD", &config, &pod).result();
                let reported = result["interfaces"][0]["mac"].as_str().unwrap();
                assert_eq!(reported.parse().ok(), before, "{plugin} port {n}");
                assert_eq!(mac(), before);
                pods.push(pod);
            }
            host.delete_link(&br0).unwrap();
        }
    });
}

/// Addresses that cannot be used yet; the link-local one, which comes when it will, is nobody's care.
fn still_tentative(addresses: &[AddressInfo]) -> Vec<IpNetwork> {
    let waiting = addresses.iter().filter(|address| address.tentative);
    let given = waiting.filter(|address| address.scope != 253);
    given.map(|address| address.ip).collect()
}
