//! What `host-local`, `ptp` and `loopback` make of unusual wishes and versions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::setup::dual_stack;
use node::{Answer, Node, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

fn ipam(node: &Node, section: &Value) -> Value {
    let mut config = json!({ "cniVersion": "1.1.0", "name": "net", "ipam": section });
    config["ipam"]["type"] = "host-local".into();
    config["ipam"]["dataDir"] = node.path("state").to_str().unwrap().into();
    config
}

fn add(node: &Node, config: &Value, args: &str) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_ARGS", args),
    ];
    node.call("host-local", "ADD", config, &variables)
}

fn given(answer: &Answer) -> Vec<String> {
    let result = answer.result();
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn requests_of_all_three_sources_add_up() {
    node(|node| {
        let ranges = json!([
            [{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.2.0.0/24" }], [{ "subnet": "fd00::/64" }],
        ]);
        let mut config = ipam(node, &json!({ "ranges": ranges }));
        config["args"] = json!({ "cni": { "ips": ["10.2.0.20/24"] } });
        config["runtimeConfig"] = json!({ "ips": ["fd00::30"] });
        let answer = add(node, &config, "IP=10.1.0.10");
        assert_eq!(
            given(&answer),
            ["10.1.0.10/24", "10.2.0.20/24", "fd00::30/64"]
        );
        let mut second = config.clone();
        second["name"] = "second".into();
        for (ip, args) in [
            ("10.1.0.1", "IP=10.1.0.10"),
            ("10.3.0.9", "IP=10.1.0.10"),
            ("10.1.0.300", ""),
        ] {
            second["args"] = json!({ "cni": { "ips": [ip] } });
            let (code, message) = add(node, &second, args).error();
            assert_eq!(code, 7, "{message}");
            assert_eq!(node.reservations("second"), [""; 0], "{ip}");
        }
    });
}

#[test]
fn the_runtimes_ranges_come_first() {
    node(|node| {
        let mut config = ipam(
            node,
            &json!({
                "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.40", "rangeEnd": "10.1.0.50",
                "gateway": "10.1.0.254", "ranges": [[{ "subnet": "10.3.0.0/24" }]],
                "routes": [{ "dst": "10.0.0.0/8", "gw": "10.1.0.253", "mtu": 1400 }],
            }),
        );
        config["runtimeConfig"] = json!({ "ipRanges": [[{ "subnet": "10.2.0.0/24" }]] });
        let result = add(node, &config, "").result();
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.1.0",
                "ips": [{ "address": "10.2.0.2/24", "gateway": "10.2.0.1" },
                        { "address": "10.1.0.40/24", "gateway": "10.1.0.254" },
                        { "address": "10.3.0.2/24", "gateway": "10.3.0.1" }],
                "routes": [{ "dst": "10.0.0.0/8", "gw": "10.1.0.253", "mtu": 1400 }],
            })
        );
    });
}

