//! Selectable fields by kind.

use serde_json::Value;

use crate::json::text;

type Fields = Vec<(&'static str, String)>;

/// Nothing but name and namespace.
pub(super) fn none(_: &Value) -> Fields {
    Vec::new()
}

fn take(object: &Value, paths: &[(&'static str, &str)]) -> Fields {
    let field = |(path, pointer): &(&'static str, &str)| (*path, text(object, pointer).to_owned());
    paths.iter().map(field).collect()
}

fn flag(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or_default()
        .to_string()
}

pub(super) fn pod(pod: &Value) -> Fields {
    let mut fields = take(
        pod,
        &[
            ("spec.nodeName", "/spec/nodeName"),
            ("spec.restartPolicy", "/spec/restartPolicy"),
            ("spec.schedulerName", "/spec/schedulerName"),
            ("spec.serviceAccountName", "/spec/serviceAccountName"),
            ("status.phase", "/status/phase"),
            ("status.podIP", "/status/podIP"),
            ("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
    );
    fields.push(("spec.hostNetwork", flag(pod, "/spec/hostNetwork")));
    fields
}

pub(super) fn node(node: &Value) -> Fields {
    vec![("spec.unschedulable", flag(node, "/spec/unschedulable"))]
}

pub(super) fn namespace(namespace: &Value) -> Fields {
    take(namespace, &[("status.phase", "/status/phase")])
}

pub(super) fn service(service: &Value) -> Fields {
    take(
        service,
        &[
            ("spec.clusterIP", "/spec/clusterIP"),
            ("spec.type", "/spec/type"),
        ],
    )
}

pub(super) fn secret(secret: &Value) -> Fields {
    take(secret, &[("type", "/type")])
}

pub(super) fn replica_set(set: &Value) -> Fields {
    let replicas = set
        .pointer("/status/replicas")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    vec![("status.replicas", replicas.to_string())]
}

pub(super) fn job(job: &Value) -> Fields {
    let succeeded = job
        .pointer("/status/succeeded")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    vec![("status.successful", succeeded.to_string())]
}

/// Of the stored (core) form.
pub(super) fn event(event: &Value) -> Fields {
    let mut fields = take(
        event,
        &[
            ("involvedObject.kind", "/involvedObject/kind"),
            ("involvedObject.namespace", "/involvedObject/namespace"),
            ("involvedObject.name", "/involvedObject/name"),
            ("involvedObject.uid", "/involvedObject/uid"),
            ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
            (
                "involvedObject.resourceVersion",
                "/involvedObject/resourceVersion",
            ),
            ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
            ("reason", "/reason"),
            ("type", "/type"),
            ("reportingComponent", "/reportingComponent"),
        ],
    );
    let source = match text(event, "/source/component") {
        "" => text(event, "/reportingComponent"),
        component => component,
    };
    fields.push(("source", source.to_owned()));
    fields
}
