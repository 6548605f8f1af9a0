//! Pods and pod templates.

use serde_json::{Map, Value, json};

use crate::json::{default_to, is_unset, list, list_mut, map_at, text};

/// Fields that hold the containers of a pod specification.
pub(crate) const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// A new pod is pending; its service account, priority and standard tolerations are set.
pub(crate) fn create(pod: &mut Value) {
    let class = qos_class(pod);
    if let Some(map) = pod.as_object_mut() {
        map.insert(
            "status".into(),
            json!({"phase": "Pending", "qosClass": class}),
        );
    }
    let Some(spec) = map_at(pod, "spec") else {
        return;
    };
    let account = spec
        .get("serviceAccountName")
        .filter(|name| !is_unset(Some(name)))
        .cloned();
    let account = account.unwrap_or_else(|| "default".into());
    spec.insert("serviceAccount".into(), account.clone());
    spec.insert("serviceAccountName".into(), account);
    spec.entry("priority").or_insert_with(|| 0.into());
    spec.entry("preemptionPolicy")
        .or_insert_with(|| "PreemptLowerPriority".into());
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(tolerations) = tolerations.as_array_mut() else {
        return;
    };
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let tolerated = tolerations.iter().any(|toleration| {
            let same = text(toleration, "/key") == key
                || (is_unset(toleration.get("key")) && text(toleration, "/operator") == "Exists");
            same && matches!(text(toleration, "/effect"), "" | "NoExecute")
        });
        if !tolerated {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
}

/// Defaults of a pod.
pub(crate) fn fill(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for containers in CONTAINERS {
        for container in list_mut(spec, &format!("/{containers}")) {
            requests_from_limits(container);
        }
    }
    spec_defaults(spec);
    if let Some(spec) = spec.as_object_mut() {
        spec.entry("enableServiceLinks")
            .or_insert(Value::Bool(true));
    }
}

/// Defaults of the pod specification in a template.
pub(crate) fn fill_template(owner: &mut Value) {
    if let Some(template) = owner.pointer_mut("/spec/template") {
        map_at(template, "metadata");
        if let Some(spec) = template.get_mut("spec") {
            spec_defaults(spec);
        }
    }
}

fn spec_defaults(spec: &mut Value) {
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "schedulerName", "default-scheduler");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    map_at(spec, "securityContext");
    let host_network = spec
        .get("hostNetwork")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    for containers in CONTAINERS {
        for container in list_mut(spec, &format!("/{containers}")) {
            container_defaults(container, host_network);
        }
    }
    for volume in list_mut(spec, "/volumes") {
        volume_defaults(volume);
    }
}

fn container_defaults(container: &mut Value, host_network: bool) {
    let policy = pull_policy(text(container, "/image"));
    default_to(container, "imagePullPolicy", policy);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    map_at(container, "resources");
    for port in list_mut(container, "/ports") {
        default_to(port, "protocol", "TCP");
        if host_network && is_unset(port.get("hostPort")) {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            port["hostPort"] = number;
        }
    }
    for variable in list_mut(container, "/env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            default_to(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            for (key, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                if is_unset(probe.get(key)) {
                    probe[key] = value.into();
                }
            }
            http_defaults(probe);
        }
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(hook) = container.pointer_mut(hook) {
            http_defaults(hook);
        }
    }
}

fn http_defaults(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|get| get.is_object()) {
        default_to(get, "path", "/");
        default_to(get, "scheme", "HTTP");
    }
}

fn volume_defaults(volume: &mut Value) {
    for source in ["secret", "configMap", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            default_to(source, "defaultMode", 420);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        path.entry("type").or_insert_with(|| "".into());
    }
    for items in ["/downwardAPI/items", "/projected/sources"] {
        for item in list_mut(volume, items) {
            field_refs(item);
            for item in list_mut(item, "/downwardAPI/items") {
                field_refs(item);
            }
            if let Some(token) = item.get_mut("serviceAccountToken") {
                default_to(token, "expirationSeconds", 3600);
            }
        }
    }
    if let Some(volume) = volume.as_object_mut()
        && volume.keys().all(|key| key == "name")
    {
        volume.insert("emptyDir".into(), Value::Object(Map::new()));
    }
}

fn field_refs(item: &mut Value) {
    if let Some(field) = item.get_mut("fieldRef") {
        default_to(field, "apiVersion", "v1");
    }
}

/// `Always` for the tag `latest` or none; a digest counts as a fixed tag.
fn pull_policy(image: &str) -> &'static str {
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        _ if last.contains('@') => "IfNotPresent",
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn requests_from_limits(container: &mut Value) {
    let limits = container
        .pointer("/resources/limits")
        .and_then(Value::as_object)
        .cloned();
    let (Some(limits), Some(resources)) = (limits, container.get_mut("resources")) else {
        return;
    };
    if let Some(requests) = map_at(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// `Guaranteed` when every container's cpu and memory limits equal its requests, `BestEffort` when
/// none asks for anything, else `Burstable`.
fn qos_class(pod: &Value) -> &'static str {
    let containers = || {
        CONTAINERS
            .iter()
            .flat_map(|field| list(pod, &format!("/spec/{field}")))
    };
    let amount = |container: &Value, kind: &str, name: &str| {
        container
            .pointer(&format!("/resources/{kind}/{name}"))
            .cloned()
    };
    let asks = |container: &Value| {
        ["limits", "requests"].iter().any(|kind| {
            ["cpu", "memory"]
                .iter()
                .any(|name| amount(container, kind, name).is_some())
        })
    };
    let fixed = |container: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = amount(container, "limits", name);
            limit.is_some()
                && amount(container, "requests", name).is_none_or(|request| Some(request) == limit)
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(fixed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_is_completed() {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {
            "hostNetwork": true,
            "containers": [{
                "name": "c", "image": "registry:5000/x", "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            }],
            "volumes": [{"name": "v"}],
        }});
        create(&mut pod);
        fill(&mut pod);
        let toleration = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        assert_eq!(
            pod,
            json!({"metadata": {"name": "a"}, "status": {"phase": "Pending", "qosClass": "Guaranteed"},
            "spec": {
                "hostNetwork": true, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
                "securityContext": {}, "enableServiceLinks": true, "priority": 0,
                "preemptionPolicy": "PreemptLowerPriority",
                "serviceAccount": "default", "serviceAccountName": "default",
                "tolerations": [
                    toleration("node.kubernetes.io/not-ready"),
                    toleration("node.kubernetes.io/unreachable"),
                ],
                "containers": [{
                    "name": "c", "image": "registry:5000/x", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {
                        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
                        "failureThreshold": 3,
                    },
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"},
                        "requests": {"cpu": "1", "memory": "1Gi"},
                    },
                }],
                "volumes": [{"name": "v", "emptyDir": {}}],
            }})
        );
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        let policies = [
            "a",
            "a:latest",
            "a:1",
            "r:5000/a",
            "r:5000/a:1",
            "a@sha256:00",
        ]
        .map(pull_policy);
        let (always, present) = ("Always", "IfNotPresent");
        assert_eq!(
            policies,
            [always, always, present, always, present, present]
        );
    }
}
