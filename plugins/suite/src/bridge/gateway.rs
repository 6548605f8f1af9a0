//! PURE: the gateway's addresses, on the bridge or, for a pod in a VLAN, on a port of that VLAN.

use ipnetwork::IpNetwork;
use netstate::{IfName, Link, LinkKind, Op, PortVlans, Step, VethPeer};
use protocol::{Error, IpConfig};

use crate::bridge::config::Config;
use crate::bridge::plan::{Facts, gateway_address, own_routes};
use crate::identity::Identity;
use crate::pair::Pair;

/// The interface that has the gateway's addresses.
#[must_use]
pub fn device(config: &Config) -> &IfName {
    config.vlan_gateway.as_ref().unwrap_or(&config.bridge)
}

/// The gateway's addresses on their device, after those in their way are gone.
pub(super) fn steps(
    config: &Config,
    pair: &Pair,
    ips: &[IpConfig],
    facts: &Facts,
) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let has_v6 = ips.iter().any(|ip| ip.address.is_ipv6());
    if let (Some(name), Some(vlans)) = (&config.vlan_gateway, &config.vlans) {
        steps.extend(vlan_port(config, pair, name, vlans, facts)?);
        steps.extend(own_routes(name, has_v6));
    }
    let device = device(config);
    let wanted: Vec<_> = ips.iter().filter_map(gateway_address).collect();
    let wanted_ips: Vec<IpNetwork> = wanted.iter().map(|address| address.ip).collect();
    for address in &wanted {
        let others = facts
            .addresses
            .iter()
            .filter(|other| in_the_way(&address.ip, other, &wanted_ips));
        for other in others {
            if !config.force_address {
                return Err(Error::config(format!(
                    "bridge {device} has address {other}, which is not {}; remove it, or set \
                     forceAddress",
                    address.ip
                )));
            }
            steps.push(Step::host(Op::DeleteAddress(device.clone(), *other)));
        }
        steps.push(Step::host(Op::EnsureAddress(device.clone(), *address)));
    }
    Ok(steps)
}

/// A veth whose one end has the gateway's addresses while the other is a port of the bridge in the
/// pod's VLAN. The bridge itself has no address in a VLAN of its ports.
fn vlan_port(
    config: &Config,
    pair: &Pair,
    name: &IfName,
    vlans: &PortVlans,
    facts: &Facts,
) -> Result<Vec<Step>, Error> {
    let identity = Identity {
        container_id: "vlan gateway",
        ifname: name.as_str(),
    };
    let port = match &facts.gateway_port {
        Some(port) => port.clone(),
        None => identity
            .host_name()
            .map_err(|error| Error::other(error.to_string()))?,
    };
    let peer = VethPeer {
        name: port.clone(),
        netns: None,
        mac: None,
    };
    let mut link = Link::new(name.clone(), LinkKind::Veth(peer)).up();
    link.mtu = Some(pair.mtu);
    let own = PortVlans {
        tagged: Vec::new(),
        ..vlans.clone()
    };
    Ok(vec![
        Step::host(Op::EnsureLink(link)),
        Step::host(Op::SetMaster(port.clone(), config.bridge.clone())),
        Step::host(Op::SetPortVlans(port.clone(), own)),
        Step::host(Op::SetUp(port)),
    ])
}

/// Another IPv4 address, or an IPv6 address whose subnet overlaps; disjoint IPv6 subnets coexist.
fn in_the_way(address: &IpNetwork, other: &IpNetwork, wanted: &[IpNetwork]) -> bool {
    if wanted.contains(other) || address.is_ipv4() != other.is_ipv4() {
        return false;
    }
    address.is_ipv4() || address.contains(other.network()) || other.contains(address.network())
}
