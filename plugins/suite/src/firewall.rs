//! `firewall`: lets a pod's packets be forwarded, and keeps bridges from each other.

pub mod config;
pub mod iptables;
pub mod nftables;

use std::net::IpAddr;

use hostnet::iptables::is_forwarding_filtered;
use hostnet::{Netlink, PortFlag};
use netstate::IfName;
use netstate::nft::Family;
use protocol::{AddResult, Attachment, Error, Plugin, Request};

use crate::firewall::config::{Backend, Config, Isolation};
use crate::owner;
use crate::pod;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The plugin.
#[derive(Debug)]
pub struct Firewall;

/// What rules are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The comment that says whose the rules are.
    pub owner: String,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// What its bridge is kept from.
    pub isolation: Option<Isolation>,
    /// The chain of the administrator.
    pub admin_chain: String,
}

impl Plugin for Firewall {
    fn name(&self) -> &'static str {
        "firewall"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let before = previous(request)?;
        let wanted = Pod::of(request, &config, before)?;
        pod::open(request)?;
        let added = add(&config, &wanted).and_then(|()| set_ports(&wanted, before));
        match added {
            Ok(()) => Ok(before.clone()),
            Err(error) => Err(match remove(&is(&wanted.owner), &[]) {
                Ok(()) => error,
                Err(second) => error.details(format!("then, undoing: {second}")),
            }),
        }
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let owner = owner::comment(&request.network, &request.attachment());
        let ips = request.prev_result.as_ref().map(addresses);
        remove(&is(&owner), &ips.unwrap_or_default())
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let before = previous(request)?;
        let wanted = Pod::of(request, &config, before)?;
        check(&config, &wanted)?;
        check_ports(&wanted, before)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        match valid {
            Some(valid) => remove(&owner::is_stale(&request.network, valid), &[]),
            None => Ok(()),
        }
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        config::read(request).map(drop)
    }
}

// === impl Pod ===

impl Pod {
    fn of(request: &Request<'_>, config: &Config, before: &AddResult) -> Result<Self, Error> {
        Ok(Self {
            owner: owner::comment(&request.network, &request.attachment()),
            ips: addresses(before),
            isolation: config.isolation(before)?,
            admin_chain: config.admin_chain.clone(),
        })
    }

    /// Whether its port of the bridge is to be isolated.
    fn has_port(&self) -> bool {
        let mut policies = self.isolation.iter();
        policies.any(|isolation| isolation.from_each_other)
    }

    /// The same with the addresses of these families only.
    fn part(&self, families: &[Family]) -> Self {
        let mut part = self.clone();
        part.ips.retain(|ip| families.contains(&family(*ip)));
        part
    }
}

fn family(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn addresses(result: &AddResult) -> Vec<IpAddr> {
    result.ips.iter().map(|ip| ip.address.ip()).collect()
}

fn previous<'a>(request: &'a Request<'_>) -> Result<&'a AddResult, Error> {
    request.prev_result.as_ref().ok_or_else(|| {
        Error::config("prevResult is missing; put firewall after the plugin of the interface")
    })
}

fn is(owner: &str) -> impl Fn(&str) -> bool {
    move |found| found == owner
}

/// The families of the pod whose rules belong into iptables, and those whose rules do not.
fn places(config: &Config, wanted: &Pod) -> Result<(Vec<Family>, Vec<Family>), Error> {
    let (mut in_iptables, mut in_nftables) = (Vec::new(), Vec::new());
    for one in FAMILIES {
        if !wanted.ips.iter().any(|ip| family(*ip) == one) {
            continue;
        }
        let filtered = match config.backend {
            Backend::Nftables => false,
            Backend::Iptables => true,
            Backend::Automatic => {
                is_forwarding_filtered(one).map_err(|error| pod::kernel(&error))?
            }
        };
        if filtered {
            &mut in_iptables
        } else {
            &mut in_nftables
        }
        .push(one);
    }
    Ok((in_iptables, in_nftables))
}

fn add(config: &Config, wanted: &Pod) -> Result<(), Error> {
    let (in_iptables, in_nftables) = places(config, wanted)?;
    if !in_nftables.is_empty() {
        nftables::add(&wanted.part(&in_nftables))?;
    }
    for family in in_iptables {
        iptables::add(family, &wanted.part(&[family]))?;
    }
    Ok(())
}

/// Removes from both backends, and goes on past failures.
fn remove(is_stale: &dyn Fn(&str) -> bool, ips: &[IpAddr]) -> Result<(), Error> {
    let mut outcome = nftables::remove(is_stale);
    for one in FAMILIES {
        let of_family: Vec<IpAddr> = ips
            .iter()
            .copied()
            .filter(|ip| family(*ip) == one)
            .collect();
        outcome = outcome.and(iptables::remove(one, is_stale, &of_family));
    }
    outcome
}

fn check(config: &Config, wanted: &Pod) -> Result<(), Error> {
    let (in_iptables, mut in_nftables) = places(config, wanted)?;
    let mut missing = None;
    for family in in_iptables {
        match iptables::check(family, &wanted.part(&[family])) {
            // ADD may have found that iptables filtered nothing yet.
            Err(error) if config.backend == Backend::Automatic => {
                in_nftables.push(family);
                missing.get_or_insert(error);
            }
            other => other?,
        }
    }
    if in_nftables.is_empty() {
        return Ok(());
    }
    nftables::check(&wanted.part(&in_nftables)).map_err(|error| missing.unwrap_or(error))
}

/// The host's ends of the pod that are ports of its bridge, if they must not reach other pods there.
/// A bridge forwards between its ports without asking the rules.
fn ports(
    netlink: &mut Netlink,
    wanted: &Pod,
    before: &AddResult,
) -> hostnet::Result<Vec<hostnet::LinkInfo>> {
    let Some(isolation) = &wanted.isolation else {
        return Ok(Vec::new());
    };
    let bridge = netlink.link_index(&isolation.bridge)?;
    let on_host = before.interfaces.iter().filter(|i| i.sandbox.is_empty());
    let names = on_host.filter_map(|interface| interface.name.parse::<IfName>().ok());
    let mut ports = Vec::new();
    for name in names {
        let link = netlink.link(&name)?;
        ports.extend(link.filter(|link| link.master == Some(bridge)));
    }
    Ok(ports)
}

fn set_ports(wanted: &Pod, before: &AddResult) -> Result<(), Error> {
    if !wanted.has_port() {
        return Ok(());
    }
    let set = || {
        let mut netlink = Netlink::open()?;
        for port in ports(&mut netlink, wanted, before)? {
            netlink.set_port(&port.name, PortFlag::Isolated, true)?;
        }
        Ok(())
    };
    set().map_err(|error: hostnet::Error| pod::kernel(&error))
}

fn check_ports(wanted: &Pod, before: &AddResult) -> Result<(), Error> {
    if !wanted.has_port() {
        return Ok(());
    }
    let found = Netlink::open().and_then(|mut netlink| ports(&mut netlink, wanted, before));
    let found = found.map_err(|error| pod::kernel(&error))?;
    match found
        .iter()
        .find(|port| !port.port.is_some_and(|flags| flags.isolated))
    {
        Some(port) => Err(Error::other(format!(
            "port {} of the bridge is not isolated any more",
            port.name
        ))),
        None => Ok(()),
    }
}
