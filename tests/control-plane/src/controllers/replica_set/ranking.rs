//! Which pods go first when there are too many.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::controllers::object::name_of;
use crate::controllers::pod_state;
use crate::controllers::snapshot::Snapshot;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pods in the order in which they should go: unbound before bound, pending before running, not
/// ready before ready, cheap before dear, from crowded nodes before lonely ones, recently ready
/// before long ready, often restarted before steady, young before old.
pub(super) fn first_to_go<'a>(pods: &[&'a Arc<Pod>], snapshot: &Snapshot) -> Vec<&'a Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for node in pods.iter().filter_map(|pod| pod_state::node_name(pod)) {
        if snapshot.nodes.get("", node).is_some() {
            *crowd.entry(node).or_default() += 1;
        }
    }
    let mut ranked = pods.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let node = pod_state::node_name(pod);
        let neighbours = node
            .and_then(|node| crowd.get(node))
            .copied()
            .unwrap_or_default();
        (
            node.is_some(),
            phase_rank(pod_state::phase(pod)),
            pod_state::is_ready(pod),
            deletion_cost(pod),
            Reverse(neighbours),
            Reverse(pod_state::ready_since(pod).unwrap_or(Timestamp::MIN)),
            Reverse(restarts(pod)),
            Reverse(pod.metadata.creation_timestamp.as_ref().map(|time| time.0)),
            name_of(&pod.metadata).to_owned(),
        )
    });
    ranked
}

fn phase_rank(phase: &str) -> u8 {
    match phase {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|annotations| annotations.get(DELETION_COST)?.parse().ok())
        .unwrap_or_default()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let counts = statuses
        .into_iter()
        .flatten()
        .map(|status| status.restart_count);
    counts.max().unwrap_or_default()
}
