//! `tuning`: attributes and parameters applied, reported, checked, restored, and refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::fs;

use hostnet::LinkInfo;
use netstate::Mtu;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use node::{Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn merged(mut config: Value, extra: Value) -> Value {
    if let Value::Object(fields) = extra {
        config.as_object_mut().unwrap().extend(fields);
    }
    config
}

/// A pod behind `ptp`, and what ADD said of it.
fn attached(node: &Node, id: &str) -> (Pod, Value) {
    let pod = node.pod(id);
    let config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "ptp",
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/24" },
    });
    let result = node.attachment("ptp", "ADD", &config, &pod).result();
    (pod, result)
}

fn tuning(node: &Node, before: &Value, extra: Value) -> Value {
    let config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "tuning", "prevResult": before,
        "dataDir": node.path("state").join("tuning"),
    });
    merged(config, extra)
}

fn eth0(pod: &Pod) -> LinkInfo {
    pod.netlink()
        .link(&"eth0".parse().unwrap())
        .unwrap()
        .unwrap()
}

/// What tuning may change, of the pod's end; and the MTU of the node's.
fn attributes(pod: &Pod) -> (String, u32, bool, bool, u32, u32) {
    let link = eth0(pod);
    let mut host = hostnet::Netlink::open().unwrap();
    let peer = host.link_by_index(link.peer.unwrap()).unwrap().unwrap();
    let mtu = |mtu: Option<Mtu>| mtu.unwrap().get();
    let mac = link.mac.unwrap().to_string();
    (
        mac,
        mtu(link.mtu),
        link.promiscuous,
        link.all_multicast,
        link.queue_length,
        mtu(peer.mtu),
    )
}

fn sysctl(pod: &Pod, name: &str) -> String {
    let read = || hostnet::sysctl::read(name).unwrap();
    pod.open().run_in(read).unwrap()
}

fn backups(node: &Node) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.path("state").join("tuning")) else {
        return vec![];
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries.map(|e| name(e).into_string().unwrap()).collect();
    names.sort();
    names
}

fn everything() -> Value {
    json!({
        "mac": "02:00:00:00:00:07", "mtu": 1300, "promisc": true, "allmulti": true, "txQLen": 77,
        "sysctl": {
            "net.ipv4.conf.IFNAME.arp_filter": "1",
            "net/ipv4/ip_local_port_range": "1024 65000",
        },
    })
}

#[test]
fn everything_is_applied_reported_checked_and_restored() {
    node(|node| {
        let (pod, before) = attached(node, "c1");
        let was = attributes(&pod);
        let config = tuning(node, &before, everything());
        let result = node.attachment("tuning", "ADD", &config, &pod).result();
        let mut expected = before.clone();
        expected["interfaces"][0]["mtu"] = 1300.into();
        expected["interfaces"][1]["mtu"] = 1300.into();
        expected["interfaces"][1]["mac"] = "02:00:00:00:00:07".into();
        assert_eq!(result, expected);
        let wanted = ("02:00:00:00:00:07".to_owned(), 1300, true, true, 77, 1300);
        assert_eq!(attributes(&pod), wanted);
        assert_eq!(sysctl(&pod, "net/ipv4/conf/eth0/arp_filter"), "1");
        assert_eq!(sysctl(&pod, "net/ipv4/ip_local_port_range"), "1024\t65000");
        assert_eq!(backups(node), ["c1_eth0.json"]);
        node.attachment("tuning", "CHECK", &config, &pod).ok();

        // Another ADD must not take what the first one made for what was there at first.
        let again = tuning(node, &result, json!({ "mtu": 1200 }));
        node.attachment("tuning", "ADD", &again, &pod).result();
        node.attachment("tuning", "DEL", &config, &pod).ok();
        node.attachment("tuning", "DEL", &config, &pod).ok();
        assert_eq!(attributes(&pod), was);
        assert_eq!(backups(node), [""; 0]);
    });
}

#[test]
fn what_differs_is_noticed_and_what_is_not_configured_is_not() {
    let damages = [
        (
            "ip link set eth0 address 02:00:00:00:00:08",
            "MAC of eth0 is 02:00:00:00:00:08, not 02:00:00:00:00:07",
        ),
        ("ip link set eth0 mtu 1299", "MTU of eth0 is 1299, not 1300"),
        (
            "ip link set eth0 promisc off",
            "promisc of eth0 is false, not true",
        ),
        (
            "ip link set eth0 allmulticast off",
            "allmulti of eth0 is false, not true",
        ),
        (
            "ip link set eth0 txqueuelen 78",
            "txQLen of eth0 is 78, not 77",
        ),
        (
            "sysctl -qw net.ipv4.conf.eth0.arp_filter=0",
            "net/ipv4/conf/eth0/arp_filter is 0, not 1",
        ),
    ];
    node(|node| {
        let (pod, before) = attached(node, "c1");
        let config = tuning(node, &before, everything());
        for (damage, message) in damages {
            node.attachment("tuning", "ADD", &config, &pod).result();
            let words: Vec<&str> = damage.split(' ').collect();
            assert!(pod.exec(words[0], &words[1..]).status.success(), "{damage}");
            let error = node.attachment("tuning", "CHECK", &config, &pod).error();
            assert_eq!(error, (999, message.to_owned()));
        }
        pod.exec("ip", &["link", "set", "eth0", "promisc", "on"]);
        let config = tuning(node, &before, json!({}));
        node.attachment("tuning", "CHECK", &config, &pod).ok();
    });
}

