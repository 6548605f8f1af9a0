//! The Node's condition NetworkUnavailable, where leases are not kept on Node objects.

use std::sync::Arc;

use desired::cluster::Cluster;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::kube::{KubeLeases, Network};
use super::{BACKOFF, Lease, Tenure};

/// Keeps the condition true: set once the overlay is up, again when the Node is made anew, and
/// turned when the lease was given back.
pub async fn keep_condition(
    mut node: KubeLeases,
    mut lease: watch::Receiver<Option<Lease>>,
    mut clusters: watch::Receiver<Arc<Cluster>>,
    mut tenure: watch::Receiver<Tenure>,
    stop: CancellationToken,
) {
    let mut told = None;
    let mut wait = BACKOFF.0;
    loop {
        let up = lease.borrow_and_update().as_ref().is_some_and(Lease::is_up);
        let released = *tenure.borrow_and_update() == Tenure::GivenBack;
        let due = match released {
            true => Some(Network::Released),
            false => Network::of(up),
        };
        if clusters.borrow_and_update().own_node().is_none() {
            // There is nothing to say it of; a new object knows nothing.
            told = None;
        } else if let Some(network) = due.filter(|network| told != Some(*network)) {
            match node.tell(network).await {
                Ok(()) => {
                    told = Some(network);
                    wait = BACKOFF.0;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "condition NetworkUnavailable is not set; trying again"
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
            changed = tenure.changed() => changed.is_ok(),
        };
        if !changed {
            return;
        }
    }
}
