//! `portmap`: whose rules are whose, what is refused, and what CHECK and GC see.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use node::ports::{bridged, mapped, neighbourhood, redirects, rules, shown, tcp};
use node::{Answer, Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    node.attachment("portmap", command, config, pod)
}

fn call_for(node: &Node, command: &str, config: &Value, pod: &Pod, ifname: &str) -> Answer {
    let netns = pod.path.to_str().unwrap();
    let variables = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_IFNAME", ifname),
        ("CNI_NETNS", netns),
    ];
    node.call("portmap", command, config, &variables)
}

/// A result of a plugin before: an interface of a pod with one address.
fn result(ifname: &str, address: &str) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{ "name": ifname, "sandbox": "/some/where" }],
        "ips": [{ "interface": 0, "address": address }],
    })
}

fn named(name: &str, mut config: Value) -> Value {
    config["name"] = name.into();
    config
}

#[test]
fn networks_and_interfaces_of_one_container_are_independent() {
    for backend in BACKENDS {
        node(|node| {
            let pod = node.pod("c1");
            let config = |network: &str, ifname: &str, address: &str, port: u16| {
                let before = result(ifname, address);
                named(network, mapped(backend, &before, &json!([tcp(port, 80)])))
            };
            let all = [
                (config("net", "eth0", "10.1.0.2/24", 8000), "eth0"),
                (config("net", "eth1", "10.1.0.3/24", 8001), "eth1"),
                (config("other", "eth2", "10.2.0.2/24", 8002), "eth2"),
                (config("third", "eth0", "10.3.0.2/24", 8003), "eth0"),
            ];
            for (config, ifname) in &all {
                call_for(node, "ADD", config, &pod, ifname).result();
            }
            let there = || ["8000", "8001", "8002", "8003"].map(redirects);
            assert_eq!(there(), [1, 1, 1, 1], "{backend}");
            let mut left = [1, 1, 1, 1];
            for (at, (config, ifname)) in all.iter().enumerate() {
                call_for(node, "CHECK", config, &pod, ifname).ok();
                call_for(node, "DEL", config, &pod, ifname).ok();
                left[at] = 0;
                assert_eq!(there(), left, "{backend}: DEL of {ifname}");
            }
            assert_eq!(rules(false), "", "{backend}");
        });
    }
}

#[test]
fn a_network_that_was_renamed_meanwhile_leaves_nothing() {
    for backend in BACKENDS {
        node(|node| {
            let (pod, other) = (node.pod("c1"), node.pod("c2"));
            let config = mapped(
                backend,
                &result("eth0", "10.1.0.2/24"),
                &json!([tcp(8000, 80)]),
            );
            let others = mapped(
                backend,
                &result("eth0", "10.1.0.3/24"),
                &json!([tcp(8001, 80)]),
            );
            call(node, "ADD", &config, &pod).result();
            call(node, "ADD", &others, &other).result();
            call(node, "DEL", &named("renamed", config), &pod).ok();
            assert_eq!([redirects("8000"), redirects("8001")], [0, 1], "{backend}");
            let mut bare = named("renamed", others);
            bare.as_object_mut().unwrap().remove("prevResult");
            call(node, "DEL", &bare, &other).ok();
            assert_eq!(rules(false), "", "{backend}");
        });
    }
}

#[test]
fn gc_sweeps_one_network_of_what_is_no_longer_valid() {
    for backend in BACKENDS {
        node(|node| {
            let pod = node.pod("c1");
            for (network, ifname, port) in [
                ("net", "eth0", 8000),
                ("net", "eth1", 8001),
                ("other", "eth2", 8002),
            ] {
                let before = result(ifname, "10.1.0.2/24");
                let config = named(network, mapped(backend, &before, &json!([tcp(port, 80)])));
                call_for(node, "ADD", &config, &pod, ifname).result();
            }
            let there = || ["8000", "8001", "8002"].map(redirects);
            let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "type": "portmap" });
            node.call("portmap", "GC", &config, &[]).ok();
            assert_eq!(there(), [1, 1, 1], "{backend}: nobody said what is valid");
            let valid = json!([{ "containerID": "c1", "ifname": "eth1" }]);
            config["cni.dev/valid-attachments"] = valid;
            node.call("portmap", "GC", &config, &[]).ok();
            assert_eq!(there(), [0, 1, 1], "{backend}");
            config["cni.dev/valid-attachments"] = json!([]);
            node.call("portmap", "GC", &config, &[]).ok();
            assert_eq!(there(), [0, 0, 1], "{backend}");
        });
    }
}

