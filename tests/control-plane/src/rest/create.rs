//! Creation.

use rand::Rng;
use serde_json::Value;

use super::{Api, Target, WriteOptions, Written, commit_failed, metadata, to_bytes};
use crate::json::text;
use crate::status::ApiError;
use crate::store::{Change, CommitError, Expect, Key, Write};
use crate::validation;

/// Letters and digits of generated names: no vowels, nothing easily confused.
const SUFFIX: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Attempts to find a free generated name.
const ATTEMPTS: usize = 8;

impl Api {
    /// Creates an object in `target.namespace`; the name is the body's (or `generateName`).
    ///
    /// # Errors
    /// 400 for a body of another kind, 403 or 404 for its namespace, 409 when it exists, 422 when
    /// it is not valid.
    pub async fn create(
        &self,
        target: &Target,
        mut object: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        self.check_namespace(target)?;
        metadata::identify(target, &mut object)?;
        let warnings = metadata::check_fields(resource, &object, options.fields)?;
        metadata::drop_nulls(&mut object);
        if !text(&object, "/metadata/resourceVersion").is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let base = text(&object, "/metadata/generateName").to_owned();
        let generated = text(&object, "/metadata/name").is_empty() && !base.is_empty();
        for attempt in 1.. {
            let mut object = object.clone();
            if generated {
                object["metadata"]["name"] = generate(&base).into();
            }
            match self.create_named(target, object, options).await {
                Err(error) if generated && error.code == 409 && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(body) => return Ok(Written { body, warnings }),
            }
        }
        Err(ApiError::internal("no free name found"))
    }

    async fn create_named(
        &self,
        target: &Target,
        mut object: Value,
        options: WriteOptions,
    ) -> Result<bytes::Bytes, ApiError> {
        let resource = &target.resource;
        complete(&mut object, resource.generation);
        (resource.rules.create)(&mut object);
        (resource.rules.default)(&mut object);
        let name = text(&object, "/metadata/name").to_owned();
        let mut causes = Vec::new();
        validation::metadata::check(resource, &object, &mut causes);
        (resource.rules.validate)(&object, &mut causes);
        if !causes.is_empty() {
            return Err(ApiError::invalid(resource, &name, &causes));
        }
        let key = Key::new(&resource.storage, &target.namespace, &name);
        if self.store.get(&key).is_some() {
            return Err(ApiError::already_exists(resource, &name));
        }
        let lease = self.allocators.admit(resource, None, &mut object)?;
        if options.dry_run {
            return to_bytes(&object);
        }
        let change = Change::Put(Self::draft(resource, object)?);
        let write = Write {
            key,
            expect: Expect::Absent,
            change,
        };
        match self.store.commit(write).await {
            Ok(stored) => {
                lease.keep();
                Self::serve(resource, &stored)
            }
            Err(error @ CommitError::Exists(_)) => Err(commit_failed(resource, &name, &error)),
            Err(error) => Err(commit_failed(resource, &name, &error)),
        }
    }

    /// A namespace must exist and not be going away before anything is put into it.
    fn check_namespace(&self, target: &Target) -> Result<(), ApiError> {
        let resource = &target.resource;
        if !resource.namespaced {
            return Ok(());
        }
        let namespaces = self.registry.find("", "v1", "namespaces");
        let namespaces = namespaces.ok_or_else(|| ApiError::internal("no namespaces"))?;
        let namespace = self.get(&Target::new(namespaces, "", &target.namespace))?;
        let value = namespace.value().map_err(ApiError::internal)?;
        if text(&value, "/metadata/deletionTimestamp").is_empty() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            target.namespace
        );
        let mut error = ApiError::forbidden(resource, &target.name, &why);
        if let Some(details) = &mut error.details {
            details["causes"] = serde_json::json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {} is being terminated", target.namespace),
                "field": "metadata.namespace",
            }]);
        }
        Err(error)
    }
}

/// Sets what the server decides about a new object.
fn complete(object: &mut Value, generation: bool) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "generation",
    ] {
        metadata.remove(key);
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), metadata::now().into());
    if generation {
        metadata.insert("generation".into(), 1.into());
    }
}

fn generate(base: &str) -> String {
    let mut random = rand::rng();
    let suffix = (0..5).map(|_| char::from(SUFFIX[random.random_range(0..SUFFIX.len())]));
    // Room for the suffix within 63 characters, so that the name also fits where labels are asked.
    let base: String = base.chars().take(58).collect();
    base.chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate(&"a".repeat(80));
        assert_eq!(name.len(), 63);
        assert!(name[58..].bytes().all(|byte| SUFFIX.contains(&byte)));
    }
}
