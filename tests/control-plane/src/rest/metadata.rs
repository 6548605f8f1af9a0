//! What all objects have in common.

use serde_json::{Map, Value};

use super::{FieldValidation, Target};
use crate::json::{carry, is_unset, map_at, text};
use crate::registry::Resource;
use crate::status::ApiError;

/// The time now as objects show it: UTC, whole seconds.
pub(super) fn now() -> String {
    rfc3339(jiff::Timestamp::now())
}

pub(super) fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Checks that a body is an object of the resource, and completes `apiVersion`, `kind`, name and
/// namespace. A name is left alone when the target has none (create).
pub(super) fn identify(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let resource = &target.resource;
    let wanted = resource.api_version();
    if !object.is_object() {
        return Err(ApiError::bad_request("the body must be a JSON object"));
    }
    for (key, wanted) in [("apiVersion", wanted.as_str()), ("kind", resource.kind)] {
        let given = object.get(key).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != wanted {
            return Err(ApiError::bad_request(format!(
                "the {key} in the data ({given}) does not match the expected {key} ({wanted})"
            )));
        }
        object[key] = wanted.into();
    }
    let Some(metadata) = map_at(object, "metadata") else {
        return Err(ApiError::bad_request("metadata: must be an object"));
    };
    let agree = |map: &mut Map<String, Value>, key: &str, wanted: &str| {
        let given = map
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if !given.is_empty() && given != wanted {
            return Err(ApiError::bad_request(format!(
                "the {key} of the object ({given}) does not match the {key} on the URL ({wanted})"
            )));
        }
        map.insert(key.into(), wanted.into());
        Ok(())
    };
    if resource.namespaced {
        agree(metadata, "namespace", &target.namespace)?;
    } else {
        metadata.remove("namespace");
    }
    if target.name.is_empty() {
        Ok(())
    } else {
        agree(metadata, "name", &target.name)
    }
}

/// Clients write `null` where they mean "absent".
pub(super) fn drop_nulls(object: &mut Value) {
    match object {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Checks types and unknown fields by reading the object as its kind; answers warnings.
pub(super) fn check_fields(
    resource: &Resource,
    object: &Value,
    fields: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let known = (resource.decode)(object.clone()).map_err(|error| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}",
            kind = resource.kind,
            version = resource.version,
        ))
    })?;
    if fields == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let mut unknown = Vec::new();
    lost(object, &known, "", &mut unknown);
    let unknown: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    if fields == FieldValidation::Strict && !unknown.is_empty() {
        return Err(ApiError::bad_request(format!(
            "strict decoding error: {}",
            unknown.join(", ")
        )));
    }
    Ok(unknown)
}

/// Paths in `given` that are not in `known`.
fn lost(given: &Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (key, value) in given {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{key}");
                match known.get(key) {
                    Some(known) => lost(value, known, &path, unknown),
                    None if is_unset(Some(value)) => {}
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (index, (value, known)) in given.iter().zip(known).enumerate() {
                lost(value, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Identity and life cycle of an object, which no update changes.
pub(super) fn keep_identity(old: &Value, new: &mut Value) {
    let (Some(old), Some(new)) = (old.get("metadata"), new.get_mut("metadata")) else {
        return;
    };
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        carry(old, new, key);
    }
    if let Some(new) = new.as_object_mut() {
        new.remove("selfLink");
        new.remove("managedFields");
    }
}

/// Whether anything but metadata and status differs.
pub(super) fn spec_changed(old: &Value, new: &Value) -> bool {
    let part = |value: &Value| -> Map<String, Value> {
        let map = value.as_object().cloned().unwrap_or_default();
        map.into_iter()
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
            .collect()
    };
    part(old) != part(new)
}

/// Counts a change of the specification.
pub(super) fn bump_generation(object: &mut Value) {
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_u64);
    object["metadata"]["generation"] = (generation.unwrap_or_default() + 1).into();
}

/// Whether the object waits for nothing but its removal.
pub(super) fn is_finished(object: &Value) -> bool {
    let unset = |pointer: &str| is_unset(object.pointer(pointer));
    !text(object, "/metadata/deletionTimestamp").is_empty()
        && unset("/metadata/deletionGracePeriodSeconds")
        && unset("/metadata/finalizers")
        && (object["kind"] != "Namespace" || unset("/spec/finalizers"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_found_by_path() {
        let given = json!({"spec": {"a": 1, "b": [{"c": 1, "d": 2}], "e": {}, "f": null}});
        let known = json!({"spec": {"a": 1, "b": [{"c": 1}]}});
        let mut unknown = Vec::new();
        lost(&given, &known, "", &mut unknown);
        assert_eq!(unknown, ["spec.b[0].d"]);
    }

    #[test]
    fn nulls_are_dropped_everywhere() {
        let mut object = json!({"a": null, "b": [{"c": null, "d": 0}]});
        drop_nulls(&mut object);
        assert_eq!(object, json!({"b": [{"d": 0}]}));
    }
}
