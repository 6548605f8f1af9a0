//! What a Deployment reports of itself.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::draft::{Draft, Rollout, desired};
use crate::controllers::action::Action;
use crate::controllers::object::name_of;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const COMPLETE: &str = "NewReplicaSetAvailable";
const MOVING: &str = "ReplicaSetUpdated";
const PAUSED: &str = "DeploymentPaused";

/// The write of the status if it changed, and a recheck at the progress deadline.
pub(super) fn actions(rollout: &Rollout<'_>, now: Timestamp) -> Vec<Action> {
    let status = status(rollout, now);
    let recheck = deadline(rollout, &status).and_then(|deadline| {
        let left = deadline.duration_since(now).max(SignedDuration::ZERO);
        Some(Action::Recheck(left.try_into().ok()?))
    });
    let new = Deployment {
        status: Some(status),
        ..rollout.deployment.clone()
    };
    Action::update(rollout.deployment, &new, Some("status"))
        .into_iter()
        .chain(recheck)
        .collect()
}

/// Whether every pod is of the current template and available.
pub(super) fn is_complete(rollout: &Rollout<'_>) -> bool {
    all_there(&counts(rollout), desired(rollout.deployment))
}

fn all_there(status: &DeploymentStatus, wanted: i32) -> bool {
    [
        status.updated_replicas,
        status.replicas,
        status.available_replicas,
    ]
    .iter()
    .all(|count| count.unwrap_or_default() == wanted)
}

fn counts(rollout: &Rollout<'_>) -> DeploymentStatus {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let count = |draft: &Draft, of: &dyn Fn(&ReplicaSetStatus) -> i32| {
        draft.set.status.as_ref().map_or(0, of)
    };
    let sum = |of: &dyn Fn(&ReplicaSetStatus) -> i32| -> i32 {
        rollout.all().map(|draft| count(draft, of)).sum()
    };
    let updated = rollout.newest.as_ref();
    let updated = updated.map_or(0, |newest| count(newest, &|status| status.replicas));
    let available = rollout.available();
    let stated = |count: i32| (count != 0).then_some(count);
    DeploymentStatus {
        replicas: stated(sum(&|status| status.replicas)),
        updated_replicas: stated(updated),
        ready_replicas: stated(sum(&|status| status.ready_replicas.unwrap_or_default())),
        available_replicas: stated(available),
        unavailable_replicas: stated((rollout.total() - available).max(0)),
        observed_generation: rollout.deployment.metadata.generation,
        ..old
    }
}

fn status(rollout: &Rollout<'_>, now: Timestamp) -> DeploymentStatus {
    let mut status = counts(rollout);
    let mut conditions = status.conditions.take().unwrap_or_default();
    set_condition(&mut conditions, available(rollout), now);
    progress(rollout, &status, &mut conditions, now);
    status.conditions = Some(conditions);
    status
}

