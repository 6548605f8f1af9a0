//! The pod's side of an attachment, whatever kind its interface is of: addresses, routes, sysctls,
//! and whether they are still there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hostnet::apply::Places;
use hostnet::{LinkInfo, Netlink, sysctl};
use ipnetwork::IpNetwork;
use netstate::{Address, IfName, Op, Route, Scope, Step};
use protocol::{AddResult, Error, IpConfig, Request};

use crate::pod;

/// Writes `value` to a parameter of an interface, where this kernel has it.
#[must_use]
pub fn interface_sysctl(family: &str, name: &IfName, parameter: &str, value: &str) -> Op {
    Op::WriteSysctl {
        name: format!("net/{family}/conf/{name}/{parameter}"),
        value: value.to_owned(),
        required: false,
    }
}

/// What an interface with IPv6 addresses needs so that they work at once and stay.
pub fn ipv6_sysctls(name: &IfName) -> impl Iterator<Item = Op> {
    let settings = [
        ("disable_ipv6", "0"),
        ("keep_addr_on_down", "1"),
        ("accept_dad", "0"),
    ];
    settings
        .map(|(key, value)| interface_sysctl("ipv6", name, key, value))
        .into_iter()
}

/// Forwarding for the families of `ips`.
pub fn forwarding(ips: &[IpConfig]) -> impl Iterator<Item = Step> {
    let families = [
        (true, "net/ipv4/ip_forward"),
        (false, "net/ipv6/conf/all/forwarding"),
    ];
    families
        .into_iter()
        .filter(|(v4, _)| ips.iter().any(|ip| ip.address.is_ipv4() == *v4))
        .map(|(_, name)| {
            let (name, value) = (name.to_owned(), "1".to_owned());
            Step::host(Op::WriteSysctl {
                name,
                value,
                required: true,
            })
        })
}

/// The addresses of `before` that belong to the request's interface.
#[must_use]
pub fn own_ips(request: &Request<'_>, before: &AddResult) -> Vec<IpConfig> {
    let own = own_interface(request, before);
    let is_own = |ip: &&IpConfig| ip.interface.is_none() || ip.interface == own;
    before.ips.iter().filter(is_own).cloned().collect()
}

/// Where in `before` the request's interface is.
fn own_interface(request: &Request<'_>, before: &AddResult) -> Option<usize> {
    let is_own = |i: &protocol::Interface| i.name == request.ifname && !i.sandbox.is_empty();
    before.interfaces.iter().position(is_own)
}

/// Whether forwarding is on for the families of `ips`.
///
/// # Errors
/// When it is off.
pub fn check_forwarding(ips: &[IpConfig]) -> Result<(), Error> {
    for step in forwarding(ips) {
        if let Op::WriteSysctl { name, value, .. } = step.op {
            let found = sysctl::read(&name).map_err(|error| pod::kernel(&error))?;
            if found != value {
                return Err(Error::other(format!(
                    "{name} is {found}; set it to {value}"
                )));
            }
        }
    }
    Ok(())
}

/// The addresses of the pod's end, before it is brought up.
pub fn pod_addresses<'a>(
    pod: &'a IfName,
    ips: &'a [IpConfig],
    prefix_route: bool,
) -> impl Iterator<Item = Step> + 'a {
    ips.iter().map(move |ip| {
        let address = Address::new(ip.address);
        let address = if prefix_route {
            address
        } else {
            address.without_prefix_route()
        };
        Step::pod(Op::AddAddress(pod.clone(), address))
    })
}

/// The routes that IPAM asked for, through the first gateway of their family if they name none. One
/// asked for twice is made once.
///
/// # Errors
/// Code 7 for a route without any gateway, or of another table's or scope's form.
pub fn pod_routes(pod: &IfName, addresses: &AddResult) -> Result<Vec<Step>, Error> {
    let mut seen = BTreeSet::new();
    let mut steps = Vec::new();
    for wanted in &addresses.routes {
        let mut route = Route::via_device(wanted.dst, pod.clone());
        route.key.priority = wanted.priority.unwrap_or(0);
        route.key.table = wanted.table.filter(|t| *t != 0).unwrap_or(route.key.table);
        route.mtu = wanted.mtu.filter(|mtu| *mtu != 0);
        route.advmss = wanted.advmss.filter(|mss| *mss != 0);
        route.scope = wanted.scope.map(scope).transpose()?;
        let on_link = matches!(route.scope, Some(Scope::Link | Scope::Host));
        route.gateway = wanted
            .gw
            .or_else(|| first_gateway(addresses, wanted.dst).filter(|_| !on_link));
        if route.gateway.is_none() && !on_link {
            let dst = wanted.dst;
            let msg =
                format!("ipam: route to {dst} has no gateway; give gw, or an address with one");
            return Err(Error::config(msg));
        }
        if seen.insert((route.key, route.gateway)) {
            steps.push(Step::pod(Op::AddRoute(route)));
        }
    }
    Ok(steps)
}

