//! Which of several nodes is best for a pod.

use k8s_openapi::api::core::v1::{Node, Pod, WeightedPodAffinityTerm};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::affinity::selects;
use super::filter::{matches_node_term, taints, tolerated, tolerations};
use crate::controllers::object::{controller_of, name_of};
use crate::controllers::pod_state;
use crate::controllers::snapshot::Snapshot;

/// Best mark of a criterion.
const FULL: i64 = 100;

/// The best node; of equals the first by name. Each criterion gives its best node 100 and the others
/// their share of it; criteria are weighted as Kubernetes does by default.
pub(super) fn best<'a>(
    pod: &Pod,
    nodes: &[&'a Arc<Node>],
    snapshot: &Snapshot,
) -> Option<&'a Arc<Node>> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let rules = between_pods(pod, snapshot);
    let criteria: [(i64, Vec<i64>); 5] = [
        (3, marks(nodes, |node| -repelling_taints(pod, node))),
        (2, marks(nodes, |node| node_preference(pod, node))),
        (2, marks(nodes, |node| pod_preference(node, &rules))),
        (2, marks(nodes, |node| -siblings(pod, node, snapshot))),
        (1, marks(nodes, |node| -crowd(node, snapshot))),
    ];
    let total = |index: usize| -> i64 {
        criteria
            .iter()
            .map(|(weight, marks)| weight * marks[index])
            .sum()
    };
    // `max_by_key` takes the last of equals.
    let index = (0..nodes.len()).rev().max_by_key(|index| total(*index))?;
    Some(nodes[index])
}

/// Stretches a criterion to 0..=100; when all nodes are equal it decides nothing.
fn marks(nodes: &[&Arc<Node>], criterion: impl Fn(&Node) -> i64) -> Vec<i64> {
    let raw: Vec<i64> = nodes.iter().map(|node| criterion(node)).collect();
    let least = raw.iter().min().copied().unwrap_or_default();
    let range = raw.iter().max().copied().unwrap_or_default() - least;
    raw.into_iter()
        .map(|value| {
            if range == 0 {
                0
            } else {
                (value - least) * FULL / range
            }
        })
        .collect()
}

fn repelling_taints(pod: &Pod, node: &Node) -> i64 {
    let tolerations = tolerations(pod);
    let taints = taints(node);
    let count = taints
        .iter()
        .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerated(taint, tolerations))
        .count();
    number(count)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn node_preference(pod: &Pod, node: &Node) -> i64 {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|affinity| {
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    preferred
        .into_iter()
        .flatten()
        .filter(|term| matches_node_term(&term.preference, node))
        .map(|term| i64::from(term.weight))
        .sum()
}

/// Weights by topology key and value, from preferred affinity and anti-affinity.
type Weights = BTreeMap<(String, String), i64>;

fn between_pods(pod: &Pod, snapshot: &Snapshot) -> Weights {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let towards = affinity.and_then(|affinity| {
        let rules = affinity.pod_affinity.as_ref()?;
        rules
            .preferred_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let away = affinity.and_then(|affinity| {
        let rules = affinity.pod_anti_affinity.as_ref()?;
        rules
            .preferred_during_scheduling_ignored_during_execution
            .as_deref()
    });
    let terms = |terms: Option<&[WeightedPodAffinityTerm]>, sign: i64| {
        let terms = terms.unwrap_or_default().to_vec();
        terms
            .into_iter()
            .map(move |term| (term.pod_affinity_term, sign * i64::from(term.weight)))
    };
    let terms: Vec<_> = terms(towards, 1).chain(terms(away, -1)).collect();
    let mut weights = Weights::new();
    if terms.is_empty() {
        return weights;
    }
    for node in snapshot.nodes.iter() {
        for other in snapshot.pods_on(name_of(&node.metadata)) {
            for (term, weight) in &terms {
                let labels = node.metadata.labels.as_ref();
                let value = labels.and_then(|labels| labels.get(&term.topology_key));
                if let Some(value) = value.filter(|_| selects(term, pod, other, snapshot)) {
                    let domain = (term.topology_key.clone(), value.clone());
                    *weights.entry(domain).or_default() += weight;
                }
            }
        }
    }
    weights
}

fn pod_preference(node: &Node, weights: &Weights) -> i64 {
    let labels = node.metadata.labels.iter().flatten();
    labels
        .filter_map(|(key, value)| weights.get(&(key.clone(), value.clone())))
        .sum()
}

/// Pods of the same controller on the node: replicas are spread.
fn siblings(pod: &Pod, node: &Node, snapshot: &Snapshot) -> i64 {
    let Some(owner) = controller_of(&pod.metadata) else {
        return 0;
    };
    let same = |other: &&Arc<Pod>| {
        controller_of(&other.metadata).is_some_and(|found| found.uid == owner.uid)
            && pod_state::is_active(other)
    };
    number(
        snapshot
            .pods_on(name_of(&node.metadata))
            .filter(same)
            .count(),
    )
}

/// Pods on the node, of whatever kind.
fn crowd(node: &Node, snapshot: &Snapshot) -> i64 {
    let pods = snapshot.pods_on(name_of(&node.metadata));
    number(pods.filter(|pod| !pod_state::is_terminal(pod)).count())
}
