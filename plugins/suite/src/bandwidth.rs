//! `bandwidth`: limits what a pod receives and sends, by token buckets on the host's side.

pub mod check;
pub mod config;
pub mod host;
pub mod plan;

use hostnet::LinkInfo;
use hostnet::apply::{self, Places};
use netstate::Step;
use protocol::{AddResult, Attachment, Error, Plugin, Request};

use crate::{owner, pod};

/// The plugin.
#[derive(Debug)]
pub struct Bandwidth;

impl Plugin for Bandwidth {
    fn name(&self) -> &'static str {
        "bandwidth"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let mut result = previous(request)?;
        if config.is_empty() {
            return Ok(result);
        }
        let mut places = pod::places(request)?;
        let veth = host::veth(request, &mut places)?;
        let host = host::facts(request, places.host(), veth)?;
        let steps = plan::add(&config, &host);
        apply::run(&mut places, &steps).map_err(|error| pod::failed(&error))?;
        if config.egress.is_some() {
            result.interfaces.push(host.ifb.interface(host.mtu));
        }
        Ok(result)
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let mut places = Places::open(None).map_err(|error| pod::kernel(&error))?;
        let ifb = host::ifb(request, places.host())?;
        let remains = host::remains(request, places.host(), ifb.as_ref())?;
        let steps = plan::delete(&remains, ifb.as_ref().map(|ifb| &ifb.name));
        run(&mut places, &steps)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        previous(request)?;
        if config.is_empty() {
            return Ok(());
        }
        let mut places = pod::places(request)?;
        let veth = host::veth(request, &mut places)?;
        check::check(request, &config, places.host(), &veth)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let Some(valid) = valid else {
            return Ok(());
        };
        let is_stale = owner::is_stale(&request.network, valid);
        let mut places = Places::open(None).map_err(|error| pod::kernel(&error))?;
        let links = places.host().links().map_err(|error| pod::kernel(&error))?;
        let ifbs = links
            .iter()
            .filter(|link| link.kind == "ifb" && link.name.as_str().starts_with(host::PREFIX));
        let led_to = host::led_to(places.host(), &links)?;
        // One of ours that another network's ADD is just making has no alias yet, and is down.
        let is_orphan =
            |ifb: &LinkInfo| ifb.up && ifb.alias.is_empty() && !led_to.contains(&ifb.index);
        let mut outcome = Ok(());
        for ifb in ifbs.filter(|ifb| is_stale(&ifb.alias) || is_orphan(ifb)) {
            let steps = host::swept(places.host(), ifb)
                .map(|remains| plan::delete(&remains, Some(&ifb.name)));
            outcome = outcome.and(steps.and_then(|steps| run(&mut places, &steps)));
        }
        outcome
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        config::read(request).map(drop)
    }
}

/// Goes on past failures, of which the first is told.
fn run(places: &mut Places, steps: &[Step]) -> Result<(), Error> {
    let failed = apply::run_all(places, steps);
    failed
        .first()
        .map_or(Ok(()), |error| Err(pod::kernel(error)))
}

/// The result of the plugin before, which this one goes on with.
fn previous(request: &Request<'_>) -> Result<AddResult, Error> {
    request.prev_result.clone().ok_or_else(|| {
        Error::config("prevResult is missing; chain bandwidth after the plugin that makes the veth")
    })
}
