//! Leases in etcd, beside flannel's and in its form.
//!
//! Under `<prefix>/subnets/` are only keys that flannel would write too. One session is: connect,
//! list, watch from there, hold a lease. Whatever goes wrong ends the session, and the next one
//! begins with a list: a cut connection, a compaction, an etcd that was wiped or restored.

mod client;
mod hold;
mod session;
mod table;

use std::sync::Arc;
use std::time::Duration;

use desired::lease::{LeaseKey, Pools};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::session::{Ended, Session};
use super::Lease;
use crate::store::Store;

pub use self::client::{EtcdSettings, network_config};

/// First and longest wait between two sessions.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// What the store of leases says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreReport {
    /// Whether leases have been listed and are watched.
    pub connected: bool,
    /// Why this node holds no lease, or not safely.
    pub obstacle: Option<String>,
    /// Keys and values that could not be read; their subnets count as taken.
    pub unreadable: Vec<String>,
}

/// A node that holds a lease in etcd.
pub struct EtcdLeases {
    /// How etcd is reached.
    pub settings: EtcdSettings,
    /// The subnets there are.
    pub pools: Pools,
    /// What this node had before, from its subnet file.
    pub previous: Option<LeaseKey>,
    /// The node's name, which spreads its choices of subnets.
    pub node: String,
    /// How this node is reached, from the overlay loop.
    pub lease: watch::Receiver<Option<Lease>>,
    /// Where leases go.
    pub store: Arc<Store>,
    /// Where obstacles go.
    pub report: watch::Sender<StoreReport>,
}

// === impl EtcdLeases ===

impl EtcdLeases {
    /// Holds a lease and follows those of others until asked to stop, which gives nothing back.
    pub async fn keep(mut self, stop: CancellationToken) {
        let mut wait = BACKOFF.0;
        let mut said = String::new();
        loop {
            let mut listed = false;
            let session = Session::new(&mut self);
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = session.run(&mut listed) => ended,
            };
            self.report.send_modify(|report| report.connected = false);
            if listed {
                wait = BACKOFF.0;
                said.clear();
            }
            match ended {
                Ended::Relist(reason) => tracing::info!(reason, "leases are listed anew"),
                Ended::Failed(error) => {
                    let text = format!("{error:#}");
                    // The same trouble over and over is one line.
                    if text != said {
                        tracing::warn!(error = text, "etcd cannot be used; trying again");
                        said = text;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
    }
}
