//! The value of a lease: flannel's JSON, byte for byte.

use std::net::{Ipv4Addr, Ipv6Addr};

use netstate::{MacAddr, Vni};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// How the node that holds a lease is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The node's IPv4 address.
    #[serde(rename = "PublicIP")]
    pub public_ip: Ipv4Addr,
    /// The node's IPv6 address; written as `null` when there is none.
    #[serde(rename = "PublicIPv6", default)]
    pub public_ipv6: Option<Ipv6Addr>,
    /// The backend, such as `vxlan`; empty for `alloc`.
    #[serde(
        rename = "BackendType",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub backend_type: String,
    /// What the backend adds for IPv4.
    #[serde(
        rename = "BackendData",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub backend_data: Option<Json>,
    /// What the backend adds for IPv6.
    #[serde(
        rename = "BackendV6Data",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub backend_v6_data: Option<Json>,
}

/// A JSON value as it is written: the order of its keys stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(String);

/// The backend data of `vxlan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VxlanData {
    /// The network identifier.
    #[serde(rename = "VNI")]
    pub vni: Vni,
    /// The overlay device's address.
    #[serde(rename = "VtepMAC")]
    pub vtep_mac: MacAddr,
}

/// A value that is none of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}; a lease is like {{\"PublicIP\":\"192.0.2.1\",\"PublicIPv6\":null}}")]
pub struct ValueError(String);

/// The backend data of `wireguard`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireguardData {
    /// The node's public key, in base64.
    #[serde(rename = "PublicKey")]
    pub public_key: String,
    /// The UDP port it listens on.
    #[serde(rename = "Port")]
    pub port: u16,
}

// === impl Attributes ===

impl Attributes {
    /// Reads a value as the store holds it.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        serde_json::from_slice(bytes).map_err(|error| ValueError(error.to_string()))
    }

    /// The value as the store holds it, in flannel's order of keys.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Text keys and plain values always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The MACs of its overlay devices: what tells apart two nodes that claim one address.
    #[must_use]
    pub fn macs(&self) -> Vec<MacAddr> {
        [&self.backend_data, &self.backend_v6_data]
            .into_iter()
            .flatten()
            .filter_map(Json::read::<VxlanData>)
            .map(|data| data.vtep_mac)
            .collect()
    }
}

// === impl Json ===

impl Json {
    /// `value` as JSON; `None` for what JSON cannot say.
    #[must_use]
    pub fn of(value: &impl Serialize) -> Option<Self> {
        serde_json::to_string(value).ok().map(Self)
    }

    /// The value, if it has the form of `T`.
    #[must_use]
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.0).ok()
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(raw.get().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VXLAN: &str = r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:2a:00:00:00:01"}}"#;

    #[test]
    fn values_are_flannels_byte_for_byte() {
        for text in [
            VXLAN,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null}"#,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"host-gw"}"#,
            r#"{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:2a:00:00:00:01"},"BackendV6Data":{"VNI":1,"VtepMAC":"3a:2a:00:00:00:02"}}"#,
        ] {
            let read = Attributes::decode(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(read.encode()).unwrap(), text);
        }
        let macs = Attributes::decode(VXLAN.as_bytes()).unwrap().macs();
        assert_eq!(macs, ["3a:2a:00:00:00:01".parse().unwrap()]);
    }

    #[test]
    fn null_data_and_unknown_keys_are_fine_and_junk_is_named() {
        let text = r#"{"PublicIP":"192.0.2.1","BackendType":"host-gw","BackendData":null,"X":1}"#;
        let read = Attributes::decode(text.as_bytes()).unwrap();
        assert_eq!((read.public_ipv6, read.macs()), (None, vec![]));
        for text in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"PublicIP":"node-1"}"#,
            "\u{0}\u{1}",
        ] {
            assert!(Attributes::decode(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
