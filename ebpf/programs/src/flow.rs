//! One flow of one pod: known or new, judged by policy, tracked.

use aya_ebpf::programs::TcContext;
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
    events,
    maps::towline_pod,
    outcome::Denial,
    packet::Packet,
    policy,
    service::Target,
};

/// The pod behind a device.
#[inline(always)]
pub fn pod(ifindex: u32) -> Option<PodValue> {
    // SAFETY: copied at once.
    unsafe { towline_pod.get(PodKey { ifindex }) }.copied()
}

/// Whether the packet opens a TCP connection.
#[inline(always)]
pub fn opens(packet: &Packet) -> bool {
    packet.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// A packet that arrives in or leaves a pod, with what is needed to track it.
pub struct Passage<'a> {
    pub ctx: &'a TcContext,
    pub pod: &'a PodValue,
    pub packet: &'a Packet,
    pub direction: u8,
    pub now: u64,
}

/// Tracks the flow `key`; `service` is the translation of a flow that the pod opens to a frontend.
///
/// Returns the frontend that a reply must come from, when there is one.
#[inline(always)]
pub fn track(
    passage: &Passage<'_>,
    key: &CtKey<V4>,
    service: Option<&Target>,
) -> Result<Option<(V4, [u8; 2])>, Denial> {
    let Some(found) = conntrack::find(key) else {
        return open(passage, key, service).map(|()| None);
    };
    // SAFETY: a map value found in this program run.
    let known = unsafe { *found.value };
    let opener = if known.flags & CT_FROM_REMOTE != 0 {
        INGRESS
    } else {
        EGRESS
    };
    if opens(passage.packet) && (known.flags & CT_CLOSED != 0 || opener != passage.direction) {
        if known.flags & CT_CLOSED != 0 || passage.direction == EGRESS {
            return open(passage, key, service).map(|()| None);
        }
        // Somebody dials the pod with the tuple of a live flow of its own: policy decides, and the
        // flow stays what it is.
        policy::judge(passage.pod, key, INGRESS)?;
        return Ok(None);
    }
    if known.kind != CT_PLAIN && known.kind != CT_TRANSLATED {
        // The node answers for a frontend (a rejection): a reply by construction.
        return Ok(None);
    }
    if !same_service(&known, passage.packet, service) {
        return open(passage, key, service).map(|()| None);
    }
    recheck(passage, key, &found, &known, opener)?;
    conntrack::refresh(
        key,
        &found,
        passage.direction,
        passage.packet.tcp_flags,
        passage.now,
    );
    let reply = passage.direction == INGRESS && known.kind == CT_TRANSLATED;
    Ok(reply.then_some((known.nat_addr, known.nat_port)))
}

/// Whether a flow through a frontend continues the translation that its main entry records.
#[inline(always)]
fn same_service(known: &CtValue<V4>, packet: &Packet, service: Option<&Target>) -> bool {
    service.is_none()
        || (known.kind == CT_TRANSLATED
            && known.nat_addr == packet.dst
            && known.nat_port == packet.dst_port)
}

/// Judges a known flow again if the pod's policy changed or the packet opens it anew.
#[inline(always)]
fn recheck(
    passage: &Passage<'_>,
    key: &CtKey<V4>,
    found: &Found,
    known: &CtValue<V4>,
    opener: u8,
) -> Result<(), Denial> {
    if known.revision == passage.pod.revision && !opens(passage.packet) {
        return Ok(());
    }
    match policy::judge(passage.pod, key, opener) {
        Ok(allowed) => {
            // SAFETY: a map value found in this program run; single fields are stored.
            unsafe {
                (*found.value).revision = passage.pod.revision;
                (*found.value).rule = allowed.rule;
            }
            Ok(())
        }
        Err(denial) => {
            conntrack::forget(key);
            Err(denial)
        }
    }
}

/// Judges and records a new flow.
#[inline(always)]
fn open(passage: &Passage<'_>, key: &CtKey<V4>, service: Option<&Target>) -> Result<(), Denial> {
    let Passage {
        ctx,
        pod,
        packet,
        direction,
        now,
    } = *passage;
    let allowed = policy::judge(pod, key, direction)?;
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
    events::allowed(ctx, packet, key.zone, pod.policy_set, allowed, direction);
    Ok(())
}
