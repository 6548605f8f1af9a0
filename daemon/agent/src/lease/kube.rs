//! Leases as annotations of Node objects, in flannel's keys.

use std::collections::BTreeMap;
use std::time::Duration;

use desired::cluster::Cluster;
use desired::lease::attributes::Json;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use thiserror::Error;

use super::{Lease, LeaseStore, announced};
use crate::translate::AnnotationKeys;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Publishes this node's lease on its Node object.
pub struct KubeLeases {
    nodes: Api<Node>,
    node_name: String,
    keys: AnnotationKeys,
    set_network_unavailable: bool,
}

/// Why a Node's status could not be written.
#[derive(Debug, Error)]
enum PatchError {
    /// There is no such Node, and hence nothing on it.
    #[error("there is no Node {0}: it comes with its kubelet; is this its name (node-name)?")]
    NoNode(String),
    /// The API server refuses.
    #[error("patch of nodes/{0}/status: the API server answers {1}: {2}")]
    Refused(String, u16, String),
    /// It cannot be reached.
    #[error("patch of nodes/{0}/status: {1}")]
    Failed(String, String),
    /// It takes too long.
    #[error("patch of nodes/{0}/status: the API server does not answer")]
    Silence(String),
}

/// What the Node's condition NetworkUnavailable says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Network {
    /// The overlay is up.
    Up,
    /// An administrator had this node give its lease back.
    Released,
}

// === impl KubeLeases ===

impl KubeLeases {
    /// Publishes on Node `node_name`, in annotations called `keys`.
    #[must_use]
    pub fn new(
        client: Client,
        node_name: &str,
        keys: AnnotationKeys,
        set_network_unavailable: bool,
    ) -> Self {
        Self {
            nodes: Api::all(client),
            node_name: node_name.to_owned(),
            keys,
            set_network_unavailable,
        }
    }

    /// Says of the Node whether its network is there, for leases that are kept elsewhere.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub(super) async fn tell(&mut self, network: Network) -> anyhow::Result<()> {
        let condition = condition(network, Timestamp::now());
        let patch = json!({ "status": { "conditions": [condition] } });
        Ok(self.patch(patch).await?)
    }

    async fn patch(&mut self, patch: Value) -> Result<(), PatchError> {
        let patch = Patch::Strategic(patch);
        let params = PatchParams::default();
        let request = self.nodes.patch_status(&self.node_name, &params, &patch);
        let node = self.node_name.clone();
        match tokio::time::timeout(LIMIT, request).await {
            Err(_) => Err(PatchError::Silence(node)),
            Ok(result) => result.map(drop).map_err(|why| PatchError::of(node, why)),
        }
    }
}

// === impl PatchError ===

impl PatchError {
    fn of(node: String, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::NoNode(node),
            kube::Error::Api(status) => Self::Refused(node, status.code, status.message),
            other => {
                let why = anyhow::Error::from(other).root_cause().to_string();
                Self::Failed(node, why)
            }
        }
    }
}

// === impl Network ===

impl Network {
    /// What there is to be said of an overlay that is up, or not yet.
    pub(super) fn of(up: bool) -> Option<Self> {
        up.then_some(Self::Up)
    }

    /// Whether this node's object says so already.
    pub(super) fn is_shown(self, cluster: &Cluster) -> bool {
        let shown = cluster.own_node().and_then(|node| node.network_unavailable);
        shown == Some(self == Self::Released)
    }
}

impl LeaseStore for KubeLeases {
    async fn publish(&mut self, lease: &Lease) -> anyhow::Result<()> {
        let network = Network::of(lease.is_up()).filter(|_| self.set_network_unavailable);
        let condition = network.map(|network| (network, Timestamp::now()));
        Ok(self.patch(patch(lease, &self.keys, condition)).await?)
    }

    async fn withdraw(&mut self) -> anyhow::Result<()> {
        let condition = (Network::Released, Timestamp::now());
        let condition = Some(condition).filter(|_| self.set_network_unavailable);
        match self.patch(withdrawal(&self.keys, condition)).await {
            Err(PatchError::NoNode(_)) => Ok(()),
            result => Ok(result?),
        }
    }

    fn shows(&self, cluster: &Cluster, lease: &Lease) -> bool {
        is_shown(cluster, lease, self.set_network_unavailable)
    }
}

/// Whether this node's object has the annotations, and the condition where that is kept.
fn is_shown(cluster: &Cluster, lease: &Lease, with_condition: bool) -> bool {
    let network = Network::of(lease.is_up()).filter(|_| with_condition);
    announced(cluster).as_ref() == Some(&lease.announced)
        && network.is_none_or(|network| network.is_shown(cluster))
}

