//! The overlay: device, addresses, kernel parameters, peers' tables and the subnet file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use desired::cluster::Cluster;
use desired::routes::{Overlay, OverlayDevice, RouteProblem, routes};
use desired::stable_id::ContentHash;
use hostnet::{FdbTarget, NeighbourTarget, Netlink, RouteTarget};
use ipnetwork::Ipv4Network;
use netstate::{
    Failure, FdbKey, IfName, MacAddr, NeighbourKey, Report, Route, RouteKey, Vxlan, Wanted,
    reconcile,
};
use tokio::sync::watch;

use super::overlay_device::{AddressTarget, SysctlTarget, Vtep, VtepTarget, vtep_address};
use super::run::{Pass, Reconciler, merge};
use crate::config::{NetConf, UplinkChoice};
use crate::host;
use crate::lease::Lease;
use crate::subnet_file::{SubnetEnv, SubnetFiles};
use crate::uplink::{Uplink, choose, kernel_source_to};

/// Name of the loop.
pub const NAME: &str = "overlay";
/// Bytes that VXLAN over IPv4 adds to a packet.
const OVERHEAD: u32 = 50;

/// What the overlay is to be, from the configuration.
#[derive(Clone, Debug)]
pub struct OverlaySettings {
    /// Network and backend.
    pub net: NetConf,
    /// Which interface carries it.
    pub uplink: UplinkChoice,
    /// Told to plugins in the subnet file.
    pub ip_masq: bool,
    /// The subnet files.
    pub subnet_files: SubnetFiles,
}

/// The overlay loop's tables.
pub struct OverlayLoop {
    settings: OverlaySettings,
    name: IfName,
    netlink: Netlink,
    device: VtepTarget,
    addresses: AddressTarget,
    sysctls: SysctlTarget,
    neighbours: NeighbourTarget,
    fdb: FdbTarget,
    routes: RouteTarget,
    lease: watch::Sender<Option<Lease>>,
    problems: Vec<RouteProblem>,
    waiting_said: bool,
}

// === impl OverlayLoop ===

impl OverlayLoop {
    /// Works in the network namespace of the calling thread; tells `lease` what it has set up.
    ///
    /// # Errors
    /// When no netlink socket can be opened.
    pub fn open(
        settings: OverlaySettings,
        lease: watch::Sender<Option<Lease>>,
    ) -> anyhow::Result<Self> {
        let name: IfName = format!("flannel.{}", settings.net.vxlan.vni).parse()?;
        let sysctls = SysctlTarget::for_overlay(&name).into_keys().collect();
        Ok(Self {
            netlink: Netlink::open()?,
            device: VtepTarget::new(Netlink::open()?, name.clone()),
            addresses: AddressTarget::new(Netlink::open()?, name.clone()),
            sysctls: SysctlTarget::new(sysctls),
            neighbours: NeighbourTarget::new(Netlink::open()?, name.clone()),
            fdb: FdbTarget::new(Netlink::open()?, name.clone()),
            routes: RouteTarget::new(Netlink::open()?),
            settings,
            name,
            lease,
            problems: Vec::new(),
            waiting_said: false,
        })
    }

    /// This node's subnet, or `None` while the cluster has not assigned one.
    fn subnet(&mut self, cluster: &Cluster) -> Result<Option<Ipv4Network>, String> {
        let Some(subnet) = cluster
            .own_node()
            .and_then(desired::cluster::Node::pod_cidr_v4)
        else {
            if !self.waiting_said {
                let node = &cluster.this_node.name;
                tracing::info!(%node, "the Node has no podCIDR yet; waiting for the cluster to assign one");
                self.waiting_said = true;
            }
            return Ok(None);
        };
        self.waiting_said = false;
        let network = self.settings.net.network;
        if network.contains(subnet.network()) && network.prefix() <= subnet.prefix() {
            Ok(Some(subnet))
        } else {
            Err(format!(
                "podCIDR {subnet} is not within Network {network}: make net-conf.json agree with the cluster CIDR"
            ))
        }
    }

    fn uplink(&mut self, cluster: &Cluster) -> Result<Uplink, String> {
        let mut interfaces = host::interfaces(&mut self.netlink).map_err(|e| e.to_string())?;
        interfaces.retain(|interface| interface.name != self.name);
        let node = cluster
            .own_node()
            .map(|node| node.addresses.clone())
            .unwrap_or_default();
        choose(&self.settings.uplink, &interfaces, &node, kernel_source_to)
            .map_err(|e| e.to_string())
    }

    /// The MAC that others know already, else the device's, else one made from the node's name:
    /// a restart, even one of the machine, changes nothing for the others.
    fn mac(&mut self, cluster: &Cluster) -> Result<MacAddr, String> {
        let vni = self.settings.net.vxlan.vni;
        let announced = cluster
            .own_node()
            .and_then(|node| node.vxlan)
            .filter(|peer| peer.vni == vni);
        if let Some(mac) = announced
            .map(|peer| peer.vtep_mac)
            .filter(|mac| mac.is_unicast())
        {
            return Ok(mac);
        }
        if let Some(mac) = self.device.mac().map_err(|e| e.to_string())? {
            return Ok(mac);
        }
        let hash = |part: u64| {
            ContentHash::new("vtep-mac")
                .part(cluster.this_node.name.as_str().as_bytes())
                .number(u64::from(vni.get()))
                .number(part)
                .finish()
        };
        let [a, b, c, d] = hash(0).to_be_bytes();
        let [e, f, ..] = hash(1).to_be_bytes();
        Ok(MacAddr::local([a, b, c, d, e, f]))
    }

