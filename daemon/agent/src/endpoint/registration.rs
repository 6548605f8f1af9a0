//! A registration as it comes over the socket, and the checks that make an endpoint of it.

use std::net::IpAddr;

use desired::cluster::{EndpointId, LocalEndpoint};
use desired::names::PodName;
use ipnetwork::IpNetwork;
use netstate::IfName;
use serde::{Deserialize, Serialize};

/// Longest policy timeout a plugin may ask for, in seconds.
const LONGEST_TIMEOUT: u64 = 300;
/// Longest container id: the id is part of a file name.
const LONGEST_ID: usize = 200;

/// Body of `PUT /v1/endpoints/{containerID}/{ifname}`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `K8S_POD_NAME`.
    pub pod_name: String,
    /// `K8S_POD_UID`, if the runtime passes it.
    #[serde(rename = "podUID", default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// The host end of the interface pair.
    pub host_interface: String,
    /// The pod's addresses with prefix length, at most one per family.
    pub addresses: Vec<String>,
    /// Path of the pod's network namespace.
    #[serde(default)]
    pub netns: String,
    /// `SO_NETNS_COOKIE` of the pod's network namespace.
    pub netns_cookie: u64,
    /// How long the plugin is willing to wait.
    #[serde(default = "default_timeout")]
    pub policy_timeout_seconds: u64,
}

/// A field of a registration that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {value:?}: {remedy}")]
pub struct BadRegistration {
    /// The field's name on the wire.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong with it, and what to send.
    pub remedy: String,
}

fn default_timeout() -> u64 {
    10
}

fn bad<R: ToString + ?Sized>(field: &'static str, value: &str, remedy: &R) -> BadRegistration {
    BadRegistration {
        field,
        value: value.to_owned(),
        remedy: remedy.to_string(),
    }
}

// === impl Registration ===

impl Registration {
    /// Checks container id and interface name as they stand in the path.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn id(container_id: &str, ifname: &str) -> Result<EndpointId, BadRegistration> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let first = container_id.as_bytes().first();
        if !first.is_some_and(u8::is_ascii_alphanumeric)
            || !container_id.bytes().all(allowed)
            || container_id.len() > LONGEST_ID
        {
            let remedy =
                "use 1 to 200 letters, digits, `_`, `.` and `-`, the first a letter or digit";
            return Err(bad("containerID", container_id, remedy));
        }
        let ifname = ifname
            .parse()
            .map_err(|error| bad("ifname", ifname, &error))?;
        Ok(EndpointId {
            container_id: container_id.to_owned(),
            ifname,
        })
    }

    /// The endpoint this registers, its host interface looked up by `ifindex_of`.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn endpoint(
        &self,
        id: EndpointId,
        ifindex_of: impl Fn(&IfName) -> Option<u32>,
    ) -> Result<LocalEndpoint, BadRegistration> {
        let pod = PodName::new(&self.pod_namespace, &self.pod_name).map_err(|error| {
            let field = if error.value == self.pod_namespace {
                "podNamespace"
            } else {
                "podName"
            };
            bad(field, &error.value, error.remedy)
        })?;
        let uid = match self.pod_uid.as_deref() {
            None | Some("") => None,
            Some(uid) => Some(uid.parse().map_err(|error| bad("podUID", uid, &error))?),
        };
        let host_interface: IfName = self
            .host_interface
            .parse()
            .map_err(|error| bad("hostInterface", &self.host_interface, &error))?;
        let addresses = self.checked_addresses()?;
        if self.netns_cookie == 0 {
            return Err(bad(
                "netnsCookie",
                "0",
                "send SO_NETNS_COOKIE of a socket in the pod's namespace",
            ));
        }
        if !(1..=LONGEST_TIMEOUT).contains(&self.policy_timeout_seconds) {
            let remedy = format!("send 1 to {LONGEST_TIMEOUT} seconds");
            return Err(bad(
                "policyTimeoutSeconds",
                &self.policy_timeout_seconds.to_string(),
                &remedy,
            ));
        }
        let host_ifindex = ifindex_of(&host_interface).ok_or_else(|| {
            bad(
                "hostInterface",
                &self.host_interface,
                "there is no such interface on this node",
            )
        })?;
        Ok(LocalEndpoint {
            id,
            pod,
            uid,
            host_interface,
            host_ifindex,
            netns_cookie: self.netns_cookie,
            addresses,
        })
    }

    fn checked_addresses(&self) -> Result<Vec<IpAddr>, BadRegistration> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for text in &self.addresses {
            let parsed: IpNetwork = text
                .parse()
                .map_err(|_| bad("addresses", text, "send addresses such as 10.244.1.5/32"))?;
            if addresses
                .iter()
                .any(|known| known.is_ipv4() == parsed.is_ipv4())
            {
                return Err(bad(
                    "addresses",
                    text,
                    "send at most one address per family",
                ));
            }
            addresses.push(parsed.ip());
        }
        if addresses.is_empty() {
            return Err(bad("addresses", "[]", "send the pod's addresses"));
        }
        Ok(addresses)
    }
}
