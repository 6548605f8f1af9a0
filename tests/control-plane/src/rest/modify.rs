//! Changes of an object: read, change, check, commit, and again when somebody was faster.

use std::sync::Arc;

use serde_json::Value;

use super::{Api, Target, WriteOptions, Written, commit_failed, metadata, to_bytes};
use crate::json::{carry, text};
use crate::patch::Patch;
use crate::status::ApiError;
use crate::store::{Change, CommitError, Expect, Stored, Write};
use crate::validation;

/// Attempts of a change that is not tied to a version.
const ATTEMPTS: usize = 8;

/// Which part of the object a client may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status.
    Main,
    /// Status, labels and annotations.
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
    /// What the server itself decided: taken as it is.
    Internal,
}

/// A change, applied to the current version in the version its resource serves.
pub(super) type Edit<'a> = &'a (dyn Fn(Value) -> Result<Value, ApiError> + Send + Sync);

impl Api {
    /// Replaces an object (PUT).
    ///
    /// # Errors
    /// 404, 409 when the body's `resourceVersion` is not current, 422 when it is not valid.
    pub async fn update(
        &self,
        target: &Target,
        part: Part,
        object: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut object = object;
        metadata::identify(target, &mut object)?;
        let uid = text(&object, "/metadata/uid").to_owned();
        let edit = |old: Value| {
            let found = text(&old, "/metadata/uid");
            if !uid.is_empty() && uid != found {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
                );
                return Err(ApiError::conflict(&target.resource, &target.name, &why));
            }
            Ok(object.clone())
        };
        self.modify(target, part, options, &edit).await
    }

    /// Patches an object.
    ///
    /// # Errors
    /// As [`Api::update`]; 400 or 422 for a patch that cannot be applied.
    pub async fn patch(
        &self,
        target: &Target,
        part: Part,
        patch: &Patch,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let edit = |old: Value| {
            let mut new = patch.apply(&target.resource, old)?;
            metadata::identify(target, &mut new)?;
            Ok(new)
        };
        self.modify(target, part, options, &edit).await
    }

    /// Applies an edit to the current version until it holds.
    pub(super) async fn modify(
        &self,
        target: &Target,
        part: Part,
        options: WriteOptions,
        edit: Edit<'_>,
    ) -> Result<Written, ApiError> {
        let name = &target.name;
        let _turn = self.turns.take(&target.key()).await;
        for _ in 0..ATTEMPTS {
            let current = self.get(target)?;
            match self
                .modify_once(target, part, options, edit, &current)
                .await?
            {
                Ok(written) => return Ok(written),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(commit_failed(&target.resource, name, &error)),
            }
        }
        Err(ApiError::modified(&target.resource, name))
    }

    async fn modify_once(
        &self,
        target: &Target,
        part: Part,
        options: WriteOptions,
        edit: Edit<'_>,
        current: &Arc<Stored>,
    ) -> Result<Result<Written, CommitError>, ApiError> {
        let resource = &target.resource;
        let old = Self::value(resource, current)?;
        let (mut new, warnings) = Self::edited(target, part, options, edit, &old)?;
        let lease = self.allocators.admit(resource, Some(&old), &mut new)?;
        if new == old {
            let body = Self::serve(resource, current)?;
            return Ok(Ok(Written { body, warnings }));
        }
        let finished = metadata::is_finished(&new);
        if options.dry_run {
            return Ok(Ok(Written {
                body: to_bytes(&new)?,
                warnings,
            }));
        }
        let draft = Self::draft(resource, new)?;
        let change = if finished {
            Change::Delete(draft)
        } else {
            Change::Put(draft)
        };
        let expect = Expect::Revision(current.revision);
        match self
            .store
            .commit(Write {
                key: target.key(),
                expect,
                change,
            })
            .await
        {
            Ok(stored) => {
                lease.keep();
                if finished {
                    self.allocators.release(resource, &old);
                }
                Ok(Ok(Written {
                    body: Self::serve(resource, &stored)?,
                    warnings,
                }))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// The new version as the edit and the rules want it, and warnings.
    fn edited(
        target: &Target,
        part: Part,
        options: WriteOptions,
        edit: Edit<'_>,
        old: &Value,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let resource = &target.resource;
        let mut new = edit(old.clone())?;
        let asked = text(&new, "/metadata/resourceVersion");
        if !asked.is_empty() && asked != text(old, "/metadata/resourceVersion") {
            return Err(ApiError::modified(resource, &target.name));
        }
        let mut warnings = Vec::new();
        if part != Part::Internal {
            warnings = metadata::check_fields(resource, &new, options.fields)?;
            metadata::keep_identity(old, &mut new);
        }
        metadata::drop_nulls(&mut new);
        let mut new = merge_part(target, part, old, new);
        if part == Part::Main {
            Self::check_update(target, old, &mut new)?;
        }
        if resource.generation && part != Part::Status && metadata::spec_changed(old, &new) {
            metadata::bump_generation(&mut new);
        }
        Ok((new, warnings))
    }

    fn check_update(target: &Target, old: &Value, new: &mut Value) -> Result<(), ApiError> {
        let rules = &target.resource.rules;
        (rules.update)(old, new);
        (rules.default)(new);
        let mut causes = Vec::new();
        validation::metadata::check(&target.resource, new, &mut causes);
        validation::metadata::check_change(old, new, &mut causes);
        (rules.validate)(new, &mut causes);
        (rules.validate_update)(old, new, &mut causes);
        if causes.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&target.resource, &target.name, &causes))
    }
}

/// Puts together what the request may change and what it may not.
fn merge_part(target: &Target, part: Part, old: &Value, mut new: Value) -> Value {
    match part {
        Part::Internal => new,
        Part::Main => {
            if target.resource.status {
                carry(old, &mut new, "status");
            }
            new
        }
        Part::Status => {
            let mut merged = old.clone();
            carry(&new, &mut merged, "status");
            if let Some(metadata) = new.get("metadata") {
                for key in ["labels", "annotations"] {
                    carry(metadata, &mut merged["metadata"], key);
                }
            }
            merged
        }
        Part::Finalize => {
            let mut merged = old.clone();
            if let Some(spec) = crate::json::map_at(&mut merged, "spec") {
                let finalizers = new.pointer("/spec/finalizers").cloned();
                spec.insert(
                    "finalizers".into(),
                    finalizers.unwrap_or_else(|| Vec::<Value>::new().into()),
                );
            }
            merged
        }
    }
}
