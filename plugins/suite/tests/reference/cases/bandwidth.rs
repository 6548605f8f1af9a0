//! `bandwidth`, chained after `bridge`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::CODE;
use super::EMPTY_DNS;
use super::chained::{chained, pod_on};
use crate::chain;
use crate::node::{Node, Pod};
use crate::observe::Seen;
use crate::record::Case;
use crate::traffic::{inside, outside};
use crate::world::run;

pub(super) const CASES: &[Case] = &[Case {
    number: "51",
    title: "bandwidth: rates, and CHECK after they changed",
    run: rates,
    why: &[
        EMPTY_DNS,
        CODE,
        (
            "clsact",
            "clsact is the ingress queue that others' filters can share",
        ),
        (
            "    qdisc tbf 1: dev veth# root refcnt 3 rate 10Mbit",
            "DEL takes the queues off the device as well, so the same pod can be attached again",
        ),
        (
            "ADD again",
            "DEL took the queues off, so nothing is in the way",
        ),
        (
            "panic",
            "a missing prevResult is an error of the configuration",
        ),
    ],
}];

/// Whether `from` sends to `target` of `to` at 80 Mbit/s, headers included and 10 % more or less.
/// What is measured is far more than the bucket and the sockets' buffers hold, so neither these nor
/// a receiver that had to wait for the processor make a difference.
fn at_rate(from: &Pod, to: &Pod, target: &str) -> bool {
    use std::io::{Read, Write};
    let listener = inside(to, || std::net::TcpListener::bind(target).unwrap());
    let address: std::net::SocketAddr = target.parse().unwrap();
    let limit = Duration::from_secs(20);
    let mut sender = inside(from, || {
        std::net::TcpStream::connect_timeout(&address, limit).unwrap()
    });
    sender.set_write_timeout(Some(limit)).unwrap();
    let sending = std::thread::spawn(move || {
        let block = [0; 65536];
        while sender.write_all(&block).is_ok() {}
    });
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(limit)).unwrap();
    let mut block = [0; 65536];
    let mut megabits = |bytes: u32| {
        let (begin, mut left) = (Instant::now(), bytes as usize);
        while left > 0 {
            left = left.saturating_sub(receiver.read(&mut block).unwrap());
        }
        // 1448 bytes of payload are a frame of 1514.
        f64::from(bytes) * 8e-6 * 1514.0 / 1448.0 / begin.elapsed().as_secs_f64()
    };
    megabits(1_000_000);
    let rate = megabits(16_000_000);
    drop(receiver);
    sending.join().unwrap();
    println!("{rate:.1} Mbit/s to {target}");
    (72.0..88.0).contains(&rate)
}

fn rates(node: &Node, seen: &mut Seen) {
    let far = outside(node);
    let (pod, _, before) = pod_on(node, "br0", "c1");
    let attachment = chained(node, &chain::bandwidth(), &pod, &before);
    let answer = node.does("ADD", &attachment);
    seen.result("ADD", &answer);
    for line in crate::observe::rules() {
        seen.line(format!("    {line}"));
    }
    let ip = before["ips"][0]["address"]
        .as_str()
        .unwrap()
        .replace("/24", ":7002");
    let inward = at_rate(&far, &pod, &ip);
    seen.line(format!("    80 Mbit/s into the pod: {inward}"));
    let outward = at_rate(&pod, &far, "192.0.2.2:7002");
    seen.line(format!("    80 Mbit/s out of the pod: {outward}"));
    let mut checked = attachment.clone();
    checked.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &checked));
    let veth = answer.json()["interfaces"][1]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    let changed = ["qdisc", "change", "dev", &veth, "root", "tbf"];
    let to = ["rate", "10mbit", "burst", "1mb", "latency", "25ms"];
    run("tc", &[&changed[..], &to[..]].concat());
    seen.outcome(
        "CHECK after the rate was changed",
        &node.does("CHECK", &checked),
    );
    seen.outcome("DEL", &node.does("DEL", &checked));
    for line in crate::observe::leftovers(node) {
        seen.line(format!("    {line}"));
    }
    seen.outcome("ADD again", &node.does("ADD", &attachment));
    seen.outcome("DEL", &node.does("DEL", &checked));
    for (key, value) in [
        ("ingressBurst", json!(0)),
        ("ingressRate", json!(0)),
        ("ingressBurst", json!(40_000_000_000_u64)),
        ("ingressRate", json!(-1)),
    ] {
        let mut wrong = chain::bandwidth();
        wrong[key] = value.clone();
        let answer = node.does("ADD", &chained(node, &wrong, &pod, &before));
        seen.outcome(&format!("ADD with {key} {value}"), &answer);
    }
    let mut without = chained(node, &json!({ "type": "bandwidth" }), &pod, &before);
    seen.outcome("ADD without limits", &node.does("ADD", &without));
    without.config.as_object_mut().unwrap().remove("prevResult");
    seen.outcome(
        "ADD without limits and prevResult",
        &node.does("ADD", &without),
    );
}
