//! A model of flanneld as etcd and its peers see it: the order in which it asks and writes, its
//! renewal, how it reads events and snapshots, and when it exits. Its defects are part of it.
//!
//! After flannel's `pkg/subnet/etcd` and `pkg/subnet/watch.go`, v0.28. What it makes in the kernel
//! is in [`host`], [`vxlan`] and [`rules`]; the program `flanneld` puts both together.

pub mod host;
mod registry;
pub mod rules;
pub mod vxlan;
mod watcher;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use etcd_client::{Client, EventType};
use ipnetwork::{Ipv4Network, Ipv6Network};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::registry::{FlannelLease, Subnets};
use self::registry::{Registry, parse_key};
use self::watcher::LeaseWatcher;
pub use self::watcher::{Event, Peers};

/// What a flanneld is started with.
#[derive(Clone)]
pub struct Flanneld {
    /// `--public-ip`, or its interface's address.
    pub public_ip: Ipv4Addr,
    /// The value that it writes, flannel's JSON.
    pub value: String,
    /// `Network`, of which subnets are /24.
    pub network: Ipv4Network,
    /// `IPv6Network`, of which subnets are /64, with `EnableIPv6`.
    pub network_v6: Option<Ipv6Network>,
    /// `FLANNEL_SUBNET` and `FLANNEL_IPV6_SUBNET` of its subnet file.
    pub previous: Option<Subnets>,
    /// Seconds that its leases live: 86,400 in truth.
    pub ttl: i64,
    /// `--subnet-lease-renew-margin`: 60 minutes in truth.
    pub margin: Duration,
}

/// How a flanneld ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// `Lease has been revoked. Shutting down daemon.`, exit code 0.
    Revoked,
    /// etcd could not be read or written.
    Failed(String),
}

/// A flanneld that holds a lease. It is killed when this is dropped.
pub struct Running {
    /// Its subnet.
    pub subnet: Ipv4Network,
    /// Its IPv6 subnet, with `EnableIPv6`.
    pub subnet_v6: Option<Ipv6Network>,
    /// What its backend was told, in order, and what it makes of that.
    pub peers: watch::Receiver<Peers>,
    /// When it has renewed its lease, how often.
    pub renewals: watch::Receiver<u32>,
    task: JoinHandle<Exit>,
}

// === impl Flanneld ===

impl Flanneld {
    /// Starts it as flannel does, and returns when it has a lease.
    ///
    /// # Errors
    /// As flanneld exits 1: all subnets taken, or another was faster (`subnet already exists`).
    pub async fn start(self, client: Client) -> Result<Running> {
        let mut registry = Registry {
            client,
            prefix: "/coreos.com/network".to_owned(),
        };
        let lease = self.acquire(&mut registry).await?;
        let (peers_in, peers) = watch::channel(Peers::default());
        let (renewals_in, renewals) = watch::channel(0);
        let Subnets { v4, v6 } = lease.subnets;
        let task = tokio::spawn(async move {
            let lived = self.live(registry, lease, peers_in, renewals_in).await;
            lived.unwrap_or_else(|error| Exit::Failed(format!("{error:#}")))
        });
        Ok(Running {
            subnet: v4,
            subnet_v6: v6,
            peers,
            renewals,
            task,
        })
    }

    /// `tryAcquireLease`: the first error that is not `errTryAgain` ends flanneld, and that of a
    /// lost race is another one.
    async fn acquire(&self, registry: &mut Registry) -> Result<FlannelLease> {
        let (leases, _) = registry.leases().await?;
        if let Some(own) = leases.iter().find(|one| one.public_ip == self.public_ip) {
            if self.is_compatible(&own.subnets) {
                // A reservation should stay one; but what etcd says of no lease, -1, is not 0.
                let ttl = if own.expires.is_some() { self.ttl } else { 0 };
                return self.write(registry, &own.subnets, ttl).await;
            }
            registry.delete(&own.subnets).await?;
        }
        let is_held = |one: &Subnets| leases.iter().any(|lease| lease.subnets.v4 == one.v4);
        let previous = self.previous.clone().filter(|one| !is_held(one));
        let subnets = match previous.filter(|one| self.is_compatible(one)) {
            Some(subnets) => subnets,
            None => self.allocate(&leases)?,
        };
        registry.create(&subnets, &self.value, self.ttl).await?;
        Ok(FlannelLease {
            subnets,
            public_ip: self.public_ip,
            value: self.value.clone(),
            expires: Some(Instant::now() + seconds(self.ttl)),
        })
    }

    /// `updateSubnet`: whoever has written there meanwhile is overwritten.
    async fn write(
        &self,
        registry: &mut Registry,
        subnets: &Subnets,
        ttl: i64,
    ) -> Result<FlannelLease> {
        registry.update(subnets, &self.value, ttl).await?;
        Ok(FlannelLease {
            subnets: subnets.clone(),
            public_ip: self.public_ip,
            value: self.value.clone(),
            expires: Some(Instant::now() + seconds(ttl)),
        })
    }

