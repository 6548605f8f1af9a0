//! `portmap`: who reaches which pod by a port of the host, on both backends and families.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use std::io::ErrorKind;
use std::time::Duration;

use node::ports::{Client, ask, bridged, mapped, neighbourhood, serve, tcp};
use node::{Node, Pod, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];
const REFUSED: Result<String, ErrorKind> = Err(ErrorKind::ConnectionRefused);

fn reached(id: &str) -> Result<String, ErrorKind> {
    Ok(id.to_owned())
}

/// A call for interface `eth0` of `pod`, whatever network the configuration names.
fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> node::Answer {
    node.attachment("portmap", command, config, pod)
}

#[test]
fn a_mapped_port_is_reached_from_everywhere_until_del() {
    // Where bridged packets go through the rules they never come to be routed.
    let filtered = ["0", "1"];
    for (backend, filtered) in BACKENDS.into_iter().flat_map(|b| filtered.map(|f| (b, f))) {
        node(|node| {
            let far = neighbourhood(node);
            filter_bridged(filtered);
            let ((web, before), (peer, _)) = (bridged(node, "web"), bridged(node, "peer"));
            serve(&web, 80);
            let config = mapped(backend, &before, &json!([tcp(8080, 80)]));
            assert_eq!(call(node, "ADD", &config, &web).result(), before);
            call(node, "CHECK", &config, &web).ok();
            let everywhere = [
                (None, "192.0.2.1:8080"),
                (None, "127.0.0.1:8080"),
                (None, "10.1.0.1:8080"),
                (Some(&far), "192.0.2.1:8080"),
                (Some(&peer), "192.0.2.1:8080"),
                (Some(&peer), "10.1.0.1:8080"),
                (Some(&web), "192.0.2.1:8080"),
                (Some(&web), "10.1.0.1:8080"),
                (None, "[fd00:9::1]:8080"),
                (Some(&peer), "[fd00:9::1]:8080"),
                (Some(&web), "[fd00:9::1]:8080"),
            ];
            let from = |pod: Option<&Pod>| pod.map_or("node", |pod| &pod.id).to_owned();
            // What a packet teaches its sender must not mislead the next one.
            for (pod, to) in everywhere.iter().chain(&everywhere) {
                let who = from(*pod);
                let answer = ask(*pod, to);
                assert_eq!(
                    answer,
                    reached("web"),
                    "{backend} {filtered}: {who} to {to}"
                );
            }
            let without_result = {
                let mut config = config.clone();
                for key in ["prevResult", "runtimeConfig"] {
                    config.as_object_mut().unwrap().remove(key);
                }
                config
            };
            for _ in 0..2 {
                call(node, "DEL", &without_result, &web).ok();
                for (pod, to) in everywhere {
                    let who = from(pod);
                    assert_eq!(ask(pod, to), REFUSED, "{backend}: {who} to {to} after DEL");
                }
            }
            let error = call(node, "CHECK", &config, &web).error();
            assert_eq!(error.0, 999, "{error:?}");
            assert_eq!(node::ports::rules(false), "");
        });
    }
}

/// Whether bridges show their packets to the rules of IP, where this kernel can.
fn filter_bridged(on: &str) {
    for name in ["iptables", "ip6tables"] {
        let name = format!("net/bridge/bridge-nf-call-{name}");
        match hostnet::sysctl::write(&name, on) {
            Err(error) if error.is_not_found() => {
                eprintln!("SKIPPED: {name}=1: no br_netfilter here");
            }
            other => other.unwrap(),
        }
    }
}

