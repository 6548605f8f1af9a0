//! Leases as annotations of Node objects, in flannel's keys.

use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{Lease, LeaseStore};
use crate::translate::{AnnotationKeys, BackendData};

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Publishes this node's lease on its Node object.
pub struct KubeLeases {
    nodes: Api<Node>,
    node_name: String,
    keys: AnnotationKeys,
    set_network_unavailable: bool,
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
}

impl LeaseStore for KubeLeases {
    async fn publish(&mut self, lease: &Lease) -> anyhow::Result<()> {
        let now = self.set_network_unavailable.then(Timestamp::now);
        let patch = Patch::Strategic(patch(lease, &self.keys, now));
        let params = PatchParams::default();
        let request = self.nodes.patch_status(&self.node_name, &params, &patch);
        tokio::time::timeout(LIMIT, request)
            .await
            .context("the API server does not answer")?
            .with_context(|| format!("patch of nodes/{}/status", self.node_name))?;
        Ok(())
    }
}

/// The strategic merge patch of `nodes/status`; `now` stamps the condition, `None` leaves it out.
fn patch(lease: &Lease, keys: &AnnotationKeys, now: Option<Timestamp>) -> Value {
    let overlay = &lease.overlay;
    let data = BackendData {
        vni: overlay.vni,
        vtep_mac: overlay.mac,
    };
    let data = serde_json::to_string(&data).unwrap_or_default();
    let mut patch = json!({
        "metadata": {
            "annotations": {
                &keys.backend_type: "vxlan",
                &keys.backend_data: data,
                &keys.public_ip: overlay.public_ip.to_string(),
                &keys.kube_subnet_manager: "true",
            }
        }
    });
    if let Some(now) = now {
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        patch["status"] = json!({
            "conditions": [{
                "type": "NetworkUnavailable",
                "status": "False",
                "reason": "TowlineIsUp",
                "message": "towlined has set up the overlay on this node",
                "lastTransitionTime": now,
                "lastHeartbeatTime": now,
            }]
        });
    }
    patch
}

#[cfg(test)]
mod tests {
    use desired::routes::OverlayDevice;
    use netstate::{Mtu, Vni};
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn the_annotations_are_flannels() {
        let lease = Lease {
            subnet: "10.244.3.0/24".parse().unwrap(),
            overlay: OverlayDevice {
                name: "flannel.1".parse().unwrap(),
                vni: Vni::try_from(1).unwrap(),
                mac: "02:11:22:33:44:55".parse().unwrap(),
                public_ip: "172.30.0.5".parse().unwrap(),
            },
            mtu: Mtu::try_from(1450).unwrap(),
        };
        let stamp: Timestamp = "2026-11-21T06:30:00.123Z".parse().unwrap();
        let keys = AnnotationKeys::new("flannel.alpha.coreos.com").unwrap();
        assert_eq!(
            patch(&lease, &keys, Some(stamp)),
            json!({
                "metadata": { "annotations": {
                    "flannel.alpha.coreos.com/backend-type": "vxlan",
                    "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:11:22:33:44:55\"}",
                    "flannel.alpha.coreos.com/public-ip": "172.30.0.5",
                    "flannel.alpha.coreos.com/kube-subnet-manager": "true",
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
        let quiet = patch(&lease, &AnnotationKeys::new("example.com/a").unwrap(), None);
        assert_eq!(quiet.get("status"), None);
        assert_eq!(
            quiet["metadata"]["annotations"]["example.com/a-backend-type"],
            "vxlan"
        );
    }
}
