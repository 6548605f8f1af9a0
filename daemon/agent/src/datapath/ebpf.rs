//! The eBPF data path: loaded once, its maps given to the loops, its events and flows told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use desired::policy::PolicyTables;
use desired::services::ServiceTables;
use ebpf_shared::conntrack::Timeouts;
use ebpf_shared::maps::{CONFIG_LOCAL_REDIRECT, CONFIG_SERVICES, Config as MapConfig};
use jiff::Timestamp;
use loader::{Datapath, Events, Maps, Options};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attach::AttachTarget;
use super::sockets::{ConfigTarget, SocketTarget};
use crate::admin::{EventHub, Namer};
use crate::config::{Config, NetConf};
use crate::reconcile::Map;
use crate::reconcile::policy::{PeerMaps, PolicyMaps};
use crate::reconcile::services::{FamilyMaps, ServiceMaps};
use crate::store::Store;

/// Time between two searches for flows that have ended.
const SWEEP: Duration = Duration::from_secs(30);
/// Longest time the reader of events takes to notice that it shall stop.
const EVENT_WAIT_MS: u16 = 500;

/// The loaded data path.
pub struct Ebpf {
    datapath: Arc<Mutex<Datapath>>,
    /// The pinned maps.
    pub(super) maps: Maps,
    config: MapConfig,
    bpf_root: PathBuf,
    cgroup: PathBuf,
    /// What the policy loop last computed.
    pub policy_tables: watch::Sender<Arc<PolicyTables>>,
    /// What the services loop last computed.
    pub service_tables: watch::Sender<Arc<ServiceTables>>,
}

// === impl Ebpf ===

impl Ebpf {
    /// Loads the programs and adopts the maps of an earlier run.
    ///
    /// # Errors
    /// What this machine lacks, or what the kernel says.
    pub fn load(config: &Config, net: &NetConf) -> anyhow::Result<Self> {
        let capacities = BTreeMap::new();
        let options = Options {
            bpf_root: config.bpf_root.clone(),
            capacities,
        };
        let datapath = Datapath::load(&options)?;
        let cgroup = config.cgroup_root.clone().context("no cgroup-root")?;
        if !config.services {
            loader::detach_cgroup(&config.bpf_root)?;
        }
        Ok(Self {
            maps: datapath.maps().clone(),
            datapath: Arc::new(Mutex::new(datapath)),
            config: map_config(config, net)?,
            cgroup,
            bpf_root: config.bpf_root.clone(),
            policy_tables: watch::Sender::new(Arc::default()),
            service_tables: watch::Sender::new(Arc::default()),
        })
    }

    /// The maps of the services loop.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn service_maps(&self) -> anyhow::Result<ServiceMaps> {
        let tables = self.maps.tables()?;
        let v4 = FamilyMaps {
            backends: Map::new(tables.backends4),
            slots: Map::new(tables.slots4),
            frontends: Map::new(tables.frontends4),
        };
        let v6 = FamilyMaps {
            backends: Map::new(tables.backends6),
            slots: Map::new(tables.slots6),
            frontends: Map::new(tables.frontends6),
        };
        let sockets = SocketTarget::new(
            self.datapath.clone(),
            self.bpf_root.clone(),
            self.cgroup.clone(),
        );
        Ok(ServiceMaps {
            v4,
            v6,
            sockets: Map::new(sockets),
        })
    }

    /// The maps of the policy loop.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn policy_maps(&self) -> anyhow::Result<PolicyMaps> {
        let tables = self.maps.tables()?;
        Ok(PolicyMaps {
            config: Map::new(ConfigTarget::new(self.maps.clone())),
            wanted_config: self.config,
            attachments: Map::new(AttachTarget::new(self.datapath.clone())),
            verdicts: Map::new(tables.verdicts),
            v4: PeerMaps {
                classes: Map::new(tables.classes4),
                cidr_classes: Map::new(tables.cidr_classes4),
            },
            v6: PeerMaps {
                classes: Map::new(tables.classes6),
                cidr_classes: Map::new(tables.cidr_classes6),
            },
            pods: Map::new(tables.pods),
            pod_netns: Map::new(tables.pod_netns),
        })
    }

    /// Starts the sweep of ended flows and the reader of events.
    ///
    /// # Errors
    /// When the flow tables or the event ring cannot be opened.
    pub fn start(
        &self,
        store: &Arc<Store>,
        hub: &Arc<EventHub>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let conntrack = self.maps.conntrack()?;
        let first_pass = self.policy_tables.subscribe();
        let bpf_root = self.bpf_root.clone();
        tasks.spawn(sweep(conntrack, first_pass, bpf_root, stop.clone()));
        let reader = Reader {
            events: self.maps.events()?,
            store: store.clone(),
            hub: hub.clone(),
            policy: self.policy_tables.subscribe(),
            stop: stop.clone(),
        };
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || reader.run())
            .context("thread for events")?;
        Ok(())
    }
}

fn map_config(config: &Config, net: &NetConf) -> anyhow::Result<MapConfig> {
    let network = net.v4.context(
        "net-conf.json: EnableIPv4: the eBPF data path needs it; write true, or datapath none",
    )?;
    let services = if config.services { CONFIG_SERVICES } else { 0 };
    Ok(MapConfig {
        node_netns: loader::netns_cookie().context("SO_NETNS_COOKIE (Linux 5.14)")?,
        cluster4: network.network().octets(),
        cluster4_mask: network.mask().octets(),
        flags: services | CONFIG_LOCAL_REDIRECT,
        ..MapConfig::default()
    })
}

/// Removes flows that have ended, every [`SWEEP`]; not before policy has been applied once. Then
/// nothing refers to the maps of an older layout either, and their pins go.
async fn sweep(
    conntrack: loader::Conntrack,
    mut first_pass: watch::Receiver<Arc<PolicyTables>>,
    bpf_root: PathBuf,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        _ = first_pass.changed() => {}
    }
    match loader::retire_other_layouts(&bpf_root) {
        Ok(retired) if retired.is_empty() => {}
        Ok(retired) => tracing::info!(?retired, "maps of older versions are removed"),
        Err(error) => tracing::warn!(%error, "maps of older versions stay"),
    }
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let swept = conntrack.clone();
        let done = tokio::task::spawn_blocking(move || {
            swept.sweep(&Timeouts::DEFAULT, loader::monotonic_ns())
        });
        match done.await {
            Ok(Ok(done)) => {
                tracing::debug!(seen = done.seen, removed = done.removed, "flows swept");
            }
            Ok(Err(error)) => tracing::warn!(%error, "flows cannot be swept"),
            Err(error) => tracing::warn!(%error, "sweep of flows ended"),
        }
    }
}

/// Reads the event ring on a thread of its own.
struct Reader {
    events: Events,
    store: Arc<Store>,
    hub: Arc<EventHub>,
    policy: watch::Receiver<Arc<PolicyTables>>,
    stop: CancellationToken,
}

impl Reader {
    fn run(mut self) {
        let mut namer = Namer::new(self.store.snapshot());
        while !self.stop.is_cancelled() {
            let mut ready = [PollFd::new(
                std::os::fd::AsFd::as_fd(&self.events),
                PollFlags::POLLIN,
            )];
            match poll(&mut ready, PollTimeout::from(EVENT_WAIT_MS)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "events cannot be read any more");
                    return;
                }
            }
            namer.refresh(self.store.snapshot());
            let policy = self.policy.borrow().clone();
            while let Some(event) = self.events.next() {
                self.hub
                    .publish(namer.view(&event, &policy, Timestamp::now()));
            }
        }
    }
}
