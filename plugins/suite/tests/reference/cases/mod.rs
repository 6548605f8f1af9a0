//! The black-box cases. Those of plugins that only one side has are not here.

mod bandwidth;
mod bridge;
mod chained;
mod devices;
mod every;
mod firewall;
mod ipam;
mod portmap;
mod protocol;
mod ptp;
mod tuning;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::node::{Node, Pod};
use crate::record::{self, Case, Why};
use crate::world::{Answer, Attachment, run};

const EMPTY_DNS: Why = ("dns {}", "an empty dns is left out from 1.0.0 on");
const CODE: Why = (
    ": error 7",
    "a wrong configuration has the specification's code 7, as 999 says nothing",
);
const NFTABLES: Why = (
    "cni_plugins_masquerade: chain",
    "one nftables transaction, in the table and with the comments of later reference plugins; \
     `ipMasqBackend` chooses iptables",
);
const EMPTY_TABLE: Why = (
    "cni_plugins_masquerade, 3 rules",
    "the table and its three rules that belong to no pod stay, as those of the reference's nftables \
     backend do",
);
const FIREWALL_CHAINS: Why = (
    "nft table inet cni_firewall",
    "where iptables has no rules, nftables is used; the empty table stays like the reference's empty \
     chains",
);
const ROUTE_SCOPE: Why = (
    "scope",
    "the pod is a neighbour on the veth, so its route has scope link; scope host is for the \
     node's own addresses",
);

#[test]
fn protocol() {
    record::compare(protocol::CASES);
}

#[test]
fn bridge() {
    record::compare(bridge::CASES);
}

#[test]
fn ptp_and_loopback() {
    record::compare(ptp::CASES);
}

#[test]
fn ipam() {
    record::compare(ipam::CASES);
}

#[test]
fn devices() {
    record::compare(devices::CASES);
}

#[test]
fn bandwidth() {
    record::compare(bandwidth::CASES);
}

#[test]
fn firewall() {
    record::compare(firewall::CASES);
}

#[test]
fn tuning() {
    record::compare(tuning::CASES);
}

#[test]
fn portmap() {
    record::compare(portmap::CASES);
}

#[test]
fn every() {
    record::compare(every::CASES);
}

#[test]
fn the_record_has_these_cases_and_no_other() {
    let all = [
        protocol::CASES,
        bridge::CASES,
        ptp::CASES,
        ipam::CASES,
        devices::CASES,
        every::CASES,
        portmap::CASES,
        bandwidth::CASES,
        firewall::CASES,
        tuning::CASES,
    ];
    let cases: BTreeSet<&str> = all.iter().flat_map(|cases| *cases).map(number).collect();
    let recorded = record::recorded();
    let recorded: BTreeSet<&str> = recorded.iter().map(String::as_str).collect();
    assert_eq!(recorded, cases);
}

fn number(case: &Case) -> &'static str {
    case.number
}

/// A bridge with gateway and addresses of one family.
fn v4(node: &Node) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/24",
                  "routes": [{ "dst": "0.0.0.0/0" }] },
    })
}

/// The same with both families.
fn dual(node: &Node) -> Value {
    let mut config = v4(node);
    config["ipam"] = json!({
        "type": "host-local", "dataDir": node.path("state"),
        "ranges": [[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "fd00:1::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    config
}

/// The first address of a result, without its length.
fn address(answer: &Answer) -> String {
    let text = answer.json()["ips"][0]["address"]
        .as_str()
        .unwrap()
        .to_owned();
    text.split('/').next().unwrap().to_owned()
}

/// Writes an executable script. A child does it: what a thread of ours has open for writing while
/// another one starts a program cannot be executed.
fn script(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"";
    let _ = std::fs::remove_file(path);
    run("sh", &["-c", write, "sh", text, path.to_str().unwrap()]);
}

/// Does ADD for all at once, each from the calling thread's namespace.
fn add_at_once(node: &Node, attachments: &[Attachment]) -> Vec<Answer> {
    let own = hostnet::Netns::current().unwrap();
    std::thread::scope(|scope| {
        let add = |attachment| {
            let own = &own;
            scope.spawn(move || {
                let _inside = own.enter().unwrap();
                node.does("ADD", attachment)
            })
        };
        let threads: Vec<_> = attachments.iter().map(add).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Removes the namespace and leaves what the kernel leaves of one, a plain file.
fn lose(pod: &Pod) {
    pod.destroy();
    std::fs::write(&pod.path, "").unwrap();
}