#[test]
fn each_source_of_an_address_goes_before_the_last() {
    node(|node| {
        let (pod, before) = attached(node, "c1");
        let netns = pod.path.to_str().unwrap().to_owned();
        let mac = |extra: Value, args: &str| {
            let config = tuning(
                node,
                &before,
                merged(json!({ "mac": "02:00:00:00:00:01" }), extra),
            );
            let variables = [
                ("CNI_CONTAINERID", "c1"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", netns.as_str()),
                ("CNI_ARGS", args),
            ];
            let result = node.call("tuning", "ADD", &config, &variables).result();
            assert_eq!(
                result["interfaces"][1]["mac"],
                eth0(&pod).mac.unwrap().to_string()
            );
            result["interfaces"][1]["mac"].as_str().unwrap().to_owned()
        };
        let runtime = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:03" } });
        let both = merged(
            runtime.clone(),
            json!({ "args": { "cni": { "mac": "02:00:00:00:00:04" } } }),
        );
        let args = "MAC=02:00:00:00:00:02";
        assert_eq!(mac(json!({}), ""), "02:00:00:00:00:01");
        assert_eq!(mac(json!({}), args), "02:00:00:00:00:02");
        assert_eq!(mac(runtime, args), "02:00:00:00:00:03");
        assert_eq!(mac(both, args), "02:00:00:00:00:04");
    });
}

#[test]
fn wishes_of_the_runtime_need_no_static_ones() {
    node(|node| {
        let (pod, before) = attached(node, "c1");
        let wish = json!({ "args": { "cni": {
            "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" }, "mtu": 1280, "promisc": true,
            "allmulti": true, "txQLen": 5,
        } } });
        node.attachment("tuning", "ADD", &tuning(node, &before, wish), &pod)
            .result();
        assert_eq!(sysctl(&pod, "net/ipv4/conf/eth0/arp_filter"), "1");
        let (_, mtu, promisc, allmulti, length, _) = attributes(&pod);
        assert_eq!((mtu, promisc, allmulti, length), (1280, true, true, 5));
    });
}

#[test]
fn what_is_wrong_is_refused_before_anything_is_done() {
    node(|node| {
        let (pod, before) = attached(node, "c1");
        let was = attributes(&pod);
        let outside = |key: &str| {
            format!(
                "sysctl: {key:?} is no parameter of the network; give one such as net.ipv4.tcp_syncookies"
            )
        };
        let cases = [
            (
                json!({ "sysctl": { "kernel.hostname": "x" } }),
                outside("kernel.hostname"),
            ),
            (
                json!({ "sysctl": { "net/../kernel/hostname": "x" } }),
                outside("net/../kernel/hostname"),
            ),
            (
                json!({ "sysctl": { "net.ipv4.ip_forward": "1", "net/ipv4/ip_forward": "0" } }),
                "sysctl: \"net.ipv4.ip_forward\" is there twice; give one value".to_owned(),
            ),
            (
                json!({ "mac": "01:00:00:00:00:01" }),
                "mac: 01:00:00:00:00:01 is zero or multicast; give a unicast address".to_owned(),
            ),
            (
                json!({ "dataDir": "state" }),
                "dataDir \"state\" is not absolute; give a path such as /run/cni/tuning".to_owned(),
            ),
            (
                json!({ "prevResult": null }),
                "prevResult is missing; put tuning after the plugin of the interface".to_owned(),
            ),
        ];
        for (extra, message) in cases {
            let config = tuning(node, &before, merged(json!({ "mtu": 1300 }), extra));
            let error = node.attachment("tuning", "ADD", &config, &pod).error();
            assert_eq!(error, (7, message));
        }
        let config = tuning(node, &before, json!({ "sysctl": { "A": "1" } })).to_string();
        let twice = config.replace(
            "\"A\":\"1\"",
            "\"net.ipv4.ip_forward\":\"1\",\"net.ipv4.ip_forward\":\"1\"",
        );
        let mut child = std::process::Command::new(node.path("bin").join("tuning"));
        child
            .env_clear()
            .env("CNI_COMMAND", "ADD")
            .env("CNI_PATH", "/")
            .env("CNI_IFNAME", "eth0");
        child
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", &pod.path);
        let error = node::run(&mut child, twice.as_bytes()).error();
        assert_eq!(
            error.1,
            "sysctl: \"net.ipv4.ip_forward\" is there twice; give one value"
        );
        assert_eq!((attributes(&pod), backups(node).len()), (was, 0));
    });
}