fn scope(number: u32) -> Result<Scope, Error> {
    u8::try_from(number)
        .ok()
        .and_then(Scope::from_number)
        .ok_or_else(|| {
            Error::config(format!(
                "ipam: route scope {number} is unknown; give 0, 200, 253, 254 or 255"
            ))
        })
}

fn first_gateway(addresses: &AddResult, dst: IpNetwork) -> Option<IpAddr> {
    let same_family = |gateway: &IpAddr| gateway.is_ipv4() == dst.is_ipv4();
    addresses
        .ips
        .iter()
        .filter_map(|ip| ip.gateway)
        .find(same_family)
}

/// `0.0.0.0/0` or `::/0`, of the family of `ip`.
#[must_use]
pub fn default_route(ip: IpAddr) -> IpNetwork {
    let any: IpAddr = if ip.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // A prefix length of zero is within the range of both families.
    IpNetwork::new(any, 0).unwrap_or_else(|_| IpNetwork::from(any))
}

/// Checks that the pod's interface is up and has the MAC, the addresses and the routes of
/// `prevResult`; the interface and the result are returned.
///
/// # Errors
/// What is missing or differs.
pub fn check(request: &Request<'_>, places: &mut Places) -> Result<(LinkInfo, AddResult), Error> {
    check_state(request, places, true)
}

/// Like [`check`] for an interface that should be up or, if `up` is false, down.
///
/// # Errors
/// What is missing or differs.
pub fn check_state(
    request: &Request<'_>,
    places: &mut Places,
    up: bool,
) -> Result<(LinkInfo, AddResult), Error> {
    let Some(before) = request.prev_result.clone() else {
        return Err(Error::config(
            "prevResult is missing; CHECK compares with it",
        ));
    };
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = pod::ifname(request)?;
    let netlink = places.pod().map_err(failed)?;
    let gone = || Error::other(format!("interface {name} is gone from the container"));
    let link = netlink.link(&name).map_err(failed)?.ok_or_else(gone)?;
    if link.up != up {
        let state = if link.up { "up" } else { "down" };
        let msg = format!("interface {name} is {state} in the container");
        return Err(Error::other(msg));
    }
    let own = own_interface(request, &before);
    if let Some(interface) = own.map(|at| &before.interfaces[at]) {
        let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        if !interface.mac.is_empty() && !interface.mac.eq_ignore_ascii_case(&mac) {
            let wanted = &interface.mac;
            let msg = format!("interface {name} has MAC {mac}, not {wanted}");
            return Err(Error::other(msg));
        }
    }
    check_addresses(netlink, &name, &before, own)?;
    check_routes(netlink, &before)?;
    Ok((link, before))
}

fn check_addresses(
    netlink: &mut Netlink,
    name: &IfName,
    before: &AddResult,
    own: Option<usize>,
) -> Result<(), Error> {
    let found = netlink
        .addresses(name)
        .map_err(|error| pod::kernel(&error))?;
    let ours = before
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none() || ip.interface == own);
    for ip in ours {
        let ip = ip.address;
        let problem = match found.iter().find(|address| address.ip == ip) {
            None => format!("address {ip} is gone from {name}"),
            Some(address) if address.dad_failed => {
                format!("address {ip} of {name} is somebody else's on the link")
            }
            Some(_) => continue,
        };
        return Err(Error::other(problem));
    }
    Ok(())
}

fn check_routes(netlink: &mut Netlink, before: &AddResult) -> Result<(), Error> {
    let found = netlink.routes(None).map_err(|error| pod::kernel(&error))?;
    for route in &before.routes {
        let dst = netstate::route::masked(route.dst);
        let gateway = route.gw.or_else(|| first_gateway(before, route.dst));
        let there = found
            .iter()
            .any(|f| f.key.destination == dst && (f.gateway == gateway || gateway.is_none()));
        if !there {
            return Err(Error::other(format!(
                "route to {dst} is gone from the container"
            )));
        }
    }
    Ok(())
}
