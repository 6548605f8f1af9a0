//! PURE: configuration and present attributes to steps, backup, and the steps back.

use hostnet::LinkInfo;
use netstate::{IfName, Mtu, Op, Step};
use protocol::{AddResult, Attachment};

use crate::tuning::backup::Backup;
use crate::tuning::config::Config;

/// What is there before ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The pod's interface.
    pub link: LinkInfo,
    /// The node's end, if it is a veth.
    pub peer: Option<LinkInfo>,
    /// The present values of the parameters that are wished.
    pub sysctls: Vec<(String, String)>,
}

/// The steps of an ADD.
#[must_use]
pub fn add(config: &Config, facts: &Facts) -> Vec<Step> {
    let name = &facts.link.name;
    let mut steps: Vec<Step> = config
        .sysctls
        .iter()
        .map(|sysctl| write(&sysctl.name, &sysctl.value))
        .collect();
    steps.extend(
        config
            .mac
            .map(|mac| Step::pod(Op::SetMac(name.clone(), mac))),
    );
    if config.promiscuous {
        steps.push(Step::pod(Op::SetPromiscuous(name.clone(), true)));
    }
    if let Some(mtu) = config.mtu {
        // A veth discards what is larger than its other end takes.
        let peer = facts.peer.iter();
        steps.extend(peer.map(|peer| Step::host(Op::SetMtu(peer.name.clone(), mtu))));
        steps.push(Step::pod(Op::SetMtu(name.clone(), mtu)));
    }
    let all = config.all_multicast;
    steps.extend(all.map(|on| Step::pod(Op::SetAllMulticast(name.clone(), on))));
    let length = config.queue_length;
    steps.extend(length.map(|length| Step::pod(Op::SetQueueLength(name.clone(), length))));
    steps
}

/// What must be restored after an ADD; `None` when it changes no attribute. What is in `before`, the
/// backup of an ADD before this one, stays: that is what there was at first.
#[must_use]
pub fn backup(
    config: &Config,
    facts: &Facts,
    network: &str,
    owner: Attachment,
    before: Option<Backup>,
) -> Option<Backup> {
    let link = &facts.link;
    let mac = config.mac.and(link.mac).map(|mac| mac.to_string());
    let promisc = config.promiscuous.then_some(link.promiscuous);
    let mtu = config.mtu.and(link.mtu).map(Mtu::get);
    let peer_mtu = facts
        .peer
        .as_ref()
        .and_then(|peer| config.mtu.and(peer.mtu));
    let allmulti = config.all_multicast.map(|_| link.all_multicast);
    let queue_length = config.queue_length.map(|_| link.queue_length);
    let now = Backup {
        mac,
        promisc,
        mtu,
        allmulti,
        queue_length,
        peer_mtu: peer_mtu.map(Mtu::get),
        network: None,
        owner: None,
    };
    if now == Backup::default() && before.is_none() {
        return None;
    }
    let first = before.unwrap_or_default();
    Some(Backup {
        mac: first.mac.or(now.mac),
        promisc: first.promisc.or(now.promisc),
        mtu: first.mtu.or(now.mtu),
        allmulti: first.allmulti.or(now.allmulti),
        queue_length: first.queue_length.or(now.queue_length),
        peer_mtu: first.peer_mtu.or(now.peer_mtu),
        network: Some(network.to_owned()),
        owner: Some(owner),
    })
}

/// The steps back to what `backup` says, of `name` and the node's end.
#[must_use]
pub fn restore(backup: &Backup, name: &IfName, peer: Option<&IfName>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mtu = |number: Option<u32>| number.and_then(|n| Mtu::try_from(n).ok());
    let name = || name.clone();
    if let (Some(peer), Some(mtu)) = (peer, mtu(backup.peer_mtu)) {
        steps.push(Step::host(Op::SetMtu(peer.clone(), mtu)));
    }
    steps.extend(mtu(backup.mtu).map(|mtu| Step::pod(Op::SetMtu(name(), mtu))));
    let mac = backup.mac.as_deref().and_then(|mac| mac.parse().ok());
    steps.extend(mac.map(|mac| Step::pod(Op::SetMac(name(), mac))));
    let flags = backup.promisc;
    steps.extend(flags.map(|on| Step::pod(Op::SetPromiscuous(name(), on))));
    let flags = backup.allmulti;
    steps.extend(flags.map(|on| Step::pod(Op::SetAllMulticast(name(), on))));
    let length = backup.queue_length;
    steps.extend(length.map(|length| Step::pod(Op::SetQueueLength(name(), length))));
    steps
}

/// The steps back to the parameters' former values, for an ADD that failed.
pub fn restore_sysctls(facts: &Facts) -> impl Iterator<Item = Step> + '_ {
    facts.sysctls.iter().map(|(name, value)| write(name, value))
}

/// The result with what has changed: Ethernet address of the pod's interface, MTU of both ends.
#[must_use]
pub fn result(config: &Config, facts: &Facts, before: &AddResult) -> AddResult {
    let mut result = before.clone();
    for interface in &mut result.interfaces {
        let inside = !interface.sandbox.is_empty();
        let is_pods = inside && interface.name == facts.link.name.as_str();
        let peer = facts.peer.as_ref().map(|peer| peer.name.as_str());
        let is_peer = !inside && peer == Some(interface.name.as_str());
        if is_pods && let Some(mac) = config.mac {
            interface.mac = mac.to_string();
        }
        if (is_pods || is_peer)
            && let Some(mtu) = config.mtu
        {
            interface.mtu = mtu.get();
        }
    }
    result
}

fn write(name: &str, value: &str) -> Step {
    Step::pod(Op::WriteSysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        required: true,
    })
}
