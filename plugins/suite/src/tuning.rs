//! `tuning`: changes kernel parameters and attributes of an interface that another plugin made.

pub mod allowlist;
pub mod backup;
pub mod config;
pub mod plan;

use hostnet::apply::{self, Places};
use hostnet::{LinkInfo, Netlink, sysctl};
use netstate::IfName;
use protocol::{AddResult, Attachment, Error, Plugin, Request};

use crate::pod;
use crate::tuning::config::Config;
use crate::tuning::plan::Facts;

/// The plugin.
#[derive(Debug)]
pub struct Tuning;

impl Plugin for Tuning {
    fn name(&self) -> &'static str {
        "tuning"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        allowlist::check(&config.sysctls)?;
        let before = previous(request)?;
        let mut places = pod::places(request)?;
        let facts = facts(request, &config, &mut places)?;
        let owner = request.attachment();
        let earlier = backup::read(&config.data_dir, &owner);
        let is_new = earlier.is_none();
        let saved = plan::backup(&config, &facts, &request.network, owner.clone(), earlier);
        if let Some(saved) = &saved {
            backup::write(&config.data_dir, &owner, saved)?;
        }
        let Err(failed) = apply::run(&mut places, &plan::add(&config, &facts)) else {
            return Ok(plan::result(&config, &facts, before));
        };
        let mut back: Vec<_> = plan::restore_sysctls(&facts).collect();
        if let Some(now) = plan::backup(&config, &facts, &request.network, owner.clone(), None) {
            let peer = facts.peer.as_ref().map(|peer| &peer.name);
            back.extend(plan::restore(&now, &facts.link.name, peer));
        }
        let error = pod::failed(&failed);
        let left = apply::run_all(&mut places, &back);
        let mut left: Vec<String> = left.iter().map(ToString::to_string).collect();
        // Last: what could not be undone now is still undone by DEL if this process dies.
        if is_new && let Err(second) = backup::remove(&backup::path(&config.data_dir, &owner)) {
            left.push(second.msg);
        }
        match left.first() {
            Some(second) => Err(error.details(format!("then, undoing: {second}"))),
            None => Err(error),
        }
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let Some(folder) = config::data_dir_of(request) else {
            return Ok(());
        };
        let owner = request.attachment();
        let Some(saved) = backup::read(&folder, &owner) else {
            return Ok(());
        };
        // The interface is about to go: what cannot be restored is said, and no reason to stop.
        if let Err(error) = restore(request, &saved) {
            eprintln!("tuning: {error}");
        }
        backup::remove(&backup::path(&folder, &owner))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        previous(request)?;
        let mut places = pod::places(request)?;
        let facts = facts(request, &config, &mut places)?;
        check(&config, &facts)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        match (valid, config::data_dir_of(request)) {
            (Some(valid), Some(folder)) => backup::sweep(&folder, &request.network, valid),
            _ => Ok(()),
        }
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        allowlist::check(&config.sysctls)
    }
}

fn previous<'a>(request: &'a Request<'_>) -> Result<&'a AddResult, Error> {
    request.prev_result.as_ref().ok_or_else(|| {
        Error::config("prevResult is missing; put tuning after the plugin of the interface")
    })
}

fn facts(request: &Request<'_>, config: &Config, places: &mut Places) -> Result<Facts, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let name = pod::ifname(request)?;
    let found = places.pod().map_err(failed)?.link(&name).map_err(failed)?;
    let gone = || Error::other(format!("interface {name} is not in the container"));
    let link = found.ok_or_else(gone)?;
    let peer = match config.mtu {
        Some(_) => peer(places.host(), &link).map_err(failed)?,
        None => None,
    };
    let mut sysctls = Vec::new();
    if let Some(netns) = places.pod_netns().filter(|_| !config.sysctls.is_empty()) {
        let _inside = netns.enter().map_err(failed)?;
        for wish in &config.sysctls {
            let value = sysctl::read(&wish.name).map_err(failed)?;
            sysctls.push((wish.name.clone(), value));
        }
    }
    Ok(Facts {
        link,
        peer,
        sysctls,
    })
}

/// The node's end of a veth. Its number may be another link's, if the end is in a third namespace:
/// only one that points back is it.
fn peer(host: &mut Netlink, link: &LinkInfo) -> hostnet::Result<Option<LinkInfo>> {
    let Some(index) = link.peer.filter(|_| link.kind == "veth") else {
        return Ok(None);
    };
    let found = host.link_by_index(index)?;
    Ok(found.filter(|peer| peer.kind == "veth" && peer.peer == Some(link.index)))
}

fn restore(request: &Request<'_>, saved: &backup::Backup) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let Some(netns) = pod::open_if_there(request) else {
        return Ok(());
    };
    let mut places = Places::open(Some(netns)).map_err(failed)?;
    let name = pod::ifname(request)?;
    let Some(link) = places.pod().map_err(failed)?.link(&name).map_err(failed)? else {
        return Ok(());
    };
    let peer: Option<IfName> = peer(places.host(), &link)
        .map_err(failed)?
        .map(|peer| peer.name);
    let steps = plan::restore(saved, &name, peer.as_ref());
    match apply::run_all(&mut places, &steps).into_iter().next() {
        Some(error) => Err(failed(error)),
        None => Ok(()),
    }
}

/// Compares what is configured, and nothing else.
fn check(config: &Config, facts: &Facts) -> Result<(), Error> {
    let name = &facts.link.name;
    let differs = |what: &str, wanted: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        Err(Error::other(format!("{what} is {found}, not {wanted}")))
    };
    for (wish, (path, found)) in config.sysctls.iter().zip(&facts.sysctls) {
        // The kernel separates numbers by tabs.
        if !wish.value.split_whitespace().eq(found.split_whitespace()) {
            return differs(path, &wish.value, found);
        }
    }
    let (link, peer) = (&facts.link, facts.peer.as_ref());
    if let Some(mac) = config.mac
        && link.mac != Some(mac)
    {
        let found = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
        return differs(&format!("MAC of {name}"), &mac, &found);
    }
    if let Some(mtu) = config.mtu
        && let Some(other) = [Some(link), peer]
            .into_iter()
            .flatten()
            .find(|l| l.mtu != Some(mtu))
    {
        let found = other.mtu.map_or(0, netstate::Mtu::get);
        return differs(&format!("MTU of {}", other.name), &mtu.get(), &found);
    }
    if config.promiscuous && !link.promiscuous {
        return differs(&format!("promisc of {name}"), &true, &false);
    }
    if let Some(all) = config
        .all_multicast
        .filter(|all| *all != link.all_multicast)
    {
        return differs(&format!("allmulti of {name}"), &all, &link.all_multicast);
    }
    match config
        .queue_length
        .filter(|length| *length != link.queue_length)
    {
        Some(length) => differs(&format!("txQLen of {name}"), &length, &link.queue_length),
        None => Ok(()),
    }
}
