//! `vlan`: a tagged VLAN of a device of the host for the pod.

pub mod config;

use hostnet::{LinkDetails, LinkInfo};
use netstate::{IfName, LinkKind, NetnsPath, Step};
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::vlan::config::Config;
use crate::{device, lower, pod};

const KIND: &str = "vlan";

/// The plugin.
#[derive(Debug)]
pub struct Vlan;

impl Plugin for Vlan {
    fn name(&self) -> &'static str {
        "vlan"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let (name, netns) = (pod::ifname(request)?, pod::path(request)?);
        device::add(request, &config.wish, |places| {
            let below = config.lower.find(places)?;
            make(&config, &name, &netns, &below)
        })
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        device::delete(request, KIND)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let link = device::check(request, &mut places, KIND)?;
        if link.details != LinkDetails::Vlan(config.id) {
            let (name, id) = (&link.name, config.id);
            return Err(Error::other(format!("interface {name} is not VLAN {id}")));
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

/// PURE: the steps that make `name` in the pod at `netns` on `below`.
///
/// # Errors
/// Code 7 for an MTU that does not go on `below`.
pub fn make(
    config: &Config,
    name: &IfName,
    netns: &NetnsPath,
    below: &LinkInfo,
) -> Result<Vec<Step>, Error> {
    let kind = LinkKind::Vlan {
        lower: below.name.clone(),
        id: config.id,
    };
    let link = lower::link(name, kind, lower::mtu(config.mtu, below)?);
    Ok(vec![config.lower.create(link, netns)])
}
