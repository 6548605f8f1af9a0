//! Core kinds, and kinds without columns of their own.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Columns, NAME, age, column, name, number, pairs, since, text_or, wide};
use crate::json::{list, text};

pub(crate) const DEFAULT: Columns = Columns {
    columns: &[NAME, AGE],
    cells: |object, now| vec![name(object), age(object, now)],
};

pub(crate) const NAMESPACE: Columns = Columns {
    columns: &[NAME, column("Status"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/status/phase").into(),
            age(object, now),
        ]
    },
};

pub(crate) const CONFIG_MAP: Columns = Columns {
    columns: &[NAME, number("Data"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            (size(object, "data") + size(object, "binaryData")).into(),
            age(object, now),
        ]
    },
};

pub(crate) const SECRET: Columns = Columns {
    columns: &[NAME, column("Type"), number("Data"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/type").into(),
            size(object, "data").into(),
            age(object, now),
        ]
    },
};

pub(crate) const SERVICE_ACCOUNT: Columns = Columns {
    columns: &[NAME, number("Secrets"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            list(object, "/secrets").len().into(),
            age(object, now),
        ]
    },
};

pub(crate) const LEASE: Columns = Columns {
    columns: &[NAME, column("Holder"), AGE],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "/spec/holderIdentity").into(),
            age(object, now),
        ]
    },
};

pub(crate) const EVENT: Columns = Columns {
    columns: &[
        column("Last Seen"),
        column("Type"),
        column("Reason"),
        column("Object"),
        wide("Subobject"),
        wide("Source"),
        column("Message"),
        wide("First Seen"),
        wide("Count"),
        wide("Name"),
    ],
    cells: event,
};

pub(crate) const NODE: Columns = Columns {
    columns: &[
        NAME,
        column("Status"),
        column("Roles"),
        AGE,
        column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: node,
};

fn size(object: &Value, field: &str) -> usize {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let first = match text(event, "/firstTimestamp") {
        "" => text(event, "/eventTime"),
        time => time,
    };
    let last = [
        text(event, "/series/lastObservedTime"),
        text(event, "/lastTimestamp"),
    ]
    .into_iter()
    .find(|time| !time.is_empty())
    .unwrap_or(first);
    let kind = text(event, "/involvedObject/kind").to_lowercase();
    let source = match text(event, "/source/component") {
        "" => text(event, "/reportingComponent"),
        component => component,
    };
    let source = match text(event, "/source/host") {
        "" => source.to_owned(),
        host => format!("{source}, {host}"),
    };
    let count = event
        .pointer("/series/count")
        .or_else(|| event.get("count"));
    vec![
        since(last, now).into(),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        format!("{kind}/{}", text(event, "/involvedObject/name")).into(),
        text(event, "/involvedObject/fieldPath").into(),
        source.into(),
        text(event, "/message").trim().into(),
        since(first, now).into(),
        count
            .and_then(Value::as_u64)
            .unwrap_or(1)
            .to_string()
            .into(),
        name(event),
    ]
}

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(node, "/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|condition| text(condition, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node
        .pointer("/spec/unschedulable")
        .and_then(Value::as_bool)
        .unwrap_or_default()
    {
        status.push_str(",SchedulingDisabled");
    }
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    roles.sort_unstable();
    let roles = if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    };
    let address = |kind: &str| {
        let found = list(node, "/status/addresses")
            .iter()
            .find(|a| a["type"] == kind);
        found.map_or(Value::from("<none>"), |address| {
            text(address, "/address").into()
        })
    };
    let info = |key: &str| text_or(node, &format!("/status/nodeInfo/{key}"), "<unknown>");
    vec![
        name(node),
        status.into(),
        roles.into(),
        age(node, now),
        text(node, "/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// `<none>` for an empty set of labels.
pub(super) fn selector(map: Option<&Value>) -> Value {
    match pairs(map) {
        text if text.is_empty() => "<none>".into(),
        text => text.into(),
    }
}
