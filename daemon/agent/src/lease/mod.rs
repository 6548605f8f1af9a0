//! This node's lease: its pod subnet and how others reach it.
//!
//! A lease store does two things: it fills `Cluster::nodes` (each node's subnet and overlay
//! endpoint, this node's included), and it publishes what this node's overlay loop has set up.
//! The Kubernetes store does the first by the Node watch and the second in [`kube`]; another
//! store is another implementation of [`LeaseStore`] and another feeder of the snapshot.

mod ages;
mod condition;
pub mod etcd;
pub mod kube;

use std::sync::Arc;
use std::time::Duration;

use desired::cluster::{Announced, Cluster};
use desired::routes::Overlay;
use ipnetwork::IpNetwork;
use netstate::Mtu;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::ages::Ages;
pub use self::condition::keep_condition;

/// First and longest wait between two attempts to publish.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What this node has set up and others must know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// This node's pods' addresses, one prefix per family; empty until the store has given them.
    pub subnets: Vec<IpNetwork>,
    /// What others are told.
    pub announced: Announced,
    /// What the way to others is computed from.
    pub overlay: Overlay,
    /// MTU of pod interfaces.
    pub mtu: Mtu,
}

/// Whether this node is to have a lease. What gives it back is asked for by an administrator, and
/// final for this run of the daemon.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tenure {
    /// It is.
    #[default]
    Wanted,
    /// Whoever keeps the lease shall give it back.
    GivingBack,
    /// There is none any more.
    GivenBack,
}

/// Where leases are published.
pub trait LeaseStore: Send + 'static {
    /// Publishes `lease`, again and again if asked: the result is the same.
    fn publish(&mut self, lease: &Lease) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Takes back what was published, again and again if asked.
    fn withdraw(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

// === impl Lease ===

impl Lease {
    /// Whether pods can be carried: the overlay has this node's addresses.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        !self.subnets.is_empty()
    }
}

/// Keeps what `store` shows of this node equal to `lease`: at the start, when the lease changes,
/// and when the snapshot shows something else (edited, or the Node object made anew). Ends when it
/// has given the lease back.
pub async fn keep(
    mut store: impl LeaseStore,
    mut lease: watch::Receiver<Option<Lease>>,
    mut clusters: watch::Receiver<Arc<Cluster>>,
    tenure: watch::Sender<Tenure>,
    stop: CancellationToken,
) {
    let mut published = None;
    let mut wait = BACKOFF.0;
    let mut asked = tenure.subscribe();
    loop {
        if *asked.borrow_and_update() != Tenure::Wanted {
            match store.withdraw().await {
                Ok(()) => {
                    tenure.send_replace(Tenure::GivenBack);
                    return;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "lease is not given back; it is tried again");
                    if !pause(&mut wait, &mut asked, &stop).await {
                        return;
                    }
                    continue;
                }
            }
        }
        let wanted = lease.borrow_and_update().clone();
        let shown = announced(&clusters.borrow_and_update());
        let due = wanted.as_ref().is_some_and(|lease| {
            published.as_ref() != Some(lease) || shown.as_ref() != Some(&lease.announced)
        });
        if let Some(lease) = wanted.filter(|_| due) {
            match store.publish(&lease).await {
                Ok(()) => {
                    tracing::info!(
                        subnets = ?lease.subnets,
                        announced = ?lease.announced,
                        "lease is published"
                    );
                    published = Some(lease);
                    wait = BACKOFF.0;
                    // The snapshot follows by the watch; until then it is not asked again.
                    if !confirmed(&mut clusters, &published, &mut asked, &stop).await {
                        return;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "lease is not published; it is tried again"
                    );
                    if !pause(&mut wait, &mut asked, &stop).await {
                        return;
                    }
                    continue;
                }
            }
        }
        let changed = tokio::select! {
            () = stop.cancelled() => false,
            changed = lease.changed() => changed.is_ok(),
            changed = clusters.changed() => changed.is_ok(),
            changed = asked.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}

/// Waits before the next attempt, longer each time; false to stop.
async fn pause(
    wait: &mut Duration,
    asked: &mut watch::Receiver<Tenure>,
    stop: &CancellationToken,
) -> bool {
    let so_long = *wait;
    *wait = (so_long * 2).min(BACKOFF.1);
    tokio::select! {
        () = stop.cancelled() => false,
        changed = asked.changed() => changed.is_ok(),
        () = tokio::time::sleep(so_long) => true,
    }
}

/// What the store shows of this node.
fn announced(cluster: &Cluster) -> Option<Announced> {
    cluster
        .own_lease()
        .and_then(|lease| lease.announced)
        .cloned()
}

/// Waits until the snapshot shows `published`, but no longer than a while; false to stop.
async fn confirmed(
    clusters: &mut watch::Receiver<Arc<Cluster>>,
    published: &Option<Lease>,
    asked: &mut watch::Receiver<Tenure>,
    stop: &CancellationToken,
) -> bool {
    let wanted = published.as_ref().map(|lease| lease.announced.clone());
    let shown = clusters.wait_for(|cluster| announced(cluster) == wanted);
    tokio::select! {
        () = stop.cancelled() => false,
        shown = shown => shown.is_ok(),
        changed = asked.changed() => changed.is_ok(),
        () = tokio::time::sleep(BACKOFF.1) => true,
    }
}

#[cfg(test)]
mod tests;
