//! One flow of one pod: known or new, judged by policy, tracked.

use ebpf_shared::{
    V4,
    conntrack::{
        CT_CLOSED, CT_FROM_REMOTE, CT_PLAIN, CT_SERVICE, CT_TRANSLATED, CtKey, CtValue, TCP_ACK,
        TCP_FIN, TCP_RST, TCP_SYN,
    },
    policy::{EGRESS, INGRESS, PodKey, PodValue},
};

use crate::{
    conntrack::{self, Found},
    maps::towline_pod,
    outcome::Denial,
    packet::Packet,
    policy::{self, Allowed},
    service::Target,
};

/// The pod behind a device.
#[inline(always)]
pub fn pod(ifindex: u32) -> Option<&'static PodValue> {
    // SAFETY: user space replaces whole values; a reader keeps the old one for its RCU section.
    unsafe { towline_pod.get(PodKey { ifindex }) }
}

/// Whether the packet opens a TCP connection.
#[inline(always)]
pub fn opens(packet: &Packet) -> bool {
    packet.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// A packet that arrives in or leaves a pod, with what is needed to track it.
pub struct Passage<'a> {
    pub pod: &'a PodValue,
    pub packet: &'a Packet,
    pub direction: u8,
    pub now: u64,
}

/// What is known about a flow and is to be done about it.
struct Standing {
    /// Direction in which the flow was opened: the one whose policy counts.
    opener: u8,
    /// Its entry, unless it is a new flow.
    entry: Option<Found>,
    /// Policy must be asked.
    judge: bool,
    /// The packet passes without touching the entry.
    aside: bool,
}

/// Tracks the flow `key`, whose entry is `found`; `service` is the translation of a flow that the pod opens to a frontend.
///
/// Returns the frontend that a reply must come from, when there is one.
#[inline(always)]
pub fn track(
    passage: &Passage<'_>,
    key: &CtKey<V4>,
    found: Option<Found>,
    service: Option<&Target>,
) -> Result<Option<(V4, [u8; 2])>, Denial> {
    let standing = standing(passage, found, service);
    let mut allowed = Allowed { rule: 0 };
    if standing.judge {
        match policy::judge(passage.pod, key, standing.opener) {
            Ok(verdict) => allowed = verdict,
            Err(denial) => {
                if standing.entry.is_some() {
                    conntrack::forget(key);
                }
                return Err(denial);
            }
        }
    }
    if standing.aside {
        return Ok(None);
    }
    let Some(found) = standing.entry else {
        return open(passage, key, service, allowed).map(|()| None);
    };
    // SAFETY: a map value found in this program run; single fields are read and stored.
    let known = unsafe { &mut *found.value };
    if standing.judge {
        known.revision = passage.pod.revision;
        known.rule = allowed.rule;
    }
    let reply = passage.direction == INGRESS && known.kind == CT_TRANSLATED;
    let frontend = reply.then_some((known.nat_addr, known.nat_port));
    conntrack::refresh(
        key,
        &found,
        passage.direction,
        passage.packet.tcp_flags,
        passage.now,
    );
    Ok(frontend)
}

/// Decides whether the flow goes on, begins, or passes aside.
#[inline(always)]
fn standing(passage: &Passage<'_>, found: Option<Found>, service: Option<&Target>) -> Standing {
    let new = Standing {
        opener: passage.direction,
        entry: None,
        judge: true,
        aside: false,
    };
    let Some(found) = found else {
        return new;
    };
    // SAFETY: a map value found in this program run.
    let known = unsafe { &*found.value };
    let opens = opens(passage.packet);
    let opener = if known.flags & CT_FROM_REMOTE != 0 {
        INGRESS
    } else {
        EGRESS
    };
    if opens && known.flags & CT_CLOSED != 0 {
        return new;
    }
    if opens && opener != passage.direction {
        // Somebody dials the pod with the tuple of a live flow of its own: policy decides, and the
        // flow stays what it is.
        return Standing {
            aside: passage.direction == INGRESS,
            ..new
        };
    }
    if passage.direction == INGRESS && known.kind != CT_PLAIN && known.kind != CT_TRANSLATED {
        // The node answers for a frontend (a rejection): a reply by construction.
        return Standing {
            judge: false,
            aside: true,
            ..new
        };
    }
    if !same_service(known, passage.packet, service) {
        return new;
    }
    let judge = opens || known.revision != passage.pod.revision;
    Standing {
        opener,
        entry: Some(found),
        judge,
        aside: false,
    }
}

/// Whether a flow through a frontend continues the translation that its main entry records, and any
/// other flow an entry that is not a frontend's (which is gone when the pod still sends there).
#[inline(always)]
fn same_service(known: &CtValue<V4>, packet: &Packet, service: Option<&Target>) -> bool {
    (service.is_none() && (known.kind == CT_PLAIN || known.kind == CT_TRANSLATED))
        || (known.kind == CT_TRANSLATED
            && known.nat_addr == packet.dst
            && known.nat_port == packet.dst_port)
}

/// Records a new flow that policy allowed. Not inlined: callers need the stack.
#[inline(never)]
fn open(
    passage: &Passage<'_>,
    key: &CtKey<V4>,
    service: Option<&Target>,
    allowed: Allowed,
) -> Result<(), Denial> {
    let Passage {
        pod,
        packet,
        direction,
        now,
    } = *passage;
    let mut value = conntrack::fresh(CT_PLAIN, direction, packet.tcp_flags, now);
    value.revision = pod.revision;
    value.rule = allowed.rule;
    let failed = |reason| Denial::plain(reason, key.zone, direction);
    if let Some(target) = service {
        value.backend = target.backend;
        value.service = target.service;
        value.kind = CT_SERVICE;
        (value.nat_addr, value.nat_port) = (target.addr, target.port);
        let front = CtKey {
            remote: packet.dst,
            remote_port: packet.dst_port,
            ..*key
        };
        conntrack::create(&front, &value).map_err(failed)?;
        value.kind = CT_TRANSLATED;
        (value.nat_addr, value.nat_port) = (packet.dst, packet.dst_port);
    }
    conntrack::create(key, &value).map_err(failed)?;
    Ok(())
}
