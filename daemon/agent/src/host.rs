//! What the loops need to know of this host, observed anew in each pass.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hostnet::{Netlink, Result};
use netstate::IfName;

use crate::uplink::Interface;

/// All interfaces with their addresses, in the kernel's order.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn interfaces(netlink: &mut Netlink) -> Result<Vec<Interface>> {
    let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for address in netlink.all_addresses()? {
        addresses
            .entry(address.index)
            .or_default()
            .push(address.ip.ip());
    }
    let links = netlink.links()?;
    let interfaces = links.into_iter().map(|link| Interface {
        name: link.name,
        mtu: link.mtu,
        addresses: addresses.remove(&link.index).unwrap_or_default(),
    });
    Ok(interfaces.collect())
}

/// The addresses under which this node itself speaks and is spoken to.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn addresses(netlink: &mut Netlink) -> Result<BTreeSet<IpAddr>> {
    let all = netlink.all_addresses()?;
    let addresses = all.into_iter().map(|address| address.ip.ip());
    Ok(addresses.filter(|ip| !ip.is_loopback()).collect())
}

/// The number of the interface called `name`, in this thread's network namespace.
#[must_use]
pub fn ifindex(name: &IfName) -> Option<u32> {
    nix::net::if_::if_nametoindex(name.as_str()).ok()
}
