//! This node's lease: its pod subnet and how others reach it.
//!
//! A lease store does two things: it fills `Cluster::nodes` (each node's subnet and overlay
//! endpoint, this node's included), and it publishes what this node's overlay loop has set up.
//! The Kubernetes store does the first by the Node watch and the second in [`kube`]; another
//! store is another implementation of [`LeaseStore`] and another feeder of the snapshot.

pub mod kube;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use desired::cluster::{Cluster, VxlanPeer};
use desired::routes::OverlayDevice;
use ipnetwork::Ipv4Network;
use netstate::Mtu;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// First and longest wait between two attempts to publish.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What this node has set up and others must know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// This node's pods' addresses.
    pub subnet: Ipv4Network,
    /// The overlay device, as it is in the kernel.
    pub overlay: OverlayDevice<Ipv4Addr>,
    /// MTU of pod interfaces.
    pub mtu: Mtu,
}

/// Where leases are published.
pub trait LeaseStore: Send + 'static {
    /// Publishes `lease`, again and again if asked: the result is the same.
    fn publish(&mut self, lease: &Lease) -> impl Future<Output = anyhow::Result<()>> + Send;
}

// === impl Lease ===

impl Lease {
    /// The lease as a peer sees it in the snapshot.
    #[must_use]
    pub fn announced(&self) -> VxlanPeer<Ipv4Addr> {
        VxlanPeer {
            vni: self.overlay.vni,
            vtep_mac: self.overlay.mac,
            public_ip: self.overlay.public_ip,
        }
    }
}

/// Keeps what `store` shows of this node equal to `lease`: at the start, when the lease changes,
/// and when the snapshot shows something else (edited, or the Node object made anew).
pub async fn keep(
    mut store: impl LeaseStore,
    mut lease: watch::Receiver<Option<Lease>>,
    mut clusters: watch::Receiver<Arc<Cluster>>,
    stop: CancellationToken,
) {
    let mut published = None;
    let mut wait = BACKOFF.0;
    loop {
        let wanted = lease.borrow_and_update().clone();
        let shown = clusters
            .borrow_and_update()
            .own_node()
            .and_then(|node| node.vxlan);
        let due = wanted.as_ref().is_some_and(|lease| {
            published.as_ref() != Some(lease) || shown != Some(lease.announced())
        });
        if let Some(lease) = wanted.filter(|_| due) {
            match store.publish(&lease).await {
                Ok(()) => {
                    tracing::info!(
                        subnet = %lease.subnet,
                        public_ip = %lease.overlay.public_ip,
                        mac = %lease.overlay.mac,
                        "lease is published"
                    );
                    published = Some(lease);
                    wait = BACKOFF.0;
                    // The snapshot follows by the watch; until then it is not asked again.
                    if !confirmed(&mut clusters, &published, &stop).await {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "lease is not published; it is tried again"
                    );
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                    wait = (wait * 2).min(BACKOFF.1);
                    continue;
                }
            }
        }
        let changed = tokio::select! {
            () = stop.cancelled() => false,
            changed = lease.changed() => changed.is_ok(),
            changed = clusters.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// Waits until the snapshot shows `published`, but no longer than a while; false to stop.
async fn confirmed(
    clusters: &mut watch::Receiver<Arc<Cluster>>,
    published: &Option<Lease>,
    stop: &CancellationToken,
) -> bool {
    let announced = published.as_ref().map(Lease::announced);
    let shown =
        clusters.wait_for(|cluster| cluster.own_node().and_then(|node| node.vxlan) == announced);
    tokio::select! {
        () = stop.cancelled() => false,
        shown = shown => shown.is_ok(),
        () = tokio::time::sleep(BACKOFF.1) => true,
    }
}

#[cfg(test)]
mod tests;
