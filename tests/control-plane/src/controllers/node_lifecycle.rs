//! Nodes that are silent: when a node's Lease has not been renewed for 40 s its conditions become
//! `Unknown`, its pods are no longer ready, and taints keep new pods away.
//!
//! Silence counts from the start of this process at the earliest: a control plane that was away must
//! not find all nodes dead.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::Action;
use super::controller::Controller;
use super::object::{Change, Key};
use super::pod_state;
use super::snapshot::Snapshot;

/// Silence after which a node's state is unknown.
const GRACE: SignedDuration = SignedDuration::from_secs(40);
const LEASES: &str = "kube-node-lease";
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The controller.
pub(crate) struct NodeLifecycle;

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn affected(&self, change: &Change, _snapshot: &Snapshot) -> Vec<Key> {
        let is_lease = change.key.is::<Lease>() && change.key.namespace == LEASES;
        if change.key.is::<Node>() || is_lease {
            return vec![Key::new::<Node>("", &change.key.name)];
        }
        Vec::new()
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        let Some(node) = snapshot.nodes.get("", &key.name) else {
            return Vec::new();
        };
        let deadline = last_sign_of_life(node, snapshot) + GRACE;
        if now < deadline {
            let left = deadline.duration_since(now).try_into().unwrap_or_default();
            return set_taints(node, now)
                .into_iter()
                .chain([Action::Recheck(left)])
                .collect();
        }
        let mut actions: Vec<Action> = snapshot
            .pods_on(&key.name)
            .filter(|pod| pod_state::is_ready(pod))
            .filter_map(|pod| mark_not_ready(pod, now))
            .collect();
        // One write to the node per round: the second would meet a newer resource version.
        let write = mark_unknown(node, now).or_else(|| set_taints(node, now));
        actions.extend(write);
        actions
    }
}

fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

fn last_sign_of_life(node: &Node, snapshot: &Snapshot) -> Timestamp {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let lease = snapshot.leases.get(LEASES, name);
    let renewed = lease
        .and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref())
        .map(|time| time.0);
    let reported = condition(node, "Ready")
        .and_then(|ready| ready.last_heartbeat_time.as_ref())
        .map(|time| time.0);
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    [renewed, reported, created]
        .into_iter()
        .flatten()
        .fold(snapshot.observing_since, Timestamp::max)
}

fn mark_unknown(node: &Node, now: Timestamp) -> Option<Action> {
    let mut new = node.clone();
    let conditions = new
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    for type_ in CONDITIONS {
        let position = conditions
            .iter()
            .position(|condition| condition.type_ == type_);
        let (reason, message) = match position {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => (
                "NodeStatusNeverUpdated",
                "Kubelet never posted node status.",
            ),
        };
        let old = position.map(|position| conditions.remove(position));
        if let Some(old) = old.clone().filter(|old| old.status == "Unknown") {
            conditions.push(old);
            continue;
        }
        conditions.push(NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(now)),
            last_heartbeat_time: old.and_then(|old| old.last_heartbeat_time),
        });
    }
    let unchanged = CONDITIONS
        .iter()
        .all(|type_| condition(node, type_).is_some_and(|old| old.status == "Unknown"));
    if unchanged {
        return None;
    }
    tracing::info!(
        node = node.metadata.name.as_deref(),
        "node has fallen silent"
    );
    Action::update(node, &new, Some("status"))
}

fn mark_not_ready(pod: &Pod, now: Timestamp) -> Option<Action> {
    let mut new = pod.clone();
    let conditions = new.status.as_mut()?.conditions.as_mut()?;
    let ready = conditions
        .iter_mut()
        .find(|condition| condition.type_ == "Ready")?;
    ready.status = "False".to_owned();
    ready.reason = Some("NodeNotReady".to_owned());
    ready.last_transition_time = Some(Time(now));
    Action::update(pod, &new, Some("status"))
}

