//! `macvlan` as a runtime sees it: the built program, real namespaces, real frames.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "../node/mod.rs"]
mod node;
mod removal;

use hostnet::{LinkDetails, LinkInfo, Netlink};
use netstate::{MacvlanMode, Mtu, Route};
use node::setup::{assert_talk, outside};
use node::{Answer, Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// A network on the node's wire to the outside, 192.0.2.0/24.
fn config(node: &Node) -> Value {
    let resolv = node.path("resolv.conf");
    node::config_file(&resolv, "nameserver 192.0.2.53\nsearch example.org\n");
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "out0",
        "ipam": {
            "type": "host-local", "dataDir": node.path("state"), "resolvConf": resolv,
            "ranges": [
                [{ "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100" }],
                [{ "subnet": "fd00:2::/64" }],
            ],
            "routes": [{ "dst": "198.51.100.0/24", "gw": "192.0.2.2" }],
        },
    })
}

/// `config` with other fields.
fn with(config: &Value, fields: &Value) -> Value {
    let mut config = config.clone();
    for (key, value) in fields.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    node.attachment("macvlan", command, config, pod)
}

fn seen(pod: &Pod) -> LinkInfo {
    let name = "eth0".parse().unwrap();
    pod.netlink().link(&name).unwrap().unwrap()
}

fn default_route(device: &str) -> Route {
    Route::via_device("0.0.0.0/0".parse().unwrap(), device.parse().unwrap())
}

#[test]
fn a_pod_on_the_wire_is_reached_from_outside_and_everything_is_reported() {
    node(|node| {
        let outside = outside(node);
        let config = with(&config(node), &json!({ "mtu": 1400 }));
        let pod = node.pod("c1");
        let result = call(node, "ADD", &config, &pod).result();
        let link = seen(&pod);
        assert_eq!(
            link.details,
            LinkDetails::Macvlan(Some(MacvlanMode::Bridge))
        );
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    { "name": "eth0", "mac": link.mac.unwrap().to_string(), "mtu": 1400,
                      "sandbox": pod.path },
                ],
                "ips": [
                    { "interface": 0, "address": "192.0.2.100/24", "gateway": "192.0.2.1" },
                    { "interface": 0, "address": "fd00:2::2/64", "gateway": "fd00:2::1" },
                ],
                "routes": [{ "dst": "198.51.100.0/24", "gw": "192.0.2.2" }],
                "dns": { "nameservers": ["192.0.2.53"], "search": ["example.org"] },
            })
        );
        assert_talk(&pod, &outside, "192.0.2.2");
        let addresses = pod.netlink().addresses(&link.name).unwrap();
        assert!(
            addresses
                .iter()
                .all(|address| !address.tentative || address.scope == 253)
        );
        for key in ["ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/ndisc_notify"] {
            let read = || hostnet::sysctl::read(&format!("net/{key}")).unwrap();
            assert_eq!(pod.open().run_in(read).unwrap(), "1");
        }

        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        call(node, "DEL", &checked, &pod).ok();
        call(node, "DEL", &checked, &pod).ok();
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn every_mode_is_made_and_an_unknown_one_is_refused() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        let pod = node.pod("c1");
        for mode in ["private", "vepa", "passthru", "bridge"] {
            let config = with(
                &config,
                &json!({ "mode": mode, "mac": "02:00:00:00:00:77" }),
            );
            let result = call(node, "ADD", &config, &pod).result();
            let link = seen(&pod);
            assert_eq!(link.details, LinkDetails::Macvlan(MacvlanMode::find(mode)));
            assert_eq!(
                result["interfaces"][0]["mac"], "02:00:00:00:00:77",
                "{mode}"
            );
            assert_eq!(link.mac.unwrap().to_string(), "02:00:00:00:00:77", "{mode}");
            call(node, "DEL", &config, &pod).ok();
        }
        let refused = with(&config, &json!({ "mode": "switch" }));
        let (code, msg) = call(node, "ADD", &refused, &pod).error();
        assert_eq!(
            (code, msg.as_str()),
            (
                7,
                "mode \"switch\" is unknown; give bridge, private, vepa or passthru"
            )
        );
    });
}

