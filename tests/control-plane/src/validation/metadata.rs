//! Metadata of every object.

use serde_json::Value;

use super::names;
use crate::json::{list, text};
use crate::registry::{NameRule, Resource};
use crate::status::Cause;

/// Most bytes of all annotations together.
const ANNOTATIONS: usize = 256 << 10;

/// Checks name, labels, annotations, owner references and finalizers.
pub(crate) fn check(resource: &Resource, object: &Value, causes: &mut Vec<Cause>) {
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = check_name(resource.rules.name, name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    }
    check_labels(object, "metadata.labels", causes);
    let annotations = object
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        if let Some(why) = names::qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid(
                "metadata.annotations",
                &key.as_str().into(),
                why,
            ));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS {
        let why = "Too long: may not be more than 262144 bytes";
        causes.push(Cause::invalid("metadata.annotations", &size.into(), why));
    }
    for (index, owner) in list(object, "/metadata/ownerReferences").iter().enumerate() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{key}")).is_empty() {
                let field = format!("metadata.ownerReferences[{index}].{key}");
                causes.push(Cause::required(field, ""));
            }
        }
    }
}

fn check_name(rule: NameRule, name: &str) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain => names::subdomain(name),
        NameRule::Label => names::label(name),
        NameRule::Label1035 => names::label1035(name),
        NameRule::Segment => names::segment(name),
    }
}

/// Checks a map of labels at `field`.
pub(super) fn check_labels(object: &Value, field: &str, causes: &mut Vec<Cause>) {
    let pointer = format!("/{}", field.replace('.', "/"));
    let labels = object.pointer(&pointer).and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        if let Some(why) = names::qualified_name(key) {
            causes.push(Cause::invalid(field, &key.as_str().into(), why));
        }
        if let Some(why) = names::label_value(value.as_str().unwrap_or_default()) {
            causes.push(Cause::invalid(field, value, why));
        }
    }
}

/// Once deletion has begun no finalizer can be added.
pub(crate) fn check_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    if text(old, "/metadata/deletionTimestamp").is_empty() {
        return;
    }
    let before = list(old, "/metadata/finalizers");
    let added: Vec<&Value> = list(new, "/metadata/finalizers")
        .iter()
        .filter(|name| !before.contains(name))
        .collect();
    if !added.is_empty() {
        causes.push(Cause::forbidden(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted",
        ));
    }
}