    fn wanted_lease(&mut self, cluster: &Cluster) -> Result<Option<(Lease, Vtep)>, String> {
        let Some(subnet) = self.subnet(cluster)? else {
            return Ok(None);
        };
        let uplink = self.uplink(cluster)?;
        let mac = self.mac(cluster)?;
        let conf = self.settings.net.vxlan;
        let mtu = conf.mtu.unwrap_or(uplink.mtu).less(OVERHEAD);
        let vtep = Vtep {
            vxlan: Some(Vxlan {
                vni: conf.vni,
                port: conf.port,
                local: Some(uplink.local.into()),
                device: Some(uplink.device),
                learning: false,
            }),
            mac: Some(mac),
            mtu: Some(mtu),
            up: true,
        };
        let overlay = OverlayDevice {
            name: self.name.clone(),
            vni: conf.vni,
            mac,
            public_ip: uplink.public_ip,
        };
        Ok(Some((
            Lease {
                subnet,
                overlay,
                mtu,
            },
            vtep,
        )))
    }

    fn set_up_device(&mut self, vtep: Vtep, subnet: Ipv4Network) -> Report {
        let wanted = BTreeMap::from([(self.name.clone(), vtep)]);
        let mut device = Wanted::new("overlay-device", &mut self.device, &wanted);
        let mut report = reconcile(&mut [&mut device]);
        let wanted_addresses = BTreeMap::from([(vtep_address(subnet), ())]);
        let wanted_sysctls = SysctlTarget::for_overlay(&self.name);
        let mut addresses = Wanted::new("overlay-address", &mut self.addresses, &wanted_addresses);
        let mut sysctls = Wanted::new("sysctl", &mut self.sysctls, &wanted_sysctls);
        merge(&mut report, reconcile(&mut [&mut addresses, &mut sysctls]));
        report
    }

    fn set_up_peers(&mut self, cluster: &Cluster, lease: &Lease) -> Report {
        let tables = PeerTables::of(cluster, lease);
        if tables.problems != self.problems {
            for problem in &tables.problems {
                tracing::warn!(%problem, "node is left out of the overlay");
            }
            self.problems.clone_from(&tables.problems);
        }
        let mut neighbours = Wanted::new("neighbours", &mut self.neighbours, &tables.neighbours);
        let mut fdb = Wanted::new("fdb", &mut self.fdb, &tables.fdb);
        let mut routes = Wanted::new("routes", &mut self.routes, &tables.routes);
        reconcile(&mut [&mut neighbours, &mut fdb, &mut routes])
    }

    fn write_subnet_files(&mut self, lease: &Lease) -> Report {
        let env = SubnetEnv {
            network: self.settings.net.network,
            subnet: lease.subnet,
            ipv6: None,
            mtu: lease.mtu,
            ip_masq: self.settings.ip_masq,
        };
        let wanted = self.settings.subnet_files.wanted(&env);
        let mut files = Wanted::new("subnet-file", &mut self.settings.subnet_files, &wanted);
        reconcile(&mut [&mut files])
    }
}

/// What a node that holds a lease must hold to reach the others, as the Targets take it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerTables {
    /// Peers' overlay addresses.
    pub neighbours: BTreeMap<NeighbourKey, MacAddr>,
    /// Peers' tunnel ends.
    pub fdb: BTreeMap<FdbKey, IpAddr>,
    /// Peers' subnets.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Nodes that are left out, and why.
    pub problems: Vec<RouteProblem>,
}

impl PeerTables {
    /// The tables of the node that holds `lease`.
    #[must_use]
    pub fn of(cluster: &Cluster, lease: &Lease) -> Self {
        let overlay = Overlay {
            v4: Some(lease.overlay.clone()),
            v6: None,
        };
        let tables = routes(cluster, &overlay);
        let neighbours = tables
            .neighbours
            .into_iter()
            .map(|(key, one)| (key, one.mac));
        let fdb = tables.fdb.into_iter().map(|(key, one)| (key, one.remote));
        Self {
            neighbours: neighbours.collect(),
            fdb: fdb.collect(),
            routes: tables.routes,
            problems: tables.problems,
        }
    }
}

impl Reconciler for OverlayLoop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pass(&mut self, cluster: &Arc<Cluster>, _: Pass) -> Report {
        let (lease, vtep) = match self.wanted_lease(cluster) {
            Ok(Some(wanted)) => wanted,
            Ok(None) => return Report::default(),
            Err(message) => return failed(message),
        };
        let mut report = self.set_up_device(vtep, lease.subnet);
        if !report.errors.is_empty() {
            return report;
        }
        merge(&mut report, self.set_up_peers(cluster, &lease));
        merge(&mut report, self.write_subnet_files(&lease));
        self.lease.send_if_modified(|known| {
            let modified = known.as_ref() != Some(&lease);
            *known = Some(lease);
            modified
        });
        report
    }
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