#[test]
fn impossible_ranges_are_refused_before_anything_is_reserved() {
    node(|node| {
        for section in [
            json!({}),
            json!({ "subnet": "10.1.0.0/31" }),
            json!({ "subnet": "fd00::/127" }),
            json!({ "subnet": "10.1.0.9/24" }),
            json!({ "ranges": [[{ "subnet": "10.1.0.0/24" }, { "subnet": "fd00::/64" }]] }),
            json!({ "ranges": [[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.1.0.0/25" }]] }),
            json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.2.0.5" }),
            json!({ "subnet": "10.1.0.0/24", "rangeEnd": "10.1.1.5" }),
            json!({ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8" }),
            json!({ "subnet": "10.1.0.0/24", "gateway": "fd00::1" }),
            json!({ "subnet": "10.1.0.0/24", "resolvConf": "/nowhere/resolv.conf" }),
        ] {
            let config = ipam(node, &section);
            assert_eq!(add(node, &config, "").error().0, 7, "{section}");
            assert_eq!(node.reservations("net"), [""; 0]);
        }
    });
}

#[test]
fn ptp_without_a_gateway_says_so_and_leaves_nothing() {
    node(|node| {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "ptp",
            "ipam": { "type": "static", "addresses": [{ "address": "10.1.0.5/24" }] },
        });
        let pod = node.pod("c1");
        let error = node.attachment("ptp", "ADD", &config, &pod).error();
        let message = "ipam: address 10.1.0.5/24 has no gateway, which ptp needs; configure one";
        assert_eq!(error, (7, message.to_owned()));
        assert_eq!(node.links(), [""; 0]);
        assert!(!pod.has_link("eth0"));
    });
}

#[test]
fn ptps_damage_on_the_host_is_found() {
    node(|node| {
        let mut config = dual_stack(node, "ptp");
        config["ipMasq"] = true.into();
        let pod = node.pod("c1");
        let result = node.attachment("ptp", "ADD", &config, &pod).result();
        let near: netstate::IfName = result["interfaces"][0]["name"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        config["prevResult"] = result;
        let mut host = hostnet::Netlink::open().unwrap();
        let message = || node.attachment("ptp", "CHECK", &config, &pod).error().1;
        node.attachment("ptp", "CHECK", &config, &pod).ok();

        let route = netstate::RouteKey::main("10.1.0.2/32".parse().unwrap());
        host.delete_route(&route, None, None).unwrap();
        assert_eq!(message(), "the host's route to 10.1.0.2/32 is gone");
        let back = netstate::Route::via_device("10.1.0.2/32".parse().unwrap(), near.clone());
        host.add_route(&back, 3).unwrap();
        node.attachment("ptp", "CHECK", &config, &pod).ok();

        let mut nftables = hostnet::Nftables::open().unwrap();
        nftables.delete("cni_plugins_masquerade").unwrap();
        assert_eq!(message(), "masquerading of c1 is gone");

        host.delete_address(&near, "10.1.0.1/32".parse().unwrap())
            .unwrap();
        let expected = format!("gateway address 10.1.0.1 is gone from {near}");
        assert_eq!(message(), expected);
        host.set_down(&near).unwrap();
        assert_eq!(message(), format!("the host's end {near} of eth0 is down"));
    });
}

#[test]
fn loopback_answers_in_every_versions_schema() {
    node(|node| {
        for version in VERSIONS {
            let config = json!({ "cniVersion": version, "name": "lo", "type": "loopback" });
            let pod = node.pod("c1");
            let result = node.attachment("loopback", "ADD", &config, &pod).result();
            assert_eq!(result["cniVersion"], version);
            match version {
                "0.1.0" | "0.2.0" => {
                    assert_eq!(result["ip4"]["ip"], "127.0.0.1/8");
                    assert_eq!(result["ip6"]["ip"], "::1/128");
                    assert_eq!(result["ips"], Value::Null);
                }
                "0.3.0" | "0.3.1" | "0.4.0" => assert_eq!(result["ips"][0]["version"], "4"),
                _ => assert_eq!(result["ips"][0]["version"], Value::Null),
            }
        }
    });
}

#[test]
fn loopback_passes_on_the_result_before_it() {
    node(|node| {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let mut before = json!({
                "cniVersion": version,
                "interfaces": [{ "name": "eth0", "sandbox": "/x" }],
                "ips": [{ "interface": 0, "address": "10.1.0.5/24", "gateway": "10.1.0.1" }],
                "routes": [{ "dst": "0.0.0.0/0" }],
            });
            if version < "1.0.0" {
                before["ips"][0]["version"] = "4".into();
                before["dns"] = json!({});
            }
            let mut config = json!({ "cniVersion": version, "name": "lo", "type": "loopback" });
            config["prevResult"] = before.clone();
            let pod = node.pod("c1");
            let result = node.attachment("loopback", "ADD", &config, &pod).result();
            assert_eq!(result, before);
        }
    });
}

#[test]
fn loopback_refuses_an_address_of_another_kind() {
    node(|node| {
        let config = json!({ "cniVersion": "1.0.0", "name": "lo", "type": "loopback" });
        let pod = node.pod("c1");
        let other = netstate::Address::new("10.1.0.1/32".parse().unwrap());
        let mut inside = pod.netlink();
        inside.add_address(&"lo".parse().unwrap(), &other).unwrap();
        let (_, message) = node.attachment("loopback", "ADD", &config, &pod).error();
        assert_eq!(message, "lo has 10.1.0.1/32, which is no loopback address");
        let lo = inside.link(&"lo".parse().unwrap()).unwrap().unwrap();
        assert!(!lo.up, "a failed ADD left lo up");
    });
}

#[test]
fn bridge_answers_in_every_versions_schema() {
    node(|node| {
        for version in VERSIONS {
            let mut config = dual_stack(node, "bridge");
            config["cniVersion"] = version.into();
            let pod = node.pod("c1");
            let result = node.attachment("bridge", "ADD", &config, &pod).result();
            assert_eq!(result["cniVersion"], version);
            let first = match version {
                "0.1.0" | "0.2.0" => &result["ip4"]["ip"],
                _ => &result["ips"][0]["address"],
            };
            assert!(first.as_str().unwrap().starts_with("10.1.0."), "{result}");
            let mtu = (version == "1.1.0").then_some(1400);
            assert_eq!(result["interfaces"][0]["mtu"].as_u64(), mtu);
            // The gateway answers at once, by ICMP that nobody listens there.
            let probe = || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                let timeout = std::time::Duration::from_secs(5);
                socket.set_read_timeout(Some(timeout)).unwrap();
                socket.connect("10.1.0.1:9").unwrap();
                socket.send(b"x").unwrap();
                socket.recv(&mut [0; 8]).unwrap_err().kind()
            };
            let refused = pod.open().run_in(probe).unwrap();
            assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{version}");
            node.attachment("bridge", "DEL", &config, &pod).ok();
        }
    });
}
