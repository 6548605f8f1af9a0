//! Deployments: a ReplicaSet per pod template, the newest one grown and the others shrunk within the
//! limits of the strategy.

mod draft;
mod revisions;
mod rolling;
mod scaling;
mod status;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::action::Action;
use super::controller::Controller;
use super::labels;
use super::object::{Change, Key, ResourceType, controller_of, is_controlled_by, uid_of};
use super::ownership::{claim, interested};
use super::pod_state;
use super::snapshot::Snapshot;
use draft::Rollout;

/// Counts the templates a Deployment has had; on the Deployment and on its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// On a ReplicaSet: the Deployment's replicas when it was last scaled.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// On a ReplicaSet: replicas plus surge when it was last scaled.
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// Label that tells the pods of one ReplicaSet from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The controller.
pub(crate) struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn width(&self) -> usize {
        4
    }

    fn affected(&self, change: &Change, snapshot: &Snapshot) -> Vec<Key> {
        if change.key.is::<Deployment>() {
            return vec![change.key.clone()];
        }
        if change.key.is::<ReplicaSet>() {
            let candidates = snapshot.deployments.in_namespace(&change.key.namespace);
            return interested::<Deployment, ReplicaSet>(change, candidates, |deployment| {
                deployment.spec.as_ref().map(|spec| &spec.selector)
            });
        }
        // Recreate waits until the old pods are gone.
        match (change.before::<Pod>(), change.after::<Pod>()) {
            (Some(pod), None) => deployment_of_pod(pod, &change.key.namespace, snapshot),
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, key: &Key, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        let Some(deployment) = snapshot.deployments.get(&key.namespace, &key.name) else {
            return Vec::new();
        };
        let Some(spec) = &deployment.spec else {
            return Vec::new();
        };
        if labels::is_empty(&spec.selector) {
            tracing::warn!(deployment = %key, "selector is empty: it would select every pod; nothing done");
            return Vec::new();
        }
        let candidates = snapshot.replica_sets.in_namespace(&key.namespace);
        let claim = claim(deployment.as_ref(), &spec.selector, candidates, |_| true);
        let mut actions = claim.actions;
        let rollout = Rollout::new(deployment, &claim.owned);
        if deployment.metadata.deletion_timestamp.is_some() {
            actions.extend(rollout.status_only(now));
            return actions;
        }
        actions.extend(roll_out(rollout, snapshot, now));
        actions
    }
}

fn roll_out(mut rollout: Rollout<'_>, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
    let paused = rollout.spec().paused.unwrap_or_default();
    if paused || scaling::was_rescaled(&rollout) {
        rollout.renew_existing();
        scaling::scale(&mut rollout);
    } else if rollout.is_recreate() {
        rollout.renew_existing();
        let shrunk = rolling::shrink_all_old(&mut rollout);
        if !shrunk && !has_old_pods(&rollout, snapshot) {
            if let Some(actions) = rollout.ensure_newest(snapshot) {
                return actions;
            }
            rolling::grow_newest(&mut rollout);
        }
    } else {
        if let Some(actions) = rollout.ensure_newest(snapshot) {
            return actions;
        }
        if !rolling::grow_newest(&mut rollout) {
            rolling::shrink_old(&mut rollout);
        }
    }
    rollout.finish(now)
}

fn has_old_pods(rollout: &Rollout<'_>, snapshot: &Snapshot) -> bool {
    let namespace = &rollout.deployment.metadata.namespace;
    snapshot
        .pods
        .in_namespace(namespace.as_deref().unwrap_or_default())
        .filter(|pod| !pod_state::is_terminal(pod))
        .any(|pod| {
            rollout
                .old
                .iter()
                .any(|draft| is_controlled_by(&pod.metadata, uid_of(&draft.set.metadata)))
        })
}

fn deployment_of_pod(pod: &Pod, namespace: &str, snapshot: &Snapshot) -> Vec<Key> {
    let set = controller_of(&pod.metadata)
        .filter(|owner| ResourceType::of::<ReplicaSet>().is_named_by(owner))
        .and_then(|owner| snapshot.replica_sets.get(namespace, &owner.name));
    set.and_then(|set| controller_of(&set.metadata))
        .filter(|owner| ResourceType::of::<Deployment>().is_named_by(owner))
        .map(|owner| Key::new::<Deployment>(namespace, &owner.name))
        .into_iter()
        .collect()
}

/// How many pods there may be above, and how many may be missing below, the replicas asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    surge: i32,
    unavailable: i32,
}

impl Limits {
    fn of(deployment: &Deployment) -> Self {
        let none = Self {
            surge: 0,
            unavailable: 0,
        };
        let Some(spec) = &deployment.spec else {
            return none;
        };
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return none;
        }
        let replicas = spec.replicas.unwrap_or(1);
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let surge = share(surge, replicas, true);
        let unavailable = share(unavailable, replicas, false);
        // With both at zero nothing could ever move.
        let unavailable = if surge == 0 {
            unavailable.max(1)
        } else {
            unavailable
        };
        Self {
            surge,
            unavailable: unavailable.min(replicas),
        }
    }
}

/// A number, or a percentage of `whole` rounded up or down; a quarter when absent.
fn share(value: Option<&IntOrString>, whole: i32, round_up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or_default(),
        None => 25_i64,
    };
    let product = i64::from(whole) * percent;
    let share = if round_up {
        (product + 99) / 100
    } else {
        product / 100
    };
    i32::try_from(share.max(0)).unwrap_or(i32::MAX)
}