#[test]
fn without_snat_the_node_alone_reaches_the_pod_and_with_masq_all_nobody_is_seen() {
    for backend in BACKENDS {
        node(|node| {
            let far = neighbourhood(node);
            let ((web, before), (peer, _)) = (bridged(node, "web"), bridged(node, "peer"));
            let mut config = mapped(backend, &before, &json!([tcp(8080, 80)]));
            let listen = || std::net::TcpListener::bind("0.0.0.0:80").unwrap();
            let listener = web.open().run_in(listen).unwrap();
            let seen = |from: Option<&Pod>| {
                let connect = || std::net::TcpStream::connect("192.0.2.1:8080").unwrap();
                let _stream = match from {
                    Some(pod) => pod.open().run_in(connect).unwrap(),
                    None => connect(),
                };
                listener.accept().unwrap().1.ip().to_string()
            };
            call(node, "ADD", &config, &web).result();
            assert_eq!(seen(Some(&far)), "192.0.2.2", "{backend}");
            assert_eq!(seen(Some(&peer)), "10.1.0.1", "{backend}");
            config["masqAll"] = true.into();
            call(node, "ADD", &config, &web).result();
            call(node, "CHECK", &config, &web).ok();
            assert_eq!(seen(Some(&far)), "10.1.0.1", "{backend}");
            config["snat"] = false.into();
            call(node, "ADD", &config, &web).result();
            call(node, "CHECK", &config, &web).ok();
            assert_eq!(seen(Some(&far)), "192.0.2.2", "{backend}");
            let left = node::ports::rules(false);
            let changes_source = ["masquerade", "SETMARK"].iter().any(|w| left.contains(w));
            assert!(!changes_source, "{left}");
        });
    }
}

#[test]
fn a_host_address_takes_only_its_own_and_its_familys_connections() {
    for backend in BACKENDS {
        node(|node| {
            let far = neighbourhood(node);
            let (web, before) = bridged(node, "web");
            serve(&web, 80);
            let on = |port: u16, ip: &str| json!({ "hostPort": port, "containerPort": 80, "protocol": "TCP", "hostIP": ip });
            let mappings = json!([
                on(8001, "192.0.2.1"),
                on(8002, "fd00:9::1"),
                on(8003, "0.0.0.0"),
                on(8004, "::"),
                on(8005, "127.0.0.1"),
            ]);
            let config = mapped(backend, &before, &mappings);
            call(node, "ADD", &config, &web).result();
            call(node, "CHECK", &config, &web).ok();
            let asked = |port: u16| {
                ["192.0.2.1", "127.0.0.1", "[fd00:9::1]"]
                    .map(|ip| ask(None, &format!("{ip}:{port}")).is_ok())
            };
            assert_eq!(asked(8001), [true, false, false], "{backend}");
            assert_eq!(asked(8002), [false, false, true], "{backend}");
            assert_eq!(asked(8003), [true, true, false], "{backend}");
            assert_eq!(asked(8004), [false, false, true], "{backend}");
            assert_eq!(asked(8005), [false, true, false], "{backend}");
            assert_eq!(
                ask(Some(&far), "192.0.2.1:8001"),
                reached("web"),
                "{backend}"
            );
        });
    }
}

#[test]
fn conditions_are_those_of_one_attachment() {
    for (backend, v4) in [
        ("nftables", json!(["ip", "saddr", "!=", "192.0.2.2"])),
        ("iptables", json!(["!", "-s", "192.0.2.2/32"])),
    ] {
        node(|node| {
            let far = neighbourhood(node);
            let ((closed, before), (open, other)) =
                (bridged(node, "closed"), bridged(node, "open"));
            serve(&closed, 80);
            serve(&open, 80);
            let mut config = mapped("", &before, &json!([tcp(8080, 80)]));
            config["conditionsV4"] = v4.clone();
            call(node, "ADD", &config, &closed).result();
            call(node, "CHECK", &config, &closed).ok();
            let unconditioned = mapped(backend, &other, &json!([tcp(8081, 80)]));
            call(node, "ADD", &unconditioned, &open).result();
            assert_eq!(ask(Some(&far), "192.0.2.1:8080"), REFUSED, "{backend}");
            assert_eq!(ask(None, "192.0.2.1:8080"), reached("closed"), "{backend}");
            assert_eq!(
                ask(Some(&far), "192.0.2.1:8081"),
                reached("open"),
                "{backend}"
            );
            assert_eq!(
                node::ports::rules(true).contains("CNI-DN"),
                backend == "iptables"
            );
        });
    }
}

