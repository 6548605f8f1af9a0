//! `vlan`, `ipvlan` and `dummy` as a runtime sees them. What needs a device that this kernel does
//! not have is skipped, and says so; what comes before and after the device is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::io::Write;

use hostnet::{LinkDetails, Netlink};
use netstate::{IpvlanMode, Link, LinkKind};
use node::setup::outside;
use node::{Node, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn config(node: &Node, plugin: &str) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": plugin,
        "ipam": {
            "type": "host-local", "dataDir": node.path("state"),
            "ranges": [[{ "subnet": "10.7.0.0/24" }], [{ "subnet": "fd00:7::/64" }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    });
    if plugin != "dummy" {
        config["master"] = "out0".into();
    }
    if plugin == "vlan" {
        config["vlanId"] = 7.into();
    }
    config
}

/// Whether this kernel has devices of the plugin's kind.
fn kernel_has(plugin: &str) -> bool {
    let lower = "out0".parse().unwrap();
    let kind = match plugin {
        "vlan" => LinkKind::Vlan { lower, id: 99 },
        "ipvlan" => LinkKind::Ipvlan {
            lower,
            mode: IpvlanMode::L2,
        },
        _ => LinkKind::Dummy,
    };
    let link = Link::new("probe".parse().unwrap(), kind);
    let mut host = Netlink::open().unwrap();
    match host.create_link(&link) {
        Ok(()) => host.delete_link(&link.name).unwrap(),
        Err(error) if error.reason.contains("Unknown device type") => {
            // Not by a macro: those are silenced in tests that pass.
            let said = writeln!(
                std::io::stderr(),
                "SKIPPED: {plugin}: this kernel has no such devices"
            );
            said.unwrap();
            return false;
        }
        Err(error) => panic!("{error}"),
    }
    true
}

fn details(plugin: &str) -> LinkDetails {
    match plugin {
        "vlan" => LinkDetails::Vlan(7),
        "ipvlan" => LinkDetails::Ipvlan(Some(IpvlanMode::L2)),
        _ => LinkDetails::None,
    }
}

fn add_check_del(plugin: &'static str) {
    node(|node| {
        let _outside = outside(node);
        if !kernel_has(plugin) {
            return;
        }
        let config = config(node, plugin);
        let pod = node.pod("c1");
        let result = node.attachment(plugin, "ADD", &config, &pod).result();
        let eth0 = "eth0".parse().unwrap();
        let link = pod.netlink().link(&eth0).unwrap().unwrap();
        assert_eq!(
            (link.kind.as_str(), link.details),
            (plugin, details(plugin))
        );
        assert_eq!(
            result["interfaces"],
            json!([{ "name": "eth0", "mac": link.mac.unwrap().to_string(), "mtu": 1500,
                     "sandbox": pod.path }])
        );
        assert_eq!(result["ips"][1]["address"], "fd00:7::2/64");
        let mut checked = config.clone();
        checked["prevResult"] = result;
        node.attachment(plugin, "CHECK", &checked, &pod).ok();
        pod.netlink()
            .delete_address(&eth0, "10.7.0.2/24".parse().unwrap())
            .unwrap();
        node.attachment(plugin, "CHECK", &checked, &pod).error();
        // The device below may be gone by the time of DEL.
        Netlink::open()
            .unwrap()
            .delete_link(&"out0".parse().unwrap())
            .unwrap();
        for _ in 0..2 {
            node.attachment(plugin, "DEL", &config, &pod).ok();
        }
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn vlan_is_made_checked_and_removed() {
    add_check_del("vlan");
}

#[test]
fn ipvlan_is_made_checked_and_removed() {
    add_check_del("ipvlan");
}

#[test]
fn dummy_is_made_checked_and_removed() {
    add_check_del("dummy");
}

/// Without the kernel's support ADD fails in the kernel, which must leave nothing either.
#[test]
fn an_add_that_fails_in_the_kernel_gives_the_addresses_back() {
    node(|node| {
        let _outside = outside(node);
        let pod = node.pod("c1");
        for plugin in ["vlan", "ipvlan", "dummy"] {
            let mut config = config(node, plugin);
            // The kernel refuses this route, if it has not refused the device already.
            config["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0", "gw": "203.0.113.9" }]);
            let (code, _) = node.attachment(plugin, "ADD", &config, &pod).error();
            assert_eq!(code, 999);
            assert!(!pod.has_link("eth0"));
            assert_eq!(node.reservations("net"), [""; 0], "{plugin}");
        }
    });
}

#[test]
fn del_gc_and_status_work_whatever_is_missing() {
    node(|node| {
        for plugin in ["vlan", "ipvlan", "dummy"] {
            let config = config(node, plugin);
            let reserve = |id: &str| {
                let variables = [
                    ("CNI_CONTAINERID", id),
                    ("CNI_IFNAME", "eth0"),
                    ("CNI_NETNS", "/nowhere"),
                ];
                node.call("host-local", "ADD", &config, &variables).result();
            };
            reserve("c1");
            reserve("c2");
            let valid = json!([{ "containerID": "c1", "ifname": "eth0" }]);
            let mut gc = config.clone();
            gc["cni.dev/valid-attachments"] = valid;
            node.call(plugin, "GC", &gc, &[]).ok();
            assert_eq!(node.reservations("net").len(), 2, "{plugin}");
            // There is no master and no default route.
            let variables = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
            node.call(plugin, "DEL", &config, &variables).ok();
            node.call(plugin, "DEL", &config, &variables).ok();
            assert_eq!(node.reservations("net"), [""; 0], "{plugin}");
            let status = node.call(plugin, "STATUS", &config, &[]);
            if plugin == "dummy" {
                status.ok();
            } else {
                let msg = "master \"out0\" is no interface on the host; name one that is";
                assert_eq!(status.error(), (50, msg.to_owned()));
            }
        }
    });
}

#[test]
fn dummy_needs_addresses() {
    node(|node| {
        let pod = node.pod("c1");
        let mut config = config(node, "dummy");
        config.as_object_mut().unwrap().remove("ipam");
        let (code, msg) = node.attachment("dummy", "ADD", &config, &pod).error();
        assert_eq!(code, 7);
        assert_eq!(
            msg,
            "ipam.type is missing; dummy is nothing without addresses, name an IPAM plugin"
        );
        node.attachment("dummy", "DEL", &config, &pod).ok();
    });
}
