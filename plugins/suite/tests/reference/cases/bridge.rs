//! `bridge`, and with it what all interface plugins have in common.

use serde_json::json;

use super::{CODE, EMPTY_DNS, EMPTY_TABLE, NFTABLES, add_at_once, address, dual, lose, v4};
use crate::node::Node;
use crate::observe::{Seen, settle};
use crate::record::Case;
use crate::traffic::{inside, outside, pings, source_seen};
use crate::world::run;

pub(super) const CASES: &[Case] = &[
    Case {
        number: "8",
        title: "bridge with both families",
        run: both_families,
        why: &[EMPTY_DNS],
    },
    Case {
        number: "9",
        title: "DEL twice, then without CNI_NETNS, then with a namespace that is gone",
        run: repeated_del,
        why: &[(
            "plain file",
            "a file that is no namespace is what the kernel leaves of one: DEL frees all the same",
        )],
    },
    Case {
        number: "13",
        title: "ADD of an interface that the pod has",
        run: taken,
        why: &[(
            "br0",
            "a pod that has the interface is refused before anything is made",
        )],
    },
    Case {
        number: "22",
        title: "ipMasq",
        run: masquerade,
        why: &[
            NFTABLES,
            EMPTY_TABLE,
            (
                "id: \\\"b",
                "DEL finds a pod's rules by container and interface, so it needs neither the namespace nor prevResult",
            ),
            (
                "DEL of eth1",
                "the second interface has rules of its own, as they are keyed by interface",
            ),
        ],
    },
    Case {
        number: "24",
        title: "50 ADDs at once on a bridge that is not there",
        run: fifty,
        why: &[],
    },
    Case {
        number: "26",
        title: "bridge without addresses",
        run: layer_two,
        why: &[
            EMPTY_DNS,
            ("CHECK", "a bridge without addresses has nothing to miss"),
        ],
    },
    Case {
        number: "27",
        title: "CHECK after something was removed",
        run: damage,
        why: &[
            EMPTY_TABLE,
            ("CHECK without", "CHECK looks at whatever ADD made"),
            (
                "iptables nat",
                "DEL finds the rules although the addresses are gone",
            ),
        ],
    },
    Case {
        number: "30",
        title: "A bridge with another address",
        run: other_address,
        why: &[
            CODE,
            (
                "c1:",
                "the address in the way is found before anything is made for the pod",
            ),
            (
                "forceAddress",
                "what the refused ADD left is no obstacle, as it left nothing",
            ),
            ("10.7.0", "forceAddress replaces the address"),
        ],
    },
    Case {
        number: "31",
        title: "Where the Ethernet address comes from",
        run: mac,
        why: &[(
            "error",
            "a MAC that is none is an error of the configuration",
        )],
    },
    Case {
        number: "33",
        title: "hairpinMode and promiscMode",
        run: hairpin,
        why: &[CODE],
    },
];

fn both_families(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let mut attachment = node.attach(&dual(node), &pod);
    attachment.config["mtu"] = 1400.into();
    let answer = node.does("ADD", &attachment);
    seen.result("ADD", &answer);
    seen.state(node, &[&pod]);
    for gateway in ["10.1.0.1", "fd00:1::1"] {
        let reached = inside(&pod, || pings(gateway));
        seen.line(format!("the pod reaches {gateway}: {reached}"));
    }
    attachment.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &attachment));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.state(node, &[&pod]);
}

fn repeated_del(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let mut attachment = node.attach(&v4(node), &pod);
    node.added(&mut attachment);
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.leftovers(node);
    seen.outcome("DEL again", &node.does("DEL", &attachment));
    let mut without = attachment.clone();
    without.netns = None;
    seen.outcome("DEL without CNI_NETNS", &node.does("DEL", &without));
    node.added(&mut attachment);
    pod.destroy();
    seen.outcome(
        "DEL after the namespace was removed",
        &node.does("DEL", &attachment),
    );
    settle(0);
    seen.leftovers(node);
    let second = node.pod("c2");
    let mut attachment = node.attach(&v4(node), &second);
    node.added(&mut attachment);
    lose(&second);
    seen.outcome(
        "DEL with a plain file as namespace",
        &node.does("DEL", &attachment),
    );
    settle(0);
    seen.leftovers(node);
}

fn taken(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    inside(&pod, || {
        run("ip", &["link", "add", "eth0", "type", "bridge"]);
        run("ip", &["addr", "add", "10.5.0.1/24", "dev", "eth0"]);
    });
    let attachment = node.attach(&v4(node), &pod);
    seen.outcome("ADD", &node.does("ADD", &attachment));
    seen.state(node, &[&pod]);
}

fn masquerade(node: &Node, seen: &mut Seen) {
    let far = outside(node);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let mut config = v4(node);
    config["ipMasq"] = true.into();
    let (mut first, mut second) = (node.attach(&config, &a), node.attach(&config, &b));
    seen.outcome("ADD", &node.does("ADD", &first));
    let to = address(&node.does("ADD", &second));
    seen.state(node, &[]);
    let outward = source_seen(&a, &far, "192.0.2.2:7000");
    seen.line(format!("a host outside sees {outward}"));
    let inward = source_seen(&a, &b, &format!("{to}:7000"));
    seen.line(format!("a pod of the subnet sees {inward}"));
    seen.outcome("DEL", &node.does("DEL", &first));
    // As a runtime that lost its cache and the pod.
    b.destroy();
    settle(0);
    second.netns = None;
    seen.outcome(
        "DEL without namespace and prevResult",
        &node.does("DEL", &second),
    );
    seen.leftovers(node);
    "eth1".clone_into(&mut first.ifname);
    let mut twice = first.clone();
    "eth2".clone_into(&mut twice.ifname);
    seen.outcome("ADD of eth1", &node.does("ADD", &first));
    seen.outcome(
        "ADD of eth2 of the same container",
        &node.does("ADD", &twice),
    );
    seen.outcome("DEL of eth1", &node.does("DEL", &first));
    seen.outcome("DEL of eth2", &node.does("DEL", &twice));
    seen.leftovers(node);
}

