//! `portmap`: ports of the host that lead to ports of the pod.

pub mod conditions;
pub mod config;
pub mod flows;
pub mod iptables;
pub mod nftables;
pub mod way;

use std::net::IpAddr;

use hostnet::nft::{OwnedRule, Redirect};
use hostnet::{ErrorKind, Netlink, Nftables};
use ipnetwork::IpNetwork;
use netstate::iptables::{Batch, Saved};
use netstate::nft::{Family, Owner, SharedRules};
use protocol::{AddResult, Attachment, Error, Plugin, Request};

use crate::pod;
use crate::portmap::config::{Backend, Config, Mapping, Masquerade};
use crate::portmap::iptables::Wanted;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The plugin.
#[derive(Debug)]
pub struct Portmap;

impl Plugin for Portmap {
    fn name(&self) -> &'static str {
        "portmap"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let before = before(request)?;
        let targets = targets(request, &config, before);
        if !targets.is_empty() {
            let failed = |error: hostnet::Error| pod::kernel(&error);
            let mut netlink = Netlink::open().map_err(failed)?;
            if let Some(ip) = from_loopback(&config, &targets) {
                way::let_loopback_out(&mut netlink, ip).map_err(failed)?;
            }
            if config.masquerade != Masquerade::Nobody {
                let families = targets.iter().map(|target| Family::of(&target.pod));
                way::let_hairpins_through(&mut netlink, before, families).map_err(failed)?;
            }
            program(request, &config, &targets)?;
            for Target { pod, mappings } in &targets {
                // The rules hold; at worst somebody's packets go astray until the entry dies.
                if let Err(error) = flows::forget_before(&mut netlink, *pod, mappings) {
                    eprintln!("portmap: old connections stay: {error}");
                }
            }
        }
        Ok(before.clone())
    }

    /// Needs nothing but who the attachment is, and cleans up after both backends and the reference.
    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let attachment = request.attachment();
        let network = &request.network;
        let addresses: Option<Vec<IpAddr>> = request
            .prev_result
            .as_ref()
            .map(|before| before.ips.iter().map(|ip| ip.address.ip()).collect());
        let addresses = addresses.as_deref();
        remove(
            &|rules| nftables::deleted(rules, network, &attachment, addresses),
            &|saved| iptables::delete(saved, network, &attachment, addresses),
        )
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let before = before(request)?;
        let targets = targets(request, &config, before);
        if targets.is_empty() {
            return Ok(());
        }
        if let Some(ip) = from_loopback(&config, &targets) {
            let damage = Netlink::open().and_then(|mut n| way::loopback_damage(&mut n, ip));
            if let Some(name) = damage.map_err(|error| pod::kernel(&error))? {
                return Err(Error::other(format!("sysctl {name} is no longer 1")));
            }
        }
        match damage(request, &config, &targets)? {
            Some(damage) => Err(Error::other(damage)),
            None => Ok(()),
        }
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let Some(valid) = valid else {
            return Ok(());
        };
        let network = &request.network;
        remove(&|rules| nftables::swept(rules, network, valid), &|saved| {
            iptables::sweep(saved, network, valid)
        })
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        config::read(request).map(drop)
    }
}

/// The pod's address of one family, with the mappings that lead there.
#[derive(Debug)]
struct Target<'a> {
    pod: IpNetwork,
    mappings: Vec<&'a Mapping>,
}

fn before<'a>(request: &'a Request<'_>) -> Result<&'a AddResult, Error> {
    request.prev_result.as_ref().ok_or_else(|| {
        Error::config(
            "prevResult is missing; portmap comes after the plugin that makes the interface",
        )
    })
}

/// The first address of each family that is the interface's, as far as the result says whose it is.
fn targets<'a>(request: &Request<'_>, config: &'a Config, before: &AddResult) -> Vec<Target<'a>> {
    let is_own = |index: usize| {
        before
            .interfaces
            .get(index)
            .is_none_or(|i| i.name == request.ifname && !i.sandbox.is_empty())
    };
    let own = before
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none_or(is_own));
    let own: Vec<IpNetwork> = own.map(|ip| ip.address).collect();
    let of_family = |family| {
        let pod = own.iter().copied().find(|ip| Family::of(ip) == family)?;
        let mappings = config.mappings.iter().filter(|m| m.is_of(family));
        let mappings: Vec<&Mapping> = mappings.collect();
        (!mappings.is_empty()).then_some(Target { pod, mappings })
    };
    FAMILIES.into_iter().filter_map(of_family).collect()
}

/// The pod's address that the host's 127.0.0.1 is to reach.
fn from_loopback(config: &Config, targets: &[Target<'_>]) -> Option<IpAddr> {
    let v4 = targets.iter().find(|target| target.pod.is_ipv4());
    v4.filter(|_| config.masquerade != Masquerade::Nobody)
        .map(|target| target.pod.ip())
}

fn program(request: &Request<'_>, config: &Config, targets: &[Target<'_>]) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let Some(wanted) = wanted(request, config, targets) else {
        let rules = shared(request, config, targets);
        let own = |owner: &Owner| *owner == rules.owner;
        let mut nftables = Nftables::open().map_err(failed)?;
        return nftables
            .replace_rules(&rules, &nftables::chains(), &own)
            .map(drop)
            .map_err(failed);
    };
    for family in FAMILIES {
        let attachment = request.attachment();
        let of_family = wanted.iter().find(|(of, _)| *of == family);
        let changed = match of_family {
            None if !may_have_iptables(family).map_err(failed)? => continue,
            // What an ADD before this one may have left.
            None => update(family, &|saved| {
                iptables::clear(saved, &request.network, &attachment)
            }),
            Some((_, wanted)) => update(family, &|saved| wanted.add(saved)),
        };
        if let Err(error) = changed {
            let error = failed(error);
            return Err(match Portmap.delete(request) {
                Ok(()) => error,
                Err(second) => error.details(format!("then, undoing: {second}")),
            });
        }
    }
    Ok(())
}

