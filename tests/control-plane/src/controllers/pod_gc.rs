//! Removes pods that no node agent will ever confirm as gone: those bound to a node that does not
//! exist, and deleted ones that never had a node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::action::{Action, Deletion};
use super::controller::Controller;
use super::object::{Change, Key};
use super::pod_state;
use super::snapshot::Snapshot;

/// The controller.
pub(crate) struct PodGc;

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-gc"
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        if change.key.is::<Pod>() && change.after::<Pod>().is_some() {
            return vec![change.key.clone()];
        }
        if change.key.is::<Node>() && change.after::<Node>().is_none() {
            let pods = snapshot.pods_on(&change.key.name);
            return pods.map(|pod| Key::of(pod.as_ref())).collect();
        }
        Vec::new()
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, _now: Timestamp) -> Vec<Action> {
        let Some(pod) = snapshot.pods.get(&key.namespace, &key.name) else {
            return Vec::new();
        };
        let removal = Action::delete(pod.as_ref(), Deletion::FORCED);
        match pod_state::node_name(pod) {
            None if pod_state::is_terminating(pod) => vec![removal],
            Some(node) if snapshot.nodes.get("", node).is_none() => vec![Action::IfAbsent {
                absent: vec![(Key::new::<Node>("", node), None)],
                then: Box::new(removal),
            }],
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ago, now, snapshot};
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    fn pod(node: Option<&str>, deleted: bool) -> Value {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"containers": [], "nodeName": node},
        });
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!(ago(1));
        }
        pod
    }

    fn reconcile(pod: Value) -> Vec<Action> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        PodGc.reconcile(
            &Key::new::<Pod>("shop", "p"),
            &snapshot(&[node, pod]),
            now(),
        )
    }

    #[test]
    fn only_pods_without_a_node_agent_are_removed() {
        let removal = Action::Delete {
            key: Key::new::<Pod>("shop", "p"),
            uid: "p-uid".to_owned(),
            how: Deletion::FORCED,
        };
        assert_eq!(reconcile(pod(None, true)), std::slice::from_ref(&removal));
        let guarded = Action::IfAbsent {
            absent: vec![(Key::new::<Node>("", "gone"), None)],
            then: Box::new(removal),
        };
        assert_eq!(reconcile(pod(Some("gone"), false)), [guarded]);
        assert_eq!(reconcile(pod(None, false)), []);
        assert_eq!(reconcile(pod(Some("n1"), true)), []);
    }
}
