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

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn registration() -> Registration {
        Registration {
            pod_namespace: "default".to_owned(),
            pod_name: "a".to_owned(),
            pod_uid: Some("u-1".to_owned()),
            host_interface: "veth1".to_owned(),
            addresses: vec!["10.244.1.5/32".to_owned()],
            netns: "/run/netns/x".to_owned(),
            netns_cookie: 123,
            policy_timeout_seconds: 10,
        }
    }

    fn checked(change: impl FnOnce(&mut Registration)) -> Result<LocalEndpoint, String> {
        let mut registration = registration();
        change(&mut registration);
        let id = Registration::id("c1", "eth0").map_err(|error| error.to_string())?;
        let ifindex_of = |name: &IfName| (name.as_str() == "veth1").then_some(7);
        registration
            .endpoint(id, ifindex_of)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_registration_becomes_an_endpoint() {
        let endpoint = checked(|r| r.pod_uid = Some(String::new())).unwrap();
        assert_eq!(endpoint.host_ifindex, 7);
        assert_eq!(endpoint.uid, None);
        assert_eq!(
            endpoint.addresses,
            ["10.244.1.5".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn wrong_fields_are_named_with_value_and_remedy() {
        let message = |change: fn(&mut Registration)| checked(change).unwrap_err();
        let begins = |text: String, with: &str| assert!(text.starts_with(with), "{text}");
        begins(
            message(|r| r.pod_name = "A_b".to_owned()),
            "podName: \"A_b\": use 1 to 253",
        );
        begins(
            message(|r| r.pod_namespace = "a.b".to_owned()),
            "podNamespace: \"a.b\": use 1 to 63",
        );
        begins(
            message(|r| r.pod_uid = Some("/".to_owned())),
            "podUID: \"/\": ",
        );
        begins(
            message(|r| r.host_interface = "a/b".to_owned()),
            "hostInterface: \"a/b\": ",
        );
        assert_eq!(
            message(|r| r.addresses.clear()),
            "addresses: \"[]\": send the pod's addresses"
        );
        assert_eq!(
            message(|r| r.addresses.push("10.0.0.2/32".to_owned())),
            "addresses: \"10.0.0.2/32\": send at most one address per family"
        );
        begins(
            message(|r| r.netns_cookie = 0),
            "netnsCookie: \"0\": send SO_NETNS_COOKIE",
        );
        assert_eq!(
            message(|r| r.policy_timeout_seconds = 301),
            "policyTimeoutSeconds: \"301\": send 1 to 300 seconds"
        );
    }

    #[test]
    fn ids_that_could_leave_the_folder_are_refused() {
        for id in ["", "..", "../../etc", "a/b", "-a", "a@b", &"a".repeat(201)] {
            assert!(Registration::id(id, "eth0").is_err(), "{id}");
        }
        assert!(Registration::id("c1", "../x").is_err());
        assert!(Registration::id("c1_2.3-4", "eth0").is_ok());
    }
}