    /// `isSubnetConfigCompat` and `isIPv6SubnetConfigCompat`.
    fn is_compatible(&self, subnets: &Subnets) -> bool {
        let v6 = match (subnets.v6, self.network_v6) {
            (None, None) => true,
            (Some(v6), Some(all)) => {
                v6.prefix() == 64 && all.contains(v6.ip()) && v6.ip() != all.ip()
            }
            _ => false,
        };
        let v4 = subnets.v4;
        let fits = v4.prefix() == 24 && self.network.contains(v4.ip());
        fits && v4.ip() != self.network.ip() && v6
    }

    /// `allocateSubnet`: of each family one of the first 100 that are free, at random, whatever the
    /// other family has.
    fn allocate(&self, leases: &[FlannelLease]) -> Result<Subnets> {
        let overlaps = |one: &Ipv4Network| {
            leases.iter().any(|lease| {
                lease.subnets.v4.contains(one.ip()) || one.contains(lease.subnets.v4.ip())
            })
        };
        let first = u32::from(self.network.ip()) + 256;
        let last = u32::from(self.network.broadcast());
        let all = (first..=last).step_by(256).map(Ipv4Addr::from);
        let free = all.filter_map(|ip| Ipv4Network::new(ip, 24).ok());
        let v4 = one_of(free.filter(|one| !overlaps(one)))?;
        let Some(network) = self.network_v6 else {
            return Ok(Subnets { v4, v6: None });
        };
        let overlaps = |one: &Ipv6Network| {
            let mut held = leases.iter().filter_map(|lease| lease.subnets.v6);
            held.any(|other| other.contains(one.ip()) || one.contains(other.ip()))
        };
        let first = u128::from(network.ip()) + (1 << 64);
        let last = u128::from(network.broadcast());
        let all = (0..).map_while(|at| first.checked_add(at << 64).filter(|ip| *ip <= last));
        let free = all.filter_map(|ip| Ipv6Network::new(Ipv6Addr::from(ip), 64).ok());
        let v6 = one_of(free.filter(|one| !overlaps(one)))?;
        Ok(Subnets { v4, v6: Some(v6) })
    }

    /// `CompleteLease` and `WatchLeases`, until something ends it.
    async fn live(
        self,
        mut registry: Registry,
        own: FlannelLease,
        peers: watch::Sender<Peers>,
        renewals: watch::Sender<u32>,
    ) -> Result<Exit> {
        let mut watcher = LeaseWatcher::new(own.subnets.clone());
        let (snapshot, revision) = registry.leases().await?;
        peers.send_modify(|peers| peers.tell(watcher.reset(snapshot)));
        let mut all = registry.watch("", revision + 1).await?;
        let mut mine = registry.watch(&own.subnets.key(), revision + 1).await?;
        let mut expires = own.expires.context("a lease without an end")?;
        loop {
            tokio::select! {
                message = mine.message() => {
                    let message = message?.context("watch of its own lease ended")?;
                    for event in message.events() {
                        let Some(pair) = event.kv() else { continue };
                        if event.event_type() == EventType::Delete {
                            return Ok(Exit::Revoked);
                        }
                        // Whoever has written it: only the expiry is looked at.
                        if let Ok(found) = registry.lease(pair).await {
                            expires = found.expires.unwrap_or(expires);
                        }
                    }
                }
                message = all.message() => {
                    let message = message?.context("watch of leases ended")?;
                    for event in message.events() {
                        let Some(pair) = event.kv() else { continue };
                        let told = match event.event_type() {
                            EventType::Delete => match parse_key(pair.key()) {
                                Some(subnets) => watcher.remove(&subnets),
                                None => watcher.reset(Vec::new()),
                            },
                            EventType::Put => match registry.lease(pair).await {
                                Ok(lease) => watcher.add(lease),
                                // An event that cannot be read is an empty snapshot.
                                Err(_) => watcher.reset(Vec::new()),
                            },
                        };
                        peers.send_modify(|peers| peers.tell(told));
                    }
                }
                () = tokio::time::sleep_until(expires - self.margin) => {
                    let renewed = self.write(&mut registry, &own.subnets, self.ttl).await;
                    expires = match renewed {
                        Ok(lease) => lease.expires.unwrap_or(expires),
                        // Tried again in a minute.
                        Err(_) => Instant::now() + self.margin + Duration::from_secs(60),
                    };
                    renewals.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

// === impl Running ===

impl Running {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it was killed.
    pub async fn ended(&mut self) -> Result<Exit> {
        Ok((&mut self.task).await?)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // As flanneld ends: nothing is given back.
        self.task.abort();
    }
}

fn one_of<T: Copy>(free: impl Iterator<Item = T>) -> Result<T> {
    let free: Vec<T> = free.take(100).collect();
    let random = usize::try_from(rand::random::<u32>())?;
    let chosen = free.get(random % free.len().max(1));
    chosen.copied().context("out of subnets")
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}
