//! Taking the steps of a plan, and taking them back in reverse when one fails.

use netstate::{LinkAt, NetnsPath, Op, Place, Step, undo};

use crate::error::{Error, Result};
use crate::links::{PortFlag, wished_netns};
use crate::netns::{Inside, Netns};
use crate::nft::Nftables;
use crate::routes::PROTOCOL_BOOT;
use crate::socket::Netlink;
use crate::{sysctl, tap};

/// The two namespaces that steps are taken in.
#[derive(Debug)]
pub struct Places {
    host: Netlink,
    pod: Option<(Netns, Netlink)>,
}

/// A step that failed, after everything before it was taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}{}", also(.leftovers))]
pub struct Failed {
    /// Why the step failed.
    pub cause: Error,
    /// What could not be taken back.
    pub leftovers: Vec<Error>,
}

fn also(leftovers: &[Error]) -> String {
    leftovers
        .iter()
        .map(|error| format!("; then, undoing: {error}"))
        .collect()
}

// === impl Places ===

impl Places {
    /// The calling thread's namespace as host and, if given, `pod`.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn open(pod: Option<Netns>) -> Result<Self> {
        let host = Netlink::open()?;
        let pod = match pod {
            Some(netns) => {
                let netlink = Netlink::open_in(&netns)?;
                Some((netns, netlink))
            }
            None => None,
        };
        Ok(Self { host, pod })
    }

    /// The socket in the host's namespace.
    pub const fn host(&mut self) -> &mut Netlink {
        &mut self.host
    }

    /// The socket in the pod's namespace.
    ///
    /// # Errors
    /// When no pod was given.
    pub fn pod(&mut self) -> Result<&mut Netlink> {
        match &mut self.pod {
            Some((_, netlink)) => Ok(netlink),
            None => Err(no_pod()),
        }
    }

    /// The pod's namespace, if one was given.
    #[must_use]
    pub fn pod_netns(&self) -> Option<&Netns> {
        self.pod.as_ref().map(|(netns, _)| netns)
    }

    fn nftables(&self, place: Place) -> Result<Nftables> {
        match (place, &self.pod) {
            (Place::Host, _) => Nftables::open(),
            (Place::Pod, Some((netns, _))) => Nftables::open_in(netns),
            (Place::Pod, None) => Err(no_pod()),
        }
    }

    /// Moves the calling thread to `place` until the guard is dropped.
    fn enter(&self, place: Place) -> Result<Option<Inside>> {
        match (place, &self.pod) {
            (Place::Host, _) => Ok(None),
            (Place::Pod, Some((netns, _))) => netns.enter().map(Some),
            (Place::Pod, None) => Err(no_pod()),
        }
    }

    fn netlink(&mut self, place: Place) -> Result<&mut Netlink> {
        match place {
            Place::Host => Ok(&mut self.host),
            Place::Pod => self.pod(),
        }
    }
}

fn no_pod() -> Error {
    Error::not_found("use network namespace", "of the pod")
}

/// Takes all `steps` in order.
///
/// # Errors
/// When one fails. Those before it have been taken back then, in reverse.
pub fn run(places: &mut Places, steps: &[Step]) -> std::result::Result<(), Failed> {
    for (done, step) in steps.iter().enumerate() {
        if let Err(cause) = take(places, step) {
            let leftovers = revert(places, &steps[..done]);
            return Err(Failed { cause, leftovers });
        }
    }
    Ok(())
}

/// Takes back `steps`, the last one first, and returns what could not be taken back.
pub fn revert(places: &mut Places, steps: &[Step]) -> Vec<Error> {
    let back = steps.iter().rev().filter_map(undo);
    back.filter_map(|step| take(places, &step).err()).collect()
}

/// Takes all `steps` in order, going on past failures, which are returned: for cleaning up.
pub fn run_all(places: &mut Places, steps: &[Step]) -> Vec<Error> {
    steps
        .iter()
        .filter_map(|step| take(places, step).err())
        .collect()
}

fn take(places: &mut Places, step: &Step) -> Result<()> {
    match &step.op {
        Op::CreateLink(link) => {
            // The pod's namespace is open already; its path may even be gone by now.
            let wished = wished_netns(link).map(NetnsPath::as_path);
            match &places.pod {
                Some((netns, _)) if step.place == Place::Host && wished == Some(netns.path()) => {
                    places.host.create_link_in(link, Some(netns))
                }
                _ => places.netlink(step.place)?.create_link(link),
            }
        }
        Op::MoveLink { from, to } => move_link(places, from, to),
        Op::CreateTap(tap) => {
            let _inside = places.enter(step.place)?;
            tap::create(tap)
        }
        Op::AddRules(rules) => places.nftables(step.place)?.add_rules(rules),
        Op::DeleteRules(chains, owner) => {
            let mut nftables = places.nftables(step.place)?;
            nftables
                .delete_rules(chains, &|found| found == owner)
                .map(drop)
        }
        Op::AwaitAddresses(name) => {
            let _inside = places.enter(step.place)?;
            places.netlink(step.place)?.await_addresses(name)
        }
        Op::AwaitRunning(name) => {
            let _inside = places.enter(step.place)?;
            places.netlink(step.place)?.await_running(name)
        }
        Op::WriteSysctl {
            name,
            value,
            required,
        } => {
            let _inside = places.enter(step.place)?;
            match sysctl::write(name, value) {
                Err(error) if error.is_not_found() && !required => Ok(()),
                other => other,
            }
        }
        op => change(places.netlink(step.place)?, op),
    }
}

