//! PURE: from configuration and what the host has to the steps of ADD and DEL.

use netstate::{IfName, Link, LinkKind, MacAddr, Mtu, Op, Qdisc, QdiscAt, Remote, Step};
use protocol::Interface;

use crate::bandwidth::config::Config;

/// Packets that wait at an `htb` class; an ifb's own default is 32.
const QUEUE_LENGTH: u32 = 1000;

/// What ADD finds on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The host's end of the pod's veth.
    pub veth: IfName,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Whether limits of an earlier attachment are at its root.
    pub has_limit: bool,
    /// Whether filters on what comes in can be hung up.
    pub takes_filters: bool,
    /// The ifb to be made.
    pub ifb: Ifb,
}

/// The device through which what a pod sends is led, so that it can be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ifb {
    /// Its name.
    pub name: IfName,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Whose it is.
    pub alias: String,
    /// Whether one of an earlier attachment has to go first.
    pub is_there: bool,
}

/// What DEL finds on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// A host's end of the pod's veth.
    pub veth: IfName,
    /// Whether limits are at its root.
    pub has_limit: bool,
    /// Whether what comes in is redirected by us.
    pub redirects: bool,
    /// Whether filters that are not ours hang there.
    pub has_others: bool,
}

// === impl Ifb ===

impl Ifb {
    /// As ADD reports it.
    #[must_use]
    pub fn interface(&self, mtu: Option<Mtu>) -> Interface {
        Interface {
            name: self.name.to_string(),
            mac: self.mac.to_string(),
            mtu: mtu.map_or(0, Mtu::get),
            ..Interface::default()
        }
    }
}

/// The steps that put the limits in force.
#[must_use]
pub fn add(config: &Config, host: &Host) -> Vec<Step> {
    let mut ops = Vec::new();
    if let Some(bucket) = config.egress {
        ops.extend(lead_through_ifb(
            host,
            config.qdisc(bucket, Remote::Destination),
        ));
    }
    if host.has_limit {
        ops.push(Op::DeleteQdisc(host.veth.clone(), QdiscAt::Root));
    }
    if let Some(bucket) = config.ingress {
        let qdisc = config.qdisc(bucket, Remote::Source);
        ops.push(Op::AddQdisc(host.veth.clone(), qdisc));
    }
    ops.into_iter().map(Step::host).collect()
}

/// The ifb gets its queue before it is brought up: replacing the queue of a link that is up waits
/// until no processor can be using the old one.
fn lead_through_ifb(host: &Host, qdisc: Qdisc) -> Vec<Op> {
    let name = &host.ifb.name;
    let mut link = Link::new(name.clone(), LinkKind::Ifb);
    link.mac = Some(host.ifb.mac);
    link.mtu = host.mtu;
    let mut ops = Vec::new();
    if host.ifb.is_there {
        ops.push(Op::DeleteLink(name.clone()));
    }
    ops.push(Op::CreateLink(link));
    if matches!(qdisc, Qdisc::Htb(_)) {
        ops.push(Op::SetQueueLength(name.clone(), QUEUE_LENGTH));
    }
    ops.push(Op::AddQdisc(name.clone(), qdisc));
    ops.push(Op::SetAlias(name.clone(), host.ifb.alias.clone()));
    ops.push(Op::SetUp(name.clone()));
    if !host.takes_filters {
        ops.push(Op::AddQdisc(host.veth.clone(), Qdisc::Clsact));
    }
    ops.push(Op::AddRedirect(host.veth.clone(), name.clone()));
    ops
}

/// The steps that remove the limits; others' filters stay, and what carries them.
#[must_use]
pub fn delete(remains: &[Remains], ifb: Option<&IfName>) -> Vec<Step> {
    // What still leads to the ifb is known by leading nowhere then.
    let mut ops: Vec<Op> = ifb.cloned().map(Op::DeleteLink).into_iter().collect();
    for one in remains {
        match (one.redirects, one.has_others) {
            (true, false) => ops.push(Op::DeleteQdisc(one.veth.clone(), QdiscAt::Ingress)),
            (true, true) => ops.push(Op::DeleteRedirect(one.veth.clone())),
            (false, _) => {}
        }
        if one.has_limit {
            ops.push(Op::DeleteQdisc(one.veth.clone(), QdiscAt::Root));
        }
    }
    ops.into_iter().map(Step::host).collect()
}
