//! Deletion: grace, finalizers, propagation, preconditions.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::list::ListOptions;
use super::{Api, Part, Target, WriteOptions, commit_failed, metadata, to_bytes};
use crate::json::{list, text};
use crate::status::ApiError;
use crate::store::{Change, CommitError, Expect, Stored, Write};

/// What becomes of the objects this one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay.
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds instead of the object's own grace period.
    pub grace_seconds: Option<u64>,
    /// What becomes of dependents.
    pub propagation: Option<Propagation>,
    /// Only when the object has this uid.
    pub uid: Option<String>,
    /// Only when the object has this `resourceVersion`.
    pub resource_version: Option<String>,
    /// Do everything but delete.
    pub dry_run: bool,
}

/// Outcome of a deletion.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Answer for the client: the object or a `Status`.
    pub body: bytes::Bytes,
    /// Whether the object is gone, and not only marked.
    pub gone: bool,
}

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

impl Api {
    /// Deletes an object, or marks it when it has a grace period or finalizers.
    ///
    /// # Errors
    /// 404, 409 when a precondition does not hold.
    pub async fn delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let _turn = self.turns.take(&target.key()).await;
        loop {
            let current = self.get(target)?;
            match self.delete_once(target, options, &current).await {
                Err(CommitOrApi::Commit(CommitError::Conflict(_))) => {}
                Err(CommitOrApi::Commit(error)) => {
                    return Err(commit_failed(&target.resource, &target.name, &error));
                }
                Err(CommitOrApi::Api(error)) => return Err(error),
                Ok(deleted) => return Ok(deleted),
            }
        }
    }

    async fn delete_once(
        &self,
        target: &Target,
        options: &DeleteOptions,
        current: &Stored,
    ) -> Result<Deleted, CommitOrApi> {
        let resource = &target.resource;
        let old = Self::value(resource, current)?;
        check_preconditions(target, options, &old)?;
        let new = marked(target, options, &old);
        let gone = metadata::is_finished(&new);
        if !gone && new == old {
            return Ok(Deleted {
                body: Self::serve(resource, current)?,
                gone,
            });
        }
        if options.dry_run {
            return Ok(Deleted {
                body: answer(target, &old, gone, to_bytes(&new)?)?,
                gone,
            });
        }
        let draft = Self::draft(resource, new)?;
        let change = if gone {
            Change::Delete(draft)
        } else {
            Change::Put(draft)
        };
        let expect = Expect::Revision(current.revision);
        let stored = self
            .store
            .commit(Write {
                key: target.key(),
                expect,
                change,
            })
            .await?;
        if gone {
            self.allocators.release(resource, &old);
        }
        let body = Self::serve(resource, &stored)?;
        Ok(Deleted {
            body: answer(target, &old, gone, body)?,
            gone,
        })
    }

    /// Deletes all objects that a list would show; answers that list.
    ///
    /// # Errors
    /// As the list and each deletion; objects deleted meanwhile by others do not matter.
    pub async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<bytes::Bytes, ApiError> {
        let page = self.list(
            &target.resource,
            Some(target.namespace.as_str()).filter(|n| !n.is_empty()),
            list,
        )?;
        for object in &page.objects {
            let name = &object.key.object;
            let target = Target::new(&target.resource, &name.namespace, &name.name);
            match self.delete(&target, options).await {
                Err(error) if error.code == 404 => {}
                other => drop(other?),
            }
        }
        page.to_json(&target.resource)
    }

    /// Marks a namespace's content deletion as done: see [`Part::Finalize`].
    ///
    /// # Errors
    /// As [`Api::update`].
    pub async fn finalize(&self, target: &Target, object: Value) -> Result<bytes::Bytes, ApiError> {
        let written = self
            .update(target, Part::Finalize, object, WriteOptions::default())
            .await?;
        Ok(written.body)
    }
}

/// Why one attempt failed.
enum CommitOrApi {
    Commit(CommitError),
    Api(ApiError),
}

impl From<CommitError> for CommitOrApi {
    fn from(error: CommitError) -> Self {
        Self::Commit(error)
    }
}

impl From<ApiError> for CommitOrApi {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

fn check_preconditions(
    target: &Target,
    options: &DeleteOptions,
    old: &Value,
) -> Result<(), ApiError> {
    let pairs = [
        ("UID", &options.uid, "/metadata/uid"),
        (
            "ResourceVersion",
            &options.resource_version,
            "/metadata/resourceVersion",
        ),
    ];
    for (what, wanted, pointer) in pairs {
        let found = text(old, pointer);
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(ApiError::conflict(&target.resource, &target.name, &why));
        }
    }
    Ok(())
}

/// The object with its mark of deletion.
fn marked(target: &Target, options: &DeleteOptions, old: &Value) -> Value {
    let mut new = old.clone();
    let wanted = if target.resource.graceful {
        grace(options, old)
    } else {
        0
    };
    let earlier = old
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_u64);
    let marked = !text(old, "/metadata/deletionTimestamp").is_empty();
    let metadata = &mut new["metadata"];
    // A grace period can be shortened, never prolonged.
    if !marked || earlier.is_some_and(|earlier| wanted < earlier) {
        let end = Timestamp::now()
            + SignedDuration::from_secs(i64::try_from(wanted).unwrap_or(i64::MAX / 4));
        metadata["deletionTimestamp"] = metadata::rfc3339(end).into();
        metadata["deletionGracePeriodSeconds"] = wanted.into();
    }
    let mut finalizers = list(old, "/metadata/finalizers").to_vec();
    let before = finalizers.clone();
    let (drop, add) = match options.propagation {
        Some(Propagation::Orphan) => (Some(FOREGROUND), Some(ORPHAN)),
        Some(Propagation::Foreground) => (Some(ORPHAN), Some(FOREGROUND)),
        Some(Propagation::Background) => (None, None),
        None => (None, None),
    };
    if options.propagation.is_some() {
        finalizers.retain(|name| {
            let policy = *name == ORPHAN || *name == FOREGROUND;
            !policy || (Some(name.as_str().unwrap_or_default()) != drop && add.is_some())
        });
    }
    if let Some(add) = add
        && !finalizers.contains(&add.into())
    {
        finalizers.push(add.into());
    }
    if finalizers != before {
        metadata["finalizers"] = finalizers.into();
    }
    if new["kind"] == "Namespace" {
        new["status"]["phase"] = "Terminating".into();
    }
    if target.resource.generation && !marked {
        metadata::bump_generation(&mut new);
    }
    new
}

/// Pods that no node runs need no grace.
fn grace(options: &DeleteOptions, pod: &Value) -> u64 {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    if ended || text(pod, "/spec/nodeName").is_empty() {
        return 0;
    }
    let own = pod
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_u64);
    options.grace_seconds.unwrap_or_else(|| own.unwrap_or(30))
}

fn answer(
    target: &Target,
    old: &Value,
    gone: bool,
    object: bytes::Bytes,
) -> Result<bytes::Bytes, ApiError> {
    let resource = &target.resource;
    if !gone || resource.returns_deleted {
        return Ok(object);
    }
    let mut details = json!({
        "name": target.name, "kind": resource.plural, "uid": text(old, "/metadata/uid"),
    });
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    to_bytes(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    }))
}
