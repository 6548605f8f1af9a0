//! A change to a host or a pod as an ordered list of steps, each with its undo.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::addr::Address;
use crate::link::{Link, PortVlans};
use crate::mac::MacAddr;
use crate::names::IfName;
use crate::neighbour::Neighbour;
use crate::nft::{ChainRef, Owner, SharedRules};
use crate::numbers::Mtu;
use crate::qdisc::{Qdisc, QdiscAt};
use crate::route::Route;
use crate::rule::SourceRule;
use crate::tap::Tap;

/// In which network namespace a step is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// The plugin's own.
    Host,
    /// The pod's.
    Pod,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where.
    pub place: Place,
    /// What.
    pub op: Op,
}

/// Where a link is and what is seen of it there: one end of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAt {
    /// In which namespace.
    pub place: Place,
    /// Its name there.
    pub name: IfName,
    /// Its alias (`ip link set alias`); the empty text is none.
    pub alias: String,
    /// Whether it is up.
    pub up: bool,
}

/// What a step does.
///
/// `Add…` and `Create…` fail if the thing is there, because then it is somebody else's and must
/// not be undone; `Ensure…` and `Set…` do not, and leave what they did in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Op {
    /// Creates a link where [`Link::netns`] says, which is nowhere but in the pod's namespace (a
    /// veth with its peer wherever [`crate::VethPeer::netns`] says).
    CreateLink(Link),
    /// Creates a link unless one of that name and kind is there; brings it up if asked.
    EnsureLink(Link),
    /// Creates a tap device.
    CreateTap(Tap),
    /// Removes a link; an absent one is no error.
    DeleteLink(IfName),
    /// Brings a link up.
    SetUp(IfName),
    /// Takes a link down.
    SetDown(IfName),
    /// Gives a link that is down another name.
    Rename {
        /// The name it has.
        from: IfName,
        /// The name it gets.
        to: IfName,
    },
    /// Moves a link with another name, alias and state to another namespace, in one message. It
    /// loses its addresses. Taken in the namespace of `from`.
    MoveLink {
        /// Where it is.
        from: LinkAt,
        /// Where it goes.
        to: LinkAt,
    },
    /// Sets a link's alias, up to 255 bytes.
    SetAlias(IfName, String),
    /// Sets a link's MTU.
    SetMtu(IfName, Mtu),
    /// Sets how many packets a link's queue holds.
    SetQueueLength(IfName, u32),
    /// Makes a link take all multicast frames, or only those asked for.
    SetAllMulticast(IfName, bool),
    /// Sets a link's Ethernet address.
    SetMac(IfName, MacAddr),
    /// Makes a link a port of a bridge or VRF.
    SetMaster(IfName, IfName),
    /// Makes a link a port of nothing.
    ClearMaster(IfName),
    /// Lets a bridge port send frames back to where they came from.
    SetHairpin(IfName, bool),
    /// Keeps a bridge port from exchanging frames with other isolated ports.
    SetIsolated(IfName, bool),
    /// Makes a bridge keep VLANs apart.
    SetVlanFiltering(IfName, bool),
    /// Gives a port of such a bridge its VLANs.
    SetPortVlans(IfName, PortVlans),
    /// Makes a link take all frames, or only its own.
    SetPromiscuous(IfName, bool),
    /// Adds an address to a link.
    AddAddress(IfName, Address),
    /// Adds an address to a link unless it is there.
    EnsureAddress(IfName, Address),
    /// Waits until no address of a link is tentative any more; one that somebody else has is an
    /// error.
    AwaitAddresses(IfName),
    /// Waits until a link is operational: up, with carrier.
    AwaitRunning(IfName),
    /// Removes an address from a link; an absent one is no error.
    DeleteAddress(IfName, IpNetwork),
    /// Adds a route, beside those to the same destination by another next hop: a container may have
    /// a default route on each of its interfaces.
    AddRoute(Route),
    /// Adds a route, or changes the one with the same key.
    EnsureRoute(Route),
    /// Removes a route; an absent one is no error.
    DeleteRoute(Route),
    /// Removes a route that must be there; it is put back if a later step fails.
    TakeRoute(Route),
    /// Adds a rule of the routing policy.
    AddSourceRule(SourceRule),
    /// Removes a rule of the routing policy; an absent one is no error.
    DeleteSourceRule(SourceRule),
    /// Adds a permanent neighbour, or changes it.
    EnsureNeighbour(Neighbour),
    /// Adds a queueing discipline to a link.
    AddQdisc(IfName, Qdisc),
    /// Removes a queueing discipline; an absent one is no error.
    DeleteQdisc(IfName, QdiscAt),
    /// Sends what comes in by the first link, and no filter before took, out by the second one.
    AddRedirect(IfName, IfName),
    /// Stops sending on what comes in by a link; that nothing is sent on is no error.
    DeleteRedirect(IfName),
    /// Adds an owner's rules to shared nftables tables, in one transaction.
    AddRules(SharedRules),
    /// Removes an owner's rules from chains of shared nftables tables, in one transaction; absent
    /// ones are no error.
    DeleteRules(Vec<ChainRef>, Owner),
    /// Writes a sysctl, its name with slashes and without `/proc/sys/`; a missing one is an error
    /// only if `required`.
    WriteSysctl {
        /// Such as `net/ipv4/ip_forward`.
        name: String,
        /// What is written.
        value: String,
        /// Whether a kernel without it is an error.
        required: bool,
    },
}

