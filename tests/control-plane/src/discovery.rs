//! Discovery: which kinds there are. Plain documents (one per group version) and the aggregated one
//! (`apidiscovery.k8s.io/v2`).

use serde_json::{Value, json};

use crate::registry::{Registry, Resource, Subresource, Verbs};

/// Version of the Kubernetes API that is served.
const MINOR: &str = "35";

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR,
        "gitVersion": format!("v1.{MINOR}.0+towline.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `/api` for clients that came by `address`.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_document(group, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; `None` when there is no such group.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let groups = registry.groups();
    let (name, versions) = groups
        .get_key_value(name)
        .filter(|(name, _)| !name.is_empty())?;
    let mut document = group_document(name, versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn group_document(name: &str, versions: &[&str]) -> Value {
    let version =
        |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

const ALL: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn verbs(resource: &Resource) -> &'static [&'static str] {
    match resource.verbs {
        Verbs::All => ALL,
        Verbs::Create => &["create"],
    }
}

fn subresources(resource: &Resource) -> Vec<Subresource> {
    let status = resource.subresource("status");
    resource
        .subresources
        .iter()
        .copied()
        .chain(status)
        .collect()
}

/// `/api/v1`, `/apis/GROUP/VERSION`; `None` when there is no such version.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    let served = registry
        .resources()
        .iter()
        .filter(|r| r.group == group && r.version == version);
    for resource in served {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs(resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = resource.short_names.into();
        }
        if !resource.categories.is_empty() {
            entry["categories"] = resource.categories.into();
        }
        list.push(entry);
        for subresource in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": subresource.kind,
                "verbs": subresource.verbs,
            });
            if subresource.group != group {
                entry["group"] = subresource.group.into();
                entry["version"] = subresource.version.into();
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    (!list.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": list,
        })
    })
}

/// The aggregated document of `/api` (core) or `/apis` (all other groups).
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let items: Vec<Value> = registry
        .groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let version = |version: &&str| {
                let resources: Vec<Value> = registry
                    .resources()
                    .iter()
                    .filter(|r| r.group == group && r.version == *version)
                    .map(|resource| aggregated_resource(resource))
                    .collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            };
            let metadata = if core {
                json!({})
            } else {
                json!({"name": group})
            };
            let versions: Vec<Value> = versions.iter().map(version).collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let subresources: Vec<Value> = subresources(resource)
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": kind(sub.group, sub.version, sub.kind),
            })
        })
        .collect();
    let mut document = json!({
        "resource": resource.plural,
        "responseKind": kind(resource.group, resource.version, resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": verbs(resource),
    });
    for (key, words) in [
        ("shortNames", resource.short_names),
        ("categories", resource.categories),
    ] {
        if !words.is_empty() {
            document[key] = words.into();
        }
    }
    if !subresources.is_empty() {
        document["subresources"] = subresources.into();
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_aggregated_tell_the_same() {
        let registry = Registry::new();
        let mut plain: Vec<String> = Vec::new();
        for (group, versions) in registry.groups() {
            for version in versions {
                let list = resources(&registry, group, version).unwrap();
                plain.extend(
                    list["resources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|r| format!("{group}/{version}/{}", r["name"].as_str().unwrap())),
                );
            }
        }
        let mut flat: Vec<String> = Vec::new();
        for core in [true, false] {
            let document = aggregated(&registry, core);
            for item in document["items"].as_array().unwrap() {
                let group = item["metadata"]["name"].as_str().unwrap_or_default();
                for version in item["versions"].as_array().unwrap() {
                    for resource in version["resources"].as_array().unwrap() {
                        let name = resource["resource"].as_str().unwrap();
                        let place = format!("{group}/{}", version["version"].as_str().unwrap());
                        flat.push(format!("{place}/{name}"));
                        for sub in resource["subresources"].as_array().into_iter().flatten() {
                            let sub = sub["subresource"].as_str().unwrap();
                            flat.push(format!("{place}/{name}/{sub}"));
                        }
                    }
                }
            }
        }
        plain.sort();
        flat.sort();
        assert_eq!(plain, flat);
        assert!(plain.contains(&"/v1/pods/binding".to_owned()));
        assert!(plain.contains(&"apps/v1/deployments/scale".to_owned()));
    }
}
