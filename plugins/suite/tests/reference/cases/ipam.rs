//! `host-local`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{CODE, EMPTY_DNS, add_at_once, address, v4};
use crate::node::Node;
use crate::observe::{Seen, outcome, reservations};
use crate::record::Case;
use crate::world::{Answer, Attachment};

pub(super) const CASES: &[Case] = &[
    Case {
        number: "18",
        title: "host-local gives addresses in turn",
        run: in_turn,
        why: &[EMPTY_DNS],
    },
    Case {
        number: "19",
        title: "200 host-local ADDs at once",
        run: two_hundred,
        why: &[],
    },
    Case {
        number: "39",
        title: "Ranges that are none",
        run: ranges,
        why: &[CODE],
    },
    Case {
        number: "40",
        title: "Requested addresses",
        run: requested,
        why: &[CODE],
    },
    Case {
        number: "46",
        title: "static: where addresses come from",
        run: fixed,
        why: &[CODE],
    },
];

/// host-local called by itself: its owner's interface need not exist.
fn lone(node: &Node, config: &Value, id: &str) -> Attachment {
    Attachment {
        plugin: "host-local".to_owned(),
        config: config.clone(),
        id: id.to_owned(),
        ifname: "eth0".to_owned(),
        netns: Some(node.path("none").to_str().unwrap().to_owned()),
        args: String::new(),
    }
}

fn given(answer: &Answer) -> String {
    if answer.success {
        address(answer)
    } else {
        outcome(answer)
    }
}

fn in_turn(node: &Node, seen: &mut Seen) {
    let mut config = v4(node);
    config["ipam"]["subnet"] = "10.1.0.0/29".into();
    let call = |command: &str, id: &str| node.does(command, &lone(node, &config, id));
    seen.result("ADD of c1", &call("ADD", "c1"));
    seen.line(format!("ADD of c2: {}", given(&call("ADD", "c2"))));
    seen.outcome("CHECK of c1", &call("CHECK", "c1"));
    seen.outcome("ADD of c1 again", &call("ADD", "c1"));
    seen.outcome("DEL of c1", &call("DEL", "c1"));
    seen.outcome("DEL of c1 again", &call("DEL", "c1"));
    seen.outcome("CHECK of c1", &call("CHECK", "c1"));
    for id in ["c3", "c4", "c5", "c6", "c7"] {
        seen.line(format!("ADD of {id}: {}", given(&call("ADD", id))));
    }
    for line in reservations(node) {
        seen.line(format!("    {line}"));
    }
}

fn two_hundred(node: &Node, seen: &mut Seen) {
    let config = v4(node);
    let calls: Vec<_> = (0..200)
        .map(|n| lone(node, &config, &format!("c{n}")))
        .collect();
    let answers = add_at_once(node, &calls);
    let addresses: BTreeSet<String> = answers.iter().map(given).collect();
    seen.line(format!("{} addresses for 200 ADDs", addresses.len()));
    seen.line(format!("{} reservations", reservations(node).len()));
}

fn ranges(node: &Node, seen: &mut Seen) {
    let ranges = [
        ("a /31", json!([[{ "subnet": "10.1.0.0/31" }]])),
        ("a /127", json!([[{ "subnet": "fd00:1::/127" }]])),
        ("host bits", json!([[{ "subnet": "10.1.0.5/24" }]])),
        (
            "an overlap",
            json!([[{ "subnet": "10.1.0.0/24" }], [{ "subnet": "10.1.0.0/16" }]]),
        ),
        (
            "both families in one set",
            json!([[{ "subnet": "10.1.0.0/24" }, { "subnet": "fd00:1::/64" }]]),
        ),
        (
            "a start outside",
            json!([[{ "subnet": "10.1.0.0/24", "rangeStart": "10.2.0.5" }]]),
        ),
        (
            "an end before the start",
            json!([[{ "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.5" }]]),
        ),
        ("no range", json!([])),
    ];
    for (what, ranges) in ranges {
        let mut config = v4(node);
        config["ipam"] = json!({
            "type": "host-local", "dataDir": node.path("state"), "ranges": ranges,
        });
        let answer = node.does("ADD", &lone(node, &config, "c1"));
        seen.outcome(&format!("ADD with {what}"), &answer);
    }
    seen.leftovers(node);
}