/// A condition to be: type, status, reason, message.
struct Verdict {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

fn available(rollout: &Rollout<'_>) -> Verdict {
    let minimum = desired(rollout.deployment) - rollout.limits().unavailable;
    let (status, reason, message) = if rollout.available() >= minimum {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    Verdict {
        type_: AVAILABLE,
        status,
        reason,
        message: message.to_owned(),
    }
}

fn progress(
    rollout: &Rollout<'_>,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
) {
    if rollout.spec().progress_deadline_seconds.unwrap_or(600) == i32::MAX {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        return;
    }
    let current = conditions
        .iter()
        .find(|condition| condition.type_ == PROGRESSING);
    let state = Progress {
        reason: current.and_then(|condition| condition.reason.as_deref()),
        moved: current.is_none() || has_progressed(rollout, status),
        overdue: deadline(rollout, &with(status, conditions)).is_some_and(|end| end <= now),
    };
    let Some(verdict) = judge(rollout, status, &state) else {
        return;
    };
    if verdict.reason != MOVING {
        set_condition(conditions, verdict, now);
        return;
    }
    // Every step renews the update time, from which the deadline counts.
    let since = conditions
        .iter()
        .find(|condition| condition.type_ == PROGRESSING && condition.status == "True")
        .and_then(|condition| condition.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != PROGRESSING);
    conditions.push(condition(verdict, since, now));
}

/// What decides the `Progressing` condition, beside the counts.
struct Progress<'a> {
    /// The condition's reason so far.
    reason: Option<&'a str>,
    /// Whether anything moved since the status was last written.
    moved: bool,
    /// Whether the deadline has passed.
    overdue: bool,
}

/// The `Progressing` condition to be; `None` when it stays as it is.
fn judge(
    rollout: &Rollout<'_>,
    status: &DeploymentStatus,
    state: &Progress<'_>,
) -> Option<Verdict> {
    let newest = rollout.newest.as_ref();
    let name = newest.map(|newest| name_of(&newest.set.metadata));
    let subject = name.map_or("Deployment".to_owned(), |name| {
        format!("ReplicaSet \"{name}\"")
    });
    let verdict = |status, reason, message: String| {
        Some(Verdict {
            type_: PROGRESSING,
            status,
            reason,
            message,
        })
    };
    let was_paused = state.reason == Some(PAUSED);
    if rollout.spec().paused.unwrap_or_default() {
        if was_paused {
            return None;
        }
        return verdict("Unknown", PAUSED, "Deployment is paused".to_owned());
    }
    if was_paused {
        return verdict(
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".to_owned(),
        );
    }
    if newest.is_some_and(|newest| newest.original.is_none()) {
        let message = format!("Created new replica set \"{}\"", name.unwrap_or_default());
        return verdict("True", "NewReplicaSetCreated", message);
    }
    if all_there(status, desired(rollout.deployment)) {
        return verdict(
            "True",
            COMPLETE,
            format!("{subject} has successfully progressed."),
        );
    }
    if state.moved {
        return verdict("True", MOVING, format!("{subject} is progressing."));
    }
    if state.overdue {
        let message = format!("{subject} has timed out progressing.");
        return verdict("False", "ProgressDeadlineExceeded", message);
    }
    None
}

fn with(status: &DeploymentStatus, conditions: &[DeploymentCondition]) -> DeploymentStatus {
    DeploymentStatus {
        conditions: Some(conditions.to_vec()),
        ..status.clone()
    }
}

/// Whether more pods are of the current template, ready or available, or fewer are old, than the
/// status last written says.
fn has_progressed(rollout: &Rollout<'_>, new: &DeploymentStatus) -> bool {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let updated = |status: &DeploymentStatus| status.updated_replicas.unwrap_or_default();
    let outdated =
        |status: &DeploymentStatus| status.replicas.unwrap_or_default() - updated(status);
    updated(new) > updated(&old)
        || outdated(new) < outdated(&old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// When the rollout counts as stuck unless something moves before.
fn deadline(rollout: &Rollout<'_>, status: &DeploymentStatus) -> Option<Timestamp> {
    let seconds = rollout.spec().progress_deadline_seconds.unwrap_or(600);
    if seconds == i32::MAX || rollout.spec().paused.unwrap_or_default() {
        return None;
    }
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|condition| condition.type_ == PROGRESSING)?;
    let settled = [COMPLETE, "ProgressDeadlineExceeded"];
    if condition
        .reason
        .as_deref()
        .is_some_and(|reason| settled.contains(&reason))
    {
        return None;
    }
    let since = condition.last_update_time.as_ref()?.0;
    since
        .checked_add(SignedDuration::from_secs(seconds.into()))
        .ok()
}

/// Sets a condition; its times stay when status and reason do, and its transition time stays when
/// the status does.
fn set_condition(conditions: &mut Vec<DeploymentCondition>, verdict: Verdict, now: Timestamp) {
    let position = conditions
        .iter()
        .position(|condition| condition.type_ == verdict.type_);
    let Some(found) = position.map(|position| &mut conditions[position]) else {
        conditions.push(condition(verdict, None, now));
        return;
    };
    if found.status == verdict.status && found.reason.as_deref() == Some(verdict.reason) {
        return;
    }
    let since = (found.status == verdict.status)
        .then(|| found.last_transition_time.clone())
        .flatten();
    *found = condition(verdict, since, now);
}

fn condition(verdict: Verdict, since: Option<Time>, now: Timestamp) -> DeploymentCondition {
    let now = Time(now);
    DeploymentCondition {
        type_: verdict.type_.to_owned(),
        status: verdict.status.to_owned(),
        reason: Some(verdict.reason.to_owned()),
        message: Some(verdict.message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
    }
}
