//! A store of leases of which it is reported what goes wrong, and which lets itself be interrupted.

use anyhow::anyhow;
use desired::cluster::Cluster;
use tokio::sync::watch;

use super::{Lease, LeaseStore, StoreReport, Tenure};

/// The store `inner`.
pub struct Reported<S> {
    /// The store.
    pub inner: S,
    /// Where it is told.
    pub report: watch::Sender<StoreReport>,
    /// Whether this node is to have a lease: what takes too long ends when that changes.
    pub tenure: watch::Receiver<Tenure>,
}

// === impl Reported ===

impl<S> Reported<S> {
    fn note(&self, what: &str, done: &anyhow::Result<()>) {
        self.report.send_if_modified(|report| match done {
            Ok(()) => report.found(),
            Err(error) => report.troubled(format!("{what}: {error:#}")),
        });
    }
}

impl<S: LeaseStore> LeaseStore for Reported<S> {
    async fn publish(&mut self, lease: &Lease) -> anyhow::Result<()> {
        let done = tokio::select! {
            done = self.inner.publish(lease) => done,
            _ = self.tenure.wait_for(|now| *now != Tenure::Wanted) => {
                return Err(anyhow!("it is to be given back"));
            }
        };
        self.note("the lease is not published", &done);
        done
    }

    /// Whoever asked for it may have been told that it took too long. If it is done all the same,
    /// the snapshot shows that, and the lease is published again.
    async fn withdraw(&mut self) -> anyhow::Result<()> {
        let done = tokio::select! {
            done = self.inner.withdraw() => done,
            _ = self.tenure.wait_for(|now| *now == Tenure::Wanted) => {
                return Err(anyhow!("it took too long, and the lease is kept"));
            }
        };
        self.note("the lease is not given back", &done);
        done
    }

    fn shows(&self, cluster: &Cluster, lease: &Lease) -> bool {
        self.inner.shows(cluster, lease)
    }
}
