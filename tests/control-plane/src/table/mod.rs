//! Tables: what `kubectl get` prints. Column definitions by kind, cells computed on the server.

mod apps;
mod core;
mod duration;
mod network;
mod pod;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::json::text;
use crate::registry::Resource;
use crate::rest::Api;
use crate::status::ApiError;
use crate::store::Stored;

pub(crate) use apps::{DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET};
pub(crate) use core::{
    CONFIG_MAP, DEFAULT, EVENT, LEASE, NAMESPACE, NODE, SECRET, SERVICE_ACCOUNT,
};
pub(crate) use network::{ENDPOINT_SLICE, ENDPOINTS, NETWORK_POLICY, SERVICE};
pub(crate) use pod::POD;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string` or `integer`.
    pub kind: &'static str,
    /// `name` for the column of names, else empty.
    pub format: &'static str,
    /// 0 for columns shown always, 1 for those of `-o wide`.
    pub priority: u8,
}

/// The columns of a kind, and how an object fills them.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// In order.
    pub columns: &'static [Column],
    /// One cell per column, of the object in its stored version.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
};
const AGE: Column = column("Age");

const fn column(name: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        priority: 0,
    }
}

const fn number(name: &'static str) -> Column {
    Column {
        kind: "integer",
        ..column(name)
    }
}

const fn wide(name: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name)
    }
}

fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

/// Time since creation, as people read it.
fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now).into()
}

/// Time since a timestamp; `<unknown>` when there is none.
fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => duration::human(now.duration_since(time).as_secs()),
        Err(_) => "<unknown>".into(),
    }
}

/// The text at a pointer, or `otherwise` when there is none.
fn text_or(object: &Value, pointer: &str, otherwise: &str) -> Value {
    match text(object, pointer) {
        "" => otherwise.into(),
        found => found.into(),
    }
}

/// The number at a pointer, or 0.
fn count(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// `k=v,k=v` of a map of texts.
fn pairs(map: Option<&Value>) -> String {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    let pair =
        |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    map.map(pair).collect::<Vec<_>>().join(",")
}

/// What goes beside the cells of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// The metadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads the query parameter `includeObject`.
    ///
    /// # Errors
    /// 400 for an unknown word.
    pub fn parse(word: &str) -> Result<Self, ApiError> {
        match word {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            other => Err(ApiError::bad_request(format!(
                "includeObject: Unsupported value: \"{other}\": supported values: \"Metadata\", \"None\", \"Object\""
            ))),
        }
    }
}

/// `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

/// One row.
fn row(
    resource: &Resource,
    object: &Stored,
    include: Include,
    now: Timestamp,
) -> Result<Value, ApiError> {
    let stored = object.value().map_err(ApiError::internal)?;
    let mut row = Map::new();
    row.insert(
        "cells".into(),
        (resource.columns.cells)(&stored, now).into(),
    );
    match include {
        Include::None => {}
        Include::Metadata => {
            row.insert("object".into(), partial(&stored));
        }
        Include::Object => {
            row.insert("object".into(), Api::value(resource, object)?);
        }
    }
    Ok(row.into())
}

/// The table of some objects; `headings` says whether column definitions are wanted (a watch sends
/// them once).
///
/// # Errors
/// 500 when stored bytes are damaged.
pub fn table(
    resource: &Resource,
    objects: &[Arc<Stored>],
    metadata: &Value,
    include: Include,
    headings: bool,
) -> Result<Value, ApiError> {
    let now = Timestamp::now();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| row(resource, object, include, now))
        .collect::<Result<_, _>>()?;
    let columns: Vec<Value> = resource
        .columns
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": "", "priority": column.priority,
            })
        })
        .collect();
    Ok(json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": if headings { columns.into() } else { Value::Null },
        "rows": rows,
    }))
}

#[cfg(test)]
mod tests;
