//! Strategic merge patch.
//!
//! Directives: `$patch: replace|delete|merge` in maps and list items, `$retainKeys`,
//! `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.

use serde_json::{Map, Value};

use super::keys::{Treatment, treatment};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Why a strategic patch does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    #[error("strategic merge patch: {path}: {problem}")]
    Misfit { path: String, problem: String },
}

fn misfit(path: &str, problem: impl Into<String>) -> PatchError {
    let path = if path.is_empty() { "(root)" } else { path }.to_owned();
    PatchError::Misfit {
        path,
        problem: problem.into(),
    }
}

/// Applies `patch` to an object of `kind`.
pub(super) fn merge(object: &mut Value, patch: &Value, kind: &str) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(misfit("", "the patch must be an object"));
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    match object {
        Value::Object(map) => merge_map(map, patch, kind, ""),
        _ => Ok(()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN || key.starts_with(ORDER) || key.starts_with(DELETE)
}

fn merge_map(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    kind: &str,
    path: &str,
) -> Result<(), PatchError> {
    match patch
        .get(PATCH)
        .map(|word| word.as_str().unwrap_or_default())
    {
        None | Some("merge") => {}
        Some("replace") => {
            *object = patch.clone();
            object.remove(PATCH);
            return Ok(());
        }
        Some("delete") => {
            object.clear();
            return Ok(());
        }
        Some(other) => {
            return Err(misfit(
                path,
                format!("{PATCH}: unknown directive \"{other}\""),
            ));
        }
    }
    if let Some(Value::Array(keys)) = patch.get(RETAIN) {
        object.retain(|key, _| keys.iter().any(|kept| kept == key.as_str()));
    }
    for (directive, values) in patch {
        if let Some(list) = directive.strip_prefix(DELETE)
            && let (Some(Value::Array(items)), Value::Array(values)) =
                (object.get_mut(list), values)
        {
            items.retain(|item| !values.contains(item));
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        merge_field(object, key, value, kind, &join(path, key))?;
    }
    for (directive, order) in patch {
        if let Some(key) = directive.strip_prefix(ORDER)
            && let (Some(Value::Array(items)), Value::Array(order)) = (object.get_mut(key), order)
        {
            reorder(items, order, treatment(kind, &join(path, key)));
        }
    }
    Ok(())
}

fn merge_field(
    object: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    kind: &str,
    path: &str,
) -> Result<(), PatchError> {
    match (value, object.get_mut(key)) {
        (Value::Null, _) => {
            object.remove(key);
        }
        (Value::Object(patch), Some(Value::Object(map))) => merge_map(map, patch, kind, path)?,
        (Value::Object(patch), _) => {
            if patch.get(PATCH).is_some_and(|word| word == "delete") {
                object.remove(key);
                return Ok(());
            }
            let mut map = Map::new();
            merge_map(&mut map, patch, kind, path)?;
            object.insert(key.to_owned(), Value::Object(map));
        }
        (Value::Array(patch), current) => {
            let mut items = match current {
                Some(Value::Array(items)) => std::mem::take(items),
                _ => Vec::new(),
            };
            merge_list(&mut items, patch, kind, path)?;
            object.insert(key.to_owned(), Value::Array(items));
        }
        (value, _) => {
            object.insert(key.to_owned(), value.clone());
        }
    }
    Ok(())
}

fn merge_list(
    items: &mut Vec<Value>,
    patch: &[Value],
    kind: &str,
    path: &str,
) -> Result<(), PatchError> {
    match treatment(kind, path) {
        Some(Treatment::By(key)) => merge_by_key(items, patch, key, kind, path),
        Some(Treatment::Union) => {
            for value in patch {
                if !items.contains(value) {
                    items.push(value.clone());
                }
            }
            Ok(())
        }
        Some(Treatment::Replace | Treatment::RetainKeys) | None => {
            *items = patch
                .iter()
                .filter(|item| item.get(PATCH).is_none())
                .cloned()
                .collect();
            Ok(())
        }
    }
}

fn merge_by_key(
    items: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    kind: &str,
    path: &str,
) -> Result<(), PatchError> {
    let directive = |item: &Value, word: &str| item.get(PATCH).is_some_and(|found| found == word);
    if patch.iter().any(|item| directive(item, "replace")) {
        *items = patch
            .iter()
            .filter(|item| !directive(item, "replace"))
            .cloned()
            .collect();
        return Ok(());
    }
    for item in patch {
        let Value::Object(map) = item else {
            return Err(misfit(path, "each item must be an object"));
        };
        let Some(id) = map.get(key) else {
            return Err(misfit(
                path,
                format!("map does not contain the merge key \"{key}\""),
            ));
        };
        if directive(item, "delete") {
            items.retain(|found| found.get(key) != Some(id));
            continue;
        }
        match items.iter_mut().find(|found| found.get(key) == Some(id)) {
            Some(Value::Object(found)) => merge_map(found, map, kind, path)?,
            _ => {
                let mut found = Map::new();
                merge_map(&mut found, map, kind, path)?;
                items.push(Value::Object(found));
            }
        }
    }
    Ok(())
}

/// Puts the items named in `order` into that order. Items that only the server has keep their place
/// relative to the items before them.
fn reorder(items: &mut [Value], order: &[Value], how: Option<Treatment>) {
    let rank = |item: &Value| match how {
        Some(Treatment::By(key)) => order
            .iter()
            .position(|wanted| wanted.get(key) == item.get(key) && item.get(key).is_some()),
        _ => order.iter().position(|wanted| wanted == item),
    };
    let mut ranked: Vec<Value> = items
        .iter()
        .filter(|item| rank(item).is_some())
        .cloned()
        .collect();
    ranked.sort_by_key(|item| rank(item));
    let mut ranked = ranked.into_iter();
    for item in items.iter_mut() {
        if rank(item).is_some()
            && let Some(next) = ranked.next()
        {
            *item = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(kind: &str, mut object: Value, patch: &Value) -> Value {
        merge(&mut object, patch, kind).unwrap();
        object
    }

    #[test]
    fn containers_are_merged_by_name_and_ordered() {
        let object = json!({"spec": {"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "b:1"},
        ]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
            "containers": [
                {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]},
                {"name": "c", "image": "c:1"},
            ],
        }});
        assert_eq!(
            patched("Pod", object, &patch),
            json!({"spec": {"containers": [
                {"name": "b", "image": "b:1"},
                {"name": "a", "image": "a:2", "env": [
                    {"name": "X", "value": "1"}, {"name": "Y", "value": "2"}
                ]},
                {"name": "c", "image": "c:1"},
            ]}})
        );
    }

    #[test]
    fn directives() {
        let object = json!({
            "metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}},
            "spec": {
                "ports": [{"port": 80, "name": "http"}, {"port": 443, "name": "https"}],
                "selector": {"app": "a"},
            },
        });
        let patch = json!({
            "metadata": {
                "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
                "labels": {"x": null},
            },
            "spec": {
                "ports": [{"port": 80, "$patch": "delete"}],
                "selector": {"$patch": "replace", "role": "b"},
            },
        });
        assert_eq!(
            patched("Service", object, &patch),
            json!({
                "metadata": {"finalizers": ["b", "c"], "labels": {"y": "2"}},
                "spec": {"ports": [{"port": 443, "name": "https"}], "selector": {"role": "b"}},
            })
        );
    }

    #[test]
    fn strategy_keeps_only_the_keys_named() {
        let object = json!({"spec": {"strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}
        }}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(
            patched("Deployment", object, &patch),
            json!({"spec": {"strategy": {"type": "Recreate"}}})
        );
    }

    #[test]
    fn atomic_lists_are_replaced_and_misfits_told() {
        let object = json!({"spec": {"podCIDR": "a", "taints": [{"key": "k", "effect": "e"}]}});
        let patch = json!({"spec": {"taints": [{"key": "l", "effect": "f"}]}});
        assert_eq!(
            patched("Node", object, &patch),
            json!({"spec": {"podCIDR": "a", "taints": [{"key": "l", "effect": "f"}]}})
        );
        let error = merge(
            &mut json!({}),
            &json!({"spec": {"containers": [{"image": "x"}]}}),
            "Pod",
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "strategic merge patch: spec.containers: map does not contain the merge key \"name\""
        );
    }
}
