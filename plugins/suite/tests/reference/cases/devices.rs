//! `macvlan` and the other plugins of one device per pod that this kernel has.

use serde_json::{Value, json};

use super::{CODE, EMPTY_DNS, script, v4};
use crate::node::Node;
use crate::observe::Seen;
use crate::record::Case;
use crate::traffic::{inside, outside};
use crate::world::run;

pub(super) const CASES: &[Case] = &[
    Case {
        number: "58",
        title: "macvlan: modes and MTU",
        run: modes,
        why: &[
            EMPTY_DNS,
            CODE,
            (
                "DEL without it",
                "DEL finds the interface in the pod and needs no master",
            ),
            (
                "DEL: ",
                "DEL of what a wrong configuration never made has nothing to fail at",
            ),
        ],
    },
    Case {
        number: "58b",
        title: "macvlan: what the result says, and a failing IPAM plugin",
        run: ipam,
        why: &[
            EMPTY_DNS,
            (
                "nameservers",
                "name resolution that the IPAM plugin gives is passed on",
            ),
            ("eth0 in the pod", "a failed ADD leaves nothing"),
        ],
    },
    Case {
        number: "59",
        title: "host-device: there and back, also from a namespace that is lost",
        run: host_device,
        why: &[
            EMPTY_DNS,
            ("DEL again", "what is gone already is no error"),
            (
                "reserved",
                "the address is given back although the namespace is not known",
            ),
        ],
    },
];

fn macvlan(node: &Node) -> Value {
    let mut config = v4(node);
    config["type"] = "macvlan".into();
    config["master"] = "out0".into();
    config
}

fn modes(node: &Node, seen: &mut Seen) {
    let _far = outside(node);
    for mode in ["bridge", "private", "vepa", "passthru", "nonsense"] {
        let pod = node.pod(mode);
        let mut attachment = node.attach(&macvlan(node), &pod);
        attachment.config["mode"] = mode.into();
        let answer = node.does("ADD", &attachment);
        if mode == "bridge" {
            seen.result(&format!("ADD with mode {mode}"), &answer);
        } else {
            seen.outcome(&format!("ADD with mode {mode}"), &answer);
        }
        seen.state(node, &[&pod]);
        if answer.success {
            attachment.config["prevResult"] = answer.json();
            seen.outcome("CHECK", &node.does("CHECK", &attachment));
        }
        seen.outcome("DEL", &node.does("DEL", &attachment));
        seen.leftovers(node);
    }
    for mtu in [1400, 0, 9000, -1] {
        let pod = node.pod(&format!("mtu{mtu}"));
        let mut attachment = node.attach(&macvlan(node), &pod);
        attachment.config["mtu"] = mtu.into();
        let answer = node.does("ADD", &attachment);
        seen.outcome(&format!("ADD with MTU {mtu}"), &answer);
        if answer.success {
            let shown = inside(&pod, || run("ip", &["-o", "link", "show", "eth0"]));
            let mtu = shown
                .split(" mtu ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            seen.line(format!("    MTU {mtu}"));
        }
        seen.outcome("DEL", &node.does("DEL", &attachment));
    }
    seen.leftovers(node);
    let pod = node.pod("c9");
    let mut attachment = node.attach(&macvlan(node), &pod);
    attachment.config["master"] = "nowhere".into();
    seen.outcome(
        "ADD on a master that is not there",
        &node.does("ADD", &attachment),
    );
    attachment.config.as_object_mut().unwrap().remove("master");
    seen.outcome(
        "ADD without master or default route",
        &node.does("ADD", &attachment),
    );
    run("ip", &["route", "add", "default", "via", "192.0.2.2"]);
    seen.outcome("ADD with a default route", &node.does("ADD", &attachment));
    run("ip", &["route", "del", "default"]);
    seen.outcome("DEL without it", &node.does("DEL", &attachment));
    seen.leftovers(node);
}

fn ipam(node: &Node, seen: &mut Seen) {
    let _far = outside(node);
    let document = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.9/24","gateway":"10.1.0.1"}],"dns":{"nameservers":["10.1.0.1"]}}"#;
    let text = format!("#!/bin/sh\n[ $CNI_COMMAND != ADD ] || echo '{document}'\n");
    script(&node.path("bin").join("fake"), &text);
    let pod = node.pod("c1");
    let mut attachment = node.attach(&macvlan(node), &pod);
    attachment.config["ipam"] = json!({ "type": "fake" });
    seen.result("ADD", &node.does("ADD", &attachment));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.leftovers(node);
    script(&node.path("bin").join("fake"), "#!/bin/sh\necho nonsense\n");
    seen.outcome(
        "ADD with an IPAM plugin that fails",
        &node.does("ADD", &attachment),
    );
    seen.line(format!("    eth0 in the pod: {}", pod.has_link("eth0")));
    attachment.config["ipam"] = json!({});
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.result("ADD without IPAM", &node.does("ADD", &attachment));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.leftovers(node);
}

fn host_device(node: &Node, seen: &mut Seen) {
    run(
        "ip",
        &[
            "link", "add", "dev0", "type", "veth", "peer", "name", "out0",
        ],
    );
    let pod = node.pod("c1");
    let mut config = v4(node);
    config["type"] = "host-device".into();
    config["device"] = "dev0".into();
    let mut attachment = node.attach(&config, &pod);
    let answer = node.does("ADD", &attachment);
    seen.result("ADD", &answer);
    seen.state(node, &[&pod]);
    attachment.config["prevResult"] = answer.json();
    seen.outcome("CHECK", &node.does("CHECK", &attachment));
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.outcome("DEL again", &node.does("DEL", &attachment));
    seen.state(node, &[&pod]);
    attachment
        .config
        .as_object_mut()
        .unwrap()
        .remove("prevResult");
    seen.outcome("ADD", &node.does("ADD", &attachment));
    attachment.netns = None;
    seen.outcome("DEL without CNI_NETNS", &node.does("DEL", &attachment));
    for line in crate::observe::reservations(node) {
        seen.line(format!("    {line}"));
    }
}