#[test]
fn forty_adds_at_once_make_every_shared_rule_once() {
    for backend in BACKENDS {
        node(|node| {
            let own = hostnet::Netns::current().unwrap();
            let pods: Vec<Pod> = (0..40).map(|n| node.pod(&format!("c{n}"))).collect();
            std::thread::scope(|scope| {
                for (n, pod) in pods.iter().enumerate() {
                    let own = &own;
                    scope.spawn(move || {
                        let before = result("eth0", &format!("10.1.0.{}/24", n + 2));
                        let port = u16::try_from(8000 + n).unwrap();
                        let config = mapped(backend, &before, &json!([tcp(port, 80)]));
                        let _inside = own.enter().unwrap();
                        call(node, "ADD", &config, pod).result();
                    });
                }
            });
            let list = rules(true);
            let count = |text: &str| list.matches(text).count();
            if backend == "nftables" {
                assert_eq!(count("jump hostports"), 2);
                assert_eq!(count("jump hostip_hostports"), 2);
            } else {
                assert_eq!(count("--dst-type LOCAL -j CNI-HOSTPORT-DNAT"), 2);
                assert_eq!(count("-j CNI-HOSTPORT-MASQ"), 1);
                assert_eq!(count("-j MARK"), 1);
            }
            for n in 0..40 {
                assert_eq!(redirects(&(8000 + n).to_string()), 1, "{backend} {n}");
            }
        });
    }
}

#[test]
fn check_finds_every_damage() {
    let damages: [(&str, &[&str]); 2] = [
        (
            "nftables",
            &[
                "flush chain ip cni_hostport hostports",
                "flush chain ip6 cni_hostport hostports",
                "flush chain ip cni_hostport hostip_hostports",
                "flush chain ip cni_hostport masquerading",
                "flush chain ip cni_hostport prerouting",
                "flush chain ip6 cni_hostport output",
                "delete table ip cni_hostport",
            ],
        ),
        (
            "iptables",
            &[
                "-F CNI-HOSTPORT-DNAT",
                "-F CNI-HOSTPORT-SETMARK",
                "-F CNI-HOSTPORT-MASQ",
                "-F PREROUTING",
                "-F OUTPUT",
                "-F POSTROUTING",
            ],
        ),
    ];
    for (backend, commands) in damages {
        node(|node| {
            neighbourhood(node);
            let (web, before) = bridged(node, "web");
            let one = json!({ "hostPort": 8081, "containerPort": 80, "hostIP": "192.0.2.1" });
            let config = mapped(backend, &before, &json!([tcp(8080, 80), one]));
            let damaged = |what: &str| {
                let (code, message) = call(node, "CHECK", &config, &web).error();
                assert_eq!(code, 999, "{what}: {message}");
                call(node, "ADD", &config, &web).result();
                call(node, "CHECK", &config, &web).ok();
            };
            call(node, "ADD", &config, &web).result();
            call(node, "CHECK", &config, &web).ok();
            for command in commands {
                let words: Vec<&str> = command.split(' ').collect();
                if backend == "nftables" {
                    shown("nft", &words);
                } else {
                    shown("iptables", &[&["-t", "nat"], &words[..]].concat());
                }
                damaged(command);
            }
            hostnet::sysctl::write("net/ipv4/conf/br0/route_localnet", "0").unwrap();
            damaged("route_localnet");
            let mut other = config.clone();
            other["runtimeConfig"]["portMappings"][0]["containerPort"] = 81.into();
            call(node, "CHECK", &other, &web).error();
            other["runtimeConfig"]["portMappings"] = json!([tcp(8080, 80)]);
            if backend == "nftables" {
                call(node, "CHECK", &other, &web).error();
            }
        });
    }
}