fn update(family: Family, plan: &dyn Fn(&Saved) -> Batch) -> hostnet::Result<()> {
    hostnet::iptables::update(family, iptables::TABLE, plan)
}

/// The rules for nftables.
fn shared(request: &Request<'_>, config: &Config, targets: &[Target<'_>]) -> SharedRules {
    let none = vec![vec![]];
    let tables = targets.iter().map(|Target { pod, mappings }| {
        let conditions = match &config.backend {
            Backend::Nftables { v4, .. } if pod.is_ipv4() => v4,
            Backend::Nftables { v6, .. } => v6,
            Backend::Iptables { .. } => &none,
        };
        nftables::table(*pod, mappings, conditions, config.masquerade)
    });
    nftables::rules(&request.network, &request.attachment(), tables.collect())
}

/// The rules for iptables, if that is the backend.
fn wanted(
    request: &Request<'_>,
    config: &Config,
    targets: &[Target<'_>],
) -> Option<Vec<(Family, Wanted)>> {
    let Backend::Iptables { v4, v6, marking } = &config.backend else {
        return None;
    };
    let of_family = |Target { pod, mappings }: &Target<'_>| {
        let family = Family::of(pod);
        let conditions = if family == Family::V4 { v4 } else { v6 };
        let wanted = Wanted::new(
            &request.network,
            &request.attachment(),
            *pod,
            mappings,
            config.masquerade,
            (marking, conditions),
        );
        (family, wanted)
    };
    Some(targets.iter().map(of_family).collect())
}

/// What is missing or differs, in words. Where ours are missing, rules that the reference made are
/// as good, of whichever backend it took.
fn damage(
    request: &Request<'_>,
    config: &Config,
    targets: &[Target<'_>],
) -> Result<Option<String>, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    if let Some(wanted) = wanted(request, config, targets) {
        return iptables_damage(&wanted);
    }
    let rules = shared(request, config, targets);
    let mut nftables = Nftables::open().map_err(failed)?;
    let Some(damage) = nftables.find_damage(&rules).map_err(failed)? else {
        return Ok(None);
    };
    let there = nftables.owned_rules(&nftables::chains()).map_err(failed)?;
    if there.iter().any(|rule| rule.owner == rules.owner) {
        return Ok(Some(damage));
    }
    let is_mapped = |Target { pod, mappings }: &Target<'_>| {
        nftables::is_mapped_by_reference(&there, &request.container_id, *pod, mappings)
    };
    if targets.iter().all(is_mapped) {
        return Ok(None);
    }
    let mut legacy = config.clone();
    legacy.backend = Backend::Iptables {
        v4: Vec::new(),
        v6: Vec::new(),
        marking: config::Marking::Bit(config::MARK_BIT),
    };
    let Some(wanted) = wanted(request, &legacy, targets) else {
        return Ok(Some(damage));
    };
    for (family, _) in &wanted {
        if !may_have_iptables(*family).map_err(failed)? {
            return Ok(Some(damage));
        }
    }
    Ok(iptables_damage(&wanted)?.map(|_| damage))
}

fn iptables_damage(wanted: &[(Family, Wanted)]) -> Result<Option<String>, Error> {
    for (family, wanted) in wanted {
        let saved = hostnet::iptables::save(*family, iptables::TABLE);
        let saved = saved.map_err(|error| pod::kernel(&error))?;
        if let Some(damage) = wanted.damage(&saved) {
            return Ok(Some(damage));
        }
    }
    Ok(None)
}

fn may_have_iptables(family: Family) -> hostnet::Result<bool> {
    hostnet::iptables::may_have_chain(family, iptables::TABLE, iptables::ENTRY)
}

/// Removes rules of both backends and the connections that they made; goes on past failures, the
/// first of which is returned.
fn remove(
    from_nftables: &dyn Fn(Vec<OwnedRule>) -> Vec<OwnedRule>,
    from_iptables: &dyn Fn(&Saved) -> (Batch, Vec<Redirect>),
) -> Result<(), Error> {
    let mut redirects: Vec<Redirect> = Vec::new();
    let nftables = Nftables::open()
        .and_then(|mut n| n.delete_chosen_rules(&nftables::chains(), from_nftables))
        .map(|gone| redirects.extend(gone.iter().filter_map(|rule| rule.redirect)));
    let mut first = nftables;
    for family in FAMILIES {
        let found = std::cell::RefCell::new(Vec::new());
        let removed = may_have_iptables(family).and_then(|there| {
            if !there {
                return Ok(());
            }
            update(family, &|saved| {
                let (batch, gone) = from_iptables(saved);
                found.replace(gone);
                batch
            })
        });
        redirects.extend(found.into_inner());
        first = first.and(match removed {
            // The tables may be there for others, who bring their programs along in a container:
            // what no program is there for, none has made, and DEL must go on.
            Err(error) if error.kind == ErrorKind::Unsupported => {
                eprintln!("portmap: {error}");
                Ok(())
            }
            other => other,
        });
    }
    first
        .and(flows::forget(&redirects))
        .map_err(|error| pod::kernel(&error))
}
