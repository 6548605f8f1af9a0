//! `sbr`: chained; what a pod sends from the addresses of one interface leaves by that interface,
//! because these addresses have routing tables of their own.

pub mod config;
pub mod plan;

use std::net::IpAddr;

use hostnet::Netlink;
use hostnet::apply;
use netstate::SourceRule;
use protocol::{AddResult, Attachment, Error, IpConfig, Plugin, Request};

use crate::pod;
use crate::sbr::plan::{Facts, Wanted};

/// The plugin.
#[derive(Debug)]
pub struct Sbr;

impl Plugin for Sbr {
    fn name(&self) -> &'static str {
        "sbr"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let before = previous(request)?;
        let own = own_addresses(request, before);
        if own.is_empty() {
            let name = &request.ifname;
            let msg = format!("prevResult has no address of {name}; sbr has nothing to do");
            return Err(Error::config(msg));
        }
        let failed = |error: hostnet::Error| pod::kernel(&error);
        let name = pod::ifname(request)?;
        let mut places = pod::places(request)?;
        // Tables are chosen by what is there, so nobody else may choose at the same time.
        let lock = places.pod_netns().map(hostnet::Netns::lock);
        let _lock = lock.transpose().map_err(failed)?;
        let facts = facts(places.pod().map_err(failed)?)?;
        let steps = plan::add(&config, &name, &own, &facts)?;
        apply::run(&mut places, &steps).map_err(|error| pod::failed(&error))?;
        Ok(before.clone())
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let Some(netns) = pod::open_if_there(request) else {
            return Ok(());
        };
        let failed = |error: hostnet::Error| pod::kernel(&error);
        let mut inside = Netlink::open_in(&netns).map_err(failed)?;
        let before = request.prev_result.as_ref();
        let mut sources: Vec<IpAddr> = before
            .map(|before| own_addresses(request, before))
            .into_iter()
            .flatten()
            .map(|ip| ip.address.ip())
            .collect();
        match inside.addresses(&pod::ifname(request)?) {
            Ok(found) => sources.extend(found.iter().map(|address| address.ip.ip())),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(failed(error)),
        }
        let (rules, _) = inside.source_rules().map_err(failed)?;
        let ours = rules.iter().filter(|rule| sources.contains(&rule.source));
        let outcomes: Vec<_> = ours.map(|rule| inside.delete_rule(rule)).collect();
        let first = outcomes.into_iter().find_map(Result::err);
        first.map_or(Ok(()), |error| Err(failed(error)))
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let before = previous(request)?;
        let failed = |error: hostnet::Error| pod::kernel(&error);
        let name = pod::ifname(request)?;
        let mut places = pod::places(request)?;
        let facts = facts(places.pod().map_err(failed)?)?;
        for ip in own_addresses(request, before) {
            let wanted = Wanted::of(&config, &ip);
            check_address(&wanted, &facts, &name)?;
        }
        Ok(())
    }

    fn gc(&self, _: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }
}

fn previous<'a>(request: &'a Request<'_>) -> Result<&'a AddResult, Error> {
    let before = request.prev_result.as_ref();
    before.ok_or_else(|| {
        let msg = "prevResult is missing; sbr comes after the plugin that makes the interface";
        Error::config(msg)
    })
}

/// The addresses of the request's interface; one that belongs to no interface is taken for its.
fn own_addresses(request: &Request<'_>, before: &AddResult) -> Vec<IpConfig> {
    let name_of = |index: usize| before.interfaces.get(index).map(|i| i.name.as_str());
    let is_own = |ip: &&IpConfig| match ip.interface.and_then(name_of) {
        Some(name) => name == request.ifname,
        None => true,
    };
    before.ips.iter().filter(is_own).cloned().collect()
}

fn facts(inside: &mut Netlink) -> Result<Facts, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let (rules, tables) = inside.source_rules().map_err(failed)?;
    let routes = inside.routes(None).map_err(failed)?;
    Ok(Facts {
        rules,
        tables,
        routes,
    })
}

fn check_address(wanted: &Wanted, facts: &Facts, name: &netstate::IfName) -> Result<(), Error> {
    let source = wanted.source;
    let is_wanted = |rule: &&SourceRule| {
        rule.source == source && wanted.table.is_none_or(|table| table == rule.table)
    };
    let Some(rule) = facts.rules.iter().find(is_wanted) else {
        return Err(Error::other(format!("the rule for {source} is gone")));
    };
    let table = rule.table;
    let routes = || {
        let all = facts.routes.iter();
        all.filter(|route| route.key.table == table && route.device.as_ref() == Some(name))
    };
    if let Some(gateway) = wanted.gateway
        && !routes().any(|r| r.key.destination.prefix() == 0 && r.gateway == Some(gateway))
    {
        let msg = format!("table {table} of {source} has lost its default route by {gateway}");
        return Err(Error::other(msg));
    }
    // With a table of one's own choice nothing but the rule was made.
    if wanted.table.is_none() && routes().next().is_none() {
        return Err(Error::other(format!("table {table} of {source} is empty")));
    }
    Ok(())
}
