//! A Deployment's ReplicaSets as they are and as they shall be.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use serde_json::json;
use std::sync::Arc;

use super::{DESIRED, Limits, MAXIMUM, REVISION, revisions, status};
use crate::controllers::action::Action;
use crate::controllers::object::Key;
use crate::controllers::replica_set::replicas;
use crate::controllers::snapshot::Snapshot;

/// One ReplicaSet to be changed.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// As the API has it; `None` when it is to be created.
    pub(super) original: Option<Arc<ReplicaSet>>,
    /// As it shall be.
    pub(super) set: ReplicaSet,
}

impl Draft {
    /// Replicas asked for.
    pub(super) fn replicas(&self) -> i32 {
        replicas(&self.set)
    }

    /// Replicas that are available.
    pub(super) fn available(&self) -> i32 {
        let status = self.set.status.as_ref();
        status
            .and_then(|status| status.available_replicas)
            .unwrap_or_default()
    }

    /// An annotation that holds a number.
    pub(super) fn number(&self, annotation: &str) -> Option<i64> {
        let annotations = self.set.metadata.annotations.as_ref()?;
        annotations.get(annotation)?.parse().ok()
    }

    fn annotate(&mut self, name: &str, value: i64) {
        let annotations = self.set.metadata.annotations.get_or_insert_default();
        annotations.insert(name.to_owned(), value.to_string());
    }

    /// Sets the number of replicas, and returns whether that is another one than before.
    pub(super) fn scale(&mut self, replicas: i32, deployment: &Deployment) -> bool {
        let desired = desired(deployment);
        self.annotate(DESIRED, desired.into());
        self.annotate(
            MAXIMUM,
            i64::from(desired) + i64::from(Limits::of(deployment).surge),
        );
        let changed = self.replicas() != replicas;
        if let Some(spec) = &mut self.set.spec {
            spec.replicas = Some(replicas.max(0));
        }
        changed
    }

    /// Whether the API has the set under the generation that its status speaks of.
    pub(super) fn observed(&self) -> bool {
        let seen = self
            .set
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        seen >= self.set.metadata.generation
    }

    /// The write that brings the draft about.
    fn action(&self) -> Option<Action> {
        match &self.original {
            Some(original) => Action::update(original.as_ref(), &self.set, None),
            None => Some(Action::create(&self.set)),
        }
    }
}

/// Replicas a Deployment asks for.
pub(super) fn desired(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// The state of one Deployment during a reconcile.
pub(super) struct Rollout<'a> {
    pub(super) deployment: &'a Deployment,
    /// The set of the current template.
    pub(super) newest: Option<Draft>,
    /// The others, oldest first.
    pub(super) old: Vec<Draft>,
    /// Number of the current template, once known.
    pub(super) revision: Option<i64>,
}

impl<'a> Rollout<'a> {
    /// Sorts the sets of a Deployment.
    pub(super) fn new(deployment: &'a Deployment, sets: &[&Arc<ReplicaSet>]) -> Self {
        let mut sets = sets.to_vec();
        sets.sort_by_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, set.metadata.name.clone())
        });
        let newest = sets
            .iter()
            .position(|set| revisions::has_template_of(set, deployment));
        let newest = newest.map(|position| sets.remove(position));
        let draft = |set: &Arc<ReplicaSet>| Draft {
            original: Some(set.clone()),
            set: set.as_ref().clone(),
        };
        Self {
            deployment,
            newest: newest.map(draft),
            old: sets.into_iter().map(draft).collect(),
            revision: None,
        }
    }

    /// The Deployment's specification; an absent one is an empty one.
    pub(super) fn spec(&self) -> &'a DeploymentSpec {
        static EMPTY: std::sync::LazyLock<DeploymentSpec> =
            std::sync::LazyLock::new(DeploymentSpec::default);
        match &self.deployment.spec {
            Some(spec) => spec,
            None => &EMPTY,
        }
    }

    pub(super) fn is_recreate(&self) -> bool {
        let strategy = self.spec().strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
    }

    pub(super) fn limits(&self) -> Limits {
        Limits::of(self.deployment)
    }

    /// All sets, the newest last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Draft> {
        self.old.iter().chain(&self.newest)
    }

    /// Replicas asked of all sets together.
    pub(super) fn total(&self) -> i32 {
        self.all().map(Draft::replicas).sum()
    }

    /// Replicas available in all sets together.
    pub(super) fn available(&self) -> i32 {
        self.all().map(Draft::available).sum()
    }

    /// Brings the newest set's annotations up to date, if that set exists.
    pub(super) fn renew_existing(&mut self) {
        let next = self.next_revision();
        let deployment = self.deployment;
        if let Some(newest) = &mut self.newest {
            self.revision = Some(revisions::renew(newest, deployment, next));
        }
    }

    /// Brings the newest set up to date or drafts it. The answer is not `None` when its name is
    /// taken by something else: then only another name can be tried, in a round of its own.
    pub(super) fn ensure_newest(&mut self, snapshot: &Snapshot) -> Option<Vec<Action>> {
        if self.newest.is_some() {
            self.renew_existing();
            return None;
        }
        let revision = self.next_revision();
        let mut draft = Draft {
            original: None,
            set: revisions::new_set(self.deployment, revision),
        };
        let metadata = &draft.set.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        if snapshot.replica_sets.get(namespace, name).is_some() {
            return Some(vec![self.count_collision()]);
        }
        let room = desired(self.deployment) + self.limits().surge - self.total();
        let first = if self.is_recreate() {
            desired(self.deployment)
        } else {
            room
        };
        draft.scale(first.clamp(0, desired(self.deployment)), self.deployment);
        self.newest = Some(draft);
        self.revision = Some(revision);
        None
    }

    fn next_revision(&self) -> i64 {
        let numbers = self.old.iter().filter_map(|draft| draft.number(REVISION));
        numbers.max().unwrap_or_default() + 1
    }

    fn count_collision(&self) -> Action {
        let status = self.deployment.status.as_ref();
        let count = status
            .and_then(|status| status.collision_count)
            .unwrap_or_default();
        Action::Patch {
            key: Key::of(self.deployment),
            subresource: Some("status"),
            patch: json!({"status": {"collisionCount": count + 1}}),
        }
    }

    /// The status alone, for a Deployment that is going.
    pub(super) fn status_only(&self, now: Timestamp) -> Vec<Action> {
        status::actions(self, now)
    }

    /// Everything that follows from the drafts.
    pub(super) fn finish(self, now: Timestamp) -> Vec<Action> {
        let mut actions: Vec<Action> = self.all().filter_map(Draft::action).collect();
        actions.extend(revisions::clean_up(&self));
        actions.extend(status::actions(&self, now));
        actions.extend(self.annotate_deployment());
        actions
    }

    /// Not guarded by the resource version: the status was written just before.
    fn annotate_deployment(&self) -> Option<Action> {
        let revision = self.revision?.to_string();
        let annotations = self.deployment.metadata.annotations.as_ref();
        if annotations.and_then(|annotations| annotations.get(REVISION)) == Some(&revision) {
            return None;
        }
        Some(Action::Patch {
            key: Key::of(self.deployment),
            subresource: None,
            patch: json!({"metadata": {"annotations": {REVISION: revision}}}),
        })
    }
}
