//! Workloads.

use serde_json::Value;

use super::{AGE, Column, Columns, NAME, age, column, count, name, number, wide};
use crate::json::{list, text};
use crate::rest::selector_text;

const CONTAINERS: Column = wide("Containers");
const IMAGES: Column = wide("Images");
const SELECTOR: Column = wide("Selector");

pub(crate) const DEPLOYMENT: Columns = Columns {
    columns: &[
        NAME,
        column("Ready"),
        number("Up-to-date"),
        number("Available"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let ready = format!(
            "{}/{}",
            count(object, "/status/readyReplicas"),
            count(object, "/spec/replicas")
        );
        let mut cells = vec![
            name(object),
            ready.into(),
            count(object, "/status/updatedReplicas").into(),
            count(object, "/status/availableReplicas").into(),
            age(object, now),
        ];
        cells.extend(template(object));
        cells
    },
};

pub(crate) const REPLICA_SET: Columns = Columns {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let mut cells = vec![
            name(object),
            count(object, "/spec/replicas").into(),
            count(object, "/status/replicas").into(),
            count(object, "/status/readyReplicas").into(),
            age(object, now),
        ];
        cells.extend(template(object));
        cells
    },
};

pub(crate) const DAEMON_SET: Columns = Columns {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        column("Node Selector"),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let mut cells = vec![
            name(object),
            count(object, "/status/desiredNumberScheduled").into(),
            count(object, "/status/currentNumberScheduled").into(),
            count(object, "/status/numberReady").into(),
            count(object, "/status/updatedNumberScheduled").into(),
            count(object, "/status/numberAvailable").into(),
            super::core::selector(object.pointer("/spec/template/spec/nodeSelector")),
            age(object, now),
        ];
        cells.extend(template(object));
        cells
    },
};

pub(crate) const STATEFUL_SET: Columns = Columns {
    columns: &[NAME, column("Ready"), AGE, CONTAINERS, IMAGES],
    cells: |object, now| {
        let ready = format!(
            "{}/{}",
            count(object, "/status/readyReplicas"),
            count(object, "/spec/replicas")
        );
        let mut cells = vec![name(object), ready.into(), age(object, now)];
        cells.extend(template(object).into_iter().take(2));
        cells
    },
};

/// Containers, images, selector.
fn template(object: &Value) -> [Value; 3] {
    let join = |pointer: &str| {
        let containers = list(object, "/spec/template/spec/containers").iter();
        containers
            .map(|container| text(container, pointer))
            .collect::<Vec<_>>()
            .join(",")
    };
    let selector = object
        .pointer("/spec/selector")
        .map(selector_text)
        .unwrap_or_default();
    [join("/name").into(), join("/image").into(), selector.into()]
}
