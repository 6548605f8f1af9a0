//! `tuning`, chained after `bridge`.

use serde_json::json;

use super::chained::{chained, pod_on};
use super::{CODE, EMPTY_DNS};
use crate::chain;
use crate::node::Node;
use crate::observe::Seen;
use crate::record::Case;
use crate::traffic::inside;
use crate::world::run;

pub(super) const CASES: &[Case] = &[Case {
    number: "56",
    title: "tuning: what is set, reported and restored",
    run: tuned,
    why: &[
        EMPTY_DNS,
        CODE,
        (
            "queue 1000",
            "a veth has no queue, so its nominal length is left as the kernel sets it",
        ),
    ],
}];

fn tuned(node: &Node, seen: &mut Seen) {
    let (pod, _, before) = pod_on(node, "br0", "c1");
    let of_pod = |seen: &mut Seen| {
        let shown = inside(&pod, || run("ip", &["link", "show", "eth0"]));
        let path = "/proc/sys/net/ipv4/conf/eth0/arp_filter";
        let filter = inside(&pod, || std::fs::read_to_string(path).unwrap());
        let words: Vec<&str> = shown.split_whitespace().collect();
        let after = |key: &str| {
            let at = words.iter().position(|word| *word == key);
            at.map_or("none", |at| words[at + 1])
        };
        let flag = |name: &str| words[2].contains(name);
        let (mac, mtu, queue) = (after("link/ether"), after("mtu"), after("qlen"));
        seen.line(format!(
            "    MAC {mac}, MTU {mtu}, queue {queue}, promisc {}, allmulti {}, arp_filter {}",
            flag("PROMISC"),
            flag("ALLMULTI"),
            filter.trim()
        ));
    };
    let mut config = chain::tuning(node);
    for (key, value) in [
        ("mac", json!("02:00:00:00:00:07")),
        ("mtu", json!(1400)),
        ("promisc", json!(true)),
        ("allmulti", json!(true)),
    ] {
        config[key] = value;
    }
    let mut attachment = chained(node, &config, &pod, &before);
    of_pod(seen);
    let answer = node.does("ADD", &attachment);
    seen.result("ADD", &answer);
    of_pod(seen);
    attachment.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &attachment));
    inside(&pod, || run("ip", &["link", "set", "eth0", "mtu", "1300"]));
    seen.outcome(
        "CHECK after the MTU was changed",
        &node.does("CHECK", &attachment),
    );
    seen.outcome("DEL", &node.does("DEL", &attachment));
    of_pod(seen);
    seen.outcome("DEL again", &node.does("DEL", &attachment));
    for (what, key, value) in [
        (
            "a sysctl outside of net",
            "sysctl",
            json!({ "kernel.hostname": "x" }),
        ),
        ("a path", "sysctl", json!({ "net/../kernel/hostname": "x" })),
        (
            "a sysctl that is not there",
            "sysctl",
            json!({ "net.ipv4.nonsense": "1" }),
        ),
        ("a MAC that is none", "mac", json!("no")),
    ] {
        let mut wrong = chain::tuning(node);
        wrong[key] = value;
        let attachment = chained(node, &wrong, &pod, &before);
        seen.outcome(&format!("ADD with {what}"), &node.does("ADD", &attachment));
        seen.outcome("DEL", &node.does("DEL", &attachment));
    }
}
