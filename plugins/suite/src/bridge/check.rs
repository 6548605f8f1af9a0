//! Whether the bridge, the pod's port and the gateway are as ADD left them.

use hostnet::LinkInfo;
use hostnet::apply::Places;
use netstate::IfName;
use protocol::{AddResult, Error, IpConfig};

use crate::bridge::config::Config;
use crate::bridge::gateway;
use crate::bridge::plan::gateway_address;
use crate::interface::check_forwarding;
use crate::{pair, pod};

/// Checks what the host has for a pod whose host's end is `port`.
pub(super) fn bridge(
    config: &Config,
    places: &mut Places,
    port: &LinkInfo,
    before: &AddResult,
    ips: &[IpConfig],
) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = &config.bridge;
    let found = places.host().link(name).map_err(failed)?;
    let Some(bridge) = found.filter(|link| link.kind == "bridge") else {
        return Err(Error::other(format!("bridge {name} is gone")));
    };
    check_up(&bridge)?;
    pair::check_reported(before, &bridge)?;
    if config.promiscuous && !bridge.promiscuous {
        let msg = format!("bridge {name} does not take all frames any more");
        return Err(Error::other(msg));
    }
    check_port(config, &bridge, port)?;
    if config.is_gateway {
        check_gateway(config, places, ips)?;
    }
    Ok(())
}

fn check_up(link: &LinkInfo) -> Result<(), Error> {
    if link.up {
        return Ok(());
    }
    let (kind, name) = (&link.kind, &link.name);
    Err(Error::other(format!("{kind} {name} is down")))
}

fn check_port(config: &Config, bridge: &LinkInfo, port: &LinkInfo) -> Result<(), Error> {
    let (name, bridge_name) = (&port.name, &bridge.name);
    let flags = port
        .port
        .filter(|_| port.master == Some(bridge.index))
        .ok_or_else(|| {
            let msg = format!("the host's end {name} is no port of bridge {bridge_name}");
            Error::other(msg)
        })?;
    let switches = [
        ("hairpin mode", config.hairpin, flags.hairpin),
        ("isolation", config.isolated, flags.isolated),
    ];
    // What was not asked for may have been switched on by another plugin of the chain.
    match switches.iter().find(|(_, asked, found)| *asked && !found) {
        Some((what, ..)) => Err(Error::other(format!("{what} of port {name} is off"))),
        None => Ok(()),
    }
}

fn check_gateway(config: &Config, places: &mut Places, ips: &[IpConfig]) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let device: &IfName = gateway::device(config);
    if config.vlan_gateway.is_some() {
        match places.host().link(device).map_err(failed)? {
            Some(link) => check_up(&link)?,
            None => return Err(Error::other(format!("gateway {device} is gone"))),
        }
    }
    let held = places.host().addresses(device).map_err(failed)?;
    for address in ips.iter().filter_map(gateway_address) {
        if !held.iter().any(|one| one.ip == address.ip) {
            let ip = address.ip.ip();
            return Err(Error::other(format!(
                "gateway address {ip} is gone from {device}"
            )));
        }
    }
    check_forwarding(ips)
}
