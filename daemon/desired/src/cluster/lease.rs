//! Leases as the snapshot has them, whichever store they come from: a node's pod subnets and how
//! the node is reached.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnetwork::IpNetwork;
use netstate::wireguard::Key;
use thiserror::Error;

use crate::cluster::Node;
use crate::lease::attributes::{Json, VxlanData, WireguardData};
use crate::lease::{Attributes, LeaseKey};
use crate::names::NodeName;

/// Where the leases of a cluster are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Leases {
    /// On Node objects: `spec.podCIDRs` and annotations.
    #[default]
    OnNodes,
    /// In a store of their own, under their subnets.
    InStore {
        /// All there are.
        held: BTreeMap<LeaseKey, Arc<Announced>>,
        /// This node's, once it has one.
        own: Option<LeaseKey>,
    },
}

/// The name of a lease, which is where it is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseId {
    /// On this Node object.
    Node(NodeName),
    /// Under this key.
    Key(LeaseKey),
}

/// A node's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Its name.
    pub id: LeaseId,
    /// The node's pods' addresses, at most one prefix per family.
    pub subnets: Vec<IpNetwork>,
    /// How the node is reached, when it has said so.
    pub announced: Option<&'a Announced>,
}

/// How a node's pods are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The node's IPv4 address.
    pub public_ip: Option<Ipv4Addr>,
    /// The node's IPv6 address.
    pub public_ipv6: Option<Ipv6Addr>,
    /// How packets are carried there.
    pub backend: Backend,
}

/// How packets are carried between nodes, with what a peer must know for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Encapsulated by VXLAN; a family without data has no device.
    Vxlan {
        /// The IPv4 device's data.
        v4: Option<VxlanData>,
        /// The IPv6 device's data.
        v6: Option<VxlanData>,
    },
    /// By routes alone.
    HostGw,
    /// Encapsulated in IPv4.
    Ipip,
    /// Encrypted by WireGuard; a family without data has no device.
    Wireguard {
        /// The IPv4 device's data.
        v4: Option<WireguardData>,
        /// The IPv6 device's data.
        v6: Option<WireguardData>,
    },
    /// By somebody else: the lease only reserves the subnet.
    Alloc,
    /// A backend that is not spoken here.
    Other(String),
}

/// Data of a lease that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {value}: {remedy}")]
pub struct DataError {
    /// `BackendData` or `BackendV6Data`.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What it should hold.
    pub remedy: &'static str,
}

// === impl LeaseId ===

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Key(key) => write!(f, "lease {key}"),
        }
    }
}

// === impl Lease ===

impl<'a> Lease<'a> {
    /// What a Node object says.
    #[must_use]
    pub fn of_node(node: &'a Node) -> Self {
        Self {
            id: LeaseId::Node(node.name.clone()),
            subnets: node.pod_cidrs.clone(),
            announced: node.announced.as_ref(),
        }
    }

    /// What a store holds under `key`.
    #[must_use]
    pub fn of_key(key: LeaseKey, announced: &'a Announced) -> Self {
        Self {
            id: LeaseId::Key(key),
            subnets: key.subnets().collect(),
            announced: Some(announced),
        }
    }

    /// Its subnet of a family.
    #[must_use]
    pub fn subnet(&self, v4: bool) -> Option<IpNetwork> {
        self.subnets.iter().copied().find(|one| one.is_ipv4() == v4)
    }

    /// Every address that its node has itself because of it: those announced, and the first two of
    /// each subnet (the overlay device's and the pods' gateway).
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let announced = self.announced.into_iter().flat_map(Announced::addresses);
        let first = self.subnets.iter().flat_map(|subnet| subnet.iter().take(2));
        announced.chain(first)
    }
}

// === impl Announced ===

