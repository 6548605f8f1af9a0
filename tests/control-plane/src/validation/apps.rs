//! Workloads: a selector, a template that it selects, a number of replicas.

use serde_json::Value;

use super::{immutable, pod};
use crate::json::{is_unset, list, text};
use crate::status::Cause;

/// Checks a Deployment, ReplicaSet, DaemonSet or StatefulSet.
pub(crate) fn check(workload: &Value, causes: &mut Vec<Cause>) {
    let Some(spec) = workload.get("spec") else {
        causes.push(Cause::required("spec", ""));
        return;
    };
    if let Some(replicas) = spec.get("replicas")
        && replicas.as_i64().is_none_or(|replicas| replicas < 0)
    {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.replicas", replicas, why));
    }
    let selector = spec.get("selector");
    if is_unset(selector) {
        causes.push(Cause::required("spec.selector", ""));
    } else if let Some(selector) = selector
        && !matches(selector, &spec["template"]["metadata"]["labels"])
    {
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &spec["template"]["metadata"]["labels"],
            "`selector` does not match template `labels`",
        ));
    }
    super::metadata::check_labels(workload, "spec.template.metadata.labels", causes);
    pod::check_spec(
        &spec["template"]["spec"],
        "spec.template.spec",
        &["Always"],
        causes,
    );
}

/// The selector stays.
pub(crate) fn check_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    immutable(old, new, "/spec/selector", causes);
}

/// Whether a `LabelSelector` selects labels.
fn matches(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let exact = wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    exact
        && list(selector, "/matchExpressions")
            .iter()
            .all(|expression| {
                let found = labels.get(text(expression, "/key"));
                let values = list(expression, "/values");
                match text(expression, "/operator") {
                    "In" => found.is_some_and(|found| values.contains(found)),
                    "NotIn" => found.is_none_or(|found| !values.contains(found)),
                    "Exists" => found.is_some(),
                    "DoesNotExist" => found.is_none(),
                    _ => false,
                }
            })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_must_select_the_template() {
        let workload = json!({"spec": {
            "replicas": -1, "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        }});
        let mut causes = Vec::new();
        check(&workload, &mut causes);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["spec.replicas", "spec.template.metadata.labels"]);
        let mut changed = workload.clone();
        changed["spec"]["selector"]["matchLabels"]["app"] = "b".into();
        let mut causes = Vec::new();
        check_change(&workload, &changed, &mut causes);
        assert_eq!(causes[0].field, "spec.selector");
    }
}
