//! `host-device` as a runtime sees it: one end of a veth goes to the pod and comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use hostnet::{LinkInfo, Netlink};
use netstate::{Link, LinkKind};
use node::setup::{assert_talk, outside};
use node::{Answer, Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// The host's `out0`, whose other end is outside.
fn config(node: &Node) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "host-device", "device": "out0",
        "ipam": {
            "type": "host-local", "dataDir": node.path("state"),
            "subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100",
            "routes": [{ "dst": "198.51.100.0/24", "gw": "192.0.2.2" }],
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
    node.attachment("host-device", command, config, pod)
}

fn on_host(name: &str) -> Option<LinkInfo> {
    let mut host = Netlink::open().unwrap();
    host.link(&name.parse().unwrap()).unwrap()
}

fn in_pod(pod: &Pod) -> LinkInfo {
    let name = "eth0".parse().unwrap();
    pod.netlink().link(&name).unwrap().unwrap()
}

#[test]
fn a_device_goes_to_the_pod_and_comes_back_with_its_name() {
    node(|node| {
        let outside = outside(node);
        let config = config(node);
        let before = on_host("out0").unwrap();
        let pod = node.pod("c1");
        // The name on the host may be taken in the pod.
        let taken = Link::new("out0".parse().unwrap(), LinkKind::Bridge);
        pod.netlink().create_link(&taken).unwrap();
        let result = call(node, "ADD", &config, &pod).result();
        assert_eq!(on_host("out0"), None);
        assert_eq!(in_pod(&pod).alias, "out0");
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.1.0",
                "interfaces": [
                    { "name": "eth0", "mac": before.mac.unwrap().to_string(), "mtu": 1500,
                      "sandbox": pod.path },
                ],
                "ips": [{ "interface": 0, "address": "192.0.2.100/24", "gateway": "192.0.2.1" }],
                "routes": [{ "dst": "198.51.100.0/24", "gw": "192.0.2.2" }],
            })
        );
        assert_talk(&pod, &outside, "192.0.2.2");
        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        for _ in 0..2 {
            call(node, "DEL", &config, &pod).ok();
            let back = on_host("out0").unwrap();
            assert_eq!((back.alias.as_str(), back.mac), ("", before.mac));
        }
        assert!(!pod.has_link("eth0"));
        assert_eq!(node.reservations("net"), [""; 0]);
        call(node, "ADD", &config, &pod).result();
        call(node, "DEL", &config, &pod).ok();
    });
}

#[test]
fn a_device_is_found_by_its_address_and_needs_no_ipam() {
    node(|node| {
        let _outside = outside(node);
        let mac = on_host("out0").unwrap().mac.unwrap().to_string();
        let pod = node.pod("c1");
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "host-device",
            "hwaddr": mac.to_uppercase(),
        });
        let result = call(node, "ADD", &config, &pod).result();
        assert_eq!(
            (result["interfaces"][0]["mac"].as_str(), result.get("ips")),
            (Some(mac.as_str()), None)
        );
        assert!(in_pod(&pod).up);
        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        call(node, "DEL", &config, &pod).ok();
        assert!(on_host("out0").is_some());
    });
}

#[test]
fn a_device_that_cannot_be_is_refused_before_anything_is_done() {
    node(|node| {
        let _outside = outside(node);
        let pod = node.pod("c1");
        for (fields, refusal) in [
            (
                json!({ "device": "" }),
                "no device is named; give device, hwaddr, kernelpath, pciBusID or \
                 runtimeConfig.deviceID",
            ),
            (
                json!({ "device": "out9" }),
                "device out9 is no device of the host; name one that is not in use",
            ),
            (
                json!({ "device": "", "hwaddr": "02:00:00:00:00:99" }),
                "hwaddr 02:00:00:00:00:99 is no device of the host; name one that is not in use",
            ),
            (
                json!({ "device": "", "kernelpath": "/sys/devices/../../etc" }),
                "kernelpath \"/sys/devices/../../etc\" is not below /sys/devices; give such a path \
                 without '..'",
            ),
            (
                json!({ "device": "", "pciBusID": "../net" }),
                "pciBusID \"../net\" is no name of a device on a bus",
            ),
            (
                json!({ "device": "", "pciBusID": "ffff:ff:1f.7" }),
                "pciBusID ffff:ff:1f.7 is no device of the host; name one that is not in use",
            ),
            (
                json!({ "runtimeConfig": { "deviceID": "ffff:ff:1f.7" } }),
                "runtimeConfig.deviceID \"ffff:ff:1f.7\" is neither a PCI nor an auxiliary device",
            ),
        ] {
            let refused = with(&config(node), &fields);
            let error = call(node, "ADD", &refused, &pod).error();
            assert_eq!(error, (7, refusal.to_owned()));
            call(node, "DEL", &refused, &pod).ok();
        }
        assert!(on_host("out0").unwrap().up);
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn a_failed_add_puts_the_device_back_as_it_was() {
    node(|node| {
        let _outside = outside(node);
        let mut host = Netlink::open().unwrap();
        host.set_alias(&"out0".parse().unwrap(), "to the switch")
            .unwrap();
        let shown = |link: LinkInfo| (link.up, link.alias, link.mac, link.mtu);
        let before = shown(on_host("out0").unwrap());
        let pod = node.pod("c1");
        let mut config = config(node);
        config["ipam"]["routes"] = json!([{ "dst": "0.0.0.0/0", "gw": "203.0.113.9" }]);
        call(node, "ADD", &config, &pod).error();
        assert!(!pod.has_link("eth0") && !pod.has_link("out0"));
        assert_eq!(shown(on_host("out0").unwrap()), before);
        assert_eq!(node.reservations("net"), [""; 0]);
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
        let found = |config: &Value| call(node, "CHECK", config, &pod).error().1;
        assert_eq!(
            found(&with(&checked, &json!({ "device": "out1" }))),
            "interface eth0 is \"out0\" of the host, not device out1"
        );
        let mut inside = pod.netlink();
        let eth0 = "eth0".parse().unwrap();
        inside.set_alias(&eth0, "").unwrap();
        assert_eq!(
            found(&checked),
            "interface eth0 is \"\" of the host, not device out0"
        );
        inside.set_alias(&eth0, "out0").unwrap();
        call(node, "CHECK", &checked, &pod).ok();
        inside
            .delete_address(&eth0, "192.0.2.100/24".parse().unwrap())
            .unwrap();
        assert_eq!(found(&checked), "address 192.0.2.100/24 is gone from eth0");
        call(node, "DEL", &config, &pod).ok();
        assert_eq!(found(&checked), "interface eth0 is gone from the container");
    });
}

#[test]
fn del_after_the_namespace_is_gone_frees_the_address() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        let pod = node.pod("c1");
        call(node, "ADD", &config, &pod).result();
        assert_eq!(node.reservations("net"), ["192.0.2.100"]);
        pod.destroy();
        call(node, "DEL", &config, &pod).ok();
        assert!(!pod.path.exists(), "DEL made a file");
        assert_eq!(node.reservations("net"), [""; 0]);
        let variables = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        node.call("host-device", "DEL", &config, &variables).ok();
    });
}