#[test]
fn a_failed_add_takes_everything_back() {
    node(|node| {
        let (pod, before) = attached(node, "c1");
        let was = attributes(&pod);
        let extra = json!({
            "mac": "02:00:00:00:00:07", "mtu": 65536, "promisc": true,
            "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1" },
        });
        let config = tuning(node, &before, extra);
        let (code, message) = node.attachment("tuning", "ADD", &config, &pod).error();
        assert!(code == 999 || code == 7, "{message}");
        assert!(
            message.contains("65536") || message.contains("MTU"),
            "{message}"
        );
        let extra = json!({
            "mtu": 1300, "promisc": true,
            "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.conf.IFNAME.rp_filter": "no" },
        });
        let config = tuning(node, &before, extra);
        node.attachment("tuning", "ADD", &config, &pod).error();
        assert_eq!(attributes(&pod), was);
        assert_eq!(sysctl(&pod, "net/ipv4/conf/eth0/arp_filter"), "0");
        assert_eq!(backups(node), [""; 0]);
    });
}

#[test]
fn del_needs_neither_namespace_nor_interface_nor_a_sound_file() {
    node(|node| {
        for (id, spoil) in [("gone", 0), ("linkless", 1), ("garbled", 2), ("never", 3)] {
            let (pod, before) = attached(node, id);
            let config = tuning(node, &before, json!({ "mtu": 1300 }));
            if spoil < 3 {
                node.attachment("tuning", "ADD", &config, &pod).result();
            }
            match spoil {
                0 => pod.destroy(),
                1 => assert!(pod.exec("ip", &["link", "del", "eth0"]).status.success()),
                2 => fs::write(node.path("state").join("tuning/garbled_eth0.json"), "{").unwrap(),
                _ => {}
            }
            let mut config = tuning(node, &before, json!({ "mtu": -1 }));
            config.as_object_mut().unwrap().remove("prevResult");
            node.attachment("tuning", "DEL", &config, &pod).ok();
            let left = backups(node);
            assert_eq!(left, [""; 0], "{id}");
        }
    });
}

#[test]
fn garbage_collection_removes_stale_backups_of_its_network_only() {
    node(|node| {
        let mut pods = Vec::new();
        for (network, id) in [("net", "kept"), ("net", "stale"), ("other", "foreign")] {
            let (pod, before) = attached(node, id);
            let config = tuning(node, &before, json!({ "mtu": 1300, "name": network }));
            node.attachment("tuning", "ADD", &config, &pod).result();
            pods.push(pod);
        }
        fs::write(
            node.path("state").join("tuning/reference_eth0.json"),
            "{\"mtu\": 1500}",
        )
        .unwrap();
        let mut config = tuning(node, &json!({}), json!({ "prevResult": null }));
        node.call("tuning", "GC", &config, &[]).ok();
        assert_eq!(backups(node).len(), 4);
        config["cni.dev/valid-attachments"] = json!([{ "containerID": "kept", "ifname": "eth0" }]);
        node.call("tuning", "GC", &config, &[]).ok();
        let left = ["foreign_eth0.json", "kept_eth0.json", "reference_eth0.json"];
        assert_eq!(backups(node), left);
    });
}

#[test]
fn the_allowlist_decides_by_the_key_as_it_is_written() {
    node(|node| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )
        .unwrap();
        let (pod, before) = attached(node, "c1");
        // Nothing of the machine's own files is touched.
        mount(
            Some("tmpfs"),
            "/etc",
            Some("tmpfs"),
            MsFlags::empty(),
            nothing,
        )
        .unwrap();
        fs::create_dir_all("/etc/cni/tuning").unwrap();
        let list = "^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]+$\n";
        fs::write("/etc/cni/tuning/allowlist.conf", list).unwrap();
        let add = |key: &str| {
            let config = tuning(node, &before, json!({ "sysctl": { key: "1" } }));
            node.attachment("tuning", "ADD", &config, &pod)
        };
        add("net.ipv4.conf.IFNAME.arp_filter").result();
        let refused = add("net.ipv4.ip_forward").error();
        assert_eq!(
            (
                refused.0,
                sysctl(&pod, "net/ipv4/conf/eth0/arp_filter").as_str()
            ),
            (7, "1")
        );
    });
}
