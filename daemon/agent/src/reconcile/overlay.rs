//! The overlay: devices, addresses, kernel parameters, peers' tables and the subnet file.

mod choice;
mod key_file;
mod look;
mod plan;
mod remove;
mod tunnel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use desired::cluster::{AskedAddresses, Cluster};
use desired::routes::{RouteProblem, RouteTables, routes};
use hostnet::{Changes, Netlink, RouteTarget};
use ipnetwork::IpNetwork;
use netstate::wireguard::Key;
use netstate::{Failure, IfName, Kept, Report, Stage, Wanted, reconcile};
use tokio::sync::watch;

use self::plan::{Facts, Plan, device_name, plan};
use self::tunnel::{Content, Tunnel};
use super::overlay_device::SysctlTarget;
use super::run::{Pass, Reconciler, merge};
use crate::config::{BackendConf, Config, NetConf, OverlayOptions, UplinkChoice};
use crate::host;
use crate::lease::Lease;
use crate::subnet_file::{SubnetEnv, SubnetFiles};
use crate::uplink::Uplink;

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
    forwarding: Kept<SysctlTarget>,
    routes: Kept<RouteTarget>,
    files: Kept<SubnetFiles>,
    /// The interface that was chosen last.
    uplink: Option<Uplink>,
    /// What an administrator had written on the Node when that was chosen.
    asked: Option<AskedAddresses>,
    tx_checksum: Option<bool>,
    wireguard_key: Option<Key>,
    lease: watch::Sender<Option<Lease>>,
    problems: Vec<RouteProblem>,
    waiting_said: bool,
    /// This node's subnets of late, which its pods' addresses are from.
    held: Vec<IpNetwork>,
}

