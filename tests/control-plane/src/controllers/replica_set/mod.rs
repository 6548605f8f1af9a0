//! ReplicaSets: as many pods as asked for.

mod ranking;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

use super::action::{Action, Deletion};
use super::controller::Controller;
use super::labels::matches_all;
use super::object::{Change, Key};
use super::ownership::{claim, interested};
use super::pod_state;
use super::pod_template::pod_of;
use super::snapshot::Snapshot;

/// Most pods created or deleted in one round.
const BURST: usize = 500;

/// The controller.
pub(crate) struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replica-set"
    }

    fn width(&self) -> usize {
        4
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        if change.key.is::<ReplicaSet>() {
            return vec![change.key.clone()];
        }
        if !change.key.is::<Pod>() {
            return Vec::new();
        }
        let candidates = snapshot.replica_sets.in_namespace(&change.key.namespace);
        interested::<ReplicaSet, Pod>(change, candidates, |set| {
            set.spec.as_ref().map(|spec| &spec.selector)
        })
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        let Some(set) = snapshot.replica_sets.get(&key.namespace, &key.name) else {
            return Vec::new();
        };
        let Some(spec) = &set.spec else {
            return Vec::new();
        };
        let candidates = snapshot.pods.in_namespace(&key.namespace);
        let claim = claim(
            set.as_ref(),
            &spec.selector,
            candidates,
            pod_state::is_active,
        );
        let mut actions = claim.actions;
        let active: Vec<&Arc<Pod>> = claim
            .owned
            .into_iter()
            .filter(|pod| pod_state::is_active(pod))
            .collect();
        if set.metadata.deletion_timestamp.is_none() {
            actions.extend(scale(set, &active, snapshot));
        }
        actions.extend(update_status(set, &active, now));
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        let pods = active.iter().map(|pod| pod.as_ref());
        actions.extend(pod_state::next_available(pods, min_ready, now).map(Action::Recheck));
        actions
    }
}

/// The number of pods asked for.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

fn scale(set: &ReplicaSet, active: &[&Arc<Pod>], snapshot: &Snapshot) -> Vec<Action> {
    let wanted = usize::try_from(replicas(set)).unwrap_or_default();
    if active.len() < wanted {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
            return Vec::new();
        };
        let missing = (wanted - active.len()).min(BURST);
        return vec![Action::create(&pod_of(set, template)); missing];
    }
    let surplus = (active.len() - wanted).min(BURST);
    ranking::first_to_go(active, snapshot)
        .into_iter()
        .take(surplus)
        .map(|pod| Action::delete(pod.as_ref(), Deletion::default()))
        .collect()
}

fn update_status(set: &ReplicaSet, active: &[&Arc<Pod>], now: Timestamp) -> Option<Action> {
    let spec = set.spec.as_ref()?;
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let template_labels = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let count = |holds: &dyn Fn(&Pod) -> bool| {
        let number = active.iter().filter(|pod| holds(pod)).count();
        i32::try_from(number).unwrap_or(i32::MAX)
    };
    let ready = count(&pod_state::is_ready);
    let available = count(&|pod| pod_state::is_available(pod, min_ready, now));
    let labelled = count(&|pod| matches_all(&template_labels, pod.metadata.labels.as_ref()));
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: stated(labelled, old.fully_labeled_replicas),
        ready_replicas: stated(ready, old.ready_replicas),
        available_replicas: stated(available, old.available_replicas),
        observed_generation: set.metadata.generation,
        ..old
    };
    let new = ReplicaSet {
        status: Some(status),
        ..set.clone()
    };
    Action::update(set, &new, Some("status"))
}

/// Zero counts are left out of a status unless they were written before.
fn stated(count: i32, before: Option<i32>) -> Option<i32> {
    (count != 0 || before.is_some()).then_some(count)
}
