//! The Node's condition NetworkUnavailable, where leases are not kept on Node objects.

use std::sync::Arc;

use desired::cluster::Cluster;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kube::{KubeLeases, Network};
use super::patience::Patience;
use super::wakes::Wakes;
use super::{Lease, Tenure};

/// Keeps the condition true: set once the overlay is up, again when somebody else has set it or
/// the Node is made anew, and turned when the lease was given back.
pub async fn keep_condition(
    mut node: KubeLeases,
    lease: watch::Receiver<Option<Lease>>,
    clusters: watch::Receiver<Arc<Cluster>>,
    tenure: watch::Receiver<Tenure>,
    stop: CancellationToken,
) {
    let mut wakes = Wakes::new(lease, clusters, tenure, stop);
    let mut patience = Patience::default();
    let mut told = None;
    loop {
        let tenure = wakes.tenure();
        let (lease, cluster) = wakes.look();
        let due = match tenure {
            Tenure::GivenBack => Some(Network::Released),
            _ => Network::of(lease.as_ref().is_some_and(Lease::is_up)),
        };
        // Without an object there is nothing to say it of.
        let due = due.filter(|due| cluster.own_node().is_some() && !due.is_shown(&cluster));
        let undone = due.is_some() && told == due;
        let goes_on = match (due, patience.until(undone, Instant::now())) {
            (None, _) => wakes.next(None).await,
            (_, Some(later)) => wakes.next(Some(later)).await,
            (Some(network), None) => match node.tell(network).await {
                Ok(()) => {
                    patience.note(undone, Instant::now());
                    told = Some(network);
                    wakes.until(|cluster| network.is_shown(cluster)).await
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(
                        error,
                        "condition NetworkUnavailable is not set; trying again"
                    );
                    wakes.pause().await
                }
            },
        };
        if !goes_on {
            return;
        }
    }
}