/// Taints that say what the `Ready` condition says; other taints are left alone.
fn set_taints(node: &Node, now: Timestamp) -> Option<Action> {
    let key = match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("True") => None,
        Some("Unknown") => Some(UNREACHABLE),
        Some(_) | None => Some(NOT_READY),
    };
    let mut new = node.clone();
    let spec = new.spec.get_or_insert_default();
    let mut taints = spec.taints.take().unwrap_or_default();
    let is_ours = |taint: &Taint| taint.key == NOT_READY || taint.key == UNREACHABLE;
    taints.retain(|taint| !is_ours(taint) || Some(taint.key.as_str()) == key);
    for effect in ["NoSchedule", "NoExecute"] {
        let Some(key) = key else { continue };
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: (effect == "NoExecute").then_some(Time(now)),
                value: None,
            });
        }
    }
    spec.taints = (!taints.is_empty()).then_some(taints);
    let before = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    if before == new.spec.as_ref().and_then(|spec| spec.taints.as_ref()) {
        return None;
    }
    Action::update(node, &new, None)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ago, now, snapshot};
    use super::*;
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn node(ready: &str, taints: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "creationTimestamp": ago(3600)},
            "spec": {"taints": taints},
            "status": {"conditions": [
                {"type": "Ready", "status": ready, "reason": "KubeletReady",
                 "lastHeartbeatTime": ago(300), "lastTransitionTime": ago(3600)},
                {"type": "NetworkUnavailable", "status": "False"},
            ]},
        })
    }

    fn lease(seconds: i64) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "n1", "namespace": "kube-node-lease"},
            "spec": {"renewTime": format!("{:.6}", now() - SignedDuration::from_secs(seconds))},
        })
    }

    fn taints(key: &str) -> Value {
        json!([{"key": key, "effect": "NoSchedule"},
               {"key": key, "effect": "NoExecute", "timeAdded": now().to_string()}])
    }

    fn reconcile(objects: &[Value]) -> Vec<Action> {
        NodeLifecycle.reconcile(&Key::new::<Node>("", "n1"), &snapshot(objects), now())
    }

    fn patch_of_node(subresource: Option<&'static str>, patch: Value) -> Action {
        Action::Patch {
            key: Key::new::<Node>("", "n1"),
            subresource,
            patch,
        }
    }

    #[test]
    fn a_node_that_renews_its_lease_is_looked_at_again_when_that_runs_out() {
        let actions = reconcile(&[node("True", &json!(null)), lease(15)]);
        assert_eq!(actions, [Action::Recheck(Duration::from_secs(25))]);
    }

    #[test]
    fn taints_follow_readiness() {
        let wait = Action::Recheck(Duration::from_secs(40));
        let other = json!({"key": "mine", "effect": "NoSchedule"});
        let patch =
            json!({"metadata": {"resourceVersion": "1"}, "spec": {"taints": taints(NOT_READY)}});
        assert_eq!(
            reconcile(&[node("False", &json!(null)), lease(0)]),
            [patch_of_node(None, patch), wait.clone()]
        );
        let mut before = taints(UNREACHABLE);
        before.as_array_mut().unwrap().push(other.clone());
        let patch = json!({"metadata": {"resourceVersion": "1"}, "spec": {"taints": [other]}});
        assert_eq!(
            reconcile(&[node("True", &before), lease(0)]),
            [patch_of_node(None, patch), wait]
        );
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_its_pods_unready_then_it_is_tainted() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": ago(60)}]},
        });
        let unknown = |type_: &str, reason: &str, message: &str| {
            json!({"type": type_, "status": "Unknown", "reason": reason, "message": message,
                   "lastTransitionTime": now().to_string()})
        };
        let never = [
            "NodeStatusNeverUpdated",
            "Kubelet never posted node status.",
        ];
        let mut ready = unknown(
            "Ready",
            "NodeStatusUnknown",
            "Kubelet stopped posting node status.",
        );
        ready["lastHeartbeatTime"] = json!(ago(300));
        let conditions = json!([
            {"type": "NetworkUnavailable", "status": "False"},
            ready,
            unknown("MemoryPressure", never[0], never[1]),
            unknown("DiskPressure", never[0], never[1]),
            unknown("PIDPressure", never[0], never[1]),
        ]);
        let not_ready = json!([{"type": "Ready", "status": "False", "reason": "NodeNotReady",
                                "lastTransitionTime": now().to_string()}]);
        assert_eq!(
            reconcile(&[node("True", &json!(null)), lease(41), pod]),
            [
                Action::Patch {
                    key: Key::new::<Pod>("shop", "p"),
                    subresource: Some("status"),
                    patch: json!({"metadata": {"resourceVersion": "3"}, "status": {"conditions": not_ready}}),
                },
                patch_of_node(
                    Some("status"),
                    json!({"metadata": {"resourceVersion": "1"}, "status": {"conditions": conditions}}),
                ),
            ]
        );
        let mut marked = node("True", &json!(null));
        marked["status"]["conditions"] = conditions;
        let patch =
            json!({"metadata": {"resourceVersion": "1"}, "spec": {"taints": taints(UNREACHABLE)}});
        assert_eq!(
            reconcile(&[marked, lease(41)]),
            [patch_of_node(None, patch)]
        );
    }

    #[test]
    fn silence_counts_from_the_start_of_this_process() {
        let mut snapshot = snapshot(&[node("True", &json!(null)), lease(3000)]);
        snapshot.observing_since = now() - SignedDuration::from_secs(10);
        let actions = NodeLifecycle.reconcile(&Key::new::<Node>("", "n1"), &snapshot, now());
        assert_eq!(actions, [Action::Recheck(Duration::from_secs(30))]);
    }
}
