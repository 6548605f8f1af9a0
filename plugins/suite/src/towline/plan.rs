//! PURE: configuration and subnet to the delegate's configuration; its result to the endpoint.

use ipnetwork::IpNetwork;
use netstate::route::host;
use protocol::{AddResult, Error, Request};
use serde::Serialize;

use crate::delegate::{self, Delegate};
use crate::subnet::Subnet;
use crate::towline::config::Config;

/// What the daemon is told about a pod's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Namespace of the pod; empty outside Kubernetes.
    pub pod_namespace: String,
    /// Name of the pod; empty outside Kubernetes.
    pub pod_name: String,
    /// UID of the pod; empty if the runtime does not say.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// The host's end of its veth.
    pub host_interface: String,
    /// Its addresses as /32 and /128.
    pub addresses: Vec<String>,
    /// Path of its network namespace.
    pub netns: String,
    /// The kernel's cookie of that namespace.
    pub netns_cookie: u64,
    /// How long the daemon may take to put its policy in force, in seconds.
    pub policy_timeout_seconds: u64,
}

/// The delegate's configuration: what the configuration says, completed from the subnet file, if
/// that is known.
#[must_use]
pub fn delegate(request: &Request<'_>, config: &Config, subnet: Option<&Subnet>) -> Delegate {
    // The daemon masquerades what leaves the cluster, for all pods in one rule.
    let mut delegate =
        Delegate::new(request, &config.delegate, &config.delegate_type).or("ipMasq", false);
    if let Some(mtu) = config.mtu.or(subnet.map(|subnet| subnet.mtu)) {
        delegate = delegate.or("mtu", mtu.get());
    }
    if config.delegate_type == "bridge" {
        delegate = delegate.or("isGateway", true);
    }
    let mut given = config.ipam.clone();
    given.insert("type".to_owned(), "host-local".into());
    let subnets: Vec<IpNetwork> = subnet.iter().flat_map(|one| one.subnets()).collect();
    let everywhere = subnets.iter().map(|subnet| match subnet {
        IpNetwork::V4(_) => "0.0.0.0/0".to_owned(),
        IpNetwork::V6(_) => "::/0".to_owned(),
    });
    delegate.ipam(delegate::ipam(&given, &subnets, everywhere))
}

/// What to register: the last interface on the host's side is the pod's own.
///
/// # Errors
/// Code 7 when the result has no such interface, or no address.
pub fn endpoint(
    request: &Request<'_>,
    config: &Config,
    result: &AddResult,
    netns_cookie: u64,
) -> Result<Endpoint, Error> {
    let near = result
        .interfaces
        .iter()
        .rev()
        .find(|interface| interface.sandbox.is_empty());
    let Some(near) = near else {
        return Err(Error::config("the delegate named no interface on the host"));
    };
    if result.ips.is_empty() {
        return Err(Error::config("the delegate gave no address"));
    }
    let argument = |name| request.args.get(name).unwrap_or_default().to_owned();
    Ok(Endpoint {
        pod_namespace: argument("K8S_POD_NAMESPACE"),
        pod_name: argument("K8S_POD_NAME"),
        pod_uid: argument("K8S_POD_UID"),
        host_interface: near.name.clone(),
        addresses: result
            .ips
            .iter()
            .map(|ip| host(ip.address.ip()).to_string())
            .collect(),
        netns: request.netns.clone().unwrap_or_default(),
        netns_cookie,
        policy_timeout_seconds: config.policy_timeout.as_secs(),
    })
}
