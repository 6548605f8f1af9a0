//! `ptp` and `loopback`.

use serde_json::{Value, json};

use super::{CODE, EMPTY_DNS, ROUTE_SCOPE, address, dual, v4};
use crate::node::Node;
use crate::observe::Seen;
use crate::record::Case;
use crate::traffic::{inside, pings};
use crate::world::run;

pub(super) const CASES: &[Case] = &[
    Case {
        number: "34",
        title: "ptp: routes of both sides, and traffic between pods",
        run: routes,
        why: &[EMPTY_DNS, ROUTE_SCOPE],
    },
    Case {
        number: "34b",
        title: "ptp with both families",
        run: both_families,
        why: &[EMPTY_DNS, ROUTE_SCOPE],
    },
    Case {
        number: "36",
        title: "ptp with an address that has no gateway",
        run: no_gateway,
        why: &[CODE, ("eth0 in the pod", "a failed ADD leaves nothing")],
    },
    Case {
        number: "37",
        title: "loopback",
        run: loopback,
        why: &[
            EMPTY_DNS,
            ("ips[0]", "the result has the form of the version asked for"),
        ],
    },
];

fn ptp(mut config: Value) -> Value {
    config["type"] = "ptp".into();
    config
}

fn routes(node: &Node, seen: &mut Seen) {
    let (a, b) = (node.pod("a"), node.pod("b"));
    let config = ptp(v4(node));
    let mut first = node.attach(&config, &a);
    let second = node.attach(&config, &b);
    let answer = node.does("ADD", &first);
    seen.result("ADD", &answer);
    seen.state(node, &[&a]);
    let to = address(&node.does("ADD", &second));
    let reached = inside(&a, || pings(&to));
    seen.line(format!("one pod reaches the other: {reached}"));
    first.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &first));
    for attachment in [&first, &second] {
        seen.outcome("DEL", &node.does("DEL", attachment));
    }
    seen.state(node, &[&a]);
}

fn both_families(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let mut attachment = node.attach(&ptp(dual(node)), &pod);
    let answer = node.does("ADD", &attachment);
    seen.result("ADD", &answer);
    seen.state(node, &[&pod]);
    let reached = inside(&pod, || pings("fd00:1::1"));
    seen.line(format!("the pod reaches its IPv6 gateway: {reached}"));
    attachment.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &attachment));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.state(node, &[&pod]);
}

fn no_gateway(node: &Node, seen: &mut Seen) {
    // An IPAM plugin of neither side, so that only `ptp` differs.
    let text = "#!/bin/sh\n[ $CNI_COMMAND != ADD ] || \
                echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.1.0.9/24\"}]}'\n";
    super::script(&node.path("bin").join("fake"), text);
    let pod = node.pod("c1");
    let mut attachment = node.attach(&ptp(v4(node)), &pod);
    attachment.config["ipam"] = json!({ "type": "fake" });
    seen.outcome("ADD", &node.does("ADD", &attachment));
    seen.line(format!("eth0 in the pod: {}", pod.has_link("eth0")));
    seen.leftovers(node);
    attachment.config["ipam"] = json!({});
    seen.outcome("ADD without IPAM", &node.does("ADD", &attachment));
    seen.leftovers(node);
}

fn loopback(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    for version in ["0.2.0", "0.4.0", "1.0.0"] {
        let config = json!({ "cniVersion": version, "name": "lo", "type": "loopback" });
        let mut attachment = node.attach(&config, &pod);
        let answer = node.does("ADD", &attachment);
        seen.result(&format!("ADD at {version}"), &answer);
        if version != "0.2.0" {
            attachment.config["prevResult"] = answer.json();
            seen.outcome("CHECK", &node.does("CHECK", &attachment));
            inside(&pod, || run("ip", &["link", "set", "lo", "down"]));
            let answer = node.does("CHECK", &attachment);
            seen.outcome("CHECK after lo went down", &answer);
        }
        seen.outcome("DEL", &node.does("DEL", &attachment));
        seen.outcome("DEL again", &node.does("DEL", &attachment));
    }
    let mut gone = node.attach(
        &json!({ "cniVersion": "1.0.0", "name": "lo", "type": "loopback" }),
        &pod,
    );
    gone.netns = None;
    seen.outcome("DEL without CNI_NETNS", &node.does("DEL", &gone));
}