/// A plan, and what was found on the way to it.
struct Planned {
    plan: Plan,
    /// Why the interface is still the one that was chosen before, if it would not be chosen now.
    doubt: Option<String>,
    /// Devices of an earlier configuration.
    former: Vec<IfName>,
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
            forwarding: Kept::new(SysctlTarget::new(
                forwarding(&settings.net).into_keys().collect(),
            )),
            tx_checksum: settings.options.tx_checksum.wanted(&host::kernel_release()),
            wireguard_key,
            held: settings.subnet_files.held(),
            routes: Kept::new(RouteTarget::new(Netlink::open()?)),
            files: Kept::new(settings.subnet_files.clone()),
            uplink: None,
            asked: None,
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
        Ok(changes.without(&[self.routes.table().port()?]))
    }

    fn plan(&mut self, cluster: &Cluster) -> Result<Planned, String> {
        let interfaces = host::interfaces(&mut self.netlink).map_err(|e| e.to_string())?;
        let is_wanted = |name: &IfName| self.tunnels.iter().any(|tunnel| tunnel.name == *name);
        let (ours, others): (Vec<_>, Vec<_>) = interfaces
            .into_iter()
            .partition(|one| one.ours || is_wanted(&one.name));
        let names = ours.into_iter().map(|interface| interface.name);
        let former = names.filter(|name| !is_wanted(name)).collect();
        let (uplink, doubt) = self.uplink(cluster, &others)?;
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
        Ok(Planned {
            plan: plan(&self.settings.net, cluster, &facts)?,
            doubt,
            former,
        })
    }

    /// Those devices of `plan` that are not there in spite of it.
    fn set_up_devices(&mut self, plan: &Plan, report: &mut Report) -> Vec<IfName> {
        let mut missing = Vec::new();
        for device in &plan.devices {
            let mut tunnels = self.tunnels.iter_mut();
            let Some(tunnel) = tunnels.find(|tunnel| tunnel.name == device.name) else {
                continue;
            };
            let done = tunnel.set_up(device);
            if tunnel.take_remade() {
                self.routes.forget();
            }
            if !done.errors.is_empty() && !matches!(self.netlink.link(&device.name), Ok(Some(_))) {
                missing.push(device.name.clone());
            }
            merge(report, done);
        }
        missing
    }

    /// Everything of all tables in one order: first what is added, whatever the table, and in the end
    /// what is removed, so that a peer that is reached by another way now is never without one. What
    /// a `missing` device would carry waits for it.
    fn set_up_peers(&mut self, cluster: &Cluster, lease: &Lease, missing: &[IfName]) -> Report {
        let mut tables = routes(cluster, &lease.overlay);
        self.tell(&tables);
        let is_missing = |name: &IfName| missing.contains(name);
        tables
            .routes
            .retain(|_, route| !route.device.as_ref().is_some_and(is_missing));
        let contents: Vec<Option<Content>> = self
            .tunnels
            .iter()
            .map(|tunnel| {
                let mut subnets = lease.subnets.iter();
                let subnet = subnets.find(|one| one.is_ipv4() == tunnel.v4)?;
                let content = tunnel.content(*subnet, &tables);
                (!is_missing(&tunnel.name)).then_some(content)
            })
            .collect();
        let sysctls = forwarding(&self.settings.net);
        let forwarding = Wanted::new("sysctl", &mut self.forwarding, &sysctls);
        let mut stages: Vec<Box<dyn Stage + '_>> = vec![Box::new(forwarding)];
        for (tunnel, content) in self.tunnels.iter_mut().zip(&contents) {
            if let Some(content) = content {
                stages.extend(tunnel.stages(content));
            }
        }
        let routes = Wanted::new("routes", &mut self.routes, &tables.routes);
        stages.push(Box::new(routes));
        let mut stages: Vec<&mut dyn Stage> =
            stages.iter_mut().map(|one| &mut **one as _).collect();
        reconcile(&mut stages)
    }

    /// Removes devices of an earlier configuration, after everything that this one asks for is there.
    fn remove_former(&mut self, former: &[IfName], report: &mut Report) {
        for name in former {
            match self.netlink.delete_link(name) {
                Ok(()) => {
                    tracing::info!(device = %name, "overlay device of an earlier configuration is removed");
                    report.deletes += 1;
                }
                Err(error) => report
                    .errors
                    .push(failure("delete", name.to_string(), &error)),
            }
        }
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

    /// What the subnet files must hold.
    fn subnet_files(&self, lease: &Lease) -> BTreeMap<PathBuf, String> {
        let env = SubnetEnv {
            networks: self.settings.net.networks().collect(),
            subnets: lease.subnets.clone(),
            mtu: lease.mtu,
            ip_masq: self.settings.options.rules.masquerade,
        };
        self.settings.subnet_files.wanted(&env)
    }

    fn write_subnet_files(&mut self, lease: &Lease) -> Report {
        let wanted = self.subnet_files(lease);
        let mut files = Wanted::new("subnet-file", &mut self.files, &wanted);
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
        let shown = |all: &[IpNetwork]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        if !self.held.iter().all(|one| lease.subnets.contains(one)) {
            tracing::warn!(
                before = shown(&self.held).join(","),
                now = shown(&lease.subnets).join(","),
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

    /// Nodes and leases are all that a plan is computed from.
    fn concerned_by(before: &Cluster, now: &Cluster) -> bool {
        (&before.nodes, &before.leases) != (&now.nodes, &now.leases)
    }

    /// Devices first, because a store may give a subnet only to a node that can say how it is
    /// reached; everything else once there is a subnet.
    fn pass(&mut self, cluster: &Arc<Cluster>, _: Pass) -> Report {
        let Planned {
            plan,
            doubt,
            former,
        } = match self.plan(cluster) {
            Ok(planned) => planned,
            Err(message) => return failed(&message),
        };
        let mut report = doubt.map(|error| failed(&error)).unwrap_or_default();
        let missing = self.set_up_devices(&plan, &mut report);
        let lease = plan.lease;
        self.say_waiting(cluster, !lease.is_up());
        if lease.is_up() {
            self.tell_of_move(&lease);
            merge(&mut report, self.set_up_peers(cluster, &lease, &missing));
            // No pod is made for a family that is not carried.
            if missing.is_empty() {
                merge(&mut report, self.write_subnet_files(&lease));
            }
            if report.errors.is_empty() {
                self.remove_former(&former, &mut report);
            }
        }
        // Nobody is told of a device that is not there.
        if missing.is_empty() {
            self.announce(lease);
        }
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

/// What a pass could not work out.
fn failed(message: &str) -> Report {
    Report {
        errors: vec![failure("compute", String::new(), &message)],
        ..Report::default()
    }
}

fn failure(action: &'static str, key: String, error: &dyn std::fmt::Display) -> Failure {
    Failure {
        table: NAME,
        action,
        key,
        message: error.to_string(),
    }
}
