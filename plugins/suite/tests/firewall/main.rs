//! `firewall`: who reaches whom under which policy, by both backends, and what is left after.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod iptables;
#[path = "../node/mod.rs"]
mod node;
mod packets;
mod rules;

use std::process::Command;

use serde_json::{Value, json};

pub(crate) const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Runs a program and returns what it printed.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).output().expect(program);
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All rules of both families, without what differs between two looks at the same rules.
pub(crate) fn rules() -> String {
    let saved = [run("iptables-save"), run("ip6tables-save")].concat();
    let saved = saved.lines().filter(|l| !l.starts_with(['#', ':']));
    let saved: Vec<&str> = saved.collect();
    let own = Command::new("nft")
        .args(["list", "table", "inet", "cni_firewall"])
        .output();
    let own = String::from_utf8(own.unwrap().stdout).unwrap();
    format!("{}\n{own}", saved.join("\n"))
}

pub(crate) fn firewall(network: &str, before: &Value, extra: Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": network, "type": "firewall", "prevResult": before,
    });
    if let Value::Object(fields) = extra {
        config.as_object_mut().unwrap().extend(fields);
    }
    config
}

/// What the plugin before would have said of a pod behind `br0`.
pub(crate) fn behind(bridge: &str, ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({ "address": ip })).collect();
    json!({ "cniVersion": "1.1.0", "interfaces": [{ "name": bridge }], "ips": ips })
}
