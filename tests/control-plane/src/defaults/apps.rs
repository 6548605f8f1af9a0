//! Workloads.

use serde_json::{Value, json};

use super::pod::fill_template;
use crate::json::{default_to, is_unset, map_at, text};

/// Defaults of a Deployment.
pub(crate) fn deployment(deployment: &mut Value) {
    fill_template(deployment);
    let Some(spec) = deployment.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "progressDeadlineSeconds", 600);
    map_at(spec, "strategy");
    default_to(&mut spec["strategy"], "type", "RollingUpdate");
    if text(spec, "/strategy/type") == "RollingUpdate" {
        let strategy = &mut spec["strategy"];
        map_at(strategy, "rollingUpdate");
        default_to(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        default_to(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
}

/// Defaults of a ReplicaSet.
pub(crate) fn replica_set(set: &mut Value) {
    fill_template(set);
    if let Some(spec) = set.get_mut("spec") {
        default_to(spec, "replicas", 1);
    }
}

/// Defaults of a DaemonSet.
pub(crate) fn daemon_set(set: &mut Value) {
    fill_template(set);
    let Some(spec) = set.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    default_to(spec, "revisionHistoryLimit", 10);
    map_at(spec, "updateStrategy");
    let strategy = &mut spec["updateStrategy"];
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" && is_unset(strategy.get("rollingUpdate")) {
        strategy["rollingUpdate"] = json!({"maxUnavailable": 1, "maxSurge": 0});
    }
}

/// Defaults of a StatefulSet.
pub(crate) fn stateful_set(set: &mut Value) {
    fill_template(set);
    let Some(spec) = set.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    default_to(spec, "replicas", 1);
    default_to(spec, "revisionHistoryLimit", 10);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    map_at(spec, "updateStrategy");
    let strategy = &mut spec["updateStrategy"];
    default_to(strategy, "type", "RollingUpdate");
    if text(strategy, "/type") == "RollingUpdate" && is_unset(strategy.get("rollingUpdate")) {
        strategy["rollingUpdate"] = json!({"partition": 0});
    }
}

/// Defaults of a Job.
pub(crate) fn job(job: &mut Value) {
    fill_template(job);
    let Some(spec) = job.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        spec["completions"] = 1.into();
    }
    default_to(spec, "parallelism", 1);
    default_to(spec, "backoffLimit", 6);
    default_to(spec, "completionMode", "NonIndexed");
    default_to(spec, "podReplacementPolicy", "TerminatingOrFailed");
    if spec.get("suspend").is_none() {
        spec["suspend"] = false.into();
    }
}
