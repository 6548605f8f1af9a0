//! `ptp`: a veth between host and pod, routed, without any bridge.

pub mod config;
pub mod plan;

use hostnet::LinkInfo;
use hostnet::apply::{self, Places};
use netstate::Route;
use netstate::route::host;
use protocol::{AddResult, Attachment, Command, Error, IpConfig, Plugin, Request};

use crate::masquerade::Masquerade;
use crate::pair::{self, Pair};
use crate::{device, interface, ipam, masquerade, pod};

/// The plugin.
#[derive(Debug)]
pub struct Ptp;

impl Plugin for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        pod::refuse_taken(request, places.pod().map_err(|error| pod::kernel(&error))?)?;
        let mtu = pair::mtu(places.host(), config.mtu)?;
        let pair = Pair::of(request, mtu, None)?;
        ipam::with_addresses(request, &config.ipam, |addresses| {
            let (mut steps, mut result) = plan::add(&pair, &addresses)?;
            let masquerade = Masquerade::of(request, config.masquerade, &addresses.ips);
            steps.extend(masquerade.step());
            if let Some(dns) = config.dns {
                result.dns = dns;
            }
            apply::run(&mut places, &steps).map_err(|error| pod::failed(&error))?;
            masquerade.finish().map_err(|error| {
                let leftovers = apply::revert(&mut places, &steps);
                pod::with_leftovers(error, &leftovers)
            })?;
            Ok(result)
        })
    }

    /// Of the configuration only the IPAM plugin's name counts: a runtime also deletes what a wrong
    /// one failed to add.
    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let unmasked = masquerade::remove(request);
        let released = device::release(request);
        pair::detach(request).and(released).and(unmasked.map(drop))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let (near, before) = pair::check(request, &mut places, true)?;
        let ips = interface::own_ips(request, &before);
        check_host(&mut places, &near, &ips)?;
        interface::check_forwarding(&ips)?;
        if let Some(backend) = config.masquerade {
            masquerade::check(request, backend, &ips)?;
        }
        request.delegate_call(&config.ipam, Command::Check, request.stdin)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let swept = masquerade::sweep(request, valid);
        request
            .delegate_call(&config.ipam, Command::Gc, request.stdin)
            .and(swept)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        request.delegate_call(&config.ipam, Command::Status, request.stdin)
    }
}

/// Whether the host's end has the gateways' addresses, and the host its routes to the pod.
fn check_host(places: &mut Places, near: &LinkInfo, ips: &[IpConfig]) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = &near.name;
    let held = places.host().addresses(name).map_err(failed)?;
    let routes = places.host().routes(None).map_err(failed)?;
    for ip in ips {
        if let Some(gateway) = ip.gateway.filter(|g| !held.iter().any(|a| a.ip.ip() == *g)) {
            let msg = format!("gateway address {gateway} is gone from {name}");
            return Err(Error::other(msg));
        }
        let to = host(ip.address.ip());
        let is_it =
            |route: &Route| route.key.destination == to && route.device.as_ref() == Some(name);
        if !routes.iter().any(is_it) {
            return Err(Error::other(format!("the host's route to {to} is gone")));
        }
    }
    Ok(())
}
