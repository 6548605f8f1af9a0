//! Connections that go on going where a port led before.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hostnet::nft::Redirect;
use hostnet::{Conntrack, Flow, Netlink, Result};
use ipnetwork::IpNetwork;
use netstate::nft::Family;

use crate::portmap::config::{Mapping, Protocol};

/// Deletes the connections of UDP to the ports of `mappings` that do not go to `pod`: whoever goes
/// on sending would never reach it. All are of one family.
///
/// # Errors
/// When the kernel refuses.
pub fn forget_before(netlink: &mut Netlink, pod: IpNetwork, mappings: &[&Mapping]) -> Result<()> {
    let udp = mappings.iter().filter(|m| m.protocol == Protocol::Udp);
    let udp: Vec<&Mapping> = udp.copied().collect();
    let number = |mapping: &&Mapping| (mapping.protocol.number(), mapping.host_port);
    let ports: BTreeSet<(u8, u16)> = udp.iter().map(number).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let mut conntrack = Conntrack::open()?;
    for flow in conntrack.flows_to(Family::of(&pod), &ports)? {
        let to = flow.destination;
        let is_meant = |mapping: &&&Mapping| {
            mapping.host_port == to.port() && mapping.address().is_none_or(|ip| ip == to.ip())
        };
        let Some(mapping) = udp.iter().find(is_meant) else {
            continue;
        };
        if flow.answers_from == SocketAddr::new(pod.ip(), mapping.container_port) {
            continue;
        }
        // The same port of somebody else's address is no business of the mapping.
        if mapping.address().is_some() || netlink.is_local(to.ip())? {
            conntrack.delete(&flow)?;
        }
    }
    Ok(())
}

/// Deletes the connections that `gone` sent elsewhere: their packets would go there for ever, or to
/// the next pod that gets the address. Those of TCP end by themselves, as nobody there knows them, and
/// looking for them would cost every DEL a walk through all connections of the node.
///
/// # Errors
/// When the kernel refuses.
pub fn forget(gone: &[Redirect]) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let is_of = |redirect: &&Redirect| {
            redirect.address.is_ipv4() == (family == Family::V4)
                && redirect.protocol != Protocol::Tcp.number()
        };
        let of_family: Vec<&Redirect> = gone.iter().filter(is_of).collect();
        let ports: BTreeSet<(u8, u16)> = of_family.iter().map(|r| (r.protocol, r.port)).collect();
        if ports.is_empty() {
            continue;
        }
        let mut conntrack = Conntrack::open()?;
        for flow in conntrack.flows_to(family, &ports)? {
            if of_family
                .iter()
                .any(|redirect| was_sent_by(&flow, redirect))
            {
                conntrack.delete(&flow)?;
            }
        }
    }
    Ok(())
}

fn was_sent_by(flow: &Flow, redirect: &Redirect) -> bool {
    let port = redirect.target_port.unwrap_or(redirect.port);
    (flow.protocol, flow.destination.port()) == (redirect.protocol, redirect.port)
        && flow.answers_from == SocketAddr::new(redirect.address, port)
}
