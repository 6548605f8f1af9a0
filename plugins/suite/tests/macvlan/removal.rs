//! What a failed ADD, DEL and GC leave.

use pretty_assertions::assert_eq;
use serde_json::json;

use crate::node::node;
use crate::node::setup::{dual_stack, outside};
use crate::{call, config, seen, with};

#[test]
fn a_failed_add_leaves_neither_link_nor_address() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        let pod = node.pod("c1");
        let mut missing = config.clone();
        missing["ipam"]["type"] = "no-such-ipam".into();
        call(node, "ADD", &missing, &pod).error();
        assert!(!pod.has_link("eth0"));

        // A route that the kernel refuses, after the device has been made.
        let mut unreachable = config.clone();
        unreachable["ipam"]["routes"] = json!([{ "dst": "198.51.100.0/24", "gw": "203.0.113.9" }]);
        call(node, "ADD", &unreachable, &pod).error();
        assert!(!pod.has_link("eth0"));

        // A second device beside one that has the wire for itself.
        let alone = with(&config, &json!({ "mode": "passthru" }));
        call(node, "ADD", &alone, &pod).result();
        let second = node.pod("c2");
        call(node, "ADD", &alone, &second).error();
        assert!(!second.has_link("eth0"));
        assert_eq!(node.reservations("net").len(), 2);

        // An interface of that name stays as it is.
        let before = seen(&pod);
        let (code, msg) = call(node, "ADD", &config, &pod).error();
        assert_eq!(
            (code, msg.as_str()),
            (
                999,
                "interface eth0 is in the container already; DEL it first"
            )
        );
        assert_eq!(seen(&pod), before);
        assert_eq!(node.reservations("net").len(), 2);
        call(node, "DEL", &alone, &pod).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
    });
}

#[test]
fn del_needs_nothing_and_leaves_what_is_not_its_own() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        // The namespace is gone.
        let pod = node.pod("c1");
        call(node, "ADD", &config, &pod).result();
        pod.destroy();
        call(node, "DEL", &config, &pod).ok();
        assert!(!pod.path.exists(), "DEL made a file");
        // A plain file where it was.
        std::fs::write(&pod.path, "").unwrap();
        call(node, "DEL", &config, &pod).ok();
        // No path at all, and a configuration that no ADD would take.
        let pod = node.pod("c2");
        call(node, "ADD", &config, &pod).result();
        let wrong = with(
            &config,
            &json!({ "mode": "x", "master": "no/name", "mtu": -5 }),
        );
        let variables = [("CNI_CONTAINERID", "c2"), ("CNI_IFNAME", "eth0")];
        node.call("macvlan", "DEL", &wrong, &variables).ok();
        assert_eq!(node.reservations("net"), [""; 0]);
        call(node, "DEL", &wrong, &pod).ok();
        assert!(!pod.has_link("eth0"));
        // Another plugin's interface.
        let bridge = dual_stack(node, "bridge");
        node.attachment("bridge", "ADD", &bridge, &pod).result();
        call(node, "DEL", &config, &pod).ok();
        assert!(pod.has_link("eth0"));
        node.attachment("bridge", "DEL", &bridge, &pod).ok();
    });
}

#[test]
fn status_and_gc_reach_master_and_ipam() {
    node(|node| {
        let _outside = outside(node);
        let config = config(node);
        node.call("macvlan", "STATUS", &config, &[]).ok();
        let missing = with(&config, &json!({ "master": "out9" }));
        let (code, msg) = node.call("macvlan", "STATUS", &missing, &[]).error();
        assert_eq!(
            (code, msg.as_str()),
            (
                50,
                "master \"out9\" is no interface on the host; name one that is"
            )
        );
        let (kept, lost) = (node.pod("kept"), node.pod("lost"));
        for pod in [&kept, &lost] {
            call(node, "ADD", &config, pod).result();
        }
        let valid = json!([{ "containerID": "kept", "ifname": "eth0" }]);
        let gc = with(&config, &json!({ "cni.dev/valid-attachments": valid }));
        node.call("macvlan", "GC", &gc, &[]).ok();
        assert_eq!(node.reservations("net"), ["192.0.2.100", "fd00:2::2"]);
        call(node, "DEL", &config, &kept).ok();
    });
}
