//! `ptp`, `bridge` and `loopback` as a runtime sees them: the built program, real namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::setup::{assert_talk, dual_stack};
use node::{Pod, node, shown_routes};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

#[test]
fn pods_of_both_plugins_reach_each_other_at_once_on_both_families() {
    node(|node| {
        for plugin in ["ptp", "bridge"] {
            let config = dual_stack(node, plugin);
            let (a, b) = (node.pod("a"), node.pod("b"));
            let first = node.attachment(plugin, "ADD", &config, &a).result();
            let second = node.attachment(plugin, "ADD", &config, &b).result();
            let (v4, v6) = (&second["ips"][0]["address"], &second["ips"][1]["address"]);
            let bare = |ip: &Value| ip.as_str().unwrap().split('/').next().unwrap().to_owned();
            assert_ne!(first["ips"][0], second["ips"][0]);
            assert_talk(&a, &b, &bare(v6));
            assert_talk(&a, &b, &bare(v4));
            for pod in [&a, &b] {
                node.attachment(plugin, "DEL", &config, pod).ok();
            }
        }
    });
}

#[test]
fn ptp_makes_the_reference_plugins_routes_and_result() {
    node(|node| {
        let config = dual_stack(node, "ptp");
        let pod = node.pod("c1");
        let result = node.attachment("ptp", "ADD", &config, &pod).result();
        assert_eq!(
            pod.routes(),
            [
                "0.0.0.0/0 via 10.1.0.1",
                "10.1.0.0/24 via 10.1.0.1 src 10.1.0.2",
                "10.1.0.1/32 src 10.1.0.2",
                "::/0 via fd00:1::1",
                "fd00:1::/64 via fd00:1::1 src fd00:1::2",
                "fd00:1::1/128 src fd00:1::2",
            ]
        );
        let mut host = hostnet::Netlink::open().unwrap();
        assert_eq!(
            shown_routes(&mut host),
            ["10.1.0.2/32", "fd00:1::1/128", "fd00:1::2/128"]
        );
        let name = node.links().remove(0);
        let near = host.link(&name.parse().unwrap()).unwrap().unwrap();
        let far = pod
            .netlink()
            .link(&"eth0".parse().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    { "name": name, "mac": near.mac.unwrap().to_string(), "mtu": 1400 },
                    { "name": "eth0", "mac": far.mac.unwrap().to_string(), "mtu": 1400,
                      "sandbox": pod.path },
                ],
                "ips": [
                    { "interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1" },
                    { "interface": 1, "address": "fd00:1::2/64", "gateway": "fd00:1::1" },
                ],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            })
        );
        assert_eq!(
            (near.mtu.unwrap().get(), far.mtu.unwrap().get()),
            (1400, 1400)
        );
    });
}

#[test]
fn an_attachment_is_made_once_checked_and_removed_any_number_of_times() {
    node(|node| {
        for plugin in ["ptp", "bridge"] {
            let mut config = dual_stack(node, plugin);
            let pod = node.pod("c1");
            let before = node.links();
            let result = node.attachment(plugin, "ADD", &config, &pod).result();
            let routes = pod.routes();
            let (code, message) = node.attachment(plugin, "ADD", &config, &pod).error();
            assert_eq!(code, 999, "{message}");
            assert_eq!(pod.routes(), routes, "a repeated ADD changed the pod");
            assert_eq!(
                node.reservations("net").len(),
                2,
                "a repeated ADD took the addresses"
            );

            config["prevResult"] = result;
            node.attachment(plugin, "CHECK", &config, &pod).ok();
            node.attachment(plugin, "DEL", &config, &pod).ok();
            let (_, message) = node.attachment(plugin, "CHECK", &config, &pod).error();
            assert_eq!(message, "interface eth0 is gone from the container");
            node.attachment(plugin, "DEL", &config, &pod).ok();
            assert!(!pod.has_link("eth0"));
            assert_eq!(node.reservations("net"), [""; 0]);
            let left: Vec<_> = node
                .links()
                .into_iter()
                .filter(|l| !before.contains(l))
                .collect();
            assert_eq!(
                left,
                if plugin == "bridge" {
                    vec!["br0"]
                } else {
                    vec![]
                }
            );
        }
    });
}

#[test]
fn del_frees_everything_although_the_namespace_is_gone() {
    node(|node| {
        for plugin in ["ptp", "bridge"] {
            let config = dual_stack(node, plugin);
            let pod = node.pod("c1");
            node.attachment(plugin, "ADD", &config, &pod).result();
            pod.destroy();
            node.attachment(plugin, "DEL", &config, &pod).ok();
            assert_eq!(node.reservations("net"), [""; 0]);
            assert!(node.links().iter().all(|name| !name.starts_with("veth")));
            let variables = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
            node.call(plugin, "DEL", &config, &variables).ok();
            // What remains of a lost namespace is a plain file.
            std::fs::write(&pod.path, "").unwrap();
            node.attachment(plugin, "DEL", &config, &pod).ok();
        }
    });
}