#[test]
fn without_master_the_default_routes_device_is_taken() {
    node(|node| {
        let _outside = outside(node);
        let mut config = config(node);
        config.as_object_mut().unwrap().remove("master");
        let pod = node.pod("c1");
        let (code, msg) = call(node, "ADD", &config, &pod).error();
        assert_eq!(
            (code, msg.as_str()),
            (
                7,
                "master is missing and there is no default route on the host; name one"
            )
        );
        let mut host = Netlink::open().unwrap();
        let gateway = "192.0.2.2".parse().unwrap();
        host.add_route(&default_route("out0").gateway(gateway), 3)
            .unwrap();
        call(node, "ADD", &config, &pod).result();
        let out0 = host.link_index(&"out0".parse().unwrap()).unwrap();
        assert_eq!(
            (seen(&pod).peer, seen(&pod).peer_elsewhere),
            (Some(out0), true)
        );
        // DEL asks neither for master nor for a default route.
        host.delete_link(&"out0".parse().unwrap()).unwrap();
        call(node, "DEL", &config, &pod).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn the_mtu_is_at_most_the_masters() {
    node(|node| {
        let _outside = outside(node);
        let mut host = Netlink::open().unwrap();
        let out0 = "out0".parse().unwrap();
        host.set_mtu(&out0, Mtu::try_from(1480).unwrap()).unwrap();
        let pod = node.pod("c1");
        let result = call(node, "ADD", &config(node), &pod).result();
        assert_eq!(result["interfaces"][0]["mtu"], 1480);
        call(node, "DEL", &config(node), &pod).ok();
        for mtu in [-1, 67, 1481, 1_i64 << 40] {
            let refused = with(&config(node), &json!({ "mtu": mtu }));
            let (code, msg) = call(node, "ADD", &refused, &pod).error();
            let expected =
                format!("mtu {mtu} does not go on master out0; give 68 to 1480, or 0 for its own");
            assert_eq!((code, msg), (7, expected));
        }
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn the_address_asked_for_last_in_the_reference_order_wins() {
    node(|node| {
        let _outside = outside(node);
        let pod = node.pod("c1");
        let mac = |n: u8| format!("02:00:00:00:00:0{n}");
        let mut config = config(node);
        let netns = pod.path.to_str().unwrap();
        let arguments = format!("IgnoreUnknown=1;MAC={}", mac(2));
        let add = |arguments: &str, config: &Value| {
            let variables = [
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", netns),
                ("CNI_ARGS", arguments),
            ];
            let result = node.call("macvlan", "ADD", config, &variables).result();
            call(node, "DEL", config, &pod).ok();
            result["interfaces"][0]["mac"].as_str().unwrap().to_owned()
        };
        let own = add("", &config);
        assert_eq!(add("", &config), own, "not the same for the same container");
        config["mac"] = mac(1).into();
        assert_eq!(add("", &config), mac(1));
        assert_eq!(add(&arguments, &config), mac(2));
        config["args"] = json!({ "cni": { "mac": mac(3) } });
        assert_eq!(add(&arguments, &config), mac(3));
        config["runtimeConfig"] = json!({ "mac": mac(4) });
        assert_eq!(add(&arguments, &config), mac(4));
        config["runtimeConfig"] = json!({ "mac": "01:00:5e:00:00:01" });
        let (code, msg) = call(node, "ADD", &config, &pod).error();
        assert_eq!(
            (code, msg.as_str()),
            (
                7,
                "runtimeConfig.mac: 01:00:5e:00:00:01 is zero or multicast; give a unicast address"
            )
        );
    });
}

#[test]
fn without_ipam_the_pod_has_a_device_that_is_up_and_nothing_more() {
    node(|node| {
        let _outside = outside(node);
        let mut config = config(node);
        config.as_object_mut().unwrap().remove("ipam");
        let pod = node.pod("c1");
        let result = call(node, "ADD", &config, &pod).result();
        assert_eq!(result.get("ips"), None);
        assert!(seen(&pod).up);
        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        call(node, "DEL", &config, &pod).ok();
        assert!(!pod.has_link("eth0"));
    });
}

#[test]
fn check_finds_what_is_not_as_add_left_it() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        let pod = node.pod("c1");
        let result = call(node, "ADD", &config, &pod).result();
        let checked = with(&config, &json!({ "prevResult": result }));
        let found = |fields: &Value| call(node, "CHECK", &with(&checked, fields), &pod).error().1;
        assert_eq!(
            found(&json!({ "mode": "vepa" })),
            "macvlan eth0 is not in mode vepa"
        );
        assert_eq!(
            found(&json!({ "master": "lo" })),
            "interface eth0 is not on master lo"
        );
        let mut inside = pod.netlink();
        let eth0 = "eth0".parse().unwrap();
        let route = "198.51.100.0/24".parse().unwrap();
        inside
            .delete_route(&netstate::RouteKey::main(route), None, None)
            .unwrap();
        assert_eq!(
            found(&json!({})),
            "route to 198.51.100.0/24 is gone from the container"
        );
        inside
            .delete_address(&eth0, "192.0.2.100/24".parse().unwrap())
            .unwrap();
        assert_eq!(
            found(&json!({})),
            "address 192.0.2.100/24 is gone from eth0"
        );
        let mac = inside.link(&eth0).unwrap().unwrap().mac.unwrap();
        inside
            .set_mac(&eth0, "02:00:00:00:00:99".parse().unwrap())
            .unwrap();
        assert_eq!(
            found(&json!({})),
            format!("interface eth0 has MAC 02:00:00:00:00:99, not {mac}")
        );
        inside.set_down(&eth0).unwrap();
        assert_eq!(found(&json!({})), "interface eth0 is down in the container");
        inside.delete_link(&eth0).unwrap();
        assert_eq!(
            found(&json!({})),
            "interface eth0 is gone from the container"
        );
        call(node, "DEL", &config, &pod).ok();
    });
}

#[test]
fn the_master_may_be_in_the_container() {
    node(|node| {
        let bridge = node::setup::dual_stack(node, "bridge");
        let pod = node.pod("c1");
        node.attachment("bridge", "ADD", &bridge, &pod).result();
        let fields = json!({ "master": "eth0", "linkInContainer": true, "name": "second" });
        let config = with(&config(node), &fields);
        let variables = [
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "net1"),
            ("CNI_NETNS", pod.path.to_str().unwrap()),
        ];
        let add = |config: &Value| node.call("macvlan", "ADD", config, &variables);
        let result = add(&config).result();
        let mut inside = pod.netlink();
        let net1 = inside.link(&"net1".parse().unwrap()).unwrap().unwrap();
        let eth0 = inside.link_index(&"eth0".parse().unwrap()).unwrap();
        assert_eq!((net1.peer, net1.peer_elsewhere), (Some(eth0), false));
        let checked = with(&config, &json!({ "prevResult": result }));
        node.call("macvlan", "CHECK", &checked, &variables).ok();
        node.call("macvlan", "DEL", &config, &variables).ok();
        assert!(!pod.has_link("net1"));
        let refused = with(&config, &json!({ "master": "cni9" }));
        assert_eq!(
            add(&refused).error().1,
            "master \"cni9\" is no interface in the container; name one that is"
        );
        node.attachment("bridge", "DEL", &bridge, &pod).ok();
    });
}
