//! PURE: the pod's links, addresses and routes to the steps that put an interface into a VRF.
//!
//! The kernel takes an interface down and up again when it becomes a port or ceases to be one. Its
//! own connected routes come back by themselves, in the right table; IPv6 addresses and routes that
//! somebody added do not.

use hostnet::{AddressInfo, LinkDetails, LinkInfo};
use ipnetwork::IpNetwork;
use netstate::route::{MAIN_TABLE, masked};
use netstate::{Address, IfName, Link, LinkKind, Op, Route, Step};
use protocol::Error;

use crate::vrf::config::Config;

/// What the plan needs to know about the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// All links.
    pub links: Vec<LinkInfo>,
    /// All addresses.
    pub addresses: Vec<AddressInfo>,
    /// Routes of all tables.
    pub routes: Vec<Route>,
    /// Tables that rules lead to.
    pub tables: Vec<u32>,
}

/// The steps of an ADD for interface `name`, and those that put it back when one fails.
///
/// # Errors
/// Code 7 when the VRF is there with another table or is no VRF; 999 when the interface is missing
/// or a port already.
pub fn add(config: &Config, name: &IfName, facts: &Facts) -> Result<(Vec<Step>, Vec<Step>), Error> {
    let find = |name: &IfName| facts.links.iter().find(|link| link.name == *name);
    let Some(link) = find(name) else {
        let msg = format!("interface {name} is not in the container");
        return Err(Error::other(msg));
    };
    if let Some(master) = link.master {
        let other = facts.links.iter().find(|link| link.index == master);
        let other = other.map_or_else(|| master.to_string(), |link| link.name.to_string());
        let msg = format!("interface {name} is a port of {other} already");
        return Err(Error::other(msg));
    }
    let present = find(&config.vrf)
        .map(|vrf| table_of(config, vrf))
        .transpose()?;
    let table = present
        .or(config.table)
        .unwrap_or_else(|| free_table(facts));
    let mut steps = Vec::new();
    if present.is_none() {
        let vrf = Link::new(config.vrf.clone(), LinkKind::Vrf { table }).up();
        steps.push(Step::pod(Op::CreateLink(vrf)));
    }
    steps.push(Step::pod(Op::SetMaster(name.clone(), config.vrf.clone())));
    steps.extend(restored(link, facts, table));
    let mut back = vec![Step::pod(Op::ClearMaster(name.clone()))];
    back.extend(restored(link, facts, MAIN_TABLE));
    Ok((steps, back))
}

/// The table of the VRF that is there, if it is the wanted one.
fn table_of(config: &Config, vrf: &LinkInfo) -> Result<u32, Error> {
    let name = &vrf.name;
    match (vrf.details, config.table) {
        (LinkDetails::Vrf(table), Some(wanted)) if table != wanted => {
            let msg = format!("table: VRF {name} has {table}, not {wanted}; give one of them");
            Err(Error::config(msg))
        }
        (LinkDetails::Vrf(table), _) => Ok(table),
        _ => {
            let msg = format!("vrfname: {name} is a {:?}; give another name", vrf.kind);
            Err(Error::config(msg))
        }
    }
}

fn free_table(facts: &Facts) -> u32 {
    let of_vrf = |link: &LinkInfo| match link.details {
        LinkDetails::Vrf(table) => Some(table),
        _ => None,
    };
    let is_free = |table: &u32| {
        !facts.tables.contains(table)
            && !facts.routes.iter().any(|route| route.key.table == *table)
            && !facts.links.iter().any(|link| of_vrf(link) == Some(*table))
    };
    (1..).find(is_free).unwrap_or(1)
}

/// What the kernel forgets of `link`, with its routes in `table`.
fn restored(link: &LinkInfo, facts: &Facts, table: u32) -> Vec<Step> {
    let own = || {
        let all = facts.addresses.iter();
        all.filter(|address| address.index == link.index)
    };
    let of_link = || {
        let all = facts.routes.iter();
        all.filter(|route| route.device.as_ref() == Some(&link.name))
            .filter(|route| route.key.table == MAIN_TABLE)
    };
    let with_prefix_route = |ip: IpNetwork| {
        let mut routes = of_link().filter(|route| route.gateway.is_none());
        routes.any(|route| route.key.destination == masked(ip))
    };
    let addresses = own()
        .filter(|address| address.ip.is_ipv6() && !is_link_local(address.ip))
        .map(|address| {
            let wanted = Address::new(address.ip);
            let wanted = if with_prefix_route(address.ip) {
                wanted
            } else {
                wanted.without_prefix_route()
            };
            Op::EnsureAddress(link.name.clone(), wanted)
        });
    let connected = |route: &Route| {
        let mut subnets = own().map(|address| masked(address.ip));
        route.gateway.is_none() && subnets.any(|subnet| subnet == route.key.destination)
    };
    let mut routes: Vec<Route> = of_link()
        .filter(|route| !connected(route) && !is_link_local(route.key.destination))
        .cloned()
        .collect();
    // A gateway's own route comes before those through it.
    routes.sort_by_key(|route| route.gateway.is_some());
    for route in &mut routes {
        route.key.table = table;
    }
    let routes = routes.into_iter().map(Op::EnsureRoute);
    addresses.chain(routes).map(Step::pod).collect()
}

fn is_link_local(network: IpNetwork) -> bool {
    matches!(network, IpNetwork::V6(v6) if v6.network().segments()[0] & 0xffc0 == 0xfe80)
}
