//! `host-local`: addresses from ranges, kept in files on this host.

pub mod allocator;
pub mod config;
pub mod index;
pub mod range;
pub mod store;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use protocol::{AddResult, Attachment, Error, IpConfig, Plugin, Request};

use crate::host_local::config::Config;
use crate::host_local::range::{Range, RangeSet};
use crate::host_local::store::{Owner, Store};

/// The plugin.
#[derive(Debug)]
pub struct HostLocal;

impl Plugin for HostLocal {
    fn name(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let dns = config.dns()?;
        let mut store = Store::open(&config.folder)?;
        let ips = allocate(&mut store, &config, &owner(request))?;
        Ok(AddResult {
            interfaces: Vec::new(),
            ips,
            routes: config.routes,
            dns,
        })
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let Some(mut store) = Store::open_existing(&config.folder)? else {
            return Ok(());
        };
        store.release(&owner(request))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let owner = owner(request);
        let held = match Store::open_existing(&config.folder)? {
            Some(store) => store.addresses_of(&owner),
            None => Vec::new(),
        };
        if held.is_empty() {
            return Err(Error::other(format!(
                "host-local holds no address for {owner}"
            )));
        }
        Ok(())
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let Some(valid) = valid else { return Ok(()) };
        match Store::open_existing(&config.folder)? {
            Some(mut store) => store.keep_only(valid),
            None => Ok(()),
        }
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let Some(store) = Store::open_existing(&config.folder)? else {
            return Ok(());
        };
        for set in &config.sets {
            if allocator::next(set, None, &|ip| store.is_reserved(ip)).is_none() {
                let msg = format!("host-local has no free address left in {}", set.shown());
                return Err(Error::not_available(msg));
            }
        }
        Ok(())
    }
}

fn owner(request: &Request<'_>) -> Owner {
    Owner {
        container_id: request.container_id.clone(),
        ifname: request.ifname.clone(),
    }
}

/// One address of every set. When one set cannot give any, the others' are given back.
fn allocate(store: &mut Store, config: &Config, owner: &Owner) -> Result<Vec<IpConfig>, Error> {
    if let Some(held) = store.addresses_of(owner).first() {
        let msg = format!("host-local holds {held} for {owner} already; DEL it first");
        return Err(Error::other(msg));
    }
    let mut ips = Vec::new();
    let mut outcome = place(store, config, owner, &mut ips);
    if outcome.is_err() {
        for ip in &ips {
            outcome = outcome.map_err(|error| match store.forget(ip.address.ip()) {
                Ok(()) => error,
                Err(second) => error.details(format!("then, giving back: {second}")),
            });
        }
    }
    outcome.map(|()| ips)
}

fn place(
    store: &mut Store,
    config: &Config,
    owner: &Owner,
    ips: &mut Vec<IpConfig>,
) -> Result<(), Error> {
    let mut requested = config.requested.clone();
    for (number, set) in config.sets.iter().enumerate() {
        let wish = requested.iter().position(|ip| set.range_of(*ip).is_some());
        let found = match wish.map(|at| requested.remove(at)) {
            Some(ip) => wished(set, ip, store.is_reserved(ip))?,
            None => {
                let last = store.last_reserved(number)?;
                let free = allocator::next(set, last, &|ip| store.is_reserved(ip));
                free.ok_or_else(|| exhausted(set))?
            }
        };
        store.reserve(found.0, owner, number)?;
        ips.push(ip_config(found)?);
    }
    if requested.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = requested.iter().map(ToString::to_string).collect();
    let msg = format!(
        "requested addresses {} are in no range of their own",
        shown.join(", ")
    );
    Err(Error::config(msg))
}

fn wished(set: &RangeSet, ip: IpAddr, taken: bool) -> Result<(IpAddr, &Range), Error> {
    let refuse = |why: &str| Err(Error::config(format!("requested address {ip} {why}")));
    match set.range_of(ip) {
        Some(range) if ip == range.gateway => refuse("is the gateway's; request another"),
        Some(_) if taken => refuse("is taken; request another"),
        Some(range) => Ok((ip, range)),
        None => refuse("is in no range"),
    }
}

fn exhausted(set: &RangeSet) -> Error {
    Error::other(format!(
        "host-local has no free address left in {}",
        set.shown()
    ))
}

fn ip_config((ip, range): (IpAddr, &Range)) -> Result<IpConfig, Error> {
    let address = IpNetwork::new(ip, range.subnet.prefix())
        .map_err(|error| Error::config(format!("subnet {}: {error}", range.subnet)))?;
    Ok(IpConfig {
        interface: None,
        address,
        gateway: Some(range.gateway),
    })
}
