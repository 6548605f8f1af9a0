//! The part of the start that depends on where leases are kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use desired::cluster::{Cluster, Leases};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::front::Front;
use super::{Shared, Tasks};
use crate::config::{Config, LeaseSource, NetConf};
use crate::findings::Findings;
use crate::lease::etcd::{self, EtcdLeases};
use crate::lease::kube::KubeLeases;
use crate::lease::{self, Lease, Reported};
use crate::notify::Notifier;
use crate::store::{Kind, Store};
use crate::{api_server, subnet_file, watch as watches};

/// Time between two questions for the network configuration, as flannel's.
const CONFIG_RETRY: Duration = Duration::from_secs(1);

/// A client of the API server. flanneld needs none where leases are in etcd, and then the overlay
/// alone does not either.
pub(super) async fn api_client(
    config: &Config,
    findings: &watch::Sender<Findings>,
) -> anyhow::Result<Option<kube::Client>> {
    let kubeconfig = config.kubeconfig.as_deref();
    if !api_server::is_named(kubeconfig) && matches!(config.leases, LeaseSource::Etcd(_)) {
        tracing::info!("no API server is named: only the overlay is kept, by the leases in etcd");
        return Ok(None);
    }
    let findings = findings.clone();
    let answered = Arc::new(move |path: &str| watches::answered(&findings, path));
    api_server::client(kubeconfig, answered).await.map(Some)
}

/// A store that waits for what there is to be waited for.
pub(super) fn store(config: &Config, mut cluster: Cluster, has_api: bool) -> Store {
    let mut expected = BTreeSet::new();
    if has_api {
        expected.extend(Kind::OBJECTS);
    }
    if let LeaseSource::Etcd(_) = config.leases {
        expected.insert(Kind::Lease);
        // No Node object says which subnet this node has.
        cluster.leases = Leases::InStore {
            held: Default::default(),
            own: None,
        };
    }
    Store::expecting(cluster, expected)
}

/// The network configuration. etcd is asked until it has one; `None` when asked to stop before.
pub(super) async fn network(
    config: &Config,
    front: &Front,
    notifier: &Notifier,
    stop: &CancellationToken,
) -> anyhow::Result<Option<NetConf>> {
    let settings = match &config.leases {
        LeaseSource::Kube(net) => return Ok(Some(net.clone())),
        LeaseSource::Etcd(settings) => settings,
    };
    let mut said = String::new();
    front.waits_for(&waits(&settings.endpoints.join(", ")));
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            asked = etcd::network_config(settings) => asked,
        };
        let error = match asked {
            Ok(net) => return Ok(Some(net)),
            Err(error) => format!("{error:#}"),
        };
        if error != said {
            tracing::warn!(error, "no network configuration yet; trying again");
            front.waits_for(&waits(&error));
            notifier.waits_for(&waits(&error));
            said = error;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(CONFIG_RETRY) => {}
        }
    }
}

fn waits(why: &str) -> String {
    format!("the network configuration: {why}")
}

// === impl Shared ===

impl Shared {
    /// Keeps this node's lease true, and in etcd follows those of others.
    pub(super) fn start_leases(
        &self,
        tasks: &mut Tasks,
        client: Option<kube::Client>,
        lease: watch::Receiver<Option<Lease>>,
    ) -> anyhow::Result<()> {
        let config = &self.config;
        let tenure = self.tenure.clone();
        let (snapshots, stop) = (self.store.subscribe(), self.stop.clone());
        let node = client.map(|client| {
            KubeLeases::new(
                client,
                &config.node_name,
                config.annotations.clone(),
                config.set_network_unavailable,
            )
        });
        match &config.leases {
            LeaseSource::Kube(_) => {
                if let Some(node) = node {
                    let store = Reported {
                        inner: node,
                        report: self.leases.clone(),
                        tenure: tenure.subscribe(),
                    };
                    let keep = lease::keep(store, lease, snapshots, tenure, stop);
                    tasks.others.spawn(keep);
                }
            }
            LeaseSource::Etcd(settings) => {
                let leases = EtcdLeases {
                    settings: settings.clone(),
                    pools: self.net.pools()?,
                    ttl: etcd::TTL,
                    previous: subnet_file::lease_in(&config.subnet_files),
                    node: config.node_name.clone(),
                    lease: lease.clone(),
                    store: self.store.clone(),
                    tenure,
                    report: self.leases.clone(),
                };
                tasks.others.spawn(leases.keep(stop.clone()));
                if let Some(node) = node.filter(|_| config.set_network_unavailable) {
                    let tenure = self.tenure.subscribe();
                    let keep = lease::keep_condition(node, lease, snapshots, tenure, stop);
                    tasks.others.spawn(keep);
                }
            }
        }
        Ok(())
    }
}
