//! `bridge`: a veth between pod and a bridge of the host.

mod check;
pub mod config;
pub mod gateway;
pub mod plan;
pub mod spoof;
pub mod vlans;

use std::io::Read;

use hostnet::apply::{self, Places};
use hostnet::{Netlink, Nftables};
use netstate::MacAddr;
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::bridge::config::Config;
use crate::bridge::plan::Facts;
use crate::masquerade::Masquerade;
use crate::pair::{self, Pair};
use crate::{device, interface, ipam, masquerade, pod};

/// The plugin.
#[derive(Debug)]
pub struct Bridge;

impl Plugin for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        pod::refuse_taken(request, places.pod().map_err(|error| pod::kernel(&error))?)?;
        let mut attach = |addresses| attach(request, &config, &mut places, &addresses);
        match &config.ipam {
            Some(plugin) => ipam::with_addresses(request, plugin, attach),
            None => attach(AddResult::default()),
        }
    }

    /// Of the configuration only the IPAM plugin's name counts: a runtime also deletes what a wrong
    /// one failed to add.
    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let mut unmasked = masquerade::remove(request);
        let unchecked = match &mut unmasked {
            Ok(nftables) => spoof::remove(request, nftables),
            Err(_) => unchecked(request),
        };
        let released = device::release(request);
        let detached = pair::detach(request);
        detached
            .and(released)
            .and(unchecked)
            .and(unmasked.map(drop))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let (port, before) = pair::check(request, &mut places, !config.leave_down)?;
        let ips = interface::own_ips(request, &before);
        check::bridge(&config, &mut places, &port, &before, &ips)?;
        if let Some(backend) = config.masquerade {
            masquerade::check(request, backend, &ips)?;
        }
        if config.spoof_check {
            spoof::check(request)?;
        }
        forward(request, &config, Command::Check)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let swept = masquerade::sweep(request, valid);
        let unchecked = spoof::sweep(request, valid);
        forward(request, &config, Command::Gc)
            .and(swept)
            .and(unchecked)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        forward(request, &config::read(request)?, Command::Status)
    }
}

fn forward(request: &Request<'_>, config: &Config, command: Command) -> Result<(), Error> {
    match &config.ipam {
        Some(plugin) => request.delegate_call(plugin, command, request.stdin),
        None => Ok(()),
    }
}

fn attach(
    request: &Request<'_>,
    config: &Config,
    places: &mut Places,
    addresses: &AddResult,
) -> Result<AddResult, Error> {
    if !config.spoof_check {
        return make(request, config, places, addresses);
    }
    // What a pod of this name left behind would discard this one's frames.
    unchecked(request)?;
    make(request, config, places, addresses).map_err(|error| match unchecked(request) {
        Ok(()) => error,
        Err(second) => error.details(format!("then, undoing: {second}")),
    })
}

fn unchecked(request: &Request<'_>) -> Result<(), Error> {
    let mut nftables = Nftables::open().map_err(|error| pod::kernel(&error))?;
    spoof::remove(request, &mut nftables)
}

fn make(
    request: &Request<'_>,
    config: &Config,
    places: &mut Places,
    addresses: &AddResult,
) -> Result<AddResult, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let mtu = pair::mtu(places.host(), config.mtu)?;
    let mut pair = Pair::of(request, mtu, config.mac)?;
    let facts = facts(places.host(), config, &mut pair)?;
    let (mut steps, mut result) = plan::add(config, &pair, addresses, &facts)?;
    let masquerade = Masquerade::of(request, config.masquerade, &addresses.ips);
    steps.extend(masquerade.step());
    if config.spoof_check {
        steps.push(spoof::step(request, &pair));
    }
    apply::run(places, &steps).map_err(|error| pod::failed(&error))?;
    masquerade.finish().map_err(|error| {
        let leftovers = apply::revert(places, &steps);
        pod::with_leftovers(error, &leftovers)
    })?;
    // Another ADD may have made the bridge in the meantime, with an address of its own.
    let bridge = places.host().link(&config.bridge).map_err(failed)?;
    if let Some(bridge) = bridge {
        let reported = &mut result.interfaces[0];
        reported.mac = bridge.mac.map(|mac| mac.to_string()).unwrap_or_default();
        reported.mtu = bridge.mtu.map_or(0, netstate::Mtu::get);
    }
    Ok(result)
}

/// What there is already. A bridge with a smaller MTU than the default route's device limits the
/// pod's, unless the configuration says one.
fn facts(host: &mut Netlink, config: &Config, pair: &mut Pair) -> Result<Facts, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let bridge = host.link(&config.bridge).map_err(failed)?;
    let mac = bridge.as_ref().and_then(|bridge| bridge.mac);
    let bridge_mtu = bridge.as_ref().and_then(|bridge| bridge.mtu);
    if config.mtu.is_none() {
        pair.mtu = bridge_mtu.map_or(pair.mtu, |mtu| mtu.min(pair.mtu));
    }
    let gateway = gateway::device(config);
    let device = match &config.vlan_gateway {
        Some(name) => host.link(name).map_err(failed)?,
        None => bridge,
    };
    let port = match device.as_ref().and_then(|link| link.peer) {
        Some(index) => host.link_by_index(index).map_err(failed)?,
        None => None,
    };
    let mut addresses = Vec::new();
    if device.is_some() && config.is_gateway {
        let found = host.addresses(gateway).map_err(failed)?;
        let global = found.into_iter().filter(|a| a.scope == 0);
        addresses.extend(global.map(|a| a.ip));
    }
    Ok(Facts {
        addresses,
        new_mac: random_mac()?,
        mac,
        gateway_port: port.map(|link| link.name),
    })
}

/// Two nodes must never give their bridges one address.
fn random_mac() -> Result<MacAddr, Error> {
    let mut octets = [0; 6];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut octets))
        .map_err(|error| Error::io("cannot read /dev/urandom").details(error))?;
    Ok(MacAddr::local(octets))
}
