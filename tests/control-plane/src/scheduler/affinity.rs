//! Rules between pods: required affinity and anti-affinity, and topology spread, evaluated once per
//! pod to be placed and then asked per node.

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, TopologySpreadConstraint};
use std::collections::{BTreeMap, BTreeSet};

use super::filter::matches_node_rules;
use crate::controllers::labels::{self, Labels};
use crate::controllers::object::namespace_of;
use crate::controllers::pod_state;
use crate::controllers::snapshot::Snapshot;

/// A topology key and one of its values, for example a zone.
type Domain = (String, String);

/// What the pods already placed mean for a pod to be placed.
pub(super) struct Topology {
    /// Per required affinity term: its key, the domains that satisfy it, and whether the pod may be
    /// the first of its kind.
    wanted: Vec<(String, BTreeSet<String>, bool)>,
    /// Domains the pod's own anti-affinity rules out.
    avoided: BTreeSet<Domain>,
    /// Domains that other pods' anti-affinity rules out for this pod.
    refused: BTreeSet<Domain>,
    /// Per constraint that must hold: its key, matching pods per domain, and how many a domain may
    /// have for the pod to be put there.
    spread: Vec<(String, BTreeMap<String, i64>, i64)>,
}

impl Topology {
    /// Evaluates all rules for one pod.
    pub(super) fn new(pod: &Pod, snapshot: &Snapshot) -> Self {
        let mut topology = Self {
            wanted: Vec::new(),
            avoided: BTreeSet::new(),
            refused: BTreeSet::new(),
            spread: spread(pod, snapshot),
        };
        let affinity = required_affinity(pod);
        topology.wanted = affinity
            .iter()
            .map(|term| {
                let first = selects(term, pod, pod, snapshot);
                (term.topology_key.clone(), BTreeSet::new(), first)
            })
            .collect();
        for (node, other) in placed(snapshot) {
            for (term, (_, domains, _)) in affinity.iter().zip(&mut topology.wanted) {
                if selects(term, pod, other, snapshot) {
                    domains.extend(value(node, &term.topology_key));
                }
            }
            for term in required_anti_affinity(pod) {
                if selects(term, pod, other, snapshot) {
                    topology.avoided.extend(domain(node, &term.topology_key));
                }
            }
            for term in required_anti_affinity(other) {
                if selects(term, other, pod, snapshot) {
                    topology.refused.extend(domain(node, &term.topology_key));
                }
            }
        }
        topology
    }

    /// Why this node cannot take the pod, if it is for rules between pods.
    pub(super) fn refusal(&self, node: &Node) -> Option<&'static str> {
        let in_any = |domains: &BTreeSet<Domain>| {
            domains
                .iter()
                .any(|(key, wanted)| value(node, key).as_ref() == Some(wanted))
        };
        if in_any(&self.refused) {
            return Some("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        if in_any(&self.avoided) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
        let nobody_yet = self.wanted.iter().all(|(_, domains, _)| domains.is_empty());
        let near = self.wanted.iter().all(|(key, domains, first)| {
            value(node, key).is_some_and(|value| domains.contains(&value) || nobody_yet && *first)
        });
        if !near {
            return Some("node(s) didn't match pod affinity rules");
        }
        let level = self.spread.iter().all(|(key, counts, most)| {
            value(node, key)
                .is_some_and(|value| counts.get(&value).copied().unwrap_or_default() <= *most)
        });
        (!level).then_some("node(s) didn't match pod topology spread constraints")
    }
}

/// Every pod that is on a node and has not ended, with that node.
fn placed(snapshot: &Snapshot) -> impl Iterator<Item = (&Node, &Pod)> {
    snapshot.nodes.iter().flat_map(|node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pods = snapshot
            .pods_on(name)
            .filter(|pod| !pod_state::is_terminal(pod));
        pods.map(move |pod| (node.as_ref(), pod.as_ref()))
    })
}

fn value(node: &Node, key: &str) -> Option<String> {
    node.metadata.labels.as_ref()?.get(key).cloned()
}

fn domain(node: &Node, key: &str) -> Option<Domain> {
    Some((key.to_owned(), value(node, key)?))
}

fn required_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref())
        .and_then(|rules| {
            rules
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

fn required_anti_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref())
        .and_then(|rules| {
            rules
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

/// Whether a term of `subject` selects `other`.
pub(super) fn selects(
    term: &PodAffinityTerm,
    subject: &Pod,
    other: &Pod,
    snapshot: &Snapshot,
) -> bool {
    let Some(selector) = &term.label_selector else {
        return false;
    };
    let labels = other.metadata.labels.as_ref();
    let same = |key: &String| {
        let of = |pod: &Pod| {
            pod.metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(key).cloned())
        };
        of(subject) == of(other)
    };
    in_namespaces(term, subject, namespace_of(&other.metadata), snapshot)
        && labels::matches(selector, labels)
        && term.match_label_keys.iter().flatten().all(same)
        && !term.mismatch_label_keys.iter().flatten().any(same)
}

fn in_namespaces(
    term: &PodAffinityTerm,
    subject: &Pod,
    namespace: &str,
    snapshot: &Snapshot,
) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    match &term.namespace_selector {
        None if listed.is_empty() => namespace == namespace_of(&subject.metadata),
        selector => {
            let labels = snapshot.namespaces.get("", namespace);
            let labels = labels.and_then(|namespace| namespace.metadata.labels.as_ref());
            listed.iter().any(|name| name == namespace)
                || selector
                    .as_ref()
                    .is_some_and(|selector| labels::matches(selector, labels))
        }
    }
}

fn spread(pod: &Pod, snapshot: &Snapshot) -> Vec<(String, BTreeMap<String, i64>, i64)> {
    let spec = pod.spec.as_ref();
    let constraints = spec.and_then(|spec| spec.topology_spread_constraints.as_ref());
    constraints
        .into_iter()
        .flatten()
        .filter(|constraint| constraint.when_unsatisfiable == "DoNotSchedule")
        .map(|constraint| spread_one(constraint, pod, snapshot))
        .collect()
}

/// Counts the matching pods per domain. A domain may be chosen while it has no more of them than the
/// emptiest one plus the skew allowed, this pod included.
fn spread_one(
    constraint: &TopologySpreadConstraint,
    pod: &Pod,
    snapshot: &Snapshot,
) -> (String, BTreeMap<String, i64>, i64) {
    let matches = |labels: Option<&Labels>| {
        let selector = constraint.label_selector.as_ref();
        selector.is_some_and(|selector| labels::matches(selector, labels))
    };
    let key = &constraint.topology_key;
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for node in snapshot
        .nodes
        .iter()
        .filter(|node| matches_node_rules(pod, node))
    {
        if let Some(value) = value(node, key) {
            counts.entry(value).or_default();
        }
    }
    for (node, other) in placed(snapshot) {
        let counted = namespace_of(&other.metadata) == namespace_of(&pod.metadata)
            && !pod_state::is_terminating(other)
            && matches(other.metadata.labels.as_ref());
        let count = value(node, key).and_then(|value| counts.get_mut(&value));
        if let Some(count) = count.filter(|_| counted) {
            *count += 1;
        }
    }
    let domains = i64::try_from(counts.len()).unwrap_or(i64::MAX);
    let too_few = constraint
        .min_domains
        .is_some_and(|least| domains < i64::from(least));
    let emptiest = if too_few {
        0
    } else {
        counts.values().min().copied().unwrap_or_default()
    };
    let this = i64::from(matches(pod.metadata.labels.as_ref()));
    (
        key.clone(),
        counts,
        emptiest + i64::from(constraint.max_skew) - this,
    )
}
