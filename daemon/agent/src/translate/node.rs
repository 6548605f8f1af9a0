//! Nodes, with flannel's annotations.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use desired::cluster::{Announced, AskedAddresses, Node};
use desired::lease::Attributes;
use desired::lease::attributes::Json;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use thiserror::Error;

use super::fields::Fields;
use super::{TranslateError, Translated};

/// The names of flannel's node annotations under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationKeys {
    /// `true` on nodes that take part.
    pub kube_subnet_manager: String,
    /// The backend's name.
    pub backend_type: String,
    /// The backend's data as JSON.
    pub backend_data: String,
    /// The data of the IPv6 device as JSON.
    pub backend_v6_data: String,
    /// The address that packets to the node's pods are sent to.
    pub public_ip: String,
    /// The same for IPv6.
    pub public_ipv6: String,
    /// Written by an administrator: announce this instead of the interface's address.
    pub public_ip_overwrite: String,
    /// The same for IPv6.
    pub public_ipv6_overwrite: String,
    /// Written by an administrator: use and announce this address of the node.
    pub node_public_ip: String,
    /// The same for IPv6.
    pub node_public_ipv6: String,
}

/// A `--kube-annotation-prefix` that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "kube-annotation-prefix {0:?}: use a domain, with at most one '/', such as flannel.alpha.coreos.com"
)]
pub struct PrefixError(String);

impl AnnotationKeys {
    /// The keys under a prefix, by flannel's rule: `/` follows a domain, `-` follows a name.
    ///
    /// # Errors
    /// When the prefix is empty or has more than one `/`.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        let separator = match prefix.matches('/').count() {
            0 if !prefix.is_empty() => "/",
            1 if prefix.ends_with('/') || prefix.ends_with('-') => "",
            1 => "-",
            _ => return Err(PrefixError(prefix.to_owned())),
        };
        let key = |name: &str| format!("{prefix}{separator}{name}");
        Ok(Self {
            kube_subnet_manager: key("kube-subnet-manager"),
            backend_type: key("backend-type"),
            backend_data: key("backend-data"),
            backend_v6_data: key("backend-v6-data"),
            public_ip: key("public-ip"),
            public_ipv6: key("public-ipv6"),
            public_ip_overwrite: key("public-ip-overwrite"),
            public_ipv6_overwrite: key("public-ipv6-overwrite"),
            node_public_ip: key("node-public-ip"),
            node_public_ipv6: key("node-public-ipv6"),
        })
    }
}

/// Translates a Node. A wrong annotation costs this node its place in the overlay, nothing else.
///
/// # Errors
/// When its name is not one.
pub fn node(
    object: &core::Node,
    keys: &AnnotationKeys,
) -> Result<Translated<Node>, TranslateError> {
    let mut fields = Fields::of("Node", &object.metadata);
    let name = fields.name(&object.metadata, |_, name| name.parse())?;
    let mut node = Node::new(name);
    node.pod_cidrs = pod_cidrs(&mut fields, object.spec.as_ref());
    let status = object
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    let addresses = status
        .filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"))
        .map(|address| address.address.as_str());
    node.addresses = fields.addresses("status.addresses", addresses);
    node.network_unavailable = network_unavailable(object.status.as_ref());
    if let Some(annotations) = &object.metadata.annotations {
        let mut reader = Reader {
            fields: &mut fields,
            annotations,
            keys,
        };
        node.announced = reader.announced();
        node.asked = reader.asked();
    }
    Ok(fields.done(node))
}

fn network_unavailable(status: Option<&core::NodeStatus>) -> Option<bool> {
    let mut conditions = status?.conditions.iter().flatten();
    let found = conditions.find(|condition| condition.type_ == "NetworkUnavailable")?;
    match found.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn pod_cidrs(fields: &mut Fields, spec: Option<&core::NodeSpec>) -> Vec<IpNetwork> {
    let Some(spec) = spec else { return Vec::new() };
    let mut texts: Vec<&str> = spec
        .pod_cidrs
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    if texts.is_empty() {
        texts.extend(spec.pod_cidr.as_deref().filter(|text| !text.is_empty()));
    }
    let mut cidrs: Vec<IpNetwork> = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        let field = format!("spec.podCIDRs[{index}]");
        let Some(cidr) = fields.network(&field, text) else {
            continue;
        };
        if cidrs.iter().any(|other| other.is_ipv4() == cidr.is_ipv4()) {
            fields.problem(
                &field,
                text,
                "give a node at most one prefix per address family",
            );
        } else {
            cidrs.push(netstate::route::masked(cidr));
        }
    }
    cidrs
}

/// Reads the annotations of one node.
struct Reader<'a> {
    fields: &'a mut Fields,
    annotations: &'a BTreeMap<String, String>,
    keys: &'a AnnotationKeys,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.annotations
            .get(key)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// How the node is reached; `None` if it does not take part, or not in a way that can be used.
    fn announced(&mut self) -> Option<Announced> {
        let keys = self.keys;
        if self.get(&keys.kube_subnet_manager) != Some("true") {
            return None;
        }
        let Some(backend_type) = self.annotations.get(&keys.backend_type).cloned() else {
            let remedy = "a node that takes part says its backend: restart its daemon";
            self.fields
                .problem(&annotation(&keys.backend_type), "", remedy);
            return None;
        };
        let public_ip = self.address(&keys.public_ip)?;
        let public_ipv6 = self.address(&keys.public_ipv6)?;
        if public_ip.is_none() && public_ipv6.is_none() {
            let remedy = "a node that takes part says its address: restart its daemon";
            self.fields
                .problem(&annotation(&keys.public_ip), "", remedy);
            return None;
        }
        let attributes = Attributes {
            public_ip: public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6,
            backend_type,
            backend_data: self.data(&keys.backend_data)?,
            backend_v6_data: self.data(&keys.backend_v6_data)?,
        };
        let read = Announced::of(&attributes);
        let key = match &read {
            Err(error) if error.field == "BackendV6Data" => &keys.backend_v6_data,
            _ => &keys.backend_data,
        };
        let (value, read) = match read {
            Ok(announced) => (String::new(), Ok(announced)),
            Err(error) => (error.value, Err(error.remedy)),
        };
        self.fields.keep(&annotation(key), &value, read)
    }

    /// What an administrator asks for; an address that is none is as good as not asked for.
    fn asked(&mut self) -> AskedAddresses {
        let keys = self.keys;
        AskedAddresses {
            public_ip: self.address(&keys.node_public_ip).flatten(),
            public_ipv6: self.address(&keys.node_public_ipv6).flatten(),
            announced: self.address(&keys.public_ip_overwrite).flatten(),
            announced_v6: self.address(&keys.public_ipv6_overwrite).flatten(),
        }
    }

    /// An address, if there is one; `None` if it is none.
    fn address<T: FromStr>(&mut self, key: &str) -> Option<Option<T>> {
        let Some(text) = self.get(key).map(str::to_owned) else {
            return Some(None);
        };
        let read = text
            .parse()
            .map_err(|_| "use one address of the annotation's family");
        self.fields.keep(&annotation(key), &text, read).map(Some)
    }

    /// A backend's data, if there is any; `None` if it is no JSON.
    fn data(&mut self, key: &str) -> Option<Option<Json>> {
        let Some(text) = self.get(key).map(str::to_owned) else {
            return Some(None);
        };
        let read = serde_json::from_str::<Option<Json>>(&text).map_err(|_| "use JSON");
        self.fields.keep(&annotation(key), &text, read)
    }
}

fn annotation(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

#[cfg(test)]
mod tests;