impl Announced {
    /// The addresses that packets to the node's pods are sent to.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [
            self.public_ip.map(IpAddr::from),
            self.public_ipv6.map(IpAddr::from),
        ]
        .into_iter()
        .flatten()
    }

    /// Understands a lease's value.
    ///
    /// # Errors
    /// When the backend's data is none.
    pub fn of(attributes: &Attributes) -> Result<Self, DataError> {
        Ok(Self {
            public_ip: Some(attributes.public_ip).filter(|ip| !ip.is_unspecified()),
            public_ipv6: attributes.public_ipv6,
            backend: Backend::of(attributes)?,
        })
    }

    /// What others are told: the value as the store holds it.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        let (backend_data, backend_v6_data) = match &self.backend {
            Backend::Vxlan { v4, v6 } => (
                v4.as_ref().and_then(Json::of),
                v6.as_ref().and_then(Json::of),
            ),
            Backend::Wireguard { v4, v6 } => (
                v4.as_ref().and_then(Json::of),
                v6.as_ref().and_then(Json::of),
            ),
            Backend::HostGw | Backend::Ipip | Backend::Alloc | Backend::Other(_) => (None, None),
        };
        Attributes {
            public_ip: self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6: self.public_ipv6,
            backend_type: self.backend.name().to_owned(),
            backend_data,
            backend_v6_data,
        }
    }
}

// === impl Backend ===

impl Backend {
    /// Its name, as leases have it; `alloc` has none.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vxlan { .. } => "vxlan",
            Self::HostGw => "host-gw",
            Self::Ipip => "ipip",
            Self::Wireguard { .. } => "wireguard",
            Self::Alloc => "",
            Self::Other(name) => name,
        }
    }

    fn of(attributes: &Attributes) -> Result<Self, DataError> {
        let (v4, v6) = (
            attributes.backend_data.as_ref(),
            attributes.backend_v6_data.as_ref(),
        );
        Ok(match attributes.backend_type.as_str() {
            "vxlan" => {
                let remedy = "use {\"VNI\":1,\"VtepMAC\":\"02:…\"} with a unicast address";
                let usable = |data: &VxlanData| data.vtep_mac.is_unicast();
                Self::Vxlan {
                    v4: data("BackendData", v4, remedy, usable)?,
                    v6: data("BackendV6Data", v6, remedy, usable)?,
                }
            }
            "wireguard" => {
                let remedy = "use {\"PublicKey\":\"…\",\"Port\":51820}";
                let usable =
                    |data: &WireguardData| data.port != 0 && data.public_key.parse::<Key>().is_ok();
                Self::Wireguard {
                    v4: data("BackendData", v4, remedy, usable)?,
                    v6: data("BackendV6Data", v6, remedy, usable)?,
                }
            }
            "host-gw" => Self::HostGw,
            "ipip" => Self::Ipip,
            "" | "alloc" => Self::Alloc,
            other => Self::Other(other.to_owned()),
        })
    }
}

/// The data of one family; `null` is none.
fn data<T: serde::de::DeserializeOwned>(
    field: &'static str,
    json: Option<&Json>,
    remedy: &'static str,
    usable: impl Fn(&T) -> bool,
) -> Result<Option<T>, DataError> {
    let Some(json) = json else { return Ok(None) };
    match json.read().filter(usable) {
        Some(data) => Ok(Some(data)),
        None => Err(DataError {
            field,
            value: json.as_str().to_owned(),
            remedy,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_survives_the_store() {
        for text in [
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null}"#,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}"#,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:2a:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"3a:2a:00:00:00:02"}}"#,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","Port":51820}}"#,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"udp"}"#,
        ] {
            let announced = Announced::of(&Attributes::decode(text.as_bytes()).unwrap()).unwrap();
            let written = String::from_utf8(announced.attributes().encode()).unwrap();
            assert_eq!(written, text);
        }
    }

    #[test]
    fn unusable_data_is_named() {
        let said = |data: &str| {
            let text =
                format!(r#"{{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{data}}}"#);
            let attributes = Attributes::decode(text.as_bytes()).unwrap();
            Announced::of(&attributes).map_err(|error| error.to_string())
        };
        for data in [
            r#"{"VNI":1}"#,
            r#"{"VNI":16777216,"VtepMAC":"3a:2a:00:00:00:01"}"#,
            r#"{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#,
            "7",
        ] {
            let error = said(data).unwrap_err();
            assert!(error.starts_with("BackendData "), "{error}");
        }
        let backend = said("null").unwrap().backend;
        assert_eq!(backend, Backend::Vxlan { v4: None, v6: None });
    }
}
