//! What holds for every plugin: DEL twice, without namespace, with one that is lost; ADD that fails.

use serde_json::{Value, json};

use super::{CODE, lose, script};
use crate::chain::{self, Chain};
use crate::node::Node;
use crate::observe::{Seen, leftovers, settle};
use crate::record::Case;
use crate::scaffolding;
use crate::traffic::outside;
use crate::world::{Maker, run};

pub(super) const CASES: &[Case] = &[
    Case {
        number: "9b",
        title: "DEL of every plugin: twice, without CNI_NETNS, with a plain file as namespace",
        run: deleted,
        why: &[
            (
                "lost pod without prevResult: ok",
                "what the kernel leaves of a namespace is a plain file: DEL frees all the same, and \
                 knows a pod's state by container and interface",
            ),
            ("DEL again: ok", "what is gone already is no error"),
        ],
    },
    Case {
        number: "17b",
        title: "ADD of every plugin that fails",
        run: failed,
        why: &[
            CODE,
            ("eth0 in the pod", "a failed ADD leaves nothing"),
            (
                "DEL: ok",
                "DEL of what a wrong configuration never made has nothing to fail at",
            ),
        ],
    },
];

/// Every plugin of both sides that this kernel can run and that needs no device of its own, by
/// itself or after `bridge`.
fn kinds(node: &Node) -> Vec<Vec<Value>> {
    let ipam = || chain::addresses(node);
    let bridge = || chain::bridge(node);
    let mut masqueraded = bridge();
    masqueraded["ipMasq"] = true.into();
    vec![
        vec![bridge()],
        vec![masqueraded],
        vec![json!({ "type": "ptp", "ipMasq": true, "ipam": ipam() })],
        vec![json!({ "type": "macvlan", "master": "out0", "ipam": ipam() })],
        vec![json!({ "type": "loopback" })],
        vec![bridge(), chain::portmap(8080)],
        vec![bridge(), chain::firewall()],
        vec![bridge(), chain::bandwidth()],
        vec![bridge(), chain::tuning(node)],
        vec![bridge(), json!({ "type": "sbr" })],
    ]
}

fn name(plugins: &[Value]) -> String {
    let last = &plugins[plugins.len() - 1];
    let masqueraded = if last["ipMasq"] == true {
        " with ipMasq"
    } else {
        ""
    };
    format!("{}{masqueraded}", last["type"].as_str().unwrap())
}

/// What is left that belongs to a pod.
fn left(node: &Node) -> Vec<String> {
    let makers = [Maker::Ours, Maker::Reference];
    let names = ["bridge", "portmap", "firewall"];
    let empty: Vec<&str> = names
        .iter()
        .flat_map(|name| makers.map(|maker| scaffolding::of(name, maker)))
        .flatten()
        .copied()
        .collect();
    let mut left = leftovers(node);
    left.retain(|line| !empty.contains(&line.as_str()));
    left
}

fn deleted(node: &Node, seen: &mut Seen) {
    let _far = outside(node);
    for (number, plugins) in kinds(node).iter().enumerate() {
        let name = name(plugins);
        let pod = node.pod(&format!("a{number}"));
        let mut chain = Chain::new(node, "1.0.0", plugins, &pod);
        chain.add(node);
        seen.line(format!("{name}: DEL: {}", outcome(chain.del(node))));
        seen.line(format!("{name}: DEL again: {}", outcome(chain.del(node))));
        let without = chain.without_netns();
        seen.line(format!(
            "{name}: DEL without CNI_NETNS: {}",
            outcome(without.del(node))
        ));
        show(seen, node);

        let pod = node.pod(&format!("b{number}"));
        let mut chain = Chain::new(node, "1.0.0", plugins, &pod);
        chain.add(node);
        chain.forget();
        lose(&pod);
        settle(0);
        let lost = outcome(chain.del(node));
        seen.line(format!(
            "{name}: DEL of a lost pod without prevResult: {lost}"
        ));
        show(seen, node);
        let created = std::fs::read(&pod.path).unwrap();
        assert!(created.is_empty(), "{name} wrote to the plain file");
        clean(node);
    }
}

fn failed(node: &Node, seen: &mut Seen) {
    let _far = outside(node);
    let text = "#!/bin/sh\n[ $CNI_COMMAND != ADD ] || \
                { echo '{\"cniVersion\":\"1.0.0\",\"code\":77,\"msg\":\"no\"}'; exit 1; }\n";
    script(&node.path("bin").join("fake"), text);
    for (number, mut plugins) in kinds(node).into_iter().enumerate() {
        let name = name(&plugins);
        let last = plugins.len() - 1;
        match name.as_str() {
            "loopback" | "sbr" => continue,
            "portmap" => {
                plugins[last]["runtimeConfig"]["portMappings"][0]["protocol"] = "no".into();
            }
            "firewall" => plugins[last]["ingressPolicy"] = "no".into(),
            "bandwidth" => plugins[last]["egressBurst"] = 0.into(),
            "tuning" => plugins[last]["sysctl"] = json!({ "net.ipv4.conf.eth0.nonsense": "1" }),
            _ => plugins[last]["ipam"] = json!({ "type": "fake" }),
        }
        let pod = node.pod(&format!("c{number}"));
        let mut chain = Chain::new(node, "1.0.0", &plugins, &pod);
        let answer = chain.try_add(node);
        seen.outcome(&format!("{name}: ADD"), &answer);
        // A chained plugin leaves what the one before it made to the runtime's DEL.
        if last == 0 {
            show(seen, node);
            seen.line(format!("    eth0 in the pod: {}", pod.has_link("eth0")));
        } else {
            let rules = crate::observe::rules();
            seen.line(format!("    rules and queues: {}", rules.len()));
        }
        chain.forget();
        seen.line(format!("{name}: DEL: {}", outcome(chain.del(node))));
        show(seen, node);
        clean(node);
    }
}

fn outcome(outcome: Result<(), String>) -> &'static str {
    match outcome {
        Ok(()) => "ok",
        Err(text) if text.contains("\"code\"") => "error",
        Err(_) => "no document",
    }
}

fn show(seen: &mut Seen, node: &Node) {
    for line in left(node) {
        seen.line(format!("    left behind: {line}"));
    }
}

/// Begins anew, whatever the plugin before left.
fn clean(node: &Node) {
    run("nft", &["flush", "ruleset"]);
    for line in leftovers(node) {
        if let Some(kind) = line.strip_prefix("link ")
            && kind.starts_with("bwp")
        {
            for link in run("ip", &["-o", "link", "show", "type", "ifb"]).lines() {
                let name = link.split(": ").nth(1).unwrap();
                run("ip", &["link", "del", name]);
            }
        }
    }
    let _ = std::fs::remove_dir_all(node.path("state").join("net"));
}
