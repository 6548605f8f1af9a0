//! `firewall`, chained after `bridge`.

use super::FIREWALL_CHAINS;
use super::chained::{chained, pod_on};
use crate::chain;
use crate::node::Node;
use crate::observe::{Seen, outcome};
use crate::record::Case;
use crate::traffic::{Server, inside, is_silent, outside};
use crate::world::run;

pub(super) const CASES: &[Case] = &[
    Case {
        number: "53",
        title: "firewall: forwarding where nothing else may pass, and the administrator's rules",
        run: open,
        why: &[(
            "OWNERS",
            "an empty chain beside those of the reference: it says whose each rule is, so that DEL and GC need no prevResult",
        )],
    },
    Case {
        number: "54",
        title: "firewall: who reaches whom over two bridges",
        run: policies,
        why: &[
            FIREWALL_CHAINS,
            (
                "isolated",
                "ingressPolicy isolated is of later reference plugins; pods reach nobody",
            ),
            (
                "nonsense",
                "a wrong policy is found before any rule is made",
            ),
            (
                "CNI-ISOLATION-STAGE-2 -o br0",
                "the rules of a bridge go with its last pod",
            ),
        ],
    },
    Case {
        number: "55",
        title: "firewall: DEL without prevResult",
        run: forgotten,
        why: &[
            FIREWALL_CHAINS,
            (
                "-s 10.1.0.2/32",
                "DEL knows the pod's rules by container and interface",
            ),
        ],
    },
];

fn open(node: &Node, seen: &mut Seen) {
    let far = outside(node);
    let (pod, _, before) = pod_on(node, "br0", "c1");
    run("iptables", &["-P", "FORWARD", "DROP"]);
    let reached = || inside(&pod, || !is_silent("192.0.2.2:7000"));
    let server = Server::start(&far, "0.0.0.0:7000");
    seen.line(format!("the pod reaches outside before ADD: {}", reached()));
    let attachment = chained(node, &chain::firewall(), &pod, &before);
    seen.outcome("ADD", &node.does("ADD", &attachment));
    seen.line(format!("the pod reaches outside: {}", reached()));
    seen.outcome("CHECK", &node.does("CHECK", &attachment));
    let into = before["ips"][0]["address"]
        .as_str()
        .unwrap()
        .replace("/24", ":7000");
    let inward = inside(&far, || !is_silent(&into));
    seen.line(format!("outside reaches the pod: {inward}"));
    let admin = ["CNI-ADMIN", "-d", "192.0.2.2", "-j", "DROP"];
    let chain = std::process::Command::new("iptables")
        .args(["-S", "CNI-ADMIN"])
        .output();
    let there = chain.unwrap().status.success();
    seen.line(format!("chain CNI-ADMIN is there: {there}"));
    if there {
        run("iptables", &[&["-A"][..], &admin[..]].concat());
        seen.line(format!(
            "the pod reaches outside against CNI-ADMIN: {}",
            reached()
        ));
        run("iptables", &[&["-D"][..], &admin[..]].concat());
    }
    seen.outcome("DEL", &node.does("DEL", &attachment));
    seen.line(format!("the pod reaches outside after DEL: {}", reached()));
    seen.outcome("DEL again", &node.does("DEL", &attachment));
    drop(server);
    seen.leftovers(node);
}

fn policies(node: &Node, seen: &mut Seen) {
    for policy in ["open", "same-bridge", "isolated", "nonsense"] {
        let mut pods = vec![];
        for (bridge, id) in [("br0", "a"), ("br0", "b"), ("br1", "c")] {
            let (pod, attachment, before) = pod_on(node, bridge, &format!("{id}-{policy}"));
            let mut config = chain::firewall();
            config["ingressPolicy"] = policy.into();
            let firewall = chained(node, &config, &pod, &before);
            let answer = node.does("ADD", &firewall);
            seen.line(format!("{policy}: ADD of {id}: {}", outcome(&answer)));
            let ip = before["ips"][0]["address"].as_str().unwrap();
            let ip = ip.split('/').next().unwrap().to_owned();
            pods.push((id, pod, attachment, firewall, ip));
        }
        for (from, pod, ..) in &pods {
            for (to, .., ip) in &pods {
                if from != to && policy != "nonsense" {
                    let reached = inside(pod, || crate::traffic::pings_once(ip));
                    seen.line(format!("    {from} reaches {to}: {reached}"));
                }
            }
        }
        for (id, _, attachment, firewall, _) in &pods {
            let answer = node.does("DEL", firewall);
            seen.line(format!("{policy}: DEL of {id}: {}", outcome(&answer)));
            assert!(node.does("DEL", attachment).success);
        }
        seen.leftovers(node);
        run("nft", &["flush", "ruleset"]);
    }
}

fn forgotten(node: &Node, seen: &mut Seen) {
    let (pod, bridge, before) = pod_on(node, "br0", "c1");
    let mut attachment = chained(node, &chain::firewall(), &pod, &before);
    seen.outcome("ADD", &node.does("ADD", &attachment));
    attachment
        .config
        .as_object_mut()
        .unwrap()
        .remove("prevResult");
    seen.outcome("DEL without prevResult", &node.does("DEL", &attachment));
    assert!(node.does("DEL", &bridge).success);
    seen.leftovers(node);
}
