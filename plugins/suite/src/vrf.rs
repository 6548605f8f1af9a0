//! `vrf`: chained; puts the pod's interface into a routing domain of the pod.

pub mod config;
pub mod plan;

use hostnet::apply::{self, Places};
use hostnet::{LinkDetails, LinkInfo, Netlink};
use protocol::{AddResult, Attachment, Error, Plugin, Request};

use crate::vrf::plan::Facts;
use crate::{interface, pod};

const KIND: &str = "vrf";

/// The plugin.
#[derive(Debug)]
pub struct Vrf;

impl Plugin for Vrf {
    fn name(&self) -> &'static str {
        "vrf"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let Some(before) = &request.prev_result else {
            let msg = "prevResult is missing; vrf comes after the plugin that makes the interface";
            return Err(Error::config(msg));
        };
        let failed = |error: hostnet::Error| pod::kernel(&error);
        let name = pod::ifname(request)?;
        let mut places = pod::places(request)?;
        // The last port takes its VRF with it, so none may come and go at the same time.
        let lock = places.pod_netns().map(hostnet::Netns::lock);
        let _lock = lock.transpose().map_err(failed)?;
        let facts = facts(places.pod().map_err(failed)?)?;
        let (steps, back) = plan::add(&config, &name, &facts)?;
        match apply::run(&mut places, &steps) {
            Ok(()) => Ok(before.clone()),
            Err(error) => {
                let leftovers = apply::run_all(&mut places, &back);
                let shown: Vec<String> = leftovers.iter().map(ToString::to_string).collect();
                Err(pod::failed(&error).details(shown.join("; ")))
            }
        }
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let Some(netns) = pod::open_if_there(request) else {
            return Ok(());
        };
        let config = config::read(request)?;
        let failed = |error: hostnet::Error| pod::kernel(&error);
        let _lock = netns.lock().map_err(failed)?;
        let mut inside = Netlink::open_in(&netns).map_err(failed)?;
        let links = inside.links().map_err(failed)?;
        let is_vrf = |link: &&LinkInfo| link.name == config.vrf && link.kind == KIND;
        let Some(vrf) = links.iter().find(is_vrf) else {
            return Ok(());
        };
        let ports = || links.iter().filter(|link| link.master == Some(vrf.index));
        let own = pod::ifname(request)?;
        if ports().any(|link| link.name == own) {
            inside.set_master(&own, None).map_err(failed)?;
        }
        if ports().all(|link| link.name == own) {
            inside.delete_link(&vrf.name).map_err(failed)?;
        }
        Ok(())
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut places = pod::places(request)?;
        let (link, _) = interface::check(request, &mut places)?;
        check_vrf(&mut places, &config, &link)
    }

    fn gc(&self, _: &Request<'_>, _: Option<&[Attachment]>) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _: &Request<'_>) -> Result<(), Error> {
        Ok(())
    }
}

fn facts(inside: &mut Netlink) -> Result<Facts, Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let (_, tables) = inside.source_rules().map_err(failed)?;
    Ok(Facts {
        links: inside.links().map_err(failed)?,
        addresses: inside.all_addresses().map_err(failed)?,
        routes: inside.routes(None).map_err(failed)?,
        tables,
    })
}

fn check_vrf(places: &mut Places, config: &config::Config, link: &LinkInfo) -> Result<(), Error> {
    let failed = |error: hostnet::Error| pod::kernel(&error);
    let (name, vrf) = (&link.name, &config.vrf);
    let found = places.pod().map_err(failed)?.link(vrf).map_err(failed)?;
    let problem = match found {
        Some(found) if found.kind == KIND => {
            let table = match found.details {
                LinkDetails::Vrf(table) => table,
                _ => 0,
            };
            match config.table {
                _ if link.master != Some(found.index) => format!("{name} is no port of VRF {vrf}"),
                _ if !found.up => format!("VRF {vrf} is down"),
                Some(wanted) if wanted != table => {
                    format!("VRF {vrf} has table {table}, not {wanted}")
                }
                _ => return Ok(()),
            }
        }
        _ => format!("VRF {vrf} is gone"),
    };
    Err(Error::other(problem))
}
