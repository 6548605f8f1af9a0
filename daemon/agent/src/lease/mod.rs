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
mod patience;
mod report;
mod reported;
mod wakes;

use std::sync::Arc;

use desired::cluster::{Announced, Cluster};
use desired::routes::Overlay;
use ipnetwork::IpNetwork;
use netstate::Mtu;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::ages::Ages;
pub use self::condition::keep_condition;
use self::patience::Patience;
pub use self::report::StoreReport;
pub use self::reported::Reported;
use self::wakes::Wakes;

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

    /// Whether `cluster` shows all that publishing `lease` says.
    fn shows(&self, cluster: &Cluster, lease: &Lease) -> bool;
}

// === impl Lease ===

impl Lease {
    /// Whether pods can be carried: the overlay has this node's addresses.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        !self.subnets.is_empty()
    }
}

// === impl Tenure ===

impl Tenure {
    /// The lease was given back; whether that is still asked for.
    pub(crate) fn given_back(&mut self) -> bool {
        let asked = *self == Self::GivingBack;
        if asked {
            *self = Self::GivenBack;
        }
        asked
    }

    /// The lease could not be given back in time, and is kept; whether that is so.
    pub(crate) fn kept(&mut self) -> bool {
        let asked = *self == Self::GivingBack;
        if asked {
            *self = Self::Wanted;
        }
        asked
    }
}

/// Keeps what `store` shows of this node equal to `lease`: at the start, when the lease changes,
/// and when the snapshot shows something else (edited, or the Node object made anew). Ends when it
/// has given the lease back.
pub async fn keep(
    mut store: impl LeaseStore,
    lease: watch::Receiver<Option<Lease>>,
    clusters: watch::Receiver<Arc<Cluster>>,
    tenure: watch::Sender<Tenure>,
    stop: CancellationToken,
) {
    let mut wakes = Wakes::new(lease, clusters, tenure.subscribe(), stop);
    let mut patience = Patience::default();
    let mut published = None;
    let mut said = String::new();
    loop {
        let goes_on = if wakes.tenure() != Tenure::Wanted {
            let withdrawn = done("given back", store.withdraw().await, &mut said);
            if withdrawn && tenure.send_if_modified(Tenure::given_back) {
                return;
            }
            wakes.pause().await
        } else {
            let (lease, cluster) = wakes.look();
            let undone = lease.is_some() && lease == published;
            match lease.filter(|lease| !undone || !store.shows(&cluster, lease)) {
                None => wakes.next(None).await,
                Some(lease) => match patience.until(undone, Instant::now()) {
                    Some(later) => wakes.next(Some(later)).await,
                    None if publish(&mut store, &lease, undone, &mut said).await => {
                        patience.note(undone, Instant::now());
                        // The snapshot follows by the watch; until then it is not asked again.
                        let shown = |cluster: &Cluster| store.shows(cluster, &lease);
                        let goes_on = wakes.until(shown).await;
                        published = Some(lease);
                        goes_on
                    }
                    None => wakes.pause().await,
                },
            }
        };
        if !goes_on {
            return;
        }
    }
}

/// Publishes and says so; whether it was done.
async fn publish(
    store: &mut impl LeaseStore,
    lease: &Lease,
    undone: bool,
    said: &mut String,
) -> bool {
    if undone {
        tracing::warn!(
            "what this node says on its Node object was changed or lost and is said again; \
             if this goes on, another daemon runs under this node's name"
        );
    }
    let published = done("published", store.publish(lease).await, said);
    if published {
        let subnets: Vec<String> = lease.subnets.iter().map(ToString::to_string).collect();
        let announced = lease.announced.attributes().encode();
        tracing::info!(
            subnets = subnets.join(","),
            announced = %String::from_utf8_lossy(&announced),
            "lease is published"
        );
    }
    published
}

/// Whether it was done; why not is said, but the same not over and over.
fn done(what: &str, result: anyhow::Result<()>, said: &mut String) -> bool {
    let error = result.err().map(|error| format!("{error:#}"));
    let error = error.unwrap_or_default();
    if !error.is_empty() && *said != error {
        tracing::warn!(error, "lease is not {what}; it is tried again");
    }
    *said = error;
    said.is_empty()
}

/// What the store shows of this node.
fn announced(cluster: &Cluster) -> Option<Announced> {
    cluster
        .own_lease()
        .and_then(|lease| lease.announced)
        .cloned()
}

#[cfg(test)]
mod tests;
