//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether every pair of a plain selector (Services, node selectors) is among the labels. The empty
/// selector matches everything; callers for whom it means "nothing" check first.
pub(crate) fn matches_all(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a label selector matches. The empty selector matches everything; an operator that does
/// not exist matches nothing.
pub(crate) fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let plain = selector
        .match_labels
        .as_ref()
        .is_none_or(|wanted| matches_all(wanted, labels));
    plain
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| {
                let values = requirement.values.as_deref().unwrap_or_default();
                holds(&requirement.key, &requirement.operator, values, labels)
            })
}

/// Whether a selector selects everything because it says nothing.
pub(crate) fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

/// One requirement of a label selector or of a node selector (which adds `Gt` and `Lt`).
pub(crate) fn holds(key: &str, operator: &str, values: &[String], labels: Option<&Labels>) -> bool {
    let found = labels.and_then(|labels| labels.get(key));
    match operator {
        "In" => found.is_some_and(|value| values.contains(value)),
        "NotIn" => found.is_none_or(|value| !values.contains(value)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(found, values).is_some_and(|(found, bound)| found > bound),
        "Lt" => compare(found, values).is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

fn compare(found: Option<&String>, values: &[String]) -> Option<(i64, i64)> {
    let [bound] = values else { return None };
    Some((found?.parse().ok()?, bound.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn labels() -> Labels {
        [("app", "web"), ("rank", "7")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    fn selects(selector: Value) -> bool {
        matches(&serde_json::from_value(selector).unwrap(), Some(&labels()))
    }

    #[test]
    fn every_operator_holds_exactly_when_it_should() {
        let expression = |key: &str, operator: &str, values: &[&str]| {
            selects(
                json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
            )
        };
        let table = [
            ("app", "In", vec!["web", "db"], true),
            ("app", "In", vec!["db"], false),
            ("absent", "In", vec!["web"], false),
            ("app", "NotIn", vec!["db"], true),
            ("app", "NotIn", vec!["web"], false),
            ("absent", "NotIn", vec!["web"], true),
            ("app", "Exists", vec![], true),
            ("absent", "Exists", vec![], false),
            ("app", "DoesNotExist", vec![], false),
            ("absent", "DoesNotExist", vec![], true),
            ("rank", "Gt", vec!["6"], true),
            ("rank", "Gt", vec!["7"], false),
            ("rank", "Lt", vec!["8"], true),
            ("app", "Lt", vec!["8"], false),
            ("app", "Sounds like", vec!["web"], false),
        ];
        for (key, operator, values, wanted) in table {
            assert_eq!(
                expression(key, operator, &values),
                wanted,
                "{key} {operator} {values:?}"
            );
        }
    }

    #[test]
    fn labels_and_expressions_must_both_match() {
        assert!(selects(json!({})));
        assert!(selects(json!({"matchLabels": {"app": "web"}})));
        assert!(!selects(
            json!({"matchLabels": {"app": "web", "tier": "x"}})
        ));
        assert!(!selects(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "rank", "operator": "DoesNotExist"}]
        })));
    }

    #[test]
    fn only_a_selector_that_says_nothing_is_empty() {
        let empty = |selector: Value| is_empty(&serde_json::from_value(selector).unwrap());
        assert!(empty(json!({})));
        assert!(empty(json!({"matchLabels": {}, "matchExpressions": []})));
        assert!(!empty(json!({"matchLabels": {"a": "b"}})));
    }
}
