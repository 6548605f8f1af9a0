//! Checks of whole objects and of changes. Each adds causes naming the field.

pub(crate) mod apps;
pub(crate) mod config;
pub(crate) mod metadata;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod pod;
pub(crate) mod service;

use serde_json::Value;

use crate::json::is_unset;
use crate::status::Cause;

/// No checks beyond the metadata.
pub(crate) fn anything(_: &Value, _: &mut Vec<Cause>) {}

/// Every change is allowed.
pub(crate) fn any_change(_: &Value, _: &Value, _: &mut Vec<Cause>) {}

/// A node's pod range cannot change once it is given.
pub(crate) fn node_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let set = |value: &Value| value.pointer("/spec/podCIDR").cloned();
    let before = set(old);
    if !is_unset(before.as_ref()) && before != set(new) {
        causes.push(Cause::forbidden(
            "spec.podCIDR",
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
}

/// A field that must not differ.
fn immutable(old: &Value, new: &Value, pointer: &str, causes: &mut Vec<Cause>) {
    let (before, after) = (old.pointer(pointer), new.pointer(pointer));
    let same = before == after || (is_unset(before) && is_unset(after));
    if !same {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        let value = after.cloned().unwrap_or_default();
        causes.push(Cause::invalid(field, &value, "field is immutable"));
    }
}

/// A port number 1–65535 under `key`.
fn port_number(port: &Value, key: &str, field: &str, causes: &mut Vec<Cause>) {
    match port.get(key) {
        None => causes.push(Cause::required(format!("{field}.{key}"), "")),
        Some(number)
            if number
                .as_u64()
                .is_some_and(|number| (1..=65_535).contains(&number)) => {}
        Some(number) => causes.push(Cause::invalid(
            format!("{field}.{key}"),
            number,
            "must be between 1 and 65535, inclusive",
        )),
    }
}

/// A value out of a fixed list, when it is given at all.
fn one_of(object: &Value, key: &str, field: &str, allowed: &[&str], causes: &mut Vec<Cause>) {
    if let Some(value) = object.get(key).filter(|value| !is_unset(Some(value)))
        && !allowed.iter().any(|word| value == word)
    {
        let field = if field.is_empty() {
            key.to_owned()
        } else {
            format!("{field}.{key}")
        };
        causes.push(Cause::not_supported(field, value, allowed));
    }
}

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
