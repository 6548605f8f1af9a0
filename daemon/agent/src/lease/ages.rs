//! Since when leases are as they are. No store says so; what can be said is when this daemon learnt
//! of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use desired::cluster::{Announced, Cluster, LeaseId};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// When each lease was first seen as it is.
#[derive(Debug, Default)]
pub struct Ages {
    seen: Mutex<BTreeMap<LeaseId, (Option<Announced>, Timestamp)>>,
}

// === impl Ages ===

impl Ages {
    /// Notes the leases of every snapshot until asked to stop.
    pub async fn follow(
        self: Arc<Self>,
        mut clusters: watch::Receiver<Arc<Cluster>>,
        stop: CancellationToken,
    ) {
        loop {
            let cluster = clusters.borrow_and_update().clone();
            self.note(&cluster, Timestamp::now());
            let changed = tokio::select! {
                () = stop.cancelled() => false,
                changed = clusters.changed() => changed.is_ok(),
            };
            if !changed {
                return;
            }
        }
    }

    /// These are the leases at `now`.
    pub fn note(&self, cluster: &Cluster, now: Timestamp) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *seen);
        for lease in cluster.leases() {
            let known = before.remove(&lease.id);
            let same = known.filter(|(announced, _)| announced.as_ref() == lease.announced);
            let entry = same.unwrap_or_else(|| (lease.announced.cloned(), now));
            seen.insert(lease.id, entry);
        }
    }

    /// Since when `lease` is as it is.
    pub fn since(&self, lease: &LeaseId) -> Option<Timestamp> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(lease).map(|(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use desired::fixture;

    use super::*;

    #[test]
    fn a_lease_is_as_old_as_its_last_change() {
        let with = |mac: &str| {
            fixture::cluster("n1").with_node(fixture::node(
                "n2",
                "10.244.1.0/24",
                mac,
                "172.30.0.2",
            ))
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let id = LeaseId::Node("n2".parse().unwrap());
        let ages = Ages::default();
        ages.note(&with("02:00:00:00:00:02"), at(1));
        ages.note(&with("02:00:00:00:00:02"), at(2));
        assert_eq!(ages.since(&id), Some(at(1)));
        ages.note(&with("02:00:00:00:00:03"), at(3));
        assert_eq!(ages.since(&id), Some(at(3)));
        ages.note(&fixture::cluster("n1"), at(4));
        assert_eq!(ages.since(&id), None);
    }
}
