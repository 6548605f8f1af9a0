//! Subresources that are more than a part of the object: binding, eviction, scale.

use serde_json::{Value, json};

use super::delete::{DeleteOptions, Deleted};
use super::{Api, Part, Target, WriteOptions, Written, metadata, to_bytes};
use crate::json::{map_at, text};
use crate::patch::Patch;
use crate::status::{ApiError, Cause};

impl Api {
    /// Binds a pod to a node.
    ///
    /// # Errors
    /// 404, 409 when the pod is bound already, is going away, or has another uid.
    pub async fn bind(&self, pod: &Target, binding: &Value) -> Result<Written, ApiError> {
        let node = text(binding, "/target/name").to_owned();
        if node.is_empty() {
            let cause = Cause::required("target.name", "the name of a node");
            return Err(ApiError::invalid(&pod.resource, &pod.name, &[cause]));
        }
        let uid = text(binding, "/metadata/uid").to_owned();
        let edit = |mut object: Value| {
            let conflict = |why: &str| ApiError::conflict(&pod.resource, &pod.name, why);
            if !uid.is_empty() && uid != text(&object, "/metadata/uid") {
                return Err(conflict("the pod has another uid"));
            }
            if !text(&object, "/metadata/deletionTimestamp").is_empty() {
                return Err(conflict(&format!(
                    "pod {} is being deleted, cannot be assigned to a host",
                    pod.name
                )));
            }
            let bound = text(&object, "/spec/nodeName");
            if !bound.is_empty() {
                return Err(conflict(&format!(
                    "pod {} is already assigned to node \"{bound}\"",
                    pod.name
                )));
            }
            object["spec"]["nodeName"] = node.as_str().into();
            let annotations = binding
                .pointer("/metadata/annotations")
                .and_then(Value::as_object);
            for (key, value) in annotations.into_iter().flatten() {
                if let Some(map) = map_at(&mut object["metadata"], "annotations") {
                    map.insert(key.clone(), value.clone());
                }
            }
            scheduled(&mut object);
            Ok(object)
        };
        let mut written = self
            .modify(pod, Part::Internal, WriteOptions::default(), &edit)
            .await?;
        written.body = success();
        Ok(written)
    }

    /// Evicts a pod: a deletion with the options inside the Eviction.
    ///
    /// # Errors
    /// As [`Api::delete`].
    pub async fn evict(&self, pod: &Target, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let deleted = self.delete(pod, options).await?;
        Ok(Deleted {
            body: success(),
            gone: deleted.gone,
        })
    }

    /// The `Scale` of a workload.
    ///
    /// # Errors
    /// 404.
    pub fn scale(&self, target: &Target) -> Result<Value, ApiError> {
        Ok(scale_of(&Self::value(
            &target.resource,
            &*self.get(target)?,
        )?))
    }

    /// Replaces or patches the `Scale` of a workload.
    ///
    /// # Errors
    /// As [`Api::update`].
    pub async fn set_scale(
        &self,
        target: &Target,
        change: &Patch,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let edit = |mut object: Value| {
            let old = scale_of(&object);
            let new = change.apply(&target.resource, old.clone())?;
            let version = text(&new, "/metadata/resourceVersion");
            if !version.is_empty() && version != text(&old, "/metadata/resourceVersion") {
                return Err(ApiError::modified(&target.resource, &target.name));
            }
            let replicas = new
                .pointer("/spec/replicas")
                .cloned()
                .unwrap_or_else(|| 0.into());
            if replicas
                .as_u64()
                .is_none_or(|count| count > i32::MAX as u64)
            {
                let cause =
                    Cause::invalid("spec.replicas", &replicas, "must be a number not below 0");
                return Err(ApiError::invalid(&target.resource, &target.name, &[cause]));
            }
            object["spec"]["replicas"] = replicas;
            Ok(object)
        };
        let mut written = self.modify(target, Part::Internal, options, &edit).await?;
        let object: Value = serde_json::from_slice(&written.body).map_err(ApiError::internal)?;
        written.body = to_bytes(&scale_of(&object))?;
        Ok(written)
    }
}

/// Records in the pod's conditions that it has a node.
fn scheduled(pod: &mut Value) {
    let Some(status) = map_at(pod, "status") else {
        return;
    };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastTransitionTime": metadata::now(),
    }));
}

fn success() -> bytes::Bytes {
    bytes::Bytes::from_static(
        br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}"#,
    )
}

fn scale_of(object: &Value) -> Value {
    let metadata: serde_json::Map<String, Value> = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ]
    .iter()
    .filter_map(|key| Some(((*key).to_owned(), object["metadata"].get(key)?.clone())))
    .collect();
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into())},
        "status": {"replicas": object.pointer("/status/replicas").cloned().unwrap_or_else(|| 0.into())},
    });
    let selector = selector_text(object.pointer("/spec/selector").unwrap_or(&Value::Null));
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A `LabelSelector` in the form of a query parameter.
pub(crate) fn selector_text(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in crate::json::list(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<&str> = crate::json::list(expression, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        terms.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}