fn fifty(node: &Node, seen: &mut Seen) {
    let pods: Vec<_> = (0..50).map(|n| node.pod(&format!("c{n}"))).collect();
    let attachments: Vec<_> = pods.iter().map(|pod| node.attach(&v4(node), pod)).collect();
    let answers = add_at_once(node, &attachments);
    let added = answers.iter().filter(|answer| answer.success);
    seen.line(format!("{} ADDs succeed", added.count()));
    let shown = run("ip", &["-4", "-o", "addr", "show", "dev", "br0"]);
    seen.line(format!("addresses of br0: {}", shown.lines().count()));
    for attachment in &attachments {
        assert!(node.does("DEL", attachment).success);
    }
    seen.leftovers(node);
}

fn layer_two(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0",
    });
    let mut attachment = node.attach(&config, &pod);
    let answer = node.does("ADD", &attachment);
    seen.result("ADD", &answer);
    seen.state(node, &[&pod]);
    attachment.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &attachment));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.leftovers(node);
}

fn damage(node: &Node, seen: &mut Seen) {
    let damages: [(&str, bool, &[&str]); 8] = [
        (
            "the pod's address",
            true,
            &["addr", "del", "10.1.0.2/24", "dev", "eth0"],
        ),
        ("the default route", true, &["route", "del", "default"]),
        ("the pod's interface", true, &["link", "del", "eth0"]),
        (
            "the interface's being up",
            true,
            &["link", "set", "eth0", "down"],
        ),
        ("the bridge", false, &["link", "del", "br0"]),
        (
            "the bridge's being up",
            false,
            &["link", "set", "br0", "down"],
        ),
        (
            "the gateway's address",
            false,
            &["addr", "del", "10.1.0.1/24", "dev", "br0"],
        ),
        ("masquerading", false, &[]),
    ];
    for (what, in_pod, command) in damages {
        let pod = node.pod("c1");
        let mut config = v4(node);
        config["ipMasq"] = true.into();
        config["ipam"]["rangeStart"] = "10.1.0.2".into();
        config["ipam"]["rangeEnd"] = "10.1.0.2".into();
        let mut attachment = node.attach(&config, &pod);
        node.added(&mut attachment);
        let before = node.does("CHECK", &attachment);
        assert!(before.success, "{before:?}");
        if command.is_empty() {
            run("nft", &["flush", "ruleset"]);
        } else if in_pod {
            inside(&pod, || run("ip", command));
        } else {
            run("ip", command);
        }
        seen.outcome(
            &format!("CHECK without {what}"),
            &node.does("CHECK", &attachment),
        );
        seen.outcome("DEL", &node.does("DEL", &attachment));
        seen.leftovers(node);
        let _ = std::process::Command::new("ip")
            .args(["link", "del", "br0"])
            .output();
    }
}

fn other_address(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    run("ip", &["link", "add", "br0", "type", "bridge"]);
    run("ip", &["addr", "add", "10.7.0.1/24", "dev", "br0"]);
    let mut attachment = node.attach(&v4(node), &pod);
    seen.outcome("ADD", &node.does("ADD", &attachment));
    seen.state(node, &[&pod]);
    attachment.config["forceAddress"] = true.into();
    seen.outcome("ADD with forceAddress", &node.does("ADD", &attachment));
    seen.state(node, &[]);
}

fn mac(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let mut attachment = node.attach(&v4(node), &pod);
    attachment.args = "IgnoreUnknown=1;MAC=02:00:00:00:00:01".to_owned();
    let sources = [
        ("CNI_ARGS", json!({}), json!({})),
        (
            "args too",
            json!({ "cni": { "mac": "02:00:00:00:00:02" } }),
            json!({}),
        ),
        (
            "runtimeConfig too",
            json!({ "cni": { "mac": "02:00:00:00:00:02" } }),
            json!({ "mac": "02:00:00:00:00:03" }),
        ),
        ("nonsense", json!({}), json!({ "mac": "no" })),
    ];
    for (what, args, runtime) in sources {
        attachment.config["args"] = args;
        attachment.config["runtimeConfig"] = runtime;
        let answer = node.does("ADD", &attachment);
        let mac = match answer.success {
            true => answer.json()["interfaces"][2]["mac"].to_string(),
            false => crate::observe::outcome(&answer),
        };
        seen.line(format!("ADD with {what}: {mac}"));
        seen.outcome("DEL", &node.does("DEL", &attachment));
        seen.leftovers(node);
    }
}

fn hairpin(node: &Node, seen: &mut Seen) {
    for modes in [
        &["hairpinMode", "promiscMode"][..],
        &["hairpinMode"],
        &["promiscMode"],
    ] {
        let pod = node.pod("c1");
        let mut attachment = node.attach(&v4(node), &pod);
        for mode in modes {
            attachment.config[*mode] = true.into();
        }
        let answer = node.does("ADD", &attachment);
        seen.outcome(&format!("ADD with {}", modes.join(" and ")), &answer);
        seen.state(node, &[]);
        seen.outcome("DEL", &node.does("DEL", &attachment));
        seen.leftovers(node);
    }
}
