//! Environment, standard input, versions.

use serde_json::json;

use super::{EMPTY_DNS, script, v4};
use crate::node::Node;
use crate::observe::Seen;
use crate::record::Case;
use crate::traffic::{inside, pings};

pub(super) const CASES: &[Case] = &[
    Case {
        number: "1",
        title: "VERSION with nothing else in the environment",
        run: version,
        why: &[("1.1.0", "ours speaks CNI 1.1.0 as well")],
    },
    Case {
        number: "2",
        title: "ADD without CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME",
        run: missing_variables,
        why: &[(
            "cniVersion",
            "the specification requires cniVersion in every error",
        )],
    },
    Case {
        number: "3",
        title: "Container IDs and interface names that are none",
        run: names,
        why: &[],
    },
    Case {
        number: "4",
        title: "Standard input that cannot be used",
        run: input,
        why: &[],
    },
    Case {
        number: "5",
        title: "Commands that the configuration's version lacks",
        run: lacking,
        why: &[(
            "GC",
            "GC and STATUS are commands of 1.1.0, which an older configuration's version lacks",
        )],
    },
    Case {
        number: "7",
        title: "bridge and host-local on every version",
        run: versions,
        why: &[EMPTY_DNS],
    },
    Case {
        number: "17",
        title: "IPAM plugins that answer by another version, nonsense, or no address",
        run: fake_ipam,
        why: &[
            EMPTY_DNS,
            (
                "eth0 in the pod",
                "a failed ADD removes the interface and has the IPAM plugin free what it gave",
            ),
        ],
    },
];

fn version(node: &Node, seen: &mut Seen) {
    for plugin in ["bridge", "ptp", "loopback", "host-local"] {
        seen.result(
            plugin,
            &node.raw(plugin, b"", &[("CNI_COMMAND", "VERSION")]),
        );
    }
}

fn missing_variables(node: &Node, seen: &mut Seen) {
    let answer = node.raw("bridge", b"{}", &[("CNI_COMMAND", "ADD")]);
    seen.outcome("ADD", &answer);
    let document = answer.json();
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        let named = document["msg"].as_str().unwrap().contains(name);
        let detailed = document["details"]
            .as_str()
            .is_some_and(|text| text.contains(name));
        seen.line(format!("    names {name}: {}", named || detailed));
    }
    seen.line(format!(
        "    has cniVersion: {}",
        document["cniVersion"].is_string()
    ));
}

fn names(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    for (id, ifname) in [
        ("-a", "eth0"),
        ("a/b", "eth0"),
        ("../a", "eth0"),
        ("c1", "a:b"),
        ("c1", "a/b"),
        ("c1", "sixteen-bytes-it"),
        ("c1", ".."),
        ("c1", "a b"),
    ] {
        let mut attachment = node.attach(&v4(node), &pod);
        id.clone_into(&mut attachment.id);
        ifname.clone_into(&mut attachment.ifname);
        let answer = node.does("ADD", &attachment);
        seen.outcome(
            &format!("ADD of container {id:?}, interface {ifname:?}"),
            &answer,
        );
    }
    seen.leftovers(node);
}

fn input(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let netns = pod.path.to_str().unwrap();
    for text in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"cniVersion":"1.0.0","type":"bridge"}"#,
        r#"{"cniVersion":"1.0.0","type":"bridge","name":"a/b"}"#,
        r#"{"cniVersion":"9.9.9","type":"bridge","name":"net"}"#,
        r#"{"cniVersion":"x","type":"bridge","name":"net"}"#,
    ] {
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", netns),
        ];
        let answer = node.raw("bridge", text.as_bytes(), &variables);
        seen.outcome(&format!("ADD with {text:?}"), &answer);
    }
    seen.leftovers(node);
}

fn lacking(node: &Node, seen: &mut Seen) {
    let pod = node.pod("c1");
    let commands = [
        ("CHECK", "0.3.1"),
        ("CHECK", "0.1.0"),
        ("GC", "1.0.0"),
        ("STATUS", "1.0.0"),
        ("NONSENSE", "1.0.0"),
    ];
    for (command, version) in commands {
        let mut attachment = node.attach(&v4(node), &pod);
        attachment.config["cniVersion"] = version.into();
        let answer = node.does(command, &attachment);
        seen.outcome(&format!("{command} at {version}"), &answer);
    }
}

fn versions(node: &Node, seen: &mut Seen) {
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let pod = node.pod(&format!("v{}", version.replace('.', "")));
        let mut attachment = node.attach(&v4(node), &pod);
        attachment.config["cniVersion"] = version.into();
        let answer = node.does("ADD", &attachment);
        seen.result(&format!("ADD at {version}"), &answer);
        let reached = inside(&pod, || pings("10.1.0.1"));
        seen.line(format!("    the gateway answers: {reached}"));
        if answer.success {
            attachment.config["prevResult"] = answer.json();
        }
        seen.outcome(&format!("DEL at {version}"), &node.does("DEL", &attachment));
        seen.leftovers(node);
    }
}

fn fake_ipam(node: &Node, seen: &mut Seen) {
    let calls = node.path("calls");
    let answers = [
        (
            "of version 0.2.0",
            r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.1.0.9/24","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0"}]}}"#,
        ),
        ("that is no JSON", "nonsense"),
        ("without addresses", r#"{"cniVersion":"1.0.0","ips":[]}"#),
        ("of no known version", r#"{"cniVersion":"7.0.0","ips":[]}"#),
    ];
    for (what, document) in answers {
        let text = format!(
            "#!/bin/sh\necho $CNI_COMMAND >> {}\n[ $CNI_COMMAND != ADD ] || echo '{document}'\n",
            calls.display()
        );
        let _ = std::fs::remove_file(&calls);
        script(&node.path("bin").join("fake"), &text);
        let pod = node.pod("c1");
        let mut attachment = node.attach(&v4(node), &pod);
        attachment.config["ipam"] = json!({ "type": "fake" });
        seen.result(
            &format!("ADD with a result {what}"),
            &node.does("ADD", &attachment),
        );
        seen.line(format!("    eth0 in the pod: {}", pod.has_link("eth0")));
        let heard = std::fs::read_to_string(&calls).unwrap();
        seen.line(format!(
            "    the IPAM plugin got {:?}",
            heard.trim().replace('\n', ", ")
        ));
        seen.outcome("DEL", &node.does("DEL", &attachment));
        seen.leftovers(node);
    }
}
