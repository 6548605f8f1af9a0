//! A pod that reaches itself through its own Service.
//!
//! The packet goes back into the pod with the frontend as its source, so that the pod answers to the
//! frontend and the answer passes here again. Two entries, both under the frontend's address:
//! pod:client-port ↔ frontend:port (kind `CT_HAIRPIN`) and pod:target-port ↔ frontend:client-port
//! (kind `CT_HAIRPIN_REPLY`). Policy is not asked: a pod is always allowed to reach itself.

use aya_ebpf::programs::TcContext;
use ebpf_shared::{
    V4,
    conntrack::{CT_HAIRPIN, CT_HAIRPIN_REPLY, CT_REPLIED, CtKey, closed},
    policy::EGRESS,
    reason::Reason,
};

use crate::{
    conntrack::{self, Found},
    nat::{Side, rewrite},
    outcome::Outcome,
    packet::Packet,
    service::Target,
};

/// Records a new flow and sends its first packet back.
#[inline(always)]
pub fn open(
    ctx: &TcContext,
    packet: &mut Packet,
    key: &CtKey<V4>,
    target: &Target,
    now: u64,
) -> Result<Outcome, Reason> {
    let mut value = conntrack::fresh(CT_HAIRPIN, EGRESS, packet.tcp_flags, now);
    value.backend = target.backend;
    value.service = target.service;
    (value.nat_addr, value.nat_port) = (target.addr, target.port);
    conntrack::create(key, &value)?;
    value.kind = CT_HAIRPIN_REPLY;
    value.pod_tcp = 0;
    (value.nat_addr, value.nat_port) = (key.remote, key.remote_port);
    conntrack::create(&answer_key(key, target.port), &value)?;
    back(ctx, packet, key.zone, target.addr, target.port)
}

/// Sends a further packet of the client side back.
#[inline(always)]
pub fn forward(
    ctx: &TcContext,
    packet: &mut Packet,
    key: &CtKey<V4>,
    found: &Found,
    now: u64,
) -> Result<Outcome, Reason> {
    conntrack::stamp(found, now);
    // SAFETY: a map value found in this program run; single fields are read and stored.
    let value = unsafe { &mut *found.value };
    let (addr, port) = (value.nat_addr, value.nat_port);
    if packet.tcp_flags & !value.pod_tcp != 0 {
        value.pod_tcp |= packet.tcp_flags;
        settle(key, &answer_key(key, port));
    }
    back(ctx, packet, key.zone, addr, port)
}

/// Sends a packet of the server side back, as coming from the frontend.
#[inline(always)]
pub fn answer(
    ctx: &TcContext,
    packet: &mut Packet,
    key: &CtKey<V4>,
    found: &Found,
    now: u64,
) -> Result<Outcome, Reason> {
    conntrack::stamp(found, now);
    // SAFETY: a map value found in this program run; single fields are read and stored.
    let value = unsafe { &mut *found.value };
    let (addr, port) = (value.nat_addr, value.nat_port);
    if packet.tcp_flags & !value.pod_tcp != 0 || value.flags & CT_REPLIED == 0 {
        value.pod_tcp |= packet.tcp_flags;
        value.flags |= CT_REPLIED;
        let front = CtKey {
            pod_port: packet.dst_port,
            remote_port: port,
            ..*key
        };
        settle(&front, key);
    }
    let (pod, client_port) = (packet.src, packet.dst_port);
    rewrite(ctx, packet, Side::Source, addr, port)?;
    rewrite(ctx, packet, Side::Destination, pod, client_port)?;
    Ok(Outcome::peer(key.zone, Reason::Hairpin))
}

/// Brings the state of both entries together and puts them where it says.
#[inline(always)]
fn settle(front: &CtKey<V4>, answer: &CtKey<V4>) {
    let (Some(client), Some(server)) = (conntrack::find(front), conntrack::find(answer)) else {
        return;
    };
    // SAFETY: map values found in this program run; single fields are stored.
    let flags = unsafe {
        let (client, server) = (&*client.value, &*server.value);
        server.flags | closed(client.pod_tcp, server.pod_tcp)
    };
    conntrack::settle(front, &client, flags);
    conntrack::settle(answer, &server, flags);
}

/// Key of the server side's entry.
#[inline(always)]
fn answer_key(key: &CtKey<V4>, target_port: [u8; 2]) -> CtKey<V4> {
    CtKey {
        pod_port: target_port,
        remote_port: key.pod_port,
        ..*key
    }
}

/// Rewrites a client packet and turns it round.
#[inline(always)]
fn back(
    ctx: &TcContext,
    packet: &mut Packet,
    ifindex: u32,
    addr: V4,
    port: [u8; 2],
) -> Result<Outcome, Reason> {
    let (frontend, client_port) = (packet.dst, packet.src_port);
    rewrite(ctx, packet, Side::Source, frontend, client_port)?;
    rewrite(ctx, packet, Side::Destination, addr, port)?;
    Ok(Outcome::peer(ifindex, Reason::Hairpin))
}
