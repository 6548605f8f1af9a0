//! `ipMasq`: who sees which source address, and that nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use netstate::nft::ChainRef;
use node::setup::{outside, seen};
use node::{Node, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

fn config(node: &Node, plugin: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": plugin, "ipMasq": true, "bridge": "br0",
        "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/24",
                  "routes": [{ "dst": "0.0.0.0/0" }] },
    })
}

#[test]
fn only_what_leaves_the_subnet_gets_the_nodes_address() {
    node(|node| {
        let far = outside(node);
        for plugin in ["ptp", "bridge"] {
            let mut config = config(node, plugin);
            let (a, b) = (node.pod("a"), node.pod("b"));
            let result = node.attachment(plugin, "ADD", &config, &a).result();
            let second = node.attachment(plugin, "ADD", &config, &b).result();
            let bare = |result: &Value| {
                let text = result["ips"][0]["address"].as_str().unwrap().to_owned();
                text.split('/').next().unwrap().to_owned()
            };
            assert_eq!(seen(&a, &far, "192.0.2.2"), "192.0.2.1");
            assert_eq!(seen(&a, &b, &bare(&second)), bare(&result));
            config["prevResult"] = result;
            node.attachment(plugin, "CHECK", &config, &a).ok();
            node.attachment(plugin, "DEL", &config, &a).ok();
            let comments = || {
                let mut nftables = hostnet::Nftables::open().unwrap();
                let chain = ChainRef::inet("cni_plugins_masquerade", "masq_checks");
                let owners = nftables.rule_owners(&chain).unwrap().into_iter();
                owners.map(|owner| owner.comment).collect::<Vec<_>>()
            };
            assert_eq!(
                comments().len(),
                1,
                "one pod's DEL must leave the other's rule"
            );
            config["cni.dev/valid-attachments"] = json!([]);
            node.call(plugin, "GC", &config, &[]).ok();
            assert_eq!(comments(), [""; 0]);
            node.attachment(plugin, "DEL", &config, &b).ok();
        }
    });
}

#[test]
fn an_unknown_backend_is_refused_at_once() {
    node(|node| {
        let mut config = config(node, "ptp");
        config["ipMasqBackend"] = "ebtables".into();
        let pod = node.pod("c1");
        let error = node.attachment("ptp", "ADD", &config, &pod).error();
        let message = "ipMasqBackend \"ebtables\" is unknown; give \"nftables\" or \"iptables\"";
        assert_eq!(error, (7, message.to_owned()));
        assert_eq!(node.links(), [""; 0]);
    });
}
