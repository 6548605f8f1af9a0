//! Many nodes' lease tasks in one process, and one alone: what the benchmark measures.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::lease::Lease;
use agent::lease::etcd::{EtcdLeases, EtcdSettings, StoreReport, TTL};
use agent::store::Store;
use anyhow::{Context as _, Result};
use desired::cluster::{Announced, Backend, Cluster, Leases, ThisNode};
use desired::lease::attributes::VxlanData;
use desired::lease::{LeaseKey, Pools};
use desired::routes::Overlay;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Etcd;
use crate::requests::{Requests, between, requests};

/// A node's lease task. It ends when this is dropped.
pub struct Member {
    store: Arc<Store>,
    report: watch::Receiver<StoreReport>,
    /// The task ends without this.
    _lease: watch::Sender<Option<Lease>>,
    task: JoinHandle<()>,
}

/// What a race has come to.
pub struct Race {
    /// The lease of each.
    pub keys: Vec<LeaseKey>,
    /// Until each had its lease, shortest first.
    pub times: Vec<Duration>,
    /// What etcd was asked until all had theirs.
    pub requests: Requests,
}

// === impl Member ===

impl Member {
    /// Node `number` starts.
    ///
    /// # Errors
    /// When there cannot be a node of this number.
    pub fn start(settings: EtcdSettings, pools: Pools, number: u16) -> Result<Self> {
        let name = format!("n{number}");
        let this_node = ThisNode {
            name: name.parse()?,
            addresses: BTreeSet::new(),
        };
        let store = Arc::new(Store::new(Cluster::new(this_node, Vec::new())));
        let (lease, lease_out) = watch::channel(Some(announced(number)?));
        let (report_in, report) = watch::channel(StoreReport::default());
        let leases = EtcdLeases {
            settings,
            pools,
            ttl: TTL,
            previous: None,
            node: name,
            lease: lease_out,
            store: store.clone(),
            tenure: watch::Sender::default(),
            report: report_in,
        };
        Ok(Self {
            store,
            report,
            _lease: lease,
            task: tokio::spawn(leases.keep(CancellationToken::new())),
        })
    }

    /// Waits until it holds a lease and knows of `count`.
    ///
    /// # Errors
    /// When it does not within `limit`; says what is in the way.
    pub async fn holds(&self, count: usize, limit: Duration) -> Result<LeaseKey> {
        let mut snapshots = self.store.subscribe();
        let own = |cluster: &Cluster| match &cluster.leases {
            Leases::InStore { held, own } if held.len() >= count => *own,
            _ => None,
        };
        let found = snapshots.wait_for(|cluster| own(cluster).is_some());
        match tokio::time::timeout(limit, found).await {
            Ok(found) => own(&*found?).context("no lease"),
            Err(_) => anyhow::bail!("no lease within {limit:?}: {:?}", *self.report.borrow()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `count` nodes start at once, each with a connection of its own.
///
/// # Errors
/// When one gets no lease within `limit`.
pub async fn race(etcd: &Etcd, pools: Pools, count: u16, limit: Duration) -> Result<Race> {
    let settings = settings(etcd.endpoints());
    let url = etcd.endpoints().swap_remove(0);
    let before = requests(&url).await?;
    let begun = Instant::now();
    let mut nodes = Vec::new();
    for number in 1..=count {
        let node = Member::start(settings.clone(), pools, number)?;
        nodes.push(tokio::spawn(async move {
            let held = node.holds(1, limit).await;
            (node, held, begun.elapsed())
        }));
    }
    // Whoever has its lease goes on following those of others.
    let (mut members, mut keys, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for node in nodes {
        let (member, held, took) = node.await?;
        members.push(member);
        keys.push(held?);
        times.push(took);
    }
    times.sort_unstable();
    Ok(Race {
        keys,
        times,
        requests: between(&before, &requests(&url).await?),
    })
}

/// How nodes reach etcd, without TLS and users.
#[must_use]
pub fn settings(endpoints: Vec<String>) -> EtcdSettings {
    EtcdSettings {
        endpoints,
        prefix: "/coreos.com/network".to_owned(),
        ..EtcdSettings::default()
    }
}

/// How node `number` is reached.
fn announced(number: u16) -> Result<Lease> {
    let [high, low] = number.to_be_bytes();
    let data = VxlanData {
        vni: 1.try_into()?,
        vtep_mac: format!("02:00:00:00:{high:02x}:{low:02x}").parse()?,
    };
    Ok(Lease {
        subnets: Vec::new(),
        announced: Announced {
            public_ip: Some(Ipv4Addr::new(198, 18, high, low)),
            public_ipv6: None,
            backend: Backend::Vxlan {
                v4: Some(data),
                v6: None,
            },
        },
        overlay: Overlay::default(),
        mtu: 1450.try_into()?,
    })
}
