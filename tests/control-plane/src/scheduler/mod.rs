//! The scheduler: binds each pod to the best of the nodes that can take it.
//!
//! `filter` says which nodes can, `score` which of them is best; both are pure. Runs on the
//! controllers' runtime with a snapshot of its own, one pod at a time, so that every decision sees
//! all earlier ones.

mod affinity;
mod filter;
mod resources;
mod score;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::controllers::action::Action;
use crate::controllers::controller::Controller;
use crate::controllers::events::{Note, record};
use crate::controllers::object::{Change, Key, ResourceType, name_of, namespace_of, uid_of};
use crate::controllers::pod_state;
use crate::controllers::runtime;
use crate::controllers::snapshot::Snapshot;

/// The scheduler's name, as `spec.schedulerName` has it.
const NAME: &str = "default-scheduler";

/// Runs the scheduler until `shutdown`.
///
/// # Errors
/// When the API does not serve pods, nodes or namespaces, or an internal task fails.
pub async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let resources = vec![
        ResourceType::of::<Namespace>(),
        ResourceType::of::<Node>(),
        ResourceType::of::<Pod>(),
    ];
    runtime::run(client, vec![Box::new(Scheduler)], resources, shutdown).await
}

struct Scheduler;

impl Controller for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        let mut keys = Vec::new();
        let (old, new) = (change.before::<Pod>(), change.after::<Pod>());
        if new.is_some_and(is_ours) && !is_own_note(old, new) {
            keys.push(change.key.clone());
        }
        if frees_something(change) {
            let waiting = snapshot.pods_on("").filter(|pod| is_ours(pod));
            keys.extend(waiting.map(|pod| Key::of(pod.as_ref())));
        }
        keys
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        let pod = snapshot.pods.get(&key.namespace, &key.name);
        let Some(pod) = pod.filter(|pod| is_ours(pod)) else {
            return Vec::new();
        };
        match choose(pod, snapshot) {
            Ok(node) => bind(pod, name_of(&node.metadata), now),
            Err(message) => report(pod, &message, now),
        }
    }
}

/// Whether the pod waits for this scheduler.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    pod_state::node_name(pod).is_none()
        && pod_state::is_active(pod)
        && spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

/// Whether only the status changed, which for a waiting pod is this scheduler's own report.
fn is_own_note(old: Option<&Pod>, new: Option<&Pod>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return false;
    };
    old.spec == new.spec
        && old.metadata.labels == new.metadata.labels
        && old.metadata.uid == new.metadata.uid
}

/// Whether a change may let a waiting pod find a place.
fn frees_something(change: &Change) -> bool {
    if change.key.is::<Node>() {
        let relevant = |node: &Node| {
            let status = node.status.clone().unwrap_or_default();
            let spec = node.spec.clone().unwrap_or_default();
            let conditions: Vec<(String, String)> = status
                .conditions
                .into_iter()
                .flatten()
                .map(|condition| (condition.type_, condition.status))
                .collect();
            let labels = node.metadata.labels.clone();
            (
                labels,
                spec.taints,
                spec.unschedulable,
                status.allocatable,
                conditions,
            )
        };
        let new = change.after::<Node>().map(relevant);
        return new.is_some() && change.before::<Node>().map(relevant) != new;
    }
    let holds = |pod: &Pod| pod_state::node_name(pod).is_some() && !pod_state::is_terminal(pod);
    let (old, new) = (change.before::<Pod>(), change.after::<Pod>());
    let labels = |pod: Option<&Pod>| pod.and_then(|pod| pod.metadata.labels.clone());
    // Another pod's end makes room; its arrival or new labels may be what an affinity waits for.
    old.is_some_and(holds) != new.is_some_and(holds)
        || new.is_some_and(holds) && labels(old) != labels(new)
}

/// The best node, or why there is none.
fn choose<'a>(pod: &Pod, snapshot: &'a Snapshot) -> Result<&'a Arc<Node>, String> {
    let topology = affinity::Topology::new(pod, snapshot);
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut feasible = Vec::new();
    let mut nodes = 0;
    for node in snapshot.nodes.iter() {
        nodes += 1;
        let reasons = filter::refusals(pod, node, snapshot, &topology);
        if reasons.is_empty() {
            feasible.push(node);
        }
        for reason in reasons {
            *refusals.entry(reason).or_default() += 1;
        }
    }
    score::best(pod, &feasible, snapshot).ok_or_else(|| refusal_message(nodes, &refusals))
}

fn refusal_message(nodes: usize, refusals: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let parts: Vec<String> = refusals
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

fn bind(pod: &Pod, node: &str, now: Timestamp) -> Vec<Action> {
    let metadata = &pod.metadata;
    let (namespace, name) = (namespace_of(metadata), name_of(metadata));
    let message = format!("Successfully assigned {namespace}/{name} to {node}");
    let note = Note {
        type_: "Normal",
        reason: "Scheduled",
        message: &message,
        component: NAME,
    };
    vec![
        Action::Bind {
            pod: Key::of(pod),
            uid: uid_of(metadata).to_owned(),
            node: node.to_owned(),
        },
        record(pod, &note, now),
    ]
}

/// Says in the pod's conditions, and in an event when that is news, why it has no node.
fn report(pod: &Pod, message: &str, now: Timestamp) -> Vec<Action> {
    const TYPE: &str = "PodScheduled";
    let known = pod_state::condition(pod, TYPE);
    if known.is_some_and(|known| known.message.as_deref() == Some(message)) {
        return Vec::new();
    }
    let since = known
        .filter(|known| known.status == "False")
        .and_then(|known| known.last_transition_time.clone());
    let condition = PodCondition {
        type_: TYPE.to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        ..PodCondition::default()
    };
    let mut new = pod.clone();
    let conditions = new
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    conditions.retain(|condition| condition.type_ != TYPE);
    conditions.push(condition);
    let note = Note {
        type_: "Warning",
        reason: "FailedScheduling",
        message,
        component: NAME,
    };
    let mut actions: Vec<Action> = Action::update(pod, &new, Some("status"))
        .into_iter()
        .collect();
    actions.push(record(pod, &note, now));
    actions
}
