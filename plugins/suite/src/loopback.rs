//! `loopback`: brings `lo` up in the pod.

use hostnet::Netlink;
use ipnetwork::IpNetwork;
use netstate::{IfName, MacAddr};
use protocol::{AddResult, Attachment, Error, Interface, IpConfig, Plugin, Request};

use crate::pod;

const LO: &str = "lo";

/// The plugin.
#[derive(Debug)]
pub struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let (mut netlink, lo) = open(request)?;
        // Before it is brought up, so that a refusal changes nothing.
        loopback_addresses(&mut netlink, &lo)?;
        netlink.set_up(&lo).map_err(|error| pod::kernel(&error))?;
        let addresses = loopback_addresses(&mut netlink, &lo)?;
        Ok(request
            .prev_result
            .clone()
            .unwrap_or_else(|| result(request, &addresses)))
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let Some(netns) = pod::open_if_there(request) else {
            return Ok(());
        };
        let mut netlink = Netlink::open_in(&netns).map_err(|error| pod::kernel(&error))?;
        netlink
            .set_down(&name()?)
            .map_err(|error| pod::kernel(&error))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let (mut netlink, lo) = open(request)?;
        match netlink.link(&lo).map_err(|error| pod::kernel(&error))? {
            Some(link) if link.up => Ok(()),
            _ => Err(Error::other("interface lo is down in the container")),
        }
    }

    fn gc(&self, _: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }
}

fn name() -> Result<IfName, Error> {
    LO.parse()
        .map_err(|error: netstate::NameError| Error::other(error.to_string()))
}

fn open(request: &Request<'_>) -> Result<(Netlink, IfName), Error> {
    let netns = pod::open(request)?;
    let netlink = Netlink::open_in(&netns).map_err(|error| pod::kernel(&error))?;
    Ok((netlink, name()?))
}

/// The addresses of `lo`, all of which must be loopback addresses.
fn loopback_addresses(netlink: &mut Netlink, lo: &IfName) -> Result<Vec<IpNetwork>, Error> {
    let found = netlink.addresses(lo).map_err(|error| pod::kernel(&error))?;
    let addresses: Vec<IpNetwork> = found.into_iter().map(|address| address.ip).collect();
    match addresses.iter().find(|address| !address.ip().is_loopback()) {
        Some(other) => Err(Error::other(format!(
            "lo has {other}, which is no loopback address"
        ))),
        None => Ok(addresses),
    }
}

fn result(request: &Request<'_>, addresses: &[IpNetwork]) -> AddResult {
    let lo = Interface {
        name: LO.to_owned(),
        mac: MacAddr::new([0; 6]).to_string(),
        sandbox: request.netns.clone().unwrap_or_default(),
        ..Interface::default()
    };
    let ip = |address: &IpNetwork| IpConfig {
        interface: Some(0),
        address: *address,
        gateway: None,
    };
    AddResult {
        interfaces: vec![lo],
        ips: addresses.iter().map(ip).collect(),
        ..AddResult::default()
    }
}
