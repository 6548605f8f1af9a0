//! `macvlan`: an Ethernet address of its own for the pod on a device of the host.

pub mod config;
pub mod plan;

use hostnet::LinkDetails;
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::{device, pair, pod};

const KIND: &str = "macvlan";

/// The plugin.
#[derive(Debug)]
pub struct Macvlan;

impl Plugin for Macvlan {
    fn name(&self) -> &'static str {
        "macvlan"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let (name, netns) = (pod::ifname(request)?, pod::path(request)?);
        let own_mac = pair::identity(request).pod_mac();
        device::add(request, &config.wish, |places| {
            let lower = config.lower.find(places)?;
            plan::make(&config, &name, &netns, &lower, own_mac)
        })
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        device::delete(request, KIND)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let link = device::check(request, &mut places, KIND)?;
        if link.details != LinkDetails::Macvlan(Some(config.mode)) {
            let (name, mode) = (&link.name, config.mode.name());
            return Err(Error::other(format!(
                "macvlan {name} is not in mode {mode}"
            )));
        }
        config.lower.check(&mut places, &link)?;
        device::forward(request, Command::Check)
    }

    fn gc(&self, request: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        device::forward(request, Command::Gc)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        config::read(request)?.lower.status()?;
        device::forward(request, Command::Status)
    }
}
