//! Leases in etcd, beside flannel's and in its form.
//!
//! Under `<prefix>/subnets/` are only keys that flannel would write too. One session is: connect,
//! list, watch from there, hold a lease. Whatever goes wrong ends the session, and the next one
//! begins with a list: a cut connection, a compaction, an etcd that was wiped or restored.

mod client;
mod expiry;
mod guard;
mod hold;
mod holding;
mod keeper;
mod release;
mod session;
mod state;
mod table;

use std::sync::Arc;
use std::time::Duration;

use desired::lease::{LeaseKey, Pools};
use desired::stable_id::ContentHash;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::session::{Ended, Session};
use self::state::State;
use super::{Lease, Tenure};
use crate::store::Store;

pub use self::client::{EtcdSettings, network_config};
pub use self::expiry::{Expiry, expiries};
pub use super::report::StoreReport;

/// Seconds after which the lease of a node that is gone is free again: flannel's.
pub const TTL: i64 = 86_400;

/// First and longest wait between two sessions. After an outage all nodes come back within this,
/// which is before anybody can have been given their subnets.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A session that lasted as long has worked: what ends it is news.
const WORKED: Duration = Duration::from_secs(60);

/// A node that holds a lease in etcd.
pub struct EtcdLeases {
    /// How etcd is reached.
    pub settings: EtcdSettings,
    /// The subnets there are.
    pub pools: Pools,
    /// Seconds after which the lease is free again if this node is gone, [`TTL`] beside flannel.
    pub ttl: i64,
    /// What this node had before, from its subnet file.
    pub previous: Option<LeaseKey>,
    /// The node's name, which spreads its choices of subnets.
    pub node: String,
    /// How this node is reached, from the overlay loop.
    pub lease: watch::Receiver<Option<Lease>>,
    /// Where leases go.
    pub store: Arc<Store>,
    /// Whether this node is to have a lease.
    pub tenure: watch::Sender<Tenure>,
    /// Where obstacles go.
    pub report: watch::Sender<StoreReport>,
}

// === impl EtcdLeases ===

impl EtcdLeases {
    fn lasts(&self, seconds: Option<i64>) {
        self.report.send_modify(|report| report.lasts(seconds));
    }

    /// Holds a lease and follows those of others until asked to stop, which gives nothing back.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut state = State::new(&self);
        let mut attempt = 0;
        let mut said = String::new();
        let mut asked = self.tenure.subscribe();
        loop {
            if *asked.borrow_and_update() == Tenure::GivingBack {
                let given_back = tokio::select! {
                    () = stop.cancelled() => return,
                    given_back = self.give_back(&state) => given_back,
                    // It took too long, and whoever asked has been told so. If the key is deleted
                    // all the same, the next session sees that and takes it again.
                    _ = asked.changed() => continue,
                };
                if let Err(error) = given_back {
                    let trouble = format!("{:#}", self.settings.explained(&error));
                    tracing::warn!(trouble, "the lease is not given back; trying again");
                    self.report.send_modify(|report| report.lost(trouble));
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = asked.changed() => {}
                        () = tokio::time::sleep(BACKOFF.0) => {}
                    }
                } else {
                    state.lose();
                    if self.tenure.send_if_modified(Tenure::given_back) {
                        self.previous = None;
                        self.report.send_modify(|report| {
                            report.obstacle = None;
                            report.lasts(None);
                        });
                    }
                }
                continue;
            }
            let begun = Instant::now();
            let session = Session::new(&mut self, &mut state);
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = session.run() => ended,
                _ = asked.changed() => continue,
            };
            if begun.elapsed() > WORKED {
                attempt = 0;
                said.clear();
            }
            let text = match ended {
                Ended::Relist(reason) => reason.to_owned(),
                Ended::Failed(error) => format!("{error:#}"),
            };
            self.report.send_modify(|report| report.lost(text.clone()));
            // The same trouble over and over is one line.
            if text != said {
                tracing::warn!(
                    reason = text,
                    "etcd is connected to anew, leases stay as they are"
                );
                said = text;
            }
            let wait = jittered(&self.node, attempt, BACKOFF);
            attempt += 1;
            tokio::select! {
                () = stop.cancelled() => return,
                _ = asked.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// The wait after an attempt: twice as long after each, and different on every node.
fn jittered(node: &str, attempt: u64, (first, longest): (Duration, Duration)) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.min(16)).min(longest);
    let hash = ContentHash::new("lease-wait")
        .part(node.as_bytes())
        .number(attempt)
        .finish();
    // From half of it to all of it.
    doubled.mul_f64(0.5 + f64::from(hash) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_differ_between_nodes() {
        let waits = |node: &str| [0, 1, 2, 9, 60].map(|at| jittered(node, at, BACKOFF));
        let ours = waits("n1");
        for (wait, longest) in ours.iter().zip([0.25, 0.5, 1.0, 5.0, 5.0]) {
            let shown = wait.as_secs_f64();
            assert!((longest / 2.0..=longest).contains(&shown), "{shown}");
        }
        assert_ne!(ours, waits("n2"));
    }
}
