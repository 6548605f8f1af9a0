//! `dummy`: a device of the pod that holds addresses and drops what it is given.

use netstate::{IfName, Link, LinkKind, NetnsPath, Op, Step};
use protocol::{AddResult, Attachment, Command, Dns, Error, Plugin, Request};
use serde::Deserialize;

use crate::device::{self, Wish, ipam_plugin};
use crate::ipam::IpamSection;
use crate::pod;

const KIND: &str = "dummy";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    ipam: IpamSection,
    dns: Dns,
}

/// The plugin.
#[derive(Debug)]
pub struct Dummy;

impl Plugin for Dummy {
    fn name(&self) -> &'static str {
        "dummy"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let raw: Raw = request.config_as()?;
        let wish = Wish {
            ipam: ipam_plugin(raw.ipam),
            dns: raw.dns,
            ..Wish::default()
        };
        if wish.ipam.is_none() {
            let msg = "ipam.type is missing; dummy is nothing without addresses, name an IPAM \
                       plugin";
            return Err(Error::config(msg));
        }
        let (name, netns) = (pod::ifname(request)?, pod::path(request)?);
        device::add(request, &wish, |_| Ok(make(&name, &netns)))
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        device::delete(request, KIND)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let mut places = pod::places(request)?;
        device::check(request, &mut places, KIND)?;
        device::forward(request, Command::Check)
    }

    fn gc(&self, request: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        device::forward(request, Command::Gc)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        device::forward(request, Command::Status)
    }
}

/// PURE: the steps that make `name` in the pod at `netns`.
#[must_use]
pub fn make(name: &IfName, netns: &NetnsPath) -> Vec<Step> {
    let mut link = Link::new(name.clone(), LinkKind::Dummy);
    link.netns = Some(netns.clone());
    vec![Step::host(Op::CreateLink(link))]
}
