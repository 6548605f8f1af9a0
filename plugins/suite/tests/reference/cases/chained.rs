//! What the cases of chained plugins have in common: a pod on a bridge, both of the side that is
//! looked at.

use serde_json::Value;

use crate::chain;
use crate::node::{Node, Pod};
use crate::traffic::inside;
use crate::world::{Attachment, run};

/// A pod on bridge `bridge`, and what its ADD returned.
pub(super) fn pod_on(node: &Node, bridge: &str, id: &str) -> (Pod, Attachment, Value) {
    let pod = node.pod(id);
    inside(&pod, || run("ip", &["link", "set", "lo", "up"]));
    let mut config = chain::bridge(node);
    let number = bridge.trim_start_matches("br");
    config["bridge"] = bridge.into();
    config["cniVersion"] = "1.0.0".into();
    config["name"] = format!("net{number}").into();
    config["ipam"]["subnet"] = format!("10.{}.0.0/24", 1 + number.parse::<u8>().unwrap()).into();
    let mut attachment = node.attach(&config, &pod);
    let result = node.added(&mut attachment);
    (pod, attachment, result)
}

/// `config` chained after what returned `before`.
pub(super) fn chained(node: &Node, config: &Value, pod: &Pod, before: &Value) -> Attachment {
    let mut config = config.clone();
    config["cniVersion"] = "1.0.0".into();
    config["name"] = "net0".into();
    config["prevResult"] = before.clone();
    node.attach(&config, pod)
}