/// The kernel gives hardware back when its namespace ends, under the pod's name. A veth ends with
/// its namespace, so what the kernel would do is done here.
#[test]
fn a_device_that_the_kernel_gave_back_gets_its_own_name_again() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        for name in ["eth0", "dev42"] {
            let mut host = Netlink::open().unwrap();
            host.rename(&"out0".parse().unwrap(), &name.parse().unwrap())
                .unwrap();
            host.set_alias(&name.parse().unwrap(), "out0").unwrap();
            let variables = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
            node.call("host-device", "DEL", &config, &variables).ok();
            assert_eq!(on_host(name), None);
            assert_eq!(on_host("out0").unwrap().alias, "");
        }
        // Somebody else's alias stays.
        let mut host = Netlink::open().unwrap();
        let lan = "lan0".parse().unwrap();
        host.rename(&"out0".parse().unwrap(), &lan).unwrap();
        host.set_alias(&lan, "out0").unwrap();
        let variables = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        node.call("host-device", "DEL", &config, &variables).ok();
        assert_eq!(on_host("lan0").unwrap().alias, "out0");
    });
}

#[test]
fn del_leaves_another_plugins_interface() {
    node(|node| {
        let bridge = node::setup::dual_stack(node, "bridge");
        let pod = node.pod("c1");
        node.attachment("bridge", "ADD", &bridge, &pod).result();
        call(node, "DEL", &config(node), &pod).ok();
        assert!(pod.has_link("eth0"));
        node.attachment("bridge", "DEL", &bridge, &pod).ok();
    });
}

#[test]
fn gc_and_status_reach_ipam() {
    node(|node| {
        let _outside = outside(node);
        let mut config = config(node);
        let pod = node.pod("c1");
        call(node, "ADD", &config, &pod).result();
        node.call("host-device", "GC", &config, &[]).ok();
        assert_eq!(node.reservations("net"), ["192.0.2.100"]);
        let gc = with(&config, &json!({ "cni.dev/valid-attachments": [] }));
        node.call("host-device", "GC", &gc, &[]).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
        node.call("host-device", "STATUS", &config, &[]).ok();
        call(node, "DEL", &config, &pod).ok();
        config["ipam"]["type"] = "no-such-ipam".into();
        node.call("host-device", "STATUS", &config, &[]).error();
    });
}

/// A device of a userspace driver, on a `/sys/bus` of the test's own.
#[test]
fn a_device_that_a_process_drives_is_only_reported() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    node(|node| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        mount(
            Some("tmpfs"),
            "/sys/bus",
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        )
        .unwrap();
        let device = "/sys/bus/pci/devices/0000:00:09.0";
        std::fs::create_dir_all(device).unwrap();
        let driver = format!("{device}/driver");
        std::os::unix::fs::symlink("../../drivers/vfio-pci", driver).unwrap();

        let pod = node.pod("c1");
        let mut config = config(node);
        config.as_object_mut().unwrap().remove("device");
        config["runtimeConfig"] = json!({ "deviceID": "0000:00:09.0" });
        let result = call(node, "ADD", &config, &pod).result();
        assert_eq!(
            (&result["interfaces"], &result["ips"]),
            (
                &json!([{ "name": "eth0", "sandbox": pod.path, "pciID": "0000:00:09.0" }]),
                &json!([{ "interface": 0, "address": "192.0.2.100/24", "gateway": "192.0.2.1" }]),
            )
        );
        let checked = with(&config, &json!({ "prevResult": result }));
        call(node, "CHECK", &checked, &pod).ok();
        call(node, "DEL", &config, &pod).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}
