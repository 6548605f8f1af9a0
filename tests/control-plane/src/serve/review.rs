//! Reviews: questions about access, answered and not kept.

use serde_json::{Value, json};

use super::auth::{User, allowed};
use crate::json::{list, text};

/// Answers a review of a kind.
pub(super) fn answer(kind: &str, user: &User, mut review: Value) -> Value {
    let verdict = |user: &User| {
        let allowed = allowed(user);
        let reason = if allowed {
            ""
        } else {
            "only the group system:masters has rights"
        };
        json!({"allowed": allowed, "reason": reason})
    };
    review["status"] = match kind {
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": user.name, "groups": user.groups}})
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let groups = list(&review, "/spec/groups");
            verdict(&User {
                name: text(&review, "/spec/user").to_owned(),
                groups: groups
                    .iter()
                    .filter_map(|g| Some(g.as_str()?.to_owned()))
                    .collect(),
            })
        }
        "SelfSubjectRulesReview" => {
            let everything = allowed(user).then(|| json!(["*"]));
            let rules = |resources: &str| match &everything {
                None => json!([]),
                Some(all) if resources.is_empty() => {
                    json!([{"verbs": all, "nonResourceURLs": all}])
                }
                Some(all) => json!([{"verbs": all, "apiGroups": all, "resources": all}]),
            };
            json!({
                "resourceRules": rules("*"), "nonResourceRules": rules(""), "incomplete": false,
            })
        }
        _ => verdict(user),
    };
    review
}
