//! PURE: a pair and its addresses to the steps of an ADD and its result.
//!
//! The pod reaches everything, even its own subnet, through the gateway, which is the host's end:
//! the connected route is replaced by a link route to the gateway and a route to the subnet
//! through it. The host has the gateway's address on its end and a route to the pod.

use std::net::IpAddr;

use netstate::route::{host, masked};
use netstate::{Address, Op, Route, Scope, Step};
use protocol::{AddResult, Error, IpConfig};

use crate::interface::{forwarding, interface_sysctl, ipv6_sysctls, pod_addresses, pod_routes};
use crate::pair::Pair;

/// The steps of an ADD, and its result.
///
/// # Errors
/// Code 7 for an address without a gateway, and what [`pod_routes`] says.
pub fn add(pair: &Pair, addresses: &AddResult) -> Result<(Vec<Step>, AddResult), Error> {
    let gateways: Vec<(IpConfig, IpAddr)> = addresses
        .ips
        .iter()
        .map(|ip| Ok((ip.clone(), gateway(ip)?)))
        .collect::<Result<_, Error>>()?;
    let has_v6 = addresses.ips.iter().any(|ip| ip.address.is_ipv6());
    let mut steps = vec![pair.create(None)];
    if has_v6 {
        steps.extend(ipv6_sysctls(&pair.host).map(Step::host));
        steps.extend(ipv6_sysctls(&pair.pod).map(Step::pod));
    }
    // A pod must not become the host's router by advertising itself.
    let deaf = interface_sysctl("ipv6", &pair.host, "accept_ra", "0");
    steps.push(Step::host(deaf));
    steps.extend(pod_addresses(&pair.pod, &addresses.ips, false));
    steps.push(Step::pod(Op::SetUp(pair.pod.clone())));
    let mut on_host = Vec::new();
    for (_, gateway) in &gateways {
        if !on_host.contains(gateway) {
            let address = Address::new(host(*gateway));
            steps.push(Step::host(Op::AddAddress(pair.host.clone(), address)));
            on_host.push(*gateway);
        }
    }
    for (ip, gateway) in &gateways {
        steps.extend(pod_subnet(pair, ip, *gateway));
    }
    steps.extend(pod_routes(&pair.pod, addresses)?);
    for (ip, _) in &gateways {
        let route = Route::via_device(host(ip.address.ip()), pair.host.clone());
        // The route of a pod that died without a DEL may still be there.
        steps.push(Step::host(Op::EnsureRoute(route)));
    }
    steps.extend(forwarding(&addresses.ips));
    Ok((steps, result(pair, addresses)))
}

fn gateway(ip: &IpConfig) -> Result<IpAddr, Error> {
    let address = ip.address;
    match ip.gateway {
        Some(gateway) if gateway.is_ipv4() == address.is_ipv4() => Ok(gateway),
        Some(gateway) => Err(Error::config(format!(
            "ipam: gateway {gateway} is of another family than {address}"
        ))),
        None => Err(Error::config(format!(
            "ipam: address {address} has no gateway, which ptp needs; configure one"
        ))),
    }
}

/// How the pod reaches the gateway, and the rest of its subnet through it.
fn pod_subnet(pair: &Pair, ip: &IpConfig, gateway: IpAddr) -> Vec<Step> {
    let own = ip.address.ip();
    let mut link = Route::via_device(host(gateway), pair.pod.clone()).source(own);
    link.scope = own.is_ipv4().then_some(Scope::Link);
    let mut steps = vec![Step::pod(Op::EnsureRoute(link))];
    let subnet = masked(ip.address);
    if subnet != host(own) {
        let route = Route::via_device(subnet, pair.pod.clone())
            .gateway(gateway)
            .source(own);
        steps.push(Step::pod(Op::AddRoute(route)));
    }
    steps
}

fn result(pair: &Pair, addresses: &AddResult) -> AddResult {
    let ips = addresses.ips.iter().map(|ip| IpConfig {
        interface: Some(1),
        ..ip.clone()
    });
    AddResult {
        interfaces: vec![pair.host_interface(), pair.pod_interface()],
        ips: ips.collect(),
        routes: addresses.routes.clone(),
        dns: addresses.dns.clone(),
    }
}
