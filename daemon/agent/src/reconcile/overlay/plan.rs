//! PURE: configuration, snapshot and what was seen of the host to devices, lease and tables.

use desired::cluster::{Announced, Backend, Cluster};
use desired::lease::attributes::VxlanData;
use desired::routes::{Carrier, Overlay, Underlay};
use desired::stable_id::ContentHash;
use ipnetwork::IpNetwork;
use netstate::{IfName, MacAddr, Mtu, NameError, Vni, Vxlan};

use crate::config::{BackendConf, NetConf, VxlanConf};
use crate::lease::Lease;
use crate::reconcile::overlay_device::Vtep;
use crate::uplink::Uplink;

/// Bytes that VXLAN adds to a packet, over IPv4 and over IPv6.
const VXLAN_OVERHEAD: (u32, u32) = (50, 70);

/// What was seen of the host.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The interface towards other nodes.
    pub(super) uplink: Uplink,
    /// MACs of the overlay devices that are there, IPv4's and IPv6's.
    pub(super) macs: [Option<MacAddr>; 2],
}

/// What the loop makes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    /// The overlay devices.
    pub(super) devices: Vec<Device>,
    /// What others are told, and what the tables are computed from.
    pub(super) lease: Lease,
}

/// An overlay device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Device {
    pub(super) name: IfName,
    pub(super) v4: bool,
    pub(super) vtep: Vtep,
}

/// The name of the VXLAN device of a family.
pub(super) fn device_name(vni: Vni, v4: bool) -> Result<IfName, NameError> {
    let name = if v4 { "flannel" } else { "flannel-v6" };
    format!("{name}.{vni}").parse()
}

/// Computes everything.
///
/// # Errors
/// In words, when a subnet is outside of its network or a backend cannot be carried.
pub(super) fn plan(net: &NetConf, cluster: &Cluster, facts: &Facts) -> Result<Plan, String> {
    let uplink = &facts.uplink;
    let underlay = |public_ip, carrier| Underlay {
        public_ip,
        uplink: uplink.device.clone(),
        adjacent: uplink.adjacent.clone(),
        carrier,
    };
    let outer = net.backend.mtu().unwrap_or(uplink.mtu);
    let (devices, backend, carriers, mtu) = match &net.backend {
        BackendConf::Vxlan(conf) => vxlan(conf, cluster, facts, outer)?,
        BackendConf::HostGw => (vec![], Backend::HostGw, both(&Carrier::HostGw), outer),
        BackendConf::Alloc => (vec![], Backend::Alloc, both(&Carrier::Alloc), outer),
        BackendConf::Ipip { .. } => return Err(not_yet("ipip")),
        BackendConf::Wireguard(_) => return Err(not_yet("wireguard")),
    };
    let [v4, v6] = carriers;
    let (ends_v4, ends_v6) = (uplink.v4, uplink.v6);
    let overlay = Overlay {
        v4: ends_v4.map(|ends| underlay(ends.public_ip.into(), v4)),
        v6: ends_v6.map(|ends| underlay(ends.public_ip.into(), v6)),
    };
    let announced = Announced {
        public_ip: ends_v4.map(|ends| ends.public_ip),
        public_ipv6: ends_v6.map(|ends| ends.public_ip),
        backend,
    };
    let lease = Lease {
        subnets: subnets(net, cluster)?,
        announced,
        overlay,
        mtu,
    };
    Ok(Plan { devices, lease })
}

fn both(carrier: &Carrier) -> [Carrier; 2] {
    [carrier.clone(), carrier.clone()]
}

fn not_yet(backend: &str) -> String {
    format!("Backend.Type {backend} is not carried by this version; use vxlan or host-gw")
}

/// This node's subnets once there is one of each family, else none.
fn subnets(net: &NetConf, cluster: &Cluster) -> Result<Vec<IpNetwork>, String> {
    let Some(own) = cluster.own_lease() else {
        return Ok(Vec::new());
    };
    let mut subnets = Vec::new();
    for network in net.networks() {
        let Some(subnet) = own.subnet(network.is_ipv4()) else {
            return Ok(Vec::new());
        };
        if !network.contains(subnet.network()) || network.prefix() > subnet.prefix() {
            let key = if network.is_ipv4() {
                "Network"
            } else {
                "IPv6Network"
            };
            return Err(format!(
                "subnet {subnet} of {} is not within {key} {network}: make net-conf.json agree with the cluster CIDR",
                own.id
            ));
        }
        subnets.push(subnet);
    }
    Ok(subnets)
}

type Parts = (Vec<Device>, Backend, [Carrier; 2], Mtu);

fn vxlan(conf: &VxlanConf, cluster: &Cluster, facts: &Facts, outer: Mtu) -> Result<Parts, String> {
    let uplink = &facts.uplink;
    let announced = cluster.own_lease().and_then(|lease| lease.announced);
    let known = match announced.map(|one| &one.backend) {
        Some(Backend::Vxlan { v4, v6 }) => [*v4, *v6],
        _ => [None, None],
    };
    let locals = [
        uplink.v4.map(|ends| ends.local.into()),
        uplink.v6.map(|ends| ends.local.into()),
    ];
    let (mut devices, mut data) = (Vec::new(), [None, None]);
    let mut carriers = both(&Carrier::Alloc);
    let mut inner = outer;
    for (at, v4) in [(0, true), (1, false)] {
        let Some(local) = locals[at] else { continue };
        let name = device_name(conf.vni, v4).map_err(|error| error.to_string())?;
        let mac = mac(conf.vni, v4, known[at], facts.macs[at], cluster);
        let overhead = if v4 {
            VXLAN_OVERHEAD.0
        } else {
            VXLAN_OVERHEAD.1
        };
        let mtu = outer.less(overhead);
        inner = inner.min(mtu);
        let vxlan = Vxlan {
            vni: conf.vni,
            port: conf.port,
            local: Some(local),
            device: Some(uplink.device.clone()),
            learning: conf.learning,
        };
        let vtep = Vtep {
            vxlan: Some(vxlan),
            mac: Some(mac),
            mtu: Some(mtu),
            up: true,
        };
        carriers[at] = Carrier::Vxlan {
            device: name.clone(),
            vni: conf.vni,
            mac,
            direct_routing: conf.direct_routing,
        };
        data[at] = Some(VxlanData {
            vni: conf.vni,
            vtep_mac: mac,
        });
        devices.push(Device { name, v4, vtep });
    }
    let [v4, v6] = data;
    Ok((devices, Backend::Vxlan { v4, v6 }, carriers, inner))
}

/// The MAC that others know already, else the device's, else one made from the node's name:
/// a restart, even one of the machine, changes nothing for the others.
fn mac(
    vni: Vni,
    v4: bool,
    known: Option<VxlanData>,
    present: Option<MacAddr>,
    cluster: &Cluster,
) -> MacAddr {
    let known = known.filter(|data| data.vni == vni);
    let known = known
        .map(|data| data.vtep_mac)
        .filter(|mac| mac.is_unicast());
    known.or(present).unwrap_or_else(|| {
        let hash = |part: u64| {
            ContentHash::new("vtep-mac")
                .part(cluster.this_node.name.as_str().as_bytes())
                .number(u64::from(vni.get()))
                .number(part + if v4 { 0 } else { 2 })
                .finish()
        };
        let [a, b, c, d] = hash(0).to_be_bytes();
        let [e, f, ..] = hash(1).to_be_bytes();
        MacAddr::local([a, b, c, d, e, f])
    })
}
