//! The overlay: devices, addresses, kernel parameters, peers' tables and the subnet file.

mod key_file;
mod look;
mod plan;
mod remove;
mod tunnel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desired::cluster::Cluster;
use desired::routes::{RouteProblem, RouteTables, routes};
use hostnet::{Changes, Netlink, RouteTarget};
use ipnetwork::IpNetwork;
use netstate::wireguard::Key;
use netstate::{Failure, Report, Wanted, reconcile};
use tokio::sync::watch;

use self::plan::{Facts, Plan, asked, asked_choice, device_name, plan};
use self::tunnel::Tunnel;
use super::overlay_device::SysctlTarget;
use super::run::{Pass, Reconciler, merge};
use crate::config::{BackendConf, Config, NetConf, OverlayOptions, UplinkChoice};
use crate::host;
use crate::lease::Lease;
use crate::subnet_file::{SubnetEnv, SubnetFiles};
use crate::uplink::{Families, Uplink, choose, kernel_source_to};

pub use self::remove::{Removed, remove};

/// Name of the loop.
pub const NAME: &str = "overlay";

/// What the overlay is to be, from the configuration.
#[derive(Clone, Debug)]
pub struct OverlaySettings {
    /// Network and backend.
    pub net: NetConf,
    /// Which interface carries it.
    pub uplink: UplinkChoice,
    /// What the settings say of devices and rules.
    pub options: OverlayOptions,
    /// The subnet files.
    pub subnet_files: SubnetFiles,
    /// Folder for what outlives the daemon: the WireGuard key.
    pub state_dir: PathBuf,
}

/// The overlay loop's tables.
pub struct OverlayLoop {
    settings: OverlaySettings,
    netlink: Netlink,
    tunnels: Vec<Tunnel>,
    forwarding: SysctlTarget,
    routes: RouteTarget,
    tx_checksum: Option<bool>,
    wireguard_key: Option<Key>,
    lease: watch::Sender<Option<Lease>>,
    problems: Vec<RouteProblem>,
    waiting_said: bool,
    /// This node's subnets of late, which its pods' addresses are from.
    held: Vec<IpNetwork>,
}

// === impl OverlaySettings ===

impl OverlaySettings {
    /// What `config` says, for the network `net`.
    #[must_use]
    pub fn of(config: &Config, net: NetConf) -> Self {
        Self {
            net,
            uplink: config.uplink.clone(),
            options: config.overlay,
            subnet_files: SubnetFiles::new(config.subnet_files.clone()),
            state_dir: config.state_dir.clone(),
        }
    }
}

// === impl OverlayLoop ===

impl OverlayLoop {
    /// Works in the network namespace of the calling thread; tells `lease` what it has set up.
    ///
    /// # Errors
    /// When no netlink socket can be opened, or the WireGuard key cannot be read or made.
    pub fn open(
        settings: OverlaySettings,
        lease: watch::Sender<Option<Lease>>,
    ) -> anyhow::Result<Self> {
        let wireguard_key = match settings.net.backend {
            BackendConf::Wireguard(_) => Some(key_file::load(
                &settings.state_dir,
                Path::new(key_file::FLANNELS),
            )?),
            _ => None,
        };
        Ok(Self {
            netlink: Netlink::open()?,
            tunnels: open_tunnels(&settings.net)?,
            forwarding: SysctlTarget::new(forwarding(&settings.net).into_keys().collect()),
            tx_checksum: settings.options.tx_checksum.wanted(&host::kernel_release()),
            wireguard_key,
            routes: RouteTarget::new(Netlink::open()?),
            held: settings.subnet_files.held(),
            settings,
            lease,
            problems: Vec::new(),
            waiting_said: false,
        })
    }

