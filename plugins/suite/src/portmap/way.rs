//! The host's way to the pod: what must be let through besides what the rules say.

use std::net::IpAddr;

use hostnet::{Netlink, PortFlag, Result, sysctl};
use netstate::IfName;
use netstate::nft::Family;
use protocol::AddResult;

/// Lets packets from 127.0.0.1 out towards the pod at `ip`.
///
/// # Errors
/// When the kernel refuses.
pub fn let_loopback_out(netlink: &mut Netlink, ip: IpAddr) -> Result<()> {
    match device(netlink, ip)? {
        Some(device) => sysctl::write(&localnet(&device), "1"),
        None => Ok(()),
    }
}

/// The sysctl that [`let_loopback_out`] has set, if it is set no longer.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn loopback_damage(netlink: &mut Netlink, ip: IpAddr) -> Result<Option<String>> {
    let name = device(netlink, ip)?.map(|device| localnet(&device));
    Ok(name.filter(|name| sysctl::read(name).ok().as_deref() != Some("1")))
}

/// The device towards the pod. None where the host has no route: then its 127.0.0.1 has none either.
fn device(netlink: &mut Netlink, ip: IpAddr) -> Result<Option<IfName>> {
    let Ok((_, index, _)) = netlink.route_to(ip) else {
        return Ok(None);
    };
    Ok(netlink.link_by_index(index)?.map(|link| link.name))
}

fn localnet(device: &IfName) -> String {
    format!("net/ipv4/conf/{device}/route_localnet")
}

/// Lets the pod reach itself where its interface is the port of a bridge that shows its packets to
/// the rules (`br_netfilter`): such a packet comes to have the port as its destination before it
/// leaves the bridge, which sends nothing back to where it came from unless told so.
///
/// A promiscuous bridge hands everything up, so that the host sends it back.
///
/// # Errors
/// When the kernel refuses.
pub fn let_hairpins_through(
    netlink: &mut Netlink,
    before: &AddResult,
    families: impl IntoIterator<Item = Family>,
) -> Result<()> {
    let is_shown = |family| {
        let name = match family {
            Family::V4 => "net/bridge/bridge-nf-call-iptables",
            Family::V6 => "net/bridge/bridge-nf-call-ip6tables",
        };
        sysctl::read(name).is_ok_and(|value| value == "1")
    };
    if !families.into_iter().any(is_shown) {
        return Ok(());
    }
    let of_host = before.interfaces.iter().filter(|i| i.sandbox.is_empty());
    for name in of_host.filter_map(|interface| interface.name.parse().ok()) {
        let Some(port) = netlink.link(&name)? else {
            continue;
        };
        let Some(master) = port.master else {
            continue;
        };
        let master = netlink.link_by_index(master)?;
        if master.is_some_and(|link| link.kind == "bridge" && !link.promiscuous) {
            netlink.set_port(&name, PortFlag::Hairpin, true)?;
        }
    }
    Ok(())
}