// === impl Step ===

impl Step {
    /// A step in the plugin's own namespace.
    #[must_use]
    pub const fn host(op: Op) -> Self {
        Self {
            place: Place::Host,
            op,
        }
    }

    /// A step in the pod's namespace.
    #[must_use]
    pub const fn pod(op: Op) -> Self {
        Self {
            place: Place::Pod,
            op,
        }
    }
}

/// The step that takes `step` back, if it is of the kind that is taken back.
#[must_use]
pub fn undo(step: &Step) -> Option<Step> {
    let mut place = step.place;
    let op = match &step.op {
        Op::CreateLink(link) => {
            if link.netns.is_some() {
                place = Place::Pod;
            }
            Op::DeleteLink(link.name.clone())
        }
        Op::CreateTap(tap) => Op::DeleteLink(tap.name.clone()),
        Op::Rename { from, to } => Op::Rename {
            from: to.clone(),
            to: from.clone(),
        },
        Op::MoveLink { from, to } => {
            place = to.place;
            Op::MoveLink {
                from: to.clone(),
                to: from.clone(),
            }
        }
        Op::AddAddress(link, address) => Op::DeleteAddress(link.clone(), address.ip),
        Op::AddRoute(route) => Op::DeleteRoute(route.clone()),
        Op::TakeRoute(route) => Op::AddRoute(route.clone()),
        Op::AddSourceRule(rule) => Op::DeleteSourceRule(*rule),
        Op::AddQdisc(link, qdisc) => Op::DeleteQdisc(link.clone(), qdisc.at()),
        Op::AddRedirect(link, _) => Op::DeleteRedirect(link.clone()),
        Op::AddRules(rules) => Op::DeleteRules(rules.chains(), rules.owner.clone()),
        _ => return None,
    };
    Some(Step { place, op })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkKind;

    #[test]
    fn only_what_was_certainly_ours_is_taken_back() {
        let name: IfName = "br0".parse().unwrap();
        let bridge = Link::new(name.clone(), LinkKind::Bridge);
        let created = Step::host(Op::CreateLink(bridge.clone()));
        assert_eq!(
            undo(&created),
            Some(Step::host(Op::DeleteLink(name.clone())))
        );
        assert_eq!(undo(&Step::host(Op::EnsureLink(bridge))), None);

        let mut inside = Link::new(name.clone(), LinkKind::Dummy);
        inside.netns = Some("/run/netns/x".parse().unwrap());
        assert_eq!(
            undo(&Step::host(Op::CreateLink(inside))),
            Some(Step::pod(Op::DeleteLink(name.clone())))
        );

        let ip: IpNetwork = "10.0.0.2/24".parse().unwrap();
        let added = Step::pod(Op::AddAddress(name.clone(), Address::new(ip)));
        assert_eq!(undo(&added), Some(Step::pod(Op::DeleteAddress(name, ip))));
    }

    #[test]
    fn what_was_moved_goes_back_as_it_was() {
        let at = |place, name: &str, alias: &str, up| LinkAt {
            place,
            name: name.parse().unwrap(),
            alias: alias.to_owned(),
            up,
        };
        let from = at(Place::Host, "enp3s0", "", true);
        let to = at(Place::Pod, "net1", "enp3s0", false);
        let moved = Step::host(Op::MoveLink {
            from: from.clone(),
            to: to.clone(),
        });
        let back = Step::pod(Op::MoveLink { from: to, to: from });
        assert_eq!(undo(&moved), Some(back.clone()));
        assert_eq!(undo(&back), Some(moved));
    }
}
