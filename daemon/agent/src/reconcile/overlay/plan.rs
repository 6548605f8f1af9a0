//! PURE: configuration, snapshot and what was seen of the host to devices, lease and tables.

mod devices;

use desired::cluster::{Announced, AskedAddresses, Backend, Cluster, Leases};
use desired::routes::{Carrier, Overlay, Underlay};
use ipnetwork::IpNetwork;
use netstate::wireguard;
use netstate::{IfName, MacAddr, Mtu, NameError};

use self::devices::{both, ipip, vxlan, wireguard};
use crate::config::{BackendConf, NetConf, UplinkChoice};
use crate::lease::Lease;
use crate::reconcile::overlay_device::Vtep;
use crate::uplink::Uplink;

/// What was seen of the host.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The interface towards other nodes.
    pub(super) uplink: Uplink,
    /// MACs of the overlay devices that are there, IPv4's and IPv6's.
    pub(super) macs: [Option<MacAddr>; 2],
    /// What VXLAN devices are told of checksums, if anything.
    pub(super) tx_checksum: Option<bool>,
    /// The private key of WireGuard devices.
    pub(super) wireguard_key: Option<wireguard::Key>,
    /// Whether this node's subnets have a black hole.
    pub(super) blackhole: bool,
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
    /// What a VXLAN device is told of checksums, if anything.
    pub(super) tx_checksum: Option<bool>,
    /// What a WireGuard device has of its own.
    pub(super) wireguard: Option<wireguard::Device>,
}

/// What a backend comes to: devices, what others are told, both families' carriers, pods' MTU.
type Parts = (Vec<Device>, Backend, [Carrier; 2], Mtu);

/// The name of a backend's device of a family, if it has one. They are flannel's.
pub(super) fn device_name(backend: &BackendConf, v4: bool) -> Result<Option<IfName>, NameError> {
    let name = match (backend, v4) {
        (BackendConf::Vxlan(conf), true) => format!("flannel.{}", conf.vni),
        (BackendConf::Vxlan(conf), false) => format!("flannel-v6.{}", conf.vni),
        (BackendConf::Ipip { .. }, _) => "flannel.ipip".to_owned(),
        (BackendConf::Wireguard(_), true) => "flannel-wg".to_owned(),
        (BackendConf::Wireguard(_), false) => "flannel-wg-v6".to_owned(),
        (BackendConf::HostGw | BackendConf::Alloc, _) => return Ok(None),
    };
    name.parse().map(Some)
}

/// What an administrator has written on this node's object, where leases are on such objects.
pub(super) fn asked(cluster: &Cluster) -> AskedAddresses {
    match cluster.leases {
        Leases::OnNodes => cluster.own_node().map(|node| node.asked),
        Leases::InStore { .. } => None,
    }
    .unwrap_or_default()
}

/// The choice of an uplink with what the node's object says in place of the settings.
pub(super) fn asked_choice(choice: &UplinkChoice, asked: &AskedAddresses) -> UplinkChoice {
    UplinkChoice {
        public_ip: asked.public_ip.or(choice.public_ip),
        public_ipv6: asked.public_ipv6.or(choice.public_ipv6),
        ..choice.clone()
    }
}

/// Computes everything.
///
/// # Errors
/// In words, when a subnet is outside of its network or a name is too long.
pub(super) fn plan(net: &NetConf, cluster: &Cluster, facts: &Facts) -> Result<Plan, String> {
    let uplink = &facts.uplink;
    let asked = asked(cluster);
    let announced_v4 = uplink
        .v4
        .map(|ends| asked.announced.unwrap_or(ends.public_ip));
    let announced_v6 = uplink
        .v6
        .map(|ends| asked.announced_v6.unwrap_or(ends.public_ip));
    let underlay = |public_ip, carrier| Underlay {
        public_ip,
        uplink: uplink.device.clone(),
        adjacent: uplink.adjacent.clone(),
        carrier,
    };
    // More than the interface takes is refused by the kernel, or lost by it.
    let outer = net
        .backend
        .mtu()
        .map_or(uplink.mtu, |mtu| mtu.min(uplink.mtu));
    let (devices, backend, carriers, mtu) = match &net.backend {
        BackendConf::Vxlan(conf) => vxlan(conf, net, cluster, facts, outer)?,
        BackendConf::HostGw => (vec![], Backend::HostGw, both(&Carrier::HostGw), outer),
        BackendConf::Alloc => (vec![], Backend::Alloc, both(&Carrier::Alloc), outer),
        BackendConf::Ipip { direct_routing } => ipip(net, facts, outer, *direct_routing)?,
        BackendConf::Wireguard(conf) => wireguard(conf, net, facts, outer)?,
    };
    let [v4, v6] = carriers;
    let overlay = Overlay {
        v4: announced_v4.map(|ip| underlay(ip.into(), v4)),
        v6: announced_v6.map(|ip| underlay(ip.into(), v6)),
        blackhole: facts.blackhole,
    };
    let announced = Announced {
        public_ip: announced_v4,
        public_ipv6: announced_v6,
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

#[cfg(test)]
mod tests;