fn requested(node: &Node, seen: &mut Seen) {
    let call = |args: &str, cni: Value, runtime: Value, id: &str| {
        let mut config = v4(node);
        config["args"] = json!({ "cni": { "ips": cni } });
        config["runtimeConfig"] = json!({ "ips": runtime });
        let mut attachment = lone(node, &config, id);
        args.clone_into(&mut attachment.args);
        given(&node.does("ADD", &attachment))
    };
    let none = || json!([]);
    let lines = [
        ("by CNI_ARGS", call("IP=10.1.0.50", none(), none(), "c1")),
        (
            "by args.cni.ips",
            call("", json!(["10.1.0.51"]), none(), "c2"),
        ),
        (
            "by runtimeConfig.ips",
            call("", none(), json!(["10.1.0.52/24"]), "c3"),
        ),
        (
            "that is taken",
            call("", none(), json!(["10.1.0.52"]), "c4"),
        ),
        (
            "that is the gateway's",
            call("", none(), json!(["10.1.0.1"]), "c4"),
        ),
        (
            "outside of the subnet",
            call("", none(), json!(["10.2.0.5"]), "c4"),
        ),
        ("that is none", call("", none(), json!(["x"]), "c4")),
        (
            "two in one range",
            call("", json!(["10.1.0.60"]), json!(["10.1.0.61"]), "c4"),
        ),
    ];
    for (what, answer) in lines {
        seen.line(format!("an address {what}: {answer}"));
    }
    for line in reservations(node) {
        seen.line(format!("    {line}"));
    }
}

fn fixed(node: &Node, seen: &mut Seen) {
    let call = |args: &str, cni: Value, runtime: Value| {
        let mut config = v4(node);
        config["args"] = json!({ "cni": { "ips": cni } });
        config["runtimeConfig"] = json!({ "ips": runtime });
        config["ipam"] = json!({
            "type": "static",
            "addresses": [{ "address": "10.1.0.5/24", "gateway": "10.1.0.1" },
                          { "address": "fd00:1::5/64" }],
            "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "fd00:2::/64", "gw": "fd00:1::9" }],
            "dns": { "nameservers": ["10.1.0.1"], "search": ["example.org"] },
        });
        let mut attachment = lone(node, &config, "c1");
        "static".clone_into(&mut attachment.plugin);
        args.clone_into(&mut attachment.args);
        attachment
    };
    let none = || json!([]);
    let calls = [
        ("of the configuration", call("", none(), none())),
        (
            "and CNI_ARGS",
            call(
                "IP=10.1.0.6/24,10.2.0.6/16;GATEWAY=10.2.0.1",
                none(),
                none(),
            ),
        ),
        (
            "and args.cni.ips",
            call("IP=10.1.0.6/24", json!(["10.1.0.7/24"]), none()),
        ),
        (
            "and runtimeConfig.ips",
            call(
                "IP=10.1.0.6/24",
                json!(["10.1.0.7/24"]),
                json!(["10.1.0.8/24"]),
            ),
        ),
        (
            "of CNI_ARGS without a length",
            call("IP=10.1.0.6", none(), none()),
        ),
        (
            "of args.cni.ips without a length",
            call("", json!(["10.1.0.7"]), none()),
        ),
        (
            "of runtimeConfig.ips without a length",
            call("", none(), json!(["10.1.0.8"])),
        ),
        (
            "and an unknown argument",
            call("NONSENSE=1", none(), none()),
        ),
    ];
    for (what, attachment) in &calls {
        seen.result(&format!("addresses {what}"), &node.does("ADD", attachment));
    }
    let mut checked = call("", none(), none());
    checked.config["prevResult"] = node.does("ADD", &checked).json();
    seen.outcome("CHECK", &node.does("CHECK", &checked));
    checked.config["prevResult"]["ips"][0]["gateway"] = "10.1.0.2".into();
    seen.outcome("CHECK with another gateway", &node.does("CHECK", &checked));
    seen.outcome("DEL", &node.does("DEL", &checked));
    seen.outcome("DEL again", &node.does("DEL", &checked));
}