/// The strategic merge patch of `nodes/status`; without a condition that one stays as it is.
fn patch(lease: &Lease, keys: &AnnotationKeys, network: Option<(Network, Timestamp)>) -> Value {
    let attributes = lease.announced.attributes();
    // flannel writes what a backend has not as null.
    let data = |data: &Option<Json>| data.as_ref().map_or("null", Json::as_str).to_owned();
    let v4 = lease.announced.public_ip.map(|ip| {
        let data = data(&attributes.backend_data);
        (ip.to_string(), data)
    });
    let v6 = lease.announced.public_ipv6.map(|ip| {
        let data = data(&attributes.backend_v6_data);
        (ip.to_string(), data)
    });
    // A family that this node has no more must not be left standing: peers would send there.
    let (public_ip, backend_data) = v4.unzip();
    let (public_ipv6, backend_v6_data) = v6.unzip();
    let annotations: BTreeMap<_, Option<String>> = BTreeMap::from([
        (&keys.kube_subnet_manager, Some("true".to_owned())),
        (&keys.backend_type, Some(attributes.backend_type.clone())),
        (&keys.public_ip, public_ip),
        (&keys.backend_data, backend_data),
        (&keys.public_ipv6, public_ipv6),
        (&keys.backend_v6_data, backend_v6_data),
    ]);
    let mut patch = json!({ "metadata": { "annotations": annotations } });
    if let Some((network, now)) = network {
        patch["status"] = json!({ "conditions": [condition(network, now)] });
    }
    patch
}

/// The patch that takes all of it back.
fn withdrawal(keys: &AnnotationKeys, network: Option<(Network, Timestamp)>) -> Value {
    let all = [
        &keys.kube_subnet_manager,
        &keys.backend_type,
        &keys.backend_data,
        &keys.backend_v6_data,
        &keys.public_ip,
        &keys.public_ipv6,
    ];
    let annotations: BTreeMap<_, _> = all.into_iter().map(|key| (key, Value::Null)).collect();
    let mut patch = json!({ "metadata": { "annotations": annotations } });
    if let Some((network, now)) = network {
        patch["status"] = json!({ "conditions": [condition(network, now)] });
    }
    patch
}

