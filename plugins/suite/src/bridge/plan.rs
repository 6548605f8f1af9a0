//! PURE: configuration, pair, addresses and the bridge's state to the steps of an ADD and its result.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netstate::route::masked;
use netstate::{Address, IfName, Link, LinkKind, MacAddr, Op, Step};
use protocol::{AddResult, Error, Interface, IpConfig, Route};

use crate::bridge::config::Config;
use crate::interface::{
    default_route, forwarding, interface_sysctl, ipv6_sysctls, pod_addresses, pod_routes,
};
use crate::pair::Pair;

/// What the plan needs to know about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The bridge's addresses of global scope.
    pub addresses: Vec<IpNetwork>,
    /// The Ethernet address that a new bridge gets. One of its own keeps it from taking over, and
    /// changing with, the addresses of its ports.
    pub new_mac: MacAddr,
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
    let mut steps = bridge(config, facts, has_v6);
    if config.is_gateway {
        steps.extend(gateways(config, &addresses.ips, &facts.addresses)?);
        steps.extend(forwarding(&addresses.ips));
    }
    steps.push(pair.create(Some(config.bridge.clone())));
    if config.hairpin {
        steps.push(Step::host(Op::SetHairpin(pair.host.clone(), true)));
    }
    if config.isolated {
        steps.push(Step::host(Op::SetIsolated(pair.host.clone(), true)));
    }
    steps.push(Step::pod(interface_sysctl(
        "ipv4",
        &pair.pod,
        "arp_notify",
        "1",
    )));
    if has_v6 {
        steps.push(Step::host(interface_sysctl(
            "ipv6",
            &pair.host,
            "accept_ra",
            "0",
        )));
        steps.extend(ipv6_sysctls(&pair.pod).map(Step::pod));
    }
    steps.extend(pod_addresses(&pair.pod, &addresses.ips, true));
    steps.push(Step::pod(Op::SetUp(pair.pod.clone())));
    steps.extend(pod_routes(&pair.pod, &addresses)?);
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
        let has_default = addresses
            .routes
            .iter()
            .any(|route| masked(route.dst) == default);
        if config.is_default_gateway && !has_default {
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

fn bridge(config: &Config, facts: &Facts, has_v6: bool) -> Vec<Step> {
    let name = &config.bridge;
    let mut link = Link::new(name.clone(), LinkKind::Bridge).up();
    link.mtu = config.mtu;
    link.mac = Some(facts.new_mac);
    let mut steps = vec![Step::host(Op::EnsureLink(link))];
    if config.promiscuous {
        steps.push(Step::host(Op::SetPromiscuous(name.clone(), true)));
    }
    if has_v6 {
        let settings = [("disable_ipv6", "0"), ("accept_ra", "0")];
        let sysctl = |(key, value)| Step::host(interface_sysctl("ipv6", name, key, value));
        steps.extend(settings.map(sysctl));
    }
    steps
}

/// The gateways' addresses on the bridge, after those in their way are gone.
fn gateways(config: &Config, ips: &[IpConfig], present: &[IpNetwork]) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let wanted: Vec<IpNetwork> = ips.iter().filter_map(gateway_address).collect();
    for address in &wanted {
        for other in present
            .iter()
            .filter(|other| in_the_way(address, other, &wanted))
        {
            if !config.force_address {
                return Err(Error::config(format!(
                    "bridge {} has address {other}, which is not {address}; remove it, or set \
                     forceAddress",
                    config.bridge
                )));
            }
            steps.push(Step::host(Op::DeleteAddress(config.bridge.clone(), *other)));
        }
        let address = Address::new(*address);
        steps.push(Step::host(Op::EnsureAddress(
            config.bridge.clone(),
            address,
        )));
    }
    Ok(steps)
}

fn gateway_address(ip: &IpConfig) -> Option<IpNetwork> {
    IpNetwork::new(ip.gateway?, ip.address.prefix()).ok()
}

/// Another IPv4 address, or an IPv6 address whose subnet overlaps; disjoint IPv6 subnets coexist.
fn in_the_way(address: &IpNetwork, other: &IpNetwork, wanted: &[IpNetwork]) -> bool {
    if wanted.contains(other) || address.is_ipv4() != other.is_ipv4() {
        return false;
    }
    address.is_ipv4() || address.contains(other.network()) || other.contains(address.network())
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
