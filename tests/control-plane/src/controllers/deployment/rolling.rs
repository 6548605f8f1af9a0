//! Replacing pods of old templates by pods of the current one.

use super::draft::{Draft, Rollout, desired};

/// Grows (or shrinks) the newest set as far as the surge allows; returns whether it changed.
pub(super) fn grow_newest(rollout: &mut Rollout<'_>) -> bool {
    let deployment = rollout.deployment;
    let wanted = desired(deployment);
    let limit = wanted + rollout.limits().surge;
    let total = rollout.total();
    let recreate = rollout.is_recreate();
    let Some(newest) = &mut rollout.newest else {
        return false;
    };
    if newest.original.is_none() {
        return false;
    }
    let now = newest.replicas();
    if now == wanted {
        return false;
    }
    let next = if now > wanted || recreate {
        wanted
    } else {
        now + (limit - total).clamp(0, wanted - now)
    };
    newest.scale(next, deployment)
}

/// Shrinks the old sets as far as enough pods stay available: first what is not available anyway,
/// then what the newest set has already replaced.
pub(super) fn shrink_old(rollout: &mut Rollout<'_>) {
    if rollout.old.iter().all(|draft| draft.replicas() == 0) {
        return;
    }
    let minimum = desired(rollout.deployment) - rollout.limits().unavailable;
    let not_yet = rollout
        .newest
        .as_ref()
        .map_or(0, |newest| newest.replicas() - newest.available());
    let dispensable = rollout.total() - minimum - not_yet;
    if dispensable <= 0 {
        return;
    }
    shrink_unhealthy(rollout, dispensable);
    let surplus = rollout.available() - minimum;
    shrink(rollout, surplus, Draft::replicas);
}

fn shrink_unhealthy(rollout: &mut Rollout<'_>, most: i32) {
    shrink(rollout, most, |draft| draft.replicas() - draft.available());
}

/// Takes up to `most` replicas from the old sets, oldest first, from each at most what `spare` says.
fn shrink(rollout: &mut Rollout<'_>, most: i32, spare: impl Fn(&Draft) -> i32) {
    let deployment = rollout.deployment;
    let mut left = most;
    for draft in &mut rollout.old {
        let part = spare(draft).min(left);
        if part > 0 && draft.replicas() > 0 {
            left -= part;
            draft.scale(draft.replicas() - part, deployment);
        }
    }
}

/// Shrinks all old sets to nothing; returns whether any changed.
pub(super) fn shrink_all_old(rollout: &mut Rollout<'_>) -> bool {
    let deployment = rollout.deployment;
    let mut changed = false;
    for draft in rollout.old.iter_mut().filter(|draft| draft.replicas() > 0) {
        changed |= draft.scale(0, deployment);
    }
    changed
}