    /// What the kernel tells of what others do to what this loop keeps, in the network namespace of
    /// the calling thread. That the loop itself has made thousands of routes is no reason to look at
    /// all of them again.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn changes(&self) -> hostnet::Result<Changes> {
        let devices = self.tunnels.iter().map(|tunnel| tunnel.name.clone());
        let changes = Changes::open_with_neighbours(devices.collect())?;
        Ok(changes.without(&[self.routes.port()?]))
    }

    fn plan(&mut self, cluster: &Cluster) -> Result<Plan, String> {
        let uplink = self.uplink(cluster)?;
        let mut macs = [None, None];
        for tunnel in &mut self.tunnels {
            macs[usize::from(!tunnel.v4)] = tunnel.mac().map_err(|error| error.to_string())?;
        }
        let facts = Facts {
            uplink,
            macs,
            tx_checksum: self.tx_checksum,
            wireguard_key: self.wireguard_key,
            blackhole: self.settings.options.blackhole,
        };
        plan(&self.settings.net, cluster, &facts)
    }

    fn uplink(&mut self, cluster: &Cluster) -> Result<Uplink, String> {
        let mut interfaces = host::interfaces(&mut self.netlink).map_err(|e| e.to_string())?;
        let is_ours = |name| self.tunnels.iter().any(|tunnel| tunnel.name == name);
        interfaces.retain(|interface| !is_ours(interface.name.clone()));
        let node = cluster
            .own_node()
            .map(|node| node.addresses.clone())
            .unwrap_or_default();
        let families = Families {
            v4: self.settings.net.v4.is_some(),
            v6: self.settings.net.v6.is_some(),
        };
        let choice = asked_choice(&self.settings.uplink, &asked(cluster));
        choose(&choice, &interfaces, &node, families, kernel_source_to).map_err(|e| e.to_string())
    }

    fn set_up_devices(&mut self, plan: &Plan) -> Report {
        let mut report = Report::default();
        for device in &plan.devices {
            let mut tunnels = self.tunnels.iter_mut();
            if let Some(tunnel) = tunnels.find(|tunnel| tunnel.name == device.name) {
                merge(&mut report, tunnel.set_up(device));
            }
        }
        report
    }

    fn set_up_peers(&mut self, cluster: &Cluster, lease: &Lease) -> Report {
        let tables = routes(cluster, &lease.overlay);
        self.tell(&tables);
        let sysctls = forwarding(&self.settings.net);
        let mut forwarding = Wanted::new("sysctl", &mut self.forwarding, &sysctls);
        let mut report = reconcile(&mut [&mut forwarding]);
        for tunnel in &mut self.tunnels {
            let subnet = lease.subnets.iter().find(|one| one.is_ipv4() == tunnel.v4);
            if let Some(subnet) = subnet {
                merge(&mut report, tunnel.fill(*subnet, &tables));
            }
        }
        let mut routes = Wanted::new("routes", &mut self.routes, &tables.routes);
        merge(&mut report, reconcile(&mut [&mut routes]));
        report
    }

    /// Says which nodes are left out, when that changes.
    fn tell(&mut self, tables: &RouteTables) {
        if tables.problems != self.problems {
            for problem in &tables.problems {
                tracing::warn!(%problem, "node is left out of the overlay");
            }
            self.problems.clone_from(&tables.problems);
        }
    }

    fn write_subnet_files(&mut self, lease: &Lease) -> Report {
        let env = SubnetEnv {
            networks: self.settings.net.networks().collect(),
            subnets: lease.subnets.clone(),
            mtu: lease.mtu,
            ip_masq: self.settings.options.rules.masquerade,
        };
        let wanted = self.settings.subnet_files.wanted(&env);
        let mut files = Wanted::new("subnet-file", &mut self.settings.subnet_files, &wanted);
        reconcile(&mut [&mut files])
    }

    fn say_waiting(&mut self, cluster: &Cluster, waiting: bool) {
        if waiting && !self.waiting_said {
            let node = &cluster.this_node.name;
            tracing::info!(%node, "this node has no pod subnet yet; waiting for one");
        }
        self.waiting_said = waiting;
    }

    /// Says that pods were left behind with addresses that nobody sends here any more.
    fn tell_of_move(&mut self, lease: &Lease) {
        let known = |one: &IpNetwork| lease.subnets.contains(one);
        let lost: Vec<_> = self.held.iter().filter(|one| !known(one)).collect();
        if !lost.is_empty() {
            tracing::warn!(
                ?lost,
                now = ?lease.subnets,
                "this node has another pod subnet than before: make its pods anew, nobody reaches those with addresses of the old one"
            );
        }
        self.held.clone_from(&lease.subnets);
    }

    fn announce(&self, lease: Lease) {
        self.lease.send_if_modified(|known| {
            let modified = known.as_ref() != Some(&lease);
            *known = Some(lease);
            modified
        });
    }
}

impl Reconciler for OverlayLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Devices first, because a store may give a subnet only to a node that can say how it is
    /// reached; everything else once there is a subnet.
    fn pass(&mut self, cluster: &Arc<Cluster>, _: Pass) -> Report {
        let plan = match self.plan(cluster) {
            Ok(plan) => plan,
            Err(message) => return failed(message),
        };
        let mut report = self.set_up_devices(&plan);
        if !report.errors.is_empty() {
            return report;
        }
        let lease = plan.lease;
        self.say_waiting(cluster, !lease.is_up());
        if lease.is_up() {
            self.tell_of_move(&lease);
            merge(&mut report, self.set_up_peers(cluster, &lease));
            merge(&mut report, self.write_subnet_files(&lease));
        }
        self.announce(lease);
        report
    }
}

/// The tables of each overlay device of the configuration.
fn open_tunnels(net: &NetConf) -> anyhow::Result<Vec<Tunnel>> {
    let mut tunnels = Vec::new();
    for network in net.networks() {
        let v4 = network.is_ipv4();
        if let Some(name) = device_name(&net.backend, v4)? {
            tunnels.push(Tunnel::open(name, v4, &net.backend)?);
        }
    }
    Ok(tunnels)
}

/// The parameters without which nothing is forwarded, unless somebody else carries packets.
fn forwarding(net: &NetConf) -> BTreeMap<String, String> {
    if net.backend == BackendConf::Alloc {
        return BTreeMap::new();
    }
    let families = net.networks().map(|network| network.is_ipv4());
    families.map(SysctlTarget::for_forwarding).collect()
}

/// A pass that could not work out what it wants.
fn failed(message: String) -> Report {
    let failure = Failure {
        table: NAME,
        action: "compute",
        key: String::new(),
        message,
    };
    Report {
        errors: vec![failure],
        ..Report::default()
    }
}
