//! Labels and label selectors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// `metadata.labels`.
pub type Labels = BTreeMap<String, String>;

/// What one key of the labels must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// The key is there with one of these values.
    In(BTreeSet<String>),
    /// The key is absent, or has none of these values.
    NotIn(BTreeSet<String>),
    /// The key is there.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// A parsed label selector: all requirements must hold; an empty one selects everything.
///
/// Requirements are a sorted set, so two ways of writing the same selector (`matchLabels`, or
/// `matchExpressions` with one value, in any order) are equal and compile to one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelSelector {
    requirements: BTreeSet<(String, Condition)>,
}

impl LabelSelector {
    /// The selector `{}`, which selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// The same selector with one requirement more.
    #[must_use]
    pub fn with(mut self, key: &str, condition: Condition) -> Self {
        self.requirements.insert((key.to_owned(), condition));
        self
    }

    /// The same selector that also wants `key` to be `value` (an entry of `matchLabels`).
    #[must_use]
    pub fn with_label(self, key: &str, value: &str) -> Self {
        self.with(key, Condition::In(BTreeSet::from([value.to_owned()])))
    }

    /// Whether the selector has no requirement.
    #[must_use]
    pub fn selects_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels satisfy every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|(key, condition)| {
            let value = labels.get(key);
            match condition {
                Condition::In(values) => value.is_some_and(|value| values.contains(value)),
                Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Condition::Exists => value.is_some(),
                Condition::DoesNotExist => value.is_none(),
            }
        })
    }
}

/// Prints as kubectl's `-l` argument; an empty selector as `<all>`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return out.write_str("<all>");
        }
        for (index, (key, condition)) in self.requirements.iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            let listed =
                |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(",");
            match condition {
                Condition::In(values) if values.len() == 1 => {
                    write!(out, "{key}={}", listed(values))?;
                }
                Condition::In(values) => write!(out, "{key} in ({})", listed(values))?,
                Condition::NotIn(values) => write!(out, "{key} notin ({})", listed(values))?,
                Condition::Exists => write!(out, "{key}")?,
                Condition::DoesNotExist => write!(out, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn conditions_follow_the_api_conventions() {
        let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
        let with = |condition| LabelSelector::everything().with("app", condition);
        let absent = |condition| LabelSelector::everything().with("tier", condition);
        assert!(LabelSelector::everything().matches(&Labels::new()));
        assert!(with(Condition::In(values(&["web", "db"]))).matches(&labels));
        assert!(!with(Condition::In(values(&["db"]))).matches(&labels));
        assert!(!absent(Condition::In(values(&["web"]))).matches(&labels));
        assert!(!with(Condition::NotIn(values(&["web"]))).matches(&labels));
        assert!(absent(Condition::NotIn(values(&["web"]))).matches(&labels));
        assert!(with(Condition::Exists).matches(&labels));
        assert!(!absent(Condition::Exists).matches(&labels));
        assert!(absent(Condition::DoesNotExist).matches(&labels));
        assert!(!with(Condition::DoesNotExist).matches(&labels));
    }

    #[test]
    fn equal_selectors_are_equal_however_written() {
        let one = LabelSelector::everything()
            .with_label("a", "1")
            .with("b", Condition::Exists);
        let other = LabelSelector::everything()
            .with("b", Condition::Exists)
            .with("a", Condition::In(values(&["1"])));
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "a=1,b");
        assert_eq!(LabelSelector::everything().to_string(), "<all>");
    }
}
