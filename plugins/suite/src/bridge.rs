//! `bridge`: a veth between pod and a bridge of the host.

pub mod config;
pub mod plan;

use std::io::Read;

use hostnet::apply::{self, Places};
use netstate::MacAddr;
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::bridge::config::Config;
use crate::bridge::plan::Facts;
use crate::pair::{self, Pair};
use crate::{ipam, masquerade, pod};

/// The plugin.
#[derive(Debug)]
pub struct Bridge;

impl Plugin for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let pair = Pair::of(request, config.mtu, config.mac)?;
        let mut places = pod::places(request)?;
        pod::refuse_taken(request, places.pod().map_err(|error| pod::kernel(&error))?)?;
        let mut attach = |addresses: AddResult| {
            let facts = facts(&mut places, &config)?;
            let (mut steps, mut result) = plan::add(&config, &pair, &addresses, &facts)?;
            if config.masquerade {
                let attachment = request.attachment();
                steps.push(masquerade::step(
                    &request.network,
                    &attachment,
                    &addresses.ips,
                ));
            }
            apply::run(&mut places, &steps).map_err(|error| pod::failed(&error))?;
            // Another ADD may have made the bridge in the meantime, with an address of its own.
            let bridge = places
                .host()
                .link(&config.bridge)
                .map_err(|error| pod::kernel(&error))?;
            let mac = bridge.and_then(|bridge| bridge.mac);
            result.interfaces[0].mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
            Ok(result)
        };
        match &config.ipam {
            Some(plugin) => ipam::with_addresses(request, plugin, attach),
            None => attach(AddResult::default()),
        }
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let unmasked = masquerade::remove(request, config.masquerade);
        let released = match &config.ipam {
            Some(plugin) => ipam::release(request, plugin),
            None => Ok(()),
        };
        pair::detach(request).and(released).and(unmasked.map(drop))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let before = pair::check(request, &mut places)?;
        check_bridge(request, &config, &mut places)?;
        masquerade::check(request, config.masquerade, before.ips.len())?;
        forward(request, &config, Command::Check)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let swept = masquerade::sweep(request, config.masquerade, valid);
        forward(request, &config, Command::Gc).and(swept)
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

fn facts(places: &mut Places, config: &Config) -> Result<Facts, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let addresses = match places.host().link(&config.bridge).map_err(failed)? {
        Some(_) => {
            let found = places.host().addresses(&config.bridge).map_err(failed)?;
            found
                .into_iter()
                .filter(|a| a.scope == 0)
                .map(|a| a.ip)
                .collect()
        }
        None => Vec::new(),
    };
    Ok(Facts {
        addresses,
        new_mac: random_mac()?,
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

fn check_bridge(request: &Request<'_>, config: &Config, places: &mut Places) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = &config.bridge;
    let bridge = places.host().link(name).map_err(failed)?;
    let Some(bridge) = bridge.filter(|link| link.kind == "bridge") else {
        return Err(Error::other(format!("bridge {name} is gone")));
    };
    if !bridge.up {
        return Err(Error::other(format!("bridge {name} is down")));
    }
    let links = places.host().links().map_err(failed)?;
    let pod = pod::ifname(request)?;
    let inside = places.pod().map_err(failed)?.link(&pod).map_err(failed)?;
    let peer = inside.and_then(|link| link.peer);
    let port = links.iter().find(|link| Some(link.index) == peer);
    if port.and_then(|port| port.master) != Some(bridge.index) {
        return Err(Error::other(format!(
            "the host's end of {pod} is no port of bridge {name}"
        )));
    }
    if !config.is_gateway {
        return Ok(());
    }
    let addresses = places.host().addresses(name).map_err(failed)?;
    let before = request.prev_result.iter().flat_map(|result| &result.ips);
    for gateway in before.filter_map(|ip| ip.gateway) {
        if !addresses.iter().any(|address| address.ip.ip() == gateway) {
            return Err(Error::other(format!(
                "gateway address {gateway} is gone from {name}"
            )));
        }
    }
    Ok(())
}
