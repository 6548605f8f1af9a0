//! Reading and completing JSON objects by path.

use serde_json::{Map, Value};

/// The text at a JSON pointer; empty when absent or no string.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The list at a JSON pointer; empty when absent or no list.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The list at a JSON pointer for changing; nothing when absent or no list.
pub(crate) fn list_mut<'a>(
    object: &'a mut Value,
    pointer: &str,
) -> impl Iterator<Item = &'a mut Value> {
    object
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// The map under `key`, put there when absent (or null). `None` when `object` is no map, or
/// something else is in the place.
pub(crate) fn map_at<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let map = object.as_object_mut()?;
    let place = map.entry(key).or_insert(Value::Null);
    if place.is_null() {
        *place = Value::Object(Map::new());
    }
    place.as_object_mut()
}

/// Whether nothing is set: absent, null, "", 0, false, or an empty map or list. Clients leave out
/// such values or not, as their serialiser likes.
pub(crate) fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Bool(value)) => !value,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
    }
}

/// Sets `key` when it is absent, null or the empty string.
pub(crate) fn default_to(object: &mut Value, key: &str, value: impl Into<Value>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    match map.get(key) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    map.insert(key.to_owned(), value.into());
}

/// Moves `key` of `from` to `to`; removes it there when `from` has none.
pub(crate) fn carry(from: &Value, to: &mut Value, key: &str) {
    let Some(to) = to.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => to.insert(key.to_owned(), value.clone()),
        None => to.remove(key),
    };
}
