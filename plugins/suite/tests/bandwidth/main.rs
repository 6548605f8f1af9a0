//! `bandwidth` behind `ptp`: what a pod receives and sends, measured; what is left, checked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod config;
#[path = "../node/mod.rs"]
mod node;
mod rates;
mod state;

use std::process::Command;

use hostnet::Netlink;
use netstate::{IfName, QdiscAt};
use node::{Answer, Node, Pod};
use serde_json::{Value, json};

/// Bits per second, and bits at once.
const RATE: u64 = 64_000_000;
const BURST: u64 = 2_000_000;
/// The far end of every pod's veth: `ptp`'s gateway.
const HOST: &str = "10.1.0.1";

fn limits() -> Value {
    json!({ "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST })
}

fn call(
    node: &Node,
    plugin: &str,
    command: &str,
    config: &Value,
    pod: &Pod,
    ifname: &str,
) -> Answer {
    let netns = pod.path.to_str().unwrap();
    let variables = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_IFNAME", ifname),
        ("CNI_NETNS", netns),
    ];
    node.call(plugin, command, config, &variables)
}

/// The configuration of `bandwidth`, with the result of `ptp` for that interface as `prevResult`.
fn chained(node: &Node, pod: &Pod, ifname: &str, limits: &Value) -> Value {
    let mut config = ptp(node);
    if ifname != "eth0" {
        config["ipam"]["subnet"] = "10.2.0.0/24".into();
    }
    let before = call(node, "ptp", "ADD", &config, pod, ifname).result();
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "bandwidth", "prevResult": before,
    });
    for (key, value) in limits.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Attaches and limits `eth0`; the configuration with the last result is returned.
fn limited(node: &Node, pod: &Pod, limits: &Value) -> Value {
    limited_as(node, pod, "eth0", limits)
}

fn limited_as(node: &Node, pod: &Pod, ifname: &str, limits: &Value) -> Value {
    let mut config = chained(node, pod, ifname, limits);
    config["prevResult"] = call(node, "bandwidth", "ADD", &config, pod, ifname).result();
    config
}

fn veth(config: &Value) -> IfName {
    let name = config["prevResult"]["interfaces"][0]["name"].as_str();
    name.unwrap().parse().unwrap()
}

fn ifb(config: &Value) -> IfName {
    let name = config["prevResult"]["interfaces"][2]["name"].as_str();
    name.unwrap().parse().unwrap()
}

/// Kinds of what is at the link's root and before it, where the kernel did not choose it.
fn qdiscs(name: &IfName) -> Vec<String> {
    let mut netlink = Netlink::open().unwrap();
    let Some(link) = netlink.link(name).unwrap() else {
        return vec!["no link".to_owned()];
    };
    let found = [QdiscAt::Root, QdiscAt::Ingress].map(|at| netlink.qdisc(link.index, at).unwrap());
    let made = found
        .into_iter()
        .flatten()
        .filter(|qdisc| qdisc.handle != 0);
    made.map(|qdisc| qdisc.kind).collect()
}

fn ifbs(node: &Node) -> Vec<String> {
    let links = node.links();
    links
        .into_iter()
        .filter(|name| name.starts_with("bwp"))
        .collect()
}

fn tc(words: &str) {
    run("tc", words);
}

fn ip(words: &str) {
    run("ip", words);
}

fn run(program: &str, words: &str) {
    let output = Command::new(program).args(words.split(' ')).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {words}: {said}");
}

fn ptp(node: &Node) -> Value {
    json!({ "cniVersion": "1.1.0", "name": "net", "type": "ptp",
            "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/24" } })
}
