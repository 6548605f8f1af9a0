//! PURE: configuration and subnet to the delegate's configuration; its result to the endpoint.

use netstate::route::{host, masked};
use protocol::{AddResult, Error, Request};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::towline::config::Config;
use crate::towline::subnet::Subnet;

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

/// The delegate's configuration: what the configuration says, completed from the subnet file.
///
/// # Errors
/// Never for what this makes; encoding is checked all the same.
pub fn delegate(request: &Request<'_>, config: &Config, subnet: &Subnet) -> Result<Vec<u8>, Error> {
    let mut conf = config.delegate.clone();
    conf.insert("cniVersion".to_owned(), request.version.as_str().into());
    conf.insert("name".to_owned(), request.network.as_str().into());
    conf.insert("type".to_owned(), config.delegate_type.as_str().into());
    let mtu = config.mtu.unwrap_or(subnet.mtu);
    conf.entry("mtu").or_insert_with(|| mtu.get().into());
    // The daemon masquerades what leaves the cluster, for all pods in one rule.
    conf.entry("ipMasq").or_insert_with(|| false.into());
    if config.delegate_type == "bridge" {
        conf.entry("isGateway").or_insert_with(|| true.into());
    }
    for passed in ["cni.dev/valid-attachments", "cni.dev/attachments", "args"] {
        if let Some(value) = request.config.get(passed) {
            conf.insert(passed.to_owned(), value.clone());
        }
    }
    if let Some(runtime) = &config.runtime_config {
        conf.insert("runtimeConfig".to_owned(), runtime.clone());
    }
    conf.insert("ipam".to_owned(), ipam(config, subnet).into());
    encode(&conf)
}

fn ipam(config: &Config, subnet: &Subnet) -> Map<String, Value> {
    let mut ipam = config.ipam.clone();
    let mut ranges = Vec::new();
    let mut routes = ipam
        .get("routes")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let subnets = [
        (subnet.v4.map(ipnetwork::IpNetwork::V4), "0.0.0.0/0"),
        (subnet.v6.map(ipnetwork::IpNetwork::V6), "::/0"),
    ];
    for (subnet, everywhere) in subnets {
        let Some(subnet) = subnet else { continue };
        ranges.push(json!([{ "subnet": masked(subnet) }]));
        if !routes.iter().any(|route| route["dst"] == *everywhere) {
            routes.push(json!({ "dst": everywhere }));
        }
    }
    ipam.insert("type".to_owned(), "host-local".into());
    ipam.insert("ranges".to_owned(), ranges.into());
    ipam.insert("routes".to_owned(), routes.into());
    ipam
}

/// The saved configuration with this request's previous result, for CHECK.
///
/// # Errors
/// Code 6 when the saved configuration is no object.
pub fn with_previous(request: &Request<'_>, saved: &[u8]) -> Result<Vec<u8>, Error> {
    let mut conf: Map<String, Value> = decode(saved)?;
    if let Some(previous) = request.config.get("prevResult") {
        conf.insert("prevResult".to_owned(), previous.clone());
    }
    encode(&conf)
}

/// The plugin that a saved configuration names.
///
/// # Errors
/// Code 6 when it names none.
pub fn delegate_type(saved: &[u8]) -> Result<String, Error> {
    let conf: Map<String, Value> = decode(saved)?;
    let name = conf.get("type").and_then(Value::as_str);
    name.map(str::to_owned)
        .ok_or_else(|| Error::decode("the saved delegate has no type"))
}

/// The network that a saved configuration is for; `None` when it is unreadable.
#[must_use]
pub fn network(saved: &[u8]) -> Option<String> {
    let conf = decode(saved).ok()?;
    conf.get("name").and_then(Value::as_str).map(str::to_owned)
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

fn encode(conf: &Map<String, Value>) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(conf)
        .map_err(|error| Error::other("cannot encode the delegate's configuration").details(error))
}

fn decode(saved: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(saved)
        .map_err(|error| Error::decode("the saved delegate is unreadable").details(error))
}
