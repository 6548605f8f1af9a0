//! A change of a Deployment's replicas while templates are being replaced: every set grows or shrinks
//! in proportion, so that the rollout keeps its balance.

use k8s_openapi::api::apps::v1::Deployment;

use super::draft::{Draft, Rollout, desired};
use super::{DESIRED, MAXIMUM, rolling};

/// Whether the Deployment's replicas changed since its sets were last scaled.
pub(super) fn was_rescaled(rollout: &Rollout<'_>) -> bool {
    let wanted = i64::from(desired(rollout.deployment));
    rollout
        .all()
        .filter(|draft| draft.replicas() > 0)
        .filter_map(|draft| draft.number(DESIRED))
        .any(|noted| noted != wanted)
}

/// Scales the sets without progress of the rollout.
pub(super) fn scale(rollout: &mut Rollout<'_>) {
    let deployment = rollout.deployment;
    let wanted = desired(deployment);
    if let Some(only) = sole(rollout) {
        only.scale(wanted, deployment);
        return;
    }
    if is_saturated(rollout) {
        rolling::shrink_all_old(rollout);
        if let Some(newest) = &mut rollout.newest {
            newest.scale(wanted, deployment);
        }
        return;
    }
    if !rollout.is_recreate() {
        scale_in_proportion(rollout);
    }
}

/// The one set with replicas; when there is none, the newest or else the last.
fn sole<'r>(rollout: &'r mut Rollout<'_>) -> Option<&'r mut Draft> {
    match rollout.all().filter(|draft| draft.replicas() > 0).count() {
        0 if rollout.newest.is_some() => rollout.newest.as_mut(),
        0 => rollout.old.last_mut(),
        1 => rollout
            .old
            .iter_mut()
            .chain(&mut rollout.newest)
            .find(|draft| draft.replicas() > 0),
        _ => None,
    }
}

/// Whether the newest set has all it was asked for, and had been asked for all.
fn is_saturated(rollout: &Rollout<'_>) -> bool {
    let wanted = desired(rollout.deployment);
    rollout.newest.as_ref().is_some_and(|newest| {
        newest.replicas() == wanted
            && newest.number(DESIRED) == Some(wanted.into())
            && newest.available() == wanted
    })
}

fn scale_in_proportion(rollout: &mut Rollout<'_>) {
    let deployment = rollout.deployment;
    let wanted = desired(deployment);
    let allowed = if wanted > 0 {
        wanted + rollout.limits().surge
    } else {
        0
    };
    let to_add = allowed - rollout.total();
    let mut drafts: Vec<&mut Draft> = rollout
        .old
        .iter_mut()
        .chain(&mut rollout.newest)
        .filter(|draft| draft.replicas() > 0)
        .collect();
    // Growth favours the newer of two equal sets, shrinking hits the older.
    if to_add > 0 {
        drafts.reverse();
    }
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.replicas()));
    let mut added = 0;
    let mut sizes = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let part = proportion(draft, deployment, allowed, to_add, added);
        added += part;
        sizes.push(draft.replicas() + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (draft, size) in drafts.into_iter().zip(sizes) {
        draft.scale(size, deployment);
    }
}

fn proportion(
    draft: &Draft,
    deployment: &Deployment,
    allowed: i32,
    to_add: i32,
    added: i32,
) -> i32 {
    if to_add == 0 {
        return 0;
    }
    let left = to_add - added;
    let fraction = fraction(draft, deployment, allowed);
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

/// What the set would gain or lose if all grew alike, rounded to the nearest number.
fn fraction(draft: &Draft, deployment: &Deployment, allowed: i32) -> i32 {
    if desired(deployment) == 0 {
        return -draft.replicas();
    }
    let status = deployment
        .status
        .as_ref()
        .and_then(|status| status.replicas);
    let before = draft.number(MAXIMUM).filter(|number| *number > 0);
    let before = before.unwrap_or_else(|| i64::from(status.unwrap_or(allowed).max(1)));
    let product = i64::from(draft.replicas()) * i64::from(allowed);
    let size = (2 * product + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - draft.replicas()
}
