//! Which lists a strategic merge patch merges, and by which key. Source: the `patchMergeKey` and
//! `patchStrategy` of the Kubernetes API types.
//!
//! A rule is (kind, path, treatment). Kind `PodSpec` holds for the specification of pods and of
//! every pod template; `*` for every kind. List indices do not appear in paths.

use std::borrow::Cow;

/// How a list, or a map with a strategy, is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Items are merged by this key.
    By(&'static str),
    /// Values (not objects) are united.
    Union,
    /// The whole is replaced.
    Replace,
    /// Fields of a map that the patch does not name in `$retainKeys` are dropped; merged by key
    /// when it is the item of a list.
    RetainKeys,
}

use Treatment::{By, RetainKeys, Union};

const RULES: &[(&str, &str, Treatment)] = &[
    ("*", "metadata.ownerReferences", By("uid")),
    ("*", "metadata.finalizers", Union),
    ("PodSpec", "containers", By("name")),
    ("PodSpec", "initContainers", By("name")),
    ("PodSpec", "ephemeralContainers", By("name")),
    ("PodSpec", "volumes", By("name")),
    ("PodSpec", "imagePullSecrets", By("name")),
    ("PodSpec", "hostAliases", By("ip")),
    ("PodSpec", "topologySpreadConstraints", By("topologyKey")),
    ("PodSpec", "resourceClaims", By("name")),
    ("PodSpec", "schedulingGates", By("name")),
    ("Container", "ports", By("containerPort")),
    ("Container", "env", By("name")),
    ("Container", "volumeMounts", By("mountPath")),
    ("Container", "volumeDevices", By("devicePath")),
    ("Pod", "status.conditions", By("type")),
    ("Pod", "status.podIPs", By("ip")),
    ("Pod", "status.hostIPs", By("ip")),
    ("Pod", "status.resourceClaimStatuses", By("name")),
    ("Node", "status.conditions", By("type")),
    ("Node", "status.addresses", By("type")),
    ("Node", "spec.podCIDRs", Union),
    ("Namespace", "status.conditions", By("type")),
    ("Service", "spec.ports", By("port")),
    ("Service", "status.conditions", By("type")),
    ("ServiceAccount", "secrets", By("name")),
    ("ServiceAccount", "imagePullSecrets", By("name")),
    ("Deployment", "spec.strategy", RetainKeys),
    ("Deployment", "status.conditions", By("type")),
    ("ReplicaSet", "status.conditions", By("type")),
    ("DaemonSet", "status.conditions", By("type")),
    ("StatefulSet", "status.conditions", By("type")),
    (
        "StatefulSet",
        "spec.volumeClaimTemplates",
        Treatment::Replace,
    ),
    ("Job", "status.conditions", By("type")),
    ("PodDisruptionBudget", "status.conditions", By("type")),
    ("ServiceCIDR", "status.conditions", By("type")),
];

/// The rule for a path of a kind; none for an atomic list or an ordinary map.
pub(super) fn treatment(kind: &str, path: &str) -> Option<Treatment> {
    let (kind, path) = local(kind, path);
    let rule = RULES.iter().find(|(rule_kind, rule_path, _)| {
        (*rule_kind == "*" || *rule_kind == kind) && *rule_path == path
    });
    rule.map(|(_, _, treatment)| *treatment)
}

/// The rule kind a path belongs to, and the path inside it.
fn local<'a>(kind: &'a str, path: &'a str) -> (&'a str, Cow<'a, str>) {
    let prefix = match kind {
        "Pod" => "spec.",
        "CronJob" => "spec.jobTemplate.spec.template.spec.",
        _ => "spec.template.spec.",
    };
    let Some(inner) = path.strip_prefix(prefix) else {
        // A template's own metadata has the rules of metadata.
        let template = path
            .strip_prefix("spec.template.")
            .filter(|p| p.starts_with("metadata."));
        return (kind, Cow::Borrowed(template.unwrap_or(path)));
    };
    for containers in ["containers.", "initContainers.", "ephemeralContainers."] {
        if let Some(inner) = inner.strip_prefix(containers) {
            return ("Container", Cow::Borrowed(inner));
        }
    }
    match kind {
        // Below `spec`, a Service or Node has no pod specification.
        "Pod"
        | "Deployment"
        | "ReplicaSet"
        | "DaemonSet"
        | "StatefulSet"
        | "Job"
        | "CronJob"
        | "ReplicationController" => ("PodSpec", Cow::Borrowed(inner)),
        _ => (kind, Cow::Borrowed(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_for_pods_and_templates() {
        assert_eq!(treatment("Pod", "spec.containers"), Some(By("name")));
        assert_eq!(
            treatment("Deployment", "spec.template.spec.containers"),
            Some(By("name"))
        );
        assert_eq!(
            treatment("Deployment", "spec.template.spec.initContainers.env"),
            Some(By("name"))
        );
        assert_eq!(treatment("Service", "spec.ports"), Some(By("port")));
        assert_eq!(treatment("Pod", "spec.tolerations"), None);
        assert_eq!(treatment("Secret", "metadata.finalizers"), Some(Union));
        assert_eq!(treatment("Deployment", "spec.strategy"), Some(RetainKeys));
    }
}