#[test]
fn bad_input_is_refused_before_any_rule() {
    node(|node| {
        let pod = node.pod("c1");
        let before = result("eth0", "10.1.0.2/24");
        let mapping = |key: &str, value: Value| {
            let mut bad = tcp(8080, 80);
            bad[key] = value;
            let config = mapped("nftables", &before, &json!([tcp(1, 1), bad]));
            let (code, message) = call(node, "ADD", &config, &pod).error();
            assert_eq!(code, 7, "{message}");
            message
        };
        let key = "runtimeConfig.portMappings[1]";
        for (name, value) in [
            ("hostPort", json!(0)),
            ("hostPort", json!(70000)),
            ("hostPort", json!(-1)),
            ("containerPort", json!(0)),
            ("containerPort", json!(65536)),
        ] {
            let expected = format!("{key}.{name} {value} is no port; give 1 to 65535");
            assert_eq!(mapping(name, value), expected);
        }
        assert_eq!(
            mapping("hostIP", "1.2.3".into()),
            format!("{key}.hostIP \"1.2.3\" is no IP address; give one or none")
        );
        assert_eq!(
            mapping("protocol", "icmp".into()),
            format!("{key}.protocol \"icmp\" is unknown; give tcp, udp or sctp")
        );
        assert_eq!(
            mapping("hostPort", 1.into()),
            format!("{key}.hostPort 1 of tcp is mapped twice; map it once")
        );
        let with = |name: &str, value: Value| {
            let mut config = mapped("", &before, &json!([tcp(1, 1)]));
            config["markMasqBit"] = 3.into();
            config[name] = value;
            call(node, "ADD", &config, &pod).error()
        };
        for (name, value, message) in [
            (
                "markMasqBit",
                json!(32),
                "markMasqBit 32 is no bit of a mark; give 0 to 31",
            ),
            (
                "externalSetMarkChain",
                json!("KUBE-MARK-MASQ"),
                "markMasqBit 3 and externalSetMarkChain \"KUBE-MARK-MASQ\" exclude each other; give one",
            ),
            (
                "backend",
                json!("ipfw"),
                "backend \"ipfw\" is unknown; give \"nftables\" or \"iptables\"",
            ),
            (
                "prevResult",
                Value::Null,
                "prevResult is missing; portmap comes after the plugin that makes the interface",
            ),
        ] {
            assert_eq!(with(name, value), (7, message.to_owned()));
        }
        let mut mixed = mapped("nftables", &before, &json!([tcp(1, 1)]));
        mixed["conditionsV4"] = json!(["!", "-d", "192.0.2.0/24"]);
        let message =
            "conditionsV4 is not written for backend nftables; change the one or the other";
        let error = call(node, "ADD", &mixed, &pod).error();
        assert_eq!(error, (7, message.to_owned()));
        assert_eq!(rules(true), "");
        let nothing = mapped("nftables", &before, &json!([]));
        assert_eq!(call(node, "ADD", &nothing, &pod).result(), before);
        call(node, "CHECK", &nothing, &pod).ok();
        call(node, "DEL", &nothing, &pod).ok();
        assert_eq!(rules(true), "", "no mappings, no tables");
    });
}

/// Tables of iptables may be those of a program in a container, and the node has none.
#[test]
fn del_and_gc_need_no_iptables_program_where_others_have_tables() {
    node(|node| {
        let pod = node.pod("c1");
        let before = result("eth0", "10.1.0.2/24");
        let mut config = mapped("nftables", &before, &json!([tcp(8000, 80)]));
        call(node, "ADD", &config, &pod).result();
        shown("nft", &["add", "table", "ip", "nat"]);
        shown("nft", &["add", "chain", "ip", "nat", "CNI-HOSTPORT-DNAT"]);
        assert_eq!(redirects("8000"), 1);

        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let (nothing, empty) = (None::<&str>, MsFlags::empty());
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let nft = std::fs::read("/usr/sbin/nft").unwrap();
        mount(Some("tmpfs"), "/usr/sbin", Some("tmpfs"), empty, nothing).unwrap();
        call(node, "DEL", &config, &pod).ok();
        config["cni.dev/valid-attachments"] = json!([]);
        call(node, "GC", &config, &pod).ok();

        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::write("/usr/sbin/nft", nft).unwrap();
        std::fs::set_permissions("/usr/sbin/nft", executable).unwrap();
        let left = shown("nft", &["list", "table", "ip", "cni_hostport"]);
        assert!(!left.contains("8000"), "{left}");
    });
}
