//! PURE: configuration, pair, addresses and the bridge's state to the steps of an ADD and its result.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::route::{MAIN_TABLE, masked};
use netstate::{Address, IfName, Link, LinkKind, MacAddr, Mtu, Op, Step};
use protocol::{AddResult, Error, Interface, IpConfig, Route};

use crate::bridge::config::Config;
use crate::bridge::gateway;
use crate::interface::{
    default_route, forwarding, interface_sysctl, ipv6_sysctls, pod_addresses, pod_routes,
};
use crate::pair::Pair;

/// What the plan needs to know about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The addresses of global scope that the gateway's device has.
    pub addresses: Vec<IpNetwork>,
    /// The Ethernet address that a new bridge gets. One of its own keeps it from taking over, and
    /// changing with, the addresses of its ports.
    pub new_mac: MacAddr,
    /// The Ethernet address of a bridge that is there.
    pub mac: Option<MacAddr>,
    /// The port behind a VLAN's gateway that is there already.
    pub gateway_port: Option<IfName>,
}

/// The steps of an ADD, and its result with the bridge first.
///
/// # Errors
/// Code 7 when an address of the bridge is in the way, and what [`pod_routes`] says.
pub fn add(
    config: &Config,
    pair: &Pair,
    addresses: &AddResult,
    facts: &Facts,
) -> Result<(Vec<Step>, AddResult), Error> {
    let addresses = completed(config, addresses)?;
    let has_v6 = addresses.ips.iter().any(|ip| ip.address.is_ipv6());
    let mut steps = bridge(config, pair.mtu, facts, has_v6);
    steps.extend(pinned(config, &addresses.ips, facts));
    if config.is_gateway {
        steps.extend(gateway::steps(config, pair, &addresses.ips, facts)?);
        steps.extend(forwarding(&addresses.ips));
    }
    steps.extend(port(config, pair));
    if !config.leave_down {
        steps.extend(inside(config, pair, &addresses, has_v6)?);
    }
    let result = result(config, pair, addresses);
    Ok((steps, result))
}

/// The addresses with their gateways and default routes filled in.
fn completed(config: &Config, addresses: &AddResult) -> Result<AddResult, Error> {
    let mut addresses = addresses.clone();
    if !config.is_gateway {
        return Ok(addresses);
    }
    for ip in &mut addresses.ips {
        let gateway = match ip.gateway {
            Some(gateway) => gateway,
            None => first_address(ip.address)?,
        };
        ip.gateway = Some(gateway);
        let default = default_route(gateway);
        let is_default = |route: &Route| {
            let table = route.table.filter(|table| *table != 0);
            masked(route.dst) == default && table.is_none_or(|table| table == MAIN_TABLE)
        };
        if config.is_default_gateway && !addresses.routes.iter().any(is_default) {
            addresses.routes.push(Route::new(default, Some(gateway)));
        }
    }
    Ok(addresses)
}

fn first_address(address: IpNetwork) -> Result<IpAddr, Error> {
    let first = match masked(address) {
        IpNetwork::V4(v4) => u32::from(v4.network())
            .checked_add(1)
            .map(|n| IpAddr::V4(n.into())),
        IpNetwork::V6(v6) => u128::from(v6.network())
            .checked_add(1)
            .map(|n| IpAddr::V6(n.into())),
    };
    let inside = first.filter(|first| address.contains(*first));
    inside.ok_or_else(|| Error::config(format!("ipam: {address} has no room for a gateway")))
}

fn bridge(config: &Config, mtu: Mtu, facts: &Facts, has_v6: bool) -> Vec<Step> {
    let name = &config.bridge;
    let mut link = Link::new(name.clone(), LinkKind::Bridge).up();
    link.mtu = Some(mtu);
    link.mac = Some(facts.new_mac);
    let mut steps = vec![Step::host(Op::EnsureLink(link))];
    if config.vlans.is_some() {
        steps.push(Step::host(Op::SetVlanFiltering(name.clone(), true)));
    }
    if config.promiscuous {
        steps.push(Step::host(Op::SetPromiscuous(name.clone(), true)));
    }
    steps.extend(own_routes(name, has_v6));
    steps
}