#[test]
fn another_link_of_the_same_name_is_left_alone() {
    node(|node| {
        let config = dual_stack(node, "ptp");
        let pod = node.pod("c1");
        node.attachment("ptp", "ADD", &config, &pod).result();
        let name = node.links().remove(0);
        node.attachment("ptp", "DEL", &config, &pod).ok();
        let other = netstate::Link::new(name.parse().unwrap(), netstate::LinkKind::Bridge);
        hostnet::Netlink::open()
            .unwrap()
            .create_link(&other)
            .unwrap();
        let (_, message) = node.attachment("ptp", "ADD", &config, &pod).error();
        assert_eq!(message, format!("create link {name}: File exists"));
        node.attachment("ptp", "DEL", &config, &pod).ok();
        assert_eq!(node.links(), [name]);
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn a_failed_add_leaves_nothing() {
    node(|node| {
        for plugin in ["ptp", "bridge"] {
            let before = node.links();
            let pod = node.pod("c1");
            let mut unreachable = dual_stack(node, plugin);
            let routes = json!([{ "dst": "10.9.0.0/16", "gw": "192.0.2.1" }]);
            unreachable["ipam"]["routes"] = routes;
            let (_, message) = node.attachment(plugin, "ADD", &unreachable, &pod).error();
            assert!(
                message.starts_with("add route 10.9.0.0/16 via 192.0.2.1 dev eth0"),
                "{message}"
            );
            assert!(!pod.has_link("eth0"));
            assert_eq!(node.reservations("net"), [""; 0]);
            let left: Vec<_> = node
                .links()
                .into_iter()
                .filter(|l| !before.contains(l))
                .collect();
            assert!(
                left.iter().all(|name| name == "br0"),
                "{left:?} left behind"
            );

            let mut no_ipam = dual_stack(node, plugin);
            no_ipam["ipam"]["type"] = "nowhere".into();
            assert_eq!(node.attachment(plugin, "ADD", &no_ipam, &pod).error().0, 7);
        }
    });
}

#[test]
fn the_plugins_own_namespace_is_refused_before_anything_is_done() {
    node(|node| {
        for plugin in ["ptp", "bridge", "loopback"] {
            let before = node.links();
            let variables = [
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", "/proc/self/ns/net"),
            ];
            let answer = node.call(plugin, "ADD", &dual_stack(node, plugin), &variables);
            assert_eq!(answer.error().0, 8);
            assert_eq!(answer.stdout.lines().count(), 1);
            assert_eq!(node.links(), before);
            assert_eq!(node.reservations("net"), [""; 0]);
        }
    });
}

#[test]
fn check_notices_what_is_missing() {
    node(|node| {
        let bridge = |pod: &Pod, change: &dyn Fn(&mut hostnet::Netlink), inside: bool| {
            let mut config = dual_stack(node, "bridge");
            config["prevResult"] = node.attachment("bridge", "ADD", &config, pod).result();
            node.attachment("bridge", "CHECK", &config, pod).ok();
            let mut host = hostnet::Netlink::open().unwrap();
            let mut pods = pod.netlink();
            change(if inside { &mut pods } else { &mut host });
            let (_, message) = node.attachment("bridge", "CHECK", &config, pod).error();
            node.attachment("bridge", "DEL", &config, pod).ok();
            host.delete_link(&"br0".parse().unwrap()).unwrap();
            message
        };
        let pod = node.pod("c1");
        let eth0 = || "eth0".parse().unwrap();
        let gone = |text: &str| text.parse::<ipnetwork::IpNetwork>().unwrap();
        let message = bridge(
            &pod,
            &|n| n.delete_address(&eth0(), gone("10.1.0.2/24")).unwrap(),
            true,
        );
        assert_eq!(message, "address 10.1.0.2/24 is gone from eth0");
        let default = netstate::RouteKey::main(gone("0.0.0.0/0"));
        let message = bridge(
            &pod,
            &|n| n.delete_route(&default, None, None).unwrap(),
            true,
        );
        assert_eq!(message, "route to 0.0.0.0/0 is gone from the container");
        let message = bridge(
            &pod,
            &|n| n.set_down(&"br0".parse().unwrap()).unwrap(),
            false,
        );
        assert_eq!(message, "bridge br0 is down");
        let message = bridge(
            &pod,
            &|n| n.delete_link(&"br0".parse().unwrap()).unwrap(),
            false,
        );
        assert_eq!(message, "bridge br0 is gone");
        let address = gone("10.1.0.1/24");
        let br0 = || "br0".parse().unwrap();
        let message = bridge(&pod, &|n| n.delete_address(&br0(), address).unwrap(), false);
        assert_eq!(message, "gateway address 10.1.0.1 is gone from br0");
    });
}

#[test]
fn loopback_comes_up_is_checked_and_goes_down() {
    node(|node| {
        let config = json!({ "cniVersion": "1.0.0", "name": "lo", "type": "loopback" });
        let pod = node.pod("c1");
        let (_, message) = node.attachment("loopback", "CHECK", &config, &pod).error();
        assert_eq!(message, "interface lo is down in the container");
        let result = node.attachment("loopback", "ADD", &config, &pod).result();
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.path }],
                "ips": [{ "interface": 0, "address": "127.0.0.1/8" },
                        { "interface": 0, "address": "::1/128" }],
            })
        );
        node.attachment("loopback", "CHECK", &config, &pod).ok();
        node.attachment("loopback", "DEL", &config, &pod).ok();
        node.attachment("loopback", "DEL", &config, &pod).ok();
        assert_eq!(
            node.attachment("loopback", "CHECK", &config, &pod)
                .error()
                .0,
            999
        );
    });
}
