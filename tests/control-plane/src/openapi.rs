//! OpenAPI, as much as clients need: for every kind its PATCH operation with the parameters it
//! takes (that is where `kubectl apply` looks), and a schema that names the kind and admits all
//! fields. Version 2 is a Protocol Buffers document that says nothing but that it is there; kubectl
//! then uses the merge keys it knows itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::registry::{Registry, Resource};

/// Media type of version 2.
pub const V2_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents, made once.
#[derive(Debug)]
pub struct OpenApi {
    index: Value,
    documents: BTreeMap<String, (String, Vec<u8>)>,
}

impl OpenApi {
    /// Makes the documents of all group versions.
    pub fn new(registry: &Registry) -> Self {
        let mut documents = BTreeMap::new();
        let mut paths = serde_json::Map::new();
        for (group, versions) in registry.groups() {
            for version in versions {
                let path = match group {
                    "" => format!("api/{version}"),
                    group => format!("apis/{group}/{version}"),
                };
                let document = document(registry, group, version).to_string().into_bytes();
                let hash: String = Sha256::digest(&document)
                    .iter()
                    .take(16)
                    .map(|b| format!("{b:02X}"))
                    .collect();
                let url = format!("/openapi/v3/{path}?hash={hash}");
                paths.insert(path.clone(), json!({"serverRelativeURL": url}));
                documents.insert(path, (hash, document));
            }
        }
        Self {
            index: json!({"paths": paths}),
            documents,
        }
    }

    /// `/openapi/v3`.
    pub fn index(&self) -> &Value {
        &self.index
    }

    /// `/openapi/v3/PATH`: hash and document.
    pub fn document(&self, path: &str) -> Option<&(String, Vec<u8>)> {
        self.documents.get(path)
    }

    /// `/openapi/v2`.
    pub fn v2() -> Vec<u8> {
        // Document{swagger(1): "2.0", info(2): Info{title(1): "Kubernetes", version(2): "v1"}}
        let mut info = field(1, b"Kubernetes");
        info.extend(field(2, b"v1"));
        let mut document = field(1, b"2.0");
        document.extend(field(2, &info));
        document
    }
}

/// A length-delimited Protocol Buffers field shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(127).min(127);
    let mut bytes = vec![number << 3 | 2, length];
    bytes.extend_from_slice(&content[..length.into()]);
    bytes
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let (mut paths, mut schemas) = (serde_json::Map::new(), serde_json::Map::new());
    let prefix = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    for resource in registry.resources() {
        if resource.group != group || resource.version != version {
            continue;
        }
        let place = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!("{prefix}{place}/{}/{{name}}", resource.plural);
        paths.insert(path, json!({"patch": patch_operation(resource)}));
        schemas.insert(schema_name(resource), schema(resource));
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn kind_of(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

/// `io.k8s.api.apps.v1.Deployment`.
fn schema_name(resource: &Resource) -> String {
    let group = resource.group.split('.').next().unwrap_or_default();
    let group = if group.is_empty() { "core" } else { group };
    format!("io.k8s.api.{group}.{}.{}", resource.version, resource.kind)
}

fn schema(resource: &Resource) -> Value {
    json!({
        "type": "object", "description": format!("{}, without its fields.", resource.kind),
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object"},
        },
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-group-version-kind": [kind_of(resource)],
    })
}

fn patch_operation(resource: &Resource) -> Value {
    let query = |name: &str, kind: &str| json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}});
    let body = json!({"schema": {"type": "object"}});
    // Not the strategic one: kubectl would then look for merge keys in the schema, which has none,
    // and complain before it takes its own.
    let media = [
        "application/json-patch+json",
        "application/merge-patch+json",
    ];
    let content: serde_json::Map<String, Value> = media
        .iter()
        .map(|media| ((*media).to_owned(), body.clone()))
        .collect();
    let reference = format!("#/components/schemas/{}", schema_name(resource));
    json!({
        "operationId": format!("patch{}", resource.kind),
        "parameters": [
            query("dryRun", "string"), query("fieldManager", "string"),
            query("fieldValidation", "string"), query("force", "boolean"),
        ],
        "requestBody": {"content": content},
        "responses": {"200": {
            "description": "OK", "content": {"application/json": {"schema": {"$ref": reference}}},
        }},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": kind_of(resource),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_patch_operation() {
        let registry = Registry::new();
        let openapi = OpenApi::new(&registry);
        for resource in registry.resources() {
            let path = match resource.group {
                "" => "api/v1".to_owned(),
                group => format!("apis/{group}/{}", resource.version),
            };
            let (_, document) = openapi.document(&path).unwrap();
            let document: Value = serde_json::from_slice(document).unwrap();
            let found = document["paths"]
                .as_object()
                .unwrap()
                .values()
                .any(|operations| {
                    operations["patch"]["x-kubernetes-group-version-kind"] == kind_of(resource)
                });
            assert!(found, "{}", resource.kind);
        }
    }

    #[test]
    fn version_two_is_a_minimal_document() {
        assert_eq!(
            OpenApi::v2(),
            b"\x0a\x032.0\x12\x10\x0a\x0aKubernetes\x12\x02v1"
        );
    }
}
