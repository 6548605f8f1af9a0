//! ReplicaSets as revisions of a Deployment's template.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

use super::draft::{Draft, Rollout};
use super::{DESIRED, MAXIMUM, REVISION, TEMPLATE_HASH};
use crate::controllers::action::{Action, Deletion, to_value};
use crate::controllers::labels::Labels;
use crate::controllers::object::{controller_reference, name_of};

/// Annotations of a Deployment that its ReplicaSets do not take over.
const OWN_ANNOTATIONS: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    DESIRED,
    MAXIMUM,
];
/// Letters of names: without vowels and look-alikes, as Kubernetes has them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Replica sets kept for rolling back when the Deployment does not say.
const HISTORY: i32 = 10;

/// Whether the set was made from the Deployment's current template.
pub(super) fn has_template_of(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .map(|spec| without_hash(&spec.template));
    let found = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref())
        .map(without_hash);
    wanted == found
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    let metadata = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(TEMPLATE_HASH);
    }
    if metadata.labels.as_ref().is_some_and(BTreeMap::is_empty) {
        metadata.labels = None;
    }
    metadata.creation_timestamp = None;
    template
}

/// A name for the template: equal templates have equal names until a collision is counted.
fn template_hash(deployment: &Deployment) -> String {
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count);
    let mut hash = Sha256::new();
    if let Some(spec) = &deployment.spec {
        hash.update(to_value(&spec.template).to_string());
    }
    hash.update(collisions.unwrap_or_default().to_be_bytes());
    let letters = hash.finalize();
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    letters.iter().take(10).map(letter).collect()
}

/// The ReplicaSet of the Deployment's current template, with no replicas yet.
pub(super) fn new_set(deployment: &Deployment, revision: i64) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = template_hash(deployment);
    let mut template = spec.template;
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut selector = spec.selector;
    let wanted = selector.match_labels.get_or_insert_default();
    wanted.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let mut annotations = inherited(deployment);
    annotations.insert(REVISION.to_owned(), revision.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name_of(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels: template
                .metadata
                .as_ref()
                .and_then(|metadata| metadata.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn inherited(deployment: &Deployment) -> Labels {
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    annotations
}

/// Brings an existing set of the current template up to date and returns its revision: the next one
/// when it was rolled back to, otherwise the one it has.
pub(super) fn renew(draft: &mut Draft, deployment: &Deployment, next: i64) -> i64 {
    let revision = draft.number(REVISION).unwrap_or_default().max(next);
    let annotations = draft.set.metadata.annotations.get_or_insert_default();
    annotations.extend(inherited(deployment));
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let (Some(set), Some(wanted)) = (&mut draft.set.spec, &deployment.spec) {
        set.min_ready_seconds = wanted.min_ready_seconds;
    }
    revision
}

/// Deletes the oldest sets that hold nothing any more, beyond the history to be kept.
pub(super) fn clean_up(rollout: &Rollout<'_>) -> Vec<Action> {
    let limit = rollout.spec().revision_history_limit.unwrap_or(HISTORY);
    let limit = usize::try_from(limit).unwrap_or_default();
    if !super::status::is_complete(rollout) || rollout.old.len() <= limit {
        return Vec::new();
    }
    let mut past: Vec<&Draft> = rollout.old.iter().collect();
    past.sort_by_key(|draft| draft.number(REVISION).unwrap_or_default());
    let surplus = past.len() - limit;
    past.into_iter()
        .take(surplus)
        .filter(|draft| {
            let pods = draft
                .set
                .status
                .as_ref()
                .map_or(0, |status| status.replicas);
            let leaving = draft.set.metadata.deletion_timestamp.is_some();
            pods == 0 && draft.replicas() == 0 && draft.observed() && !leaving
        })
        .map(|draft| Action::delete(&draft.set, Deletion::default()))
        .collect()
}