/// A bridge that somebody else made takes its ports' addresses, and changes with them, until it is
/// given one: the one that it has. With a gateway that is done when its address comes, not at every
/// ADD, because the kernel then forgets the neighbours.
fn pinned(config: &Config, ips: &[IpConfig], facts: &Facts) -> Option<Step> {
    let settled = config.is_gateway
        && config.vlan_gateway.is_none()
        && ips
            .iter()
            .filter_map(gateway_address)
            .all(|address| facts.addresses.contains(&address.ip));
    let mac = facts.mac.filter(|_| !settled)?;
    Some(Step::host(Op::SetMac(config.bridge.clone(), mac)))
}

/// A pod must not become the host's router by advertising itself.
pub(super) fn own_routes(name: &IfName, has_v6: bool) -> impl Iterator<Item = Step> {
    // Without a link-local address of its own the host asks for no neighbour on behalf of others:
    // what it forwards to the first pods would wait for seconds, or be lost.
    let settings = [("disable_ipv6", "0"), ("accept_dad", "0")];
    let enabled = settings.map(|(key, value)| interface_sysctl("ipv6", name, key, value));
    let deaf = interface_sysctl("ipv6", name, "accept_ra", "0");
    let enabled = enabled.into_iter().filter(move |_| has_v6);
    enabled.chain([deaf]).map(Step::host)
}

/// The pair with the host's end as a port of the bridge.
fn port(config: &Config, pair: &Pair) -> Vec<Step> {
    let name = &pair.host;
    let mut steps = vec![pair.create(Some(config.bridge.clone()))];
    if config.hairpin {
        steps.push(Step::host(Op::SetHairpin(name.clone(), true)));
    }
    if config.isolated {
        steps.push(Step::host(Op::SetIsolated(name.clone(), true)));
    }
    if let Some(vlans) = &config.vlans {
        steps.push(Step::host(Op::SetPortVlans(name.clone(), vlans.clone())));
    }
    let deaf = interface_sysctl("ipv6", name, "accept_ra", "0");
    steps.push(Step::host(deaf));
    steps
}

/// The pod's end: addresses, up, routes. It announces itself once the bridge forwards its frames,
/// so that nobody goes on sending to the pod that had its address before.
fn inside(
    config: &Config,
    pair: &Pair,
    addresses: &AddResult,
    has_v6: bool,
) -> Result<Vec<Step>, Error> {
    let name = &pair.pod;
    let mut steps = Vec::new();
    if !addresses.ips.is_empty() {
        let notify = interface_sysctl("ipv4", name, "arp_notify", "1");
        steps.push(Step::pod(notify));
    }
    if has_v6 {
        let notify = interface_sysctl("ipv6", name, "ndisc_notify", "1");
        let is_switch =
            |op: &Op| matches!(op, Op::WriteSysctl { name, .. } if name.ends_with("/accept_dad"));
        let settings = ipv6_sysctls(name)
            .filter(|op| !config.detect_duplicates || !is_switch(op))
            .chain([notify]);
        steps.extend(settings.map(Step::pod));
    }
    let held = pod_addresses(name, &addresses.ips, true);
    steps.extend(held.map(|step| detecting(step, config.detect_duplicates)));
    steps.push(Step::pod(Op::SetUp(name.clone())));
    steps.push(Step::host(Op::AwaitRunning(pair.host.clone())));
    if config.detect_duplicates && has_v6 {
        steps.push(Step::pod(Op::AwaitAddresses(name.clone())));
    }
    steps.extend(pod_routes(name, addresses)?);
    if !addresses.ips.is_empty() {
        steps.push(Step::pod(Op::SetMac(name.clone(), pair.pod_mac)));
    }
    Ok(steps)
}

/// The same step with duplicate address detection, if asked for.
fn detecting(mut step: Step, asked: bool) -> Step {
    if let Op::AddAddress(_, address) = &mut step.op {
        address.nodad = !asked;
    }
    step
}

fn result(config: &Config, pair: &Pair, addresses: AddResult) -> AddResult {
    let ips = addresses.ips.into_iter().map(|ip| IpConfig {
        interface: Some(2),
        ..ip
    });
    AddResult {
        interfaces: vec![
            interface(&config.bridge),
            pair.host_interface(),
            pair.pod_interface(),
        ],
        ips: ips.collect(),
        routes: addresses.routes,
        dns: config.dns.clone().unwrap_or(addresses.dns),
    }
}

fn interface(bridge: &IfName) -> Interface {
    Interface {
        name: bridge.to_string(),
        ..Interface::default()
    }
}

/// An address of the gateway's device.
pub(super) fn gateway_address(ip: &IpConfig) -> Option<Address> {
    let network = IpNetwork::new(ip.gateway?, ip.address.prefix()).ok()?;
    Some(Address::new(network))
}
