//! `ptp`: a veth between host and pod, routed, without any bridge.

pub mod config;
pub mod plan;

use hostnet::apply;
use netstate::route::host;
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::pair::{self, Pair};
use crate::{ipam, masquerade, pod};

/// The plugin.
#[derive(Debug)]
pub struct Ptp;

impl Plugin for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let pair = Pair::of(request, config.mtu, None)?;
        let mut places = pod::places(request)?;
        pod::refuse_taken(request, places.pod().map_err(|error| pod::kernel(&error))?)?;
        ipam::with_addresses(request, &config.ipam, |addresses| {
            let (mut steps, mut result) = plan::add(&pair, &addresses)?;
            if config.masquerade {
                let attachment = request.attachment();
                steps.push(masquerade::step(
                    &request.network,
                    &attachment,
                    &addresses.ips,
                ));
            }
            if !config.dns.is_empty() {
                result.dns = config.dns.clone();
            }
            apply::run(&mut places, &steps).map_err(|error| pod::failed(&error))?;
            Ok(result)
        })
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let unmasked = masquerade::remove(request, config.masquerade);
        pair::detach(request)
            .and(ipam::release(request, &config.ipam))
            .and(unmasked.map(drop))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let before = pair::check(request, &mut places)?;
        let routes = places
            .host()
            .routes(None)
            .map_err(|error| pod::kernel(&error))?;
        for ip in &before.ips {
            let to = host(ip.address.ip());
            if !routes.iter().any(|route| route.key.destination == to) {
                return Err(Error::other(format!("the host's route to {to} is gone")));
            }
        }
        masquerade::check(request, config.masquerade, before.ips.len())?;
        request.delegate_call(&config.ipam, Command::Check, request.stdin)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let swept = masquerade::sweep(request, config.masquerade, valid);
        request
            .delegate_call(&config.ipam, Command::Gc, request.stdin)
            .and(swept)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        request.delegate_call(&config.ipam, Command::Status, request.stdin)
    }
}
