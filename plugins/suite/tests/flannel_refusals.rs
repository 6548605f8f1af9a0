//! `flannel`: what it refuses, and in which words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod node;

use node::{Answer, Node, Pod, config_file, node};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

const SUBNET: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                      FLANNEL_IPV6_NETWORK=fd00:10::/56\nFLANNEL_IPV6_SUBNET=fd00:10:0:1::1/64\n\
                      FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

fn config(node: &Node, network: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": network, "type": "flannel",
        "subnetFile": node.path("subnet.env"), "dataDir": node.path("saved"),
        "delegate": { "bridge": "br0", "isDefaultGateway": true },
        "ipam": { "dataDir": node.path("state") },
    })
}

fn call(node: &Node, command: &str, config: &Value, pod: &Pod) -> Answer {
    let variables = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", pod.path.to_str().unwrap()),
    ];
    node.call("flannel", command, config, &variables)
}

#[test]
fn status_says_what_an_add_would_wait_for() {
    node(|node| {
        let (config, pod) = (config(node, "cbr0"), node.pod("c1"));
        assert_eq!(call(node, "ADD", &config, &pod).error().0, 11);
        assert_eq!(node.call("flannel", "STATUS", &config, &[]).error().0, 50);
        config_file(&node.path("subnet.env"), SUBNET);
        node.call("flannel", "STATUS", &config, &[]).ok();
        let text = SUBNET.replace("10.244.1.1/24", "10.244.1.1/30");
        config_file(&node.path("subnet.env"), &text);
        call(node, "ADD", &config, &pod).result();
        let full = node.call("flannel", "STATUS", &config, &[]).error();
        assert_eq!(full.0, 50, "the delegate's IPAM is asked: {full:?}");
    });
}

#[test]
fn a_subnet_file_that_is_wrong_is_named_with_key_and_value() {
    node(|node| {
        let (config, pod) = (config(node, "cbr0"), node.pod("c1"));
        let file = node.path("subnet.env");
        for (text, problem) in [
            (
                SUBNET.replace("1450", "large"),
                "FLANNEL_MTU \"large\" is no number",
            ),
            (
                SUBNET.replace("10.244.0.0/16", "10.244.0.0"),
                "FLANNEL_NETWORK \"10.244.0.0\" is no subnet such as 10.244.1.1/24",
            ),
            (
                SUBNET.replace("=true", "=maybe"),
                "FLANNEL_IPMASQ \"maybe\" is not true or false",
            ),
        ] {
            config_file(&file, &text);
            let message = format!("subnet file {}: {problem}", file.display());
            let answer = call(node, "ADD", &config, &pod);
            assert_eq!(answer.error(), (7, message));
        }
        config_file(&file, "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n");
        let message = format!(
            "subnet file {} has no FLANNEL_NETWORK or FLANNEL_IPV6_NETWORK, FLANNEL_IPMASQ",
            file.display()
        );
        let answer = call(node, "ADD", &config, &pod);
        assert_eq!(answer.error(), (7, message));
        assert!(!node.path("saved").exists());
    });
}

#[test]
fn a_wrong_configuration_is_named() {
    node(|node| {
        let pod = node.pod("c1");
        for (field, value, message) in [
            (
                "delegate",
                json!({ "name": "x" }),
                "delegate.name is set by flannel itself; remove it",
            ),
            (
                "delegate",
                json!({ "ipam": {} }),
                "delegate.ipam is set by flannel itself; remove it",
            ),
            (
                "delegate",
                json!({ "type": 7 }),
                "delegate.type 7 must be the name of another plugin",
            ),
            (
                "delegate",
                json!({ "type": "flannel" }),
                "delegate.type \"flannel\" must be the name of another plugin",
            ),
            (
                "ipam",
                json!({ "type": [] }),
                "ipam.type [] must be the name of a plugin",
            ),
            (
                "ipam",
                json!({ "routes": "x" }),
                "ipam.routes \"x\" must be a list such as [{\"dst\":\"…\"}]",
            ),
            (
                "dataDir",
                json!("saved"),
                "dataDir \"saved\" is no absolute path; give one that begins with /",
            ),
        ] {
            let mut config = config(node, "cbr0");
            config[field] = value;
            let answer = call(node, "ADD", &config, &pod);
            assert_eq!(answer.error(), (7, message.to_owned()));
        }
    });
}
