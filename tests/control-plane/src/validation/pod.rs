//! Pods and pod templates.

use serde_json::Value;

use super::{PROTOCOLS, names, one_of, port_number};
use crate::defaults::pod::CONTAINERS;
use crate::json::{list, text};
use crate::status::Cause;

/// Checks a pod.
pub(crate) fn check(pod: &Value, causes: &mut Vec<Cause>) {
    let policies = &["Always", "OnFailure", "Never"];
    check_spec(&pod["spec"], "spec", policies, causes);
}

/// Checks a pod specification at `field`.
pub(super) fn check_spec(spec: &Value, field: &str, restart: &[&str], causes: &mut Vec<Cause>) {
    if list(spec, "/containers").is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    one_of(spec, "restartPolicy", field, restart, causes);
    let policies = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, "dnsPolicy", field, policies, causes);
    let mut volumes: Vec<&str> = Vec::new();
    for (index, volume) in list(spec, "/volumes").iter().enumerate() {
        let name = text(volume, "/name");
        let at = format!("{field}.volumes[{index}].name");
        check_label(volume, &at, causes);
        if volumes.contains(&name) {
            causes.push(Cause::duplicate(at, &name.into()));
        }
        volumes.push(name);
    }
    let mut seen: Vec<&str> = Vec::new();
    for containers in CONTAINERS {
        for (index, container) in list(spec, &format!("/{containers}")).iter().enumerate() {
            let at = format!("{field}.{containers}[{index}]");
            let name = text(container, "/name");
            if seen.contains(&name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
            seen.push(name);
            check_container(container, &at, &volumes, causes);
        }
    }
}

fn check_label(named: &Value, field: &str, causes: &mut Vec<Cause>) {
    match text(named, "/name") {
        "" => causes.push(Cause::required(field, "")),
        name => {
            if let Some(why) = names::label(name) {
                causes.push(Cause::invalid(field, &name.into(), why));
            }
        }
    }
}

fn check_container(container: &Value, at: &str, volumes: &[&str], causes: &mut Vec<Cause>) {
    check_label(container, &format!("{at}.name"), causes);
    if text(container, "/image").is_empty() {
        causes.push(Cause::required(format!("{at}.image"), ""));
    }
    one_of(
        container,
        "imagePullPolicy",
        at,
        &["Always", "IfNotPresent", "Never"],
        causes,
    );
    let mut port_names: Vec<&str> = Vec::new();
    for (index, port) in list(container, "/ports").iter().enumerate() {
        let at = format!("{at}.ports[{index}]");
        port_number(port, "containerPort", &at, causes);
        if port.get("hostPort").is_some() {
            port_number(port, "hostPort", &at, causes);
        }
        one_of(port, "protocol", &at, PROTOCOLS, causes);
        let name = text(port, "/name");
        if !name.is_empty() && port_names.contains(&name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
        }
        port_names.push(name);
    }
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let name = text(mount, "/name");
        let field = format!("{at}.volumeMounts[{index}]");
        if !volumes.contains(&name) {
            let message = format!("Not found: \"{name}\"");
            let field = format!("{field}.name");
            causes.push(Cause {
                reason: "FieldValueNotFound",
                message,
                field,
            });
        }
        if text(mount, "/mountPath").is_empty() {
            causes.push(Cause::required(format!("{field}.mountPath"), ""));
        }
    }
    for (index, variable) in list(container, "/env").iter().enumerate() {
        if text(variable, "/name").is_empty() {
            causes.push(Cause::required(format!("{at}.env[{index}].name"), ""));
        }
    }
}

/// A pod's specification is fixed but for images, the deadline, and added tolerations.
pub(crate) fn check_change(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let added_only = list(old, "/spec/tolerations")
        .iter()
        .all(|toleration| list(new, "/spec/tolerations").contains(toleration));
    if !added_only {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        causes.push(Cause::forbidden("spec.tolerations", why));
    }
    if fixed(old) != fixed(new) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
}

/// The specification without what may change.
fn fixed(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for containers in CONTAINERS {
        for container in crate::json::list_mut(&mut spec, &format!("/{containers}")) {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        for key in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            spec.remove(key);
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_named_by_its_field() {
        let pod = json!({"spec": {
            "restartPolicy": "Sometimes",
            "containers": [
                {"name": "A", "image": "x", "ports": [{"containerPort": 0, "protocol": "tcp"}]},
                {"name": "b", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                {"name": "b", "image": "x"},
            ],
        }});
        let mut causes = Vec::new();
        check(&pod, &mut causes);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.restartPolicy",
                "spec.containers[0].name",
                "spec.containers[0].ports[0].containerPort",
                "spec.containers[0].ports[0].protocol",
                "spec.containers[1].image",
                "spec.containers[1].volumeMounts[0].name",
                "spec.containers[2].name",
            ]
        );
    }

    #[test]
    fn only_images_and_added_tolerations_may_change() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "a:1"}]}});
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "a:2".into();
        new["spec"]["tolerations"] = json!([{"key": "k"}]);
        let mut causes = Vec::new();
        check_change(&old, &new, &mut causes);
        assert_eq!(causes, []);
        check_change(&new, &old, &mut causes);
        new["spec"]["nodeName"] = "n".into();
        check_change(&old, &new, &mut causes);
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(fields, ["spec.tolerations", "spec"]);
    }
}