fn condition(network: Network, now: Timestamp) -> Value {
    let (status, reason, message) = match network {
        Network::Up => (
            "False",
            "TowlineIsUp",
            "towlined has set up the overlay on this node",
        ),
        Network::Released => (
            "True",
            "TowlineReleased",
            "`towline node release` has given this node's lease back",
        ),
    };
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": "NetworkUnavailable",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use desired::cluster::{Announced, Backend, ThisNode};
    use desired::lease::attributes::VxlanData;
    use desired::routes::Overlay;
    use netstate::Mtu;
    use pretty_assertions::assert_eq;

    use super::*;

    fn lease(backend: Backend, public_ipv6: Option<&str>) -> Lease {
        Lease {
            subnets: vec!["10.244.3.0/24".parse().unwrap()],
            announced: Announced {
                public_ip: "172.30.0.5".parse().ok(),
                public_ipv6: public_ipv6.map(|ip| ip.parse().unwrap()),
                backend,
            },
            overlay: Overlay::default(),
            mtu: Mtu::try_from(1450).unwrap(),
        }
    }

    fn vxlan(mac: &str) -> Option<VxlanData> {
        Some(VxlanData {
            vni: 1.try_into().unwrap(),
            vtep_mac: mac.parse().unwrap(),
        })
    }

    #[test]
    fn the_annotations_are_flannels() {
        let backend = Backend::Vxlan {
            v4: vxlan("02:11:22:33:44:55"),
            v6: None,
        };
        let stamp: Timestamp = "2026-11-21T06:30:00.123Z".parse().unwrap();
        let keys = AnnotationKeys::new("flannel.alpha.coreos.com").unwrap();
        assert_eq!(
            patch(&lease(backend, None), &keys, Some((Network::Up, stamp))),
            json!({
                "metadata": { "annotations": {
                    "flannel.alpha.coreos.com/backend-type": "vxlan",
                    "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:11:22:33:44:55\"}",
                    "flannel.alpha.coreos.com/public-ip": "172.30.0.5",
                    "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                    "flannel.alpha.coreos.com/backend-v6-data": null,
                    "flannel.alpha.coreos.com/public-ipv6": null,
                }},
                "status": { "conditions": [{
                    "type": "NetworkUnavailable",
                    "status": "False",
                    "reason": "TowlineIsUp",
                    "message": "towlined has set up the overlay on this node",
                    "lastTransitionTime": "2026-11-21T06:30:00Z",
                    "lastHeartbeatTime": "2026-11-21T06:30:00Z",
                }]}
            })
        );
    }

    #[test]
    fn a_backend_without_data_and_a_second_family_are_said_as_flannel_says_them() {
        let keys = AnnotationKeys::new("example.com/a").unwrap();
        assert_eq!(
            patch(&lease(Backend::HostGw, Some("fd99::5")), &keys, None),
            json!({ "metadata": { "annotations": {
                "example.com/a-backend-type": "host-gw",
                "example.com/a-backend-data": "null",
                "example.com/a-backend-v6-data": "null",
                "example.com/a-public-ip": "172.30.0.5",
                "example.com/a-public-ipv6": "fd99::5",
                "example.com/a-kube-subnet-manager": "true",
            }}})
        );
    }

    #[test]
    fn a_refusal_is_one_line_that_says_what_to_do() {
        let said = |code: u16, message: &str| {
            let status =
                json!({ "status": "Failure", "code": code, "message": message, "reason": "" });
            let status = serde_json::from_value(status).unwrap();
            let error = kube::Error::Api(status);
            PatchError::of("n1".to_owned(), error).to_string()
        };
        assert_eq!(
            said(404, "nodes \"n1\" not found"),
            "there is no Node n1: it comes with its kubelet; is this its name (node-name)?"
        );
        assert_eq!(
            said(403, "User \"x\" cannot patch resource \"nodes/status\""),
            "patch of nodes/n1/status: the API server answers 403: User \"x\" cannot patch resource \"nodes/status\""
        );
    }

    #[test]
    fn a_family_that_is_gone_is_taken_back() {
        let keys = AnnotationKeys::new("example.com").unwrap();
        let second = || {
            lease(
                Backend::Vxlan {
                    v4: None,
                    v6: vxlan("02:11:22:33:44:66"),
                },
                Some("fd99::5"),
            )
        };
        let mut only_v6 = second();
        only_v6.announced.public_ip = None;
        assert_eq!(
            patch(&only_v6, &keys, None),
            json!({ "metadata": { "annotations": {
                "example.com/backend-type": "vxlan",
                "example.com/backend-data": null,
                "example.com/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"02:11:22:33:44:66\"}",
                "example.com/public-ip": null,
                "example.com/public-ipv6": "fd99::5",
                "example.com/kube-subnet-manager": "true",
            }}})
        );
        // Every annotation is said or taken back, so that what is read is what was announced.
        let withdrawn = withdrawal(&keys, None);
        let all = withdrawn["metadata"]["annotations"].as_object().unwrap();
        let said = patch(&lease(Backend::HostGw, None), &keys, None);
        let said = said["metadata"]["annotations"].as_object().unwrap();
        assert!(said.keys().eq(all.keys()));
    }

    #[test]
    fn a_lease_is_shown_once_annotations_and_condition_say_so() {
        let lease = lease(Backend::HostGw, None);
        let this_node = ThisNode {
            name: "n1".parse().unwrap(),
            addresses: BTreeSet::new(),
        };
        let shown = |announced: bool, network_unavailable, set| {
            let mut cluster = Cluster::new(this_node.clone(), Vec::new());
            let mut node = desired::cluster::Node::new("n1".parse().unwrap());
            node.announced = announced.then(|| lease.announced.clone());
            node.network_unavailable = network_unavailable;
            cluster.nodes.insert(node.name.clone(), Arc::new(node));
            is_shown(&cluster, &lease, set)
        };
        assert!(shown(true, Some(false), true));
        assert!(!shown(true, None, true));
        // A cloud's route controller has turned it.
        assert!(!shown(true, Some(true), true));
        assert!(shown(true, Some(true), false));
        assert!(!shown(false, Some(false), true));
    }

    #[test]
    fn what_is_taken_back_is_all_that_was_said() {
        let keys = AnnotationKeys::new("example.com/a").unwrap();
        let said = patch(&lease(Backend::HostGw, Some("fd99::5")), &keys, None);
        let said = said["metadata"]["annotations"].as_object().unwrap();
        let stamp: Timestamp = "2026-11-21T06:30:00Z".parse().unwrap();
        let taken = withdrawal(&keys, Some((Network::Released, stamp)));
        let annotations = taken["metadata"]["annotations"].as_object().unwrap();
        assert!(annotations.values().all(Value::is_null));
        assert_eq!(
            said.keys().collect::<Vec<_>>(),
            annotations.keys().collect::<Vec<_>>()
        );
        assert_eq!(taken["status"]["conditions"][0]["status"], "True");
    }
}
