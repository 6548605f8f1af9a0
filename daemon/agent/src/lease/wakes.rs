//! What whoever keeps something on the Node object looks at and waits for.

use std::sync::Arc;
use std::time::Duration;

use desired::cluster::Cluster;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Lease, Tenure};

/// First and longest wait between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The news that matter. Each wait is false once it is time to end.
pub(super) struct Wakes {
    lease: watch::Receiver<Option<Lease>>,
    clusters: watch::Receiver<Arc<Cluster>>,
    tenure: watch::Receiver<Tenure>,
    stop: CancellationToken,
    wait: Duration,
}

// === impl Wakes ===

impl Wakes {
    pub(super) fn new(
        lease: watch::Receiver<Option<Lease>>,
        clusters: watch::Receiver<Arc<Cluster>>,
        tenure: watch::Receiver<Tenure>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            lease,
            clusters,
            tenure,
            stop,
            wait: BACKOFF.0,
        }
    }

    /// Whether this node is to have a lease.
    pub(super) fn tenure(&mut self) -> Tenure {
        *self.tenure.borrow_and_update()
    }

    /// What this node has set up, and the snapshot.
    pub(super) fn look(&mut self) -> (Option<Lease>, Arc<Cluster>) {
        let lease = self.lease.borrow_and_update().clone();
        (lease, self.clusters.borrow_and_update().clone())
    }

    /// Until something is different from what was looked at, or `later`.
    pub(super) async fn next(&mut self, later: Option<Instant>) -> bool {
        let later = async {
            match later {
                Some(later) => tokio::time::sleep_until(later).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => false,
            changed = self.lease.changed() => changed.is_ok(),
            changed = self.clusters.changed() => changed.is_ok(),
            changed = self.tenure.changed() => changed.is_ok(),
            () = later => true,
        }
    }

    /// After a failure: longer each time, but not longer than until this node's object is there
    /// again.
    pub(super) async fn pause(&mut self) -> bool {
        let so_long = self.wait;
        self.wait = (so_long * 2).min(BACKOFF.1);
        let registered = |cluster: &Arc<Cluster>| cluster.own_node().is_some();
        let missing = !registered(&self.clusters.borrow_and_update());
        let comes = async {
            match missing {
                true => self.clusters.wait_for(registered).await.is_ok(),
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => false,
            changed = self.tenure.changed() => changed.is_ok(),
            goes_on = comes => goes_on,
            () = tokio::time::sleep(so_long) => true,
        }
    }

    /// After a success: until the snapshot is as `shown` wants it or there is something new to say,
    /// but no longer than a while.
    pub(super) async fn until(&mut self, shown: impl Fn(&Cluster) -> bool) -> bool {
        self.wait = BACKOFF.0;
        let shown = self.clusters.wait_for(|cluster| shown(cluster));
        tokio::select! {
            () = self.stop.cancelled() => false,
            shown = shown => shown.is_ok(),
            changed = self.lease.changed() => changed.is_ok(),
            changed = self.tenure.changed() => changed.is_ok(),
            () = tokio::time::sleep(BACKOFF.1) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use desired::cluster::{Node, ThisNode};

    use super::*;
    use crate::store::{Change, Store};

    #[tokio::test]
    async fn a_node_that_registers_again_need_not_wait_for_the_next_attempt() {
        let this_node = ThisNode {
            name: "n1".parse().unwrap(),
            addresses: BTreeSet::new(),
        };
        let store = Store::new(Cluster::new(this_node, Vec::new()));
        let (_lease, lease) = watch::channel(None);
        let (_tenure, tenure) = watch::channel(Tenure::Wanted);
        let mut wakes = Wakes::new(lease, store.subscribe(), tenure, CancellationToken::new());
        wakes.wait = Duration::from_secs(3600);
        let others = vec![Change::Apply(Node::new("n2".parse().unwrap()))];
        store.change(others);
        let pause = tokio::spawn(async move { wakes.pause().await });
        tokio::task::yield_now().await;
        store.change(vec![Change::Apply(Node::new("n1".parse().unwrap()))]);
        let limit = Duration::from_secs(10);
        let goes_on = tokio::time::timeout(limit, pause).await.unwrap();
        assert!(goes_on.unwrap());
    }
}