#[test]
fn more_ports_than_one_match_holds_are_mapped_once_however_often_added() {
    for backend in BACKENDS {
        node(|node| {
            neighbourhood(node);
            let (web, before) = bridged(node, "web");
            serve(&web, 80);
            let mappings: Vec<Value> = (0..40).map(|n| tcp(8000 + n, 80)).collect();
            let config = mapped(backend, &before, &mappings.into());
            call(node, "ADD", &config, &web).result();
            let once = node::ports::rules(true);
            call(node, "ADD", &config, &web).result();
            assert_eq!(node::ports::rules(true), once, "{backend}");
            call(node, "CHECK", &config, &web).ok();
            for port in [8000, 8014, 8015, 8039] {
                assert_eq!(
                    ask(None, &format!("127.0.0.1:{port}")),
                    reached("web"),
                    "{backend}"
                );
            }
            assert_eq!(ask(None, "127.0.0.1:8040"), REFUSED, "{backend}");
            // Fewer, and in one family: what is too many goes.
            let mut fewer = mapped(backend, &before, &json!([tcp(8000, 80)]));
            let v4 = fewer["prevResult"]["ips"][0].clone();
            fewer["prevResult"]["ips"] = json!([v4]);
            call(node, "ADD", &fewer, &web).result();
            call(node, "CHECK", &fewer, &web).ok();
            assert_eq!(ask(None, "127.0.0.1:8001"), REFUSED, "{backend}");
            assert_eq!(ask(None, "[fd00:9::1]:8000"), REFUSED, "{backend}");
            call(node, "DEL", &config, &web).ok();
            assert_eq!(node::ports::rules(false), "", "{backend}");
        });
    }
}

#[test]
fn whoever_goes_on_sending_datagrams_reaches_the_pod_that_has_the_port_now() {
    for backend in BACKENDS {
        node(|node| {
            let far = neighbourhood(node);
            let udp = json!([{ "hostPort": 5353, "containerPort": 53, "protocol": "udp" }]);
            let ((one, first), (two, second)) = (bridged(node, "one"), bridged(node, "two"));
            serve(&one, 53);
            serve(&two, 53);
            // Connections are tracked as soon as there is any translation.
            let other = mapped(backend, &second, &json!([tcp(1, 1)]));
            call(node, "ADD", &other, &two).result();
            let client = Client::new(&far);
            let (to, long) = ("192.0.2.1:5353", Duration::from_secs(5));
            let flows = || {
                let ports = [(17, 5353)].into();
                let mut conntrack = hostnet::Conntrack::open().unwrap();
                let flows = conntrack
                    .flows_to(netstate::nft::Family::V4, &ports)
                    .unwrap();
                flows.len()
            };
            let nobody = client.ask(to, Duration::from_millis(300));
            assert!(nobody.is_err(), "{backend}: {nobody:?}");
            assert_eq!(flows(), 1, "the entry that is stale after ADD");
            let config = mapped(backend, &first, &udp);
            call(node, "ADD", &config, &one).result();
            assert_eq!(client.ask(to, long), reached("one"), "{backend}");
            call(node, "ADD", &config, &one).result();
            assert_eq!(
                flows(),
                1,
                "{backend}: ADD again keeps the pod's own entries"
            );
            call(node, "DEL", &config, &one).ok();
            assert_eq!(flows(), 0, "{backend}: DEL leaves no entry");
            call(node, "ADD", &mapped(backend, &second, &udp), &two).result();
            assert_eq!(client.ask(to, long), reached("two"), "{backend}");
            // A pod that is gone without DEL.
            call(node, "ADD", &config, &one).result();
            assert_eq!(client.ask(to, long), reached("one"), "{backend}");
        });
    }
}
