//! What `bridge` does on the host beside the bridge: masquerading by either backend, the spoof check,
//! MTU; and that all of it is found damaged by CHECK and removed by DEL and GC.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use hostnet::{Netlink, Nftables};
use netstate::nft::{ChainRef, TableFamily};
use netstate::{Address, IfName, Link, LinkKind, Route, VethPeer};
use node::setup::{assert_talk, outside, reaches, seen};
use node::{Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn config(node: &Node) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/24",
                  "routes": [{ "dst": "0.0.0.0/0" }] },
    })
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// Runs a program in the node's namespace; its output is returned.
fn shell(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .expect("run program");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The nat rules of IPv4 that belong to CNI plugins.
fn nat_rules() -> Vec<String> {
    let text = shell("iptables-save", &["-t", "nat"]);
    let ours = text.lines().filter(|line| line.contains("CNI-"));
    ours.map(str::to_owned).collect()
}

fn spoof_chains() -> Vec<String> {
    let mut chains = Nftables::open()
        .unwrap()
        .chains(TableFamily::Bridge, "nat")
        .unwrap();
    chains.retain(|chain| chain != "PREROUTING");
    chains.sort();
    chains
}

#[test]
fn iptables_masquerades_as_nftables_does() {
    node(|node| {
        let far = outside(node);
        let mut config = config(node);
        config["ipMasq"] = true.into();
        config["ipMasqBackend"] = "iptables".into();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let result = node.attachment("bridge", "ADD", &config, &a).result();
        node.attachment("bridge", "ADD", &config, &b).result();
        assert_eq!(seen(&a, &far, "192.0.2.2"), "192.0.2.1");
        assert_eq!(seen(&a, &b, "10.1.0.3"), "10.1.0.2");
        assert_eq!(nat_rules().len(), 8, "{:#?}", nat_rules());

        config["prevResult"] = result;
        node.attachment("bridge", "CHECK", &config, &a).ok();
        shell("iptables", &["-t", "nat", "-F", "POSTROUTING"]);
        assert_eq!(
            node.attachment("bridge", "CHECK", &config, &a).error().1,
            "masquerading of a is gone"
        );
        // DEL looks for what is there, not for what the configuration says by now.
        config.as_object_mut().unwrap().remove("prevResult");
        config["ipMasq"] = false.into();
        a.destroy();
        node.attachment("bridge", "DEL", &config, &a).ok();
        assert!(nat_rules().iter().all(|rule| !rule.contains("10.1.0.2")));
        config["cni.dev/valid-attachments"] = json!([]);
        node.call("bridge", "GC", &config, &[]).ok();
        assert_eq!(nat_rules(), [""; 0]);
        std::fs::write(&a.path, "").unwrap();
    });
}

#[test]
fn two_interfaces_of_one_container_do_not_share_their_rules() {
    node(|node| {
        let far = outside(node);
        for backend in ["nftables", "iptables"] {
            let mut config = config(node);
            config["ipMasq"] = true.into();
            config["ipMasqBackend"] = backend.into();
            config["isDefaultGateway"] = true.into();
            let pod = node.pod("c1");
            node.attachment("bridge", "ADD", &config, &pod).result();
            config["ipam"]["routes"] = json!([]);
            config["isDefaultGateway"] = false.into();
            let netns = pod.path.to_str().unwrap();
            let second = [
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth1"),
                ("CNI_NETNS", netns),
            ];
            node.call("bridge", "ADD", &config, &second).result();
            node.call("bridge", "DEL", &config, &second).ok();
            assert_eq!(seen(&pod, &far, "192.0.2.2"), "192.0.2.1", "{backend}");
            node.attachment("bridge", "DEL", &config, &pod).ok();
            assert_eq!(nat_rules(), [""; 0]);
        }
    });
}

#[test]
fn a_pod_cannot_send_under_anothers_ethernet_address() {
    node(|node| {
        let mut config = config(node);
        config["macspoofchk"] = true.into();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let result = node.attachment("bridge", "ADD", &config, &a).result();
        node.attachment("bridge", "ADD", &config, &b).result();
        assert_talk(&a, &b, "10.1.0.3");
        assert_eq!(
            spoof_chains(),
            [
                "cni-br-iface-a-eth0",
                "cni-br-iface-a-eth0-mac",
                "cni-br-iface-b-eth0",
                "cni-br-iface-b-eth0-mac"
            ]
        );
        config["prevResult"] = result;
        node.attachment("bridge", "CHECK", &config, &a).ok();
        let other = "02:00:00:00:00:77".parse().unwrap();
        a.netlink().set_mac(&name("eth0"), other).unwrap();
        assert!(!reaches(&a, &b, "10.1.0.3"), "a forged frame got through");

        shell("nft", &["flush", "chain", "bridge", "nat", "PREROUTING"]);
        let before = config["prevResult"]["interfaces"][2]["mac"].clone();
        let mac = before.as_str().unwrap().parse().unwrap();
        a.netlink().set_mac(&name("eth0"), mac).unwrap();
        assert_eq!(
            node.attachment("bridge", "CHECK", &config, &a).error().1,
            "the check of a's Ethernet address is gone"
        );
        config.as_object_mut().unwrap().remove("prevResult");
        config["macspoofchk"] = false.into();
        a.destroy();
        node.attachment("bridge", "DEL", &config, &a).ok();
        assert_eq!(spoof_chains().len(), 2);
        // The other's jump is gone already, but its chains are found by DEL.
        node.attachment("bridge", "DEL", &config, &b).ok();
        assert_eq!(spoof_chains(), [""; 0]);
        std::fs::write(&a.path, "").unwrap();
    });
}

#[test]
fn gc_removes_the_spoof_checks_of_its_own_network_only() {
    node(|node| {
        let mut one = config(node);
        one["macspoofchk"] = true.into();
        let mut two = one.clone();
        two["name"] = "two".into();
        two["bridge"] = "br1".into();
        two["ipam"]["subnet"] = "10.2.0.0/24".into();
        let (a, b) = (node.pod("a"), node.pod("b"));
        node.attachment("bridge", "ADD", &one, &a).result();
        node.attachment("bridge", "ADD", &two, &b).result();
        one["cni.dev/valid-attachments"] = json!([{ "containerID": "a", "ifname": "eth0" }]);
        node.call("bridge", "GC", &one, &[]).ok();
        assert_eq!(spoof_chains().len(), 4);
        one["cni.dev/valid-attachments"] = json!([]);
        node.call("bridge", "GC", &one, &[]).ok();
        assert_eq!(
            spoof_chains(),
            ["cni-br-iface-b-eth0", "cni-br-iface-b-eth0-mac"]
        );
        let entry = ChainRef::of(TableFamily::Bridge, "nat", "PREROUTING");
        let left = Nftables::open().unwrap().rule_owners(&entry).unwrap();
        assert_eq!(left.len(), 1);
        node.attachment("bridge", "DEL", &two, &b).ok();
    });
}

/// A veth `up0` with the default route and `mtu`.
fn default_route(mtu: u32) {
    let mut host = Netlink::open().unwrap();
    let peer = VethPeer {
        name: name("up1"),
        netns: None,
        mac: None,
    };
    let mut link = Link::new(name("up0"), LinkKind::Veth(peer)).up();
    link.mtu = Some(mtu.try_into().unwrap());
    host.create_link(&link).unwrap();
    host.set_up(&name("up1")).unwrap();
    let address = Address::new("192.0.2.1/24".parse().unwrap());
    host.add_address(&link.name, &address).unwrap();
    let route = Route::via_device("0.0.0.0/0".parse().unwrap(), link.name);
    host.add_route(&route.gateway("192.0.2.9".parse().unwrap()), 3)
        .unwrap();
}

fn mtu_of(pod: &Pod) -> u32 {
    let link = pod.netlink().link(&name("eth0")).unwrap().unwrap();
    link.mtu.unwrap().get()
}

#[test]
fn an_mtu_that_is_left_out_is_the_default_routes() {
    node(|node| {
        let bridged = config(node);
        let mut routed = config(node);
        routed["type"] = "ptp".into();
        let reported = |result: &Value| -> Vec<u64> {
            let interfaces = result["interfaces"].as_array().unwrap();
            let mtu = |one: &Value| one["mtu"].as_u64().unwrap();
            interfaces.iter().map(mtu).collect()
        };
        let pod = node.pod("c0");
        let result = node.attachment("ptp", "ADD", &routed, &pod).result();
        assert_eq!(reported(&result), [1500, 1500]);
        node.attachment("ptp", "DEL", &routed, &pod).ok();

        default_route(1430);
        let result = node.attachment("ptp", "ADD", &routed, &pod).result();
        assert_eq!((reported(&result), mtu_of(&pod)), (vec![1430, 1430], 1430));
        node.attachment("ptp", "DEL", &routed, &pod).ok();
        let result = node.attachment("bridge", "ADD", &bridged, &pod).result();
        assert_eq!(reported(&result), [1430, 1430, 1430]);
        assert_eq!(mtu_of(&pod), 1430);

        // A bridge that takes less limits its pods; what is configured goes before both.
        let mut host = Netlink::open().unwrap();
        host.set_mtu(&name("br0"), 1400.try_into().unwrap())
            .unwrap();
        let second = node.pod("c2");
        let result = node.attachment("bridge", "ADD", &bridged, &second).result();
        assert_eq!(reported(&result)[1..], [1400, 1400]);
        let mut wide = config(node);
        wide["mtu"] = 1420.into();
        wide["cniVersion"] = "1.0.0".into();
        let third = node.pod("c3");
        let result = node.attachment("bridge", "ADD", &wide, &third).result();
        assert_eq!(result["interfaces"][2]["mtu"], Value::Null);
        assert_eq!(mtu_of(&third), 1420);
        wide["mtu"] = 65536.into();
        let fourth = node.pod("c4");
        assert_eq!(
            node.attachment("bridge", "ADD", &wide, &fourth).error().0,
            7
        );
    });
}

#[test]
fn vlans_are_kept_apart() {
    node(|node| {
        let mut host = Netlink::open().unwrap();
        let probe = name("probe0");
        host.create_link(&Link::new(probe.clone(), LinkKind::Bridge))
            .unwrap();
        if let Err(error) = host.set_vlan_filtering(&probe, true) {
            eprintln!("SKIPPED: this kernel's bridges do not filter VLANs: {error}");
            let mut config = config(node);
            config["vlan"] = 5.into();
            let pod = node.pod("c1");
            node.attachment("bridge", "ADD", &config, &pod).error();
            assert!(!pod.has_link("eth0"));
            assert_eq!(node.reservations("net"), [""; 0]);
            return;
        }
        let mut config = config(node);
        config["preserveDefaultVlan"] = false.into();
        let mut add = |vlan: u16, id: &str| {
            config["vlan"] = vlan.into();
            let pod = node.pod(id);
            node.attachment("bridge", "ADD", &config, &pod).result();
            pod
        };
        let (a, b, c) = (add(5, "a"), add(5, "b"), add(6, "c"));
        assert_talk(&a, &b, "10.1.0.3");
        assert!(!reaches(&a, &c, "10.1.0.4") && !reaches(&c, &a, "10.1.0.2"));
        assert!(node.links().contains(&"br0.5".to_owned()));
    });
}

/// The bridge's table as `nft` shows it, without handles, with the veth's name and the pod's MAC made
/// the same for everybody.
fn spoof_table(result: &Value) -> String {
    let text = shell("nft", &["list", "table", "bridge", "nat"]);
    let [veth, mac] = [(1, "name"), (2, "mac")]
        .map(|(at, key)| result["interfaces"][at][key].as_str().unwrap().to_owned());
    text.replace(&veth, "VETH").replace(&mac, "MAC")
}

#[test]
fn the_reference_plugins_host_state_is_ours_and_is_removed() {
    let theirs = std::path::Path::new("/usr/lib/cni");
    if !theirs.join("bridge").exists() {
        eprintln!("SKIPPED: no reference plugins in {}", theirs.display());
        return;
    }
    node(|node| {
        let mut config = config(node);
        config["cniVersion"] = "1.0.0".into();
        config["macspoofchk"] = true.into();
        config["ipMasq"] = true.into();
        let foreign_add = |pod: &Pod| {
            let mut child = std::process::Command::new(theirs.join("bridge"));
            child
                .env("CNI_COMMAND", "ADD")
                .env("CNI_CONTAINERID", &pod.id)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_NETNS", &pod.path)
                .env("CNI_PATH", theirs);
            node::run(&mut child, config.to_string().as_bytes()).result()
        };
        let pod = node.pod("c1");
        let their_table = spoof_table(&foreign_add(&pod));
        assert_eq!(nat_rules().len(), 4, "{:#?}", nat_rules());
        pod.destroy();
        // A kernel removes a namespace's devices some time after its last user is gone.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while node.links().iter().any(|link| link.starts_with("veth")) {
            assert!(std::time::Instant::now() < deadline, "the veth stays");
            std::thread::yield_now();
        }
        // DEL although neither namespace nor prevResult is there.
        node.attachment("bridge", "DEL", &config, &pod).ok();
        assert_eq!((spoof_chains().len(), nat_rules().len()), (0, 0));
        assert_eq!(node.reservations("net"), [""; 0]);

        std::fs::remove_file(&pod.path).ok();
        hostnet::netns::create_at(&pod.path).unwrap();
        let result = node.attachment("bridge", "ADD", &config, &pod).result();
        assert_eq!(spoof_table(&result), their_table);
        node.attachment("bridge", "DEL", &config, &pod).ok();

        // GC finds what no DEL came for.
        let lost = node.pod("c2");
        foreign_add(&lost);
        lost.destroy();
        while node.links().iter().any(|link| link.starts_with("veth")) {
            assert!(std::time::Instant::now() < deadline, "the veth stays");
            std::thread::yield_now();
        }
        let mut gc = config.clone();
        gc["cniVersion"] = "1.1.0".into();
        gc["cni.dev/valid-attachments"] = json!([]);
        node.call("bridge", "GC", &gc, &[]).ok();
        assert_eq!((spoof_chains().len(), nat_rules().len()), (0, 0));
        assert_eq!(node.reservations("net"), [""; 0]);
        std::fs::write(&lost.path, "").unwrap();
    });
}