/// A failed move may have gone half the way; the link is taken back then.
fn move_link(places: &mut Places, from: &LinkAt, to: &LinkAt) -> Result<()> {
    let moved = move_once(places, from, to);
    if moved.is_err() {
        let strayed = places.netlink(to.place)?.link(&from.name)?.is_some()
            && places.netlink(from.place)?.link(&from.name)?.is_none();
        if strayed {
            let stray = LinkAt {
                name: from.name.clone(),
                ..to.clone()
            };
            move_once(places, &stray, from)?;
        }
    }
    moved
}

fn move_once(places: &mut Places, from: &LinkAt, to: &LinkAt) -> Result<()> {
    let current = Netns::current()?;
    let Places { host, pod } = places;
    let (netns, inside) = pod.as_mut().ok_or_else(no_pod)?;
    match (from.place, to.place) {
        (Place::Host, Place::Pod) => host.move_link_as(&from.name, netns, to),
        (Place::Pod, Place::Host) => inside.move_link_as(&from.name, &current, to),
        (place, _) => Err(Error::invalid(
            "move link",
            &from.name,
            format!("goes from {place:?} to itself; rename it"),
        )),
    }
}

fn change(netlink: &mut Netlink, op: &Op) -> Result<()> {
    match op {
        Op::EnsureLink(link) => netlink.ensure_link(link).map(drop),
        Op::DeleteLink(name) => netlink.delete_link(name),
        Op::SetUp(name) => netlink.set_up(name),
        Op::SetDown(name) => netlink.set_down(name),
        Op::Rename { from, to } => netlink.rename(from, to),
        Op::SetQueueLength(name, packets) => netlink.set_queue_length(name, *packets),
        Op::SetAllMulticast(name, on) => netlink.set_all_multicast(name, *on),
        Op::SetAlias(name, alias) => netlink.set_alias(name, alias),
        Op::SetMtu(name, mtu) => netlink.set_mtu(name, *mtu),
        Op::SetMac(name, mac) => netlink.set_mac(name, *mac),
        Op::ClearMaster(name) => netlink.set_master(name, None),
        Op::SetMaster(name, master) => netlink.set_master(name, Some(master)),
        Op::SetHairpin(name, on) => netlink.set_port(name, PortFlag::Hairpin, *on),
        Op::SetIsolated(name, on) => netlink.set_port(name, PortFlag::Isolated, *on),
        Op::SetVlanFiltering(name, on) => netlink.set_vlan_filtering(name, *on),
        Op::SetPortVlans(name, vlans) => netlink.set_port_vlans(name, vlans),
        Op::SetPromiscuous(name, on) => netlink.set_promiscuous(name, *on),
        Op::AddAddress(name, address) => netlink.add_address(name, address),
        Op::EnsureAddress(name, address) => match netlink.add_address(name, address) {
            Err(error) if error.is_exists() => Ok(()),
            other => other,
        },
        Op::DeleteAddress(name, ip) => netlink.delete_address(name, *ip),
        Op::AddRoute(route) => netlink.add_route(route, PROTOCOL_BOOT),
        Op::EnsureRoute(route) => netlink.replace_route(route, PROTOCOL_BOOT),
        Op::AddSourceRule(rule) => netlink.add_rule(rule),
        Op::DeleteSourceRule(rule) => netlink.delete_rule(rule),
        Op::DeleteRoute(route) | Op::TakeRoute(route) => {
            netlink.delete_route(&route.key, route.device.as_ref(), None)
        }
        Op::AddQdisc(name, qdisc) => netlink.create_qdisc(name, qdisc),
        Op::DeleteQdisc(name, at) => netlink.delete_qdisc(name, *at),
        Op::AddRedirect(name, to) => netlink.redirect(name, to),
        Op::DeleteRedirect(name) => netlink.delete_redirect(name),
        Op::EnsureNeighbour(neighbour) => netlink.set_neighbour(neighbour),
        other => Err(Error::invalid(
            "take step",
            format!("{other:?}"),
            "is not known here",
        )),
    }
}
